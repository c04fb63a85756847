// Pictures of images and maps. They need the token, which an <img> cannot send, so they are fetched and shown as blobs.

import { readPicture } from "./api.js";
import { persist } from "./retrying.js";

const kept = new Map(); // id to the promise of its address

function address(picture) {
  if (!kept.has(picture)) {
    kept.set(picture, persist(() => readPicture(picture)).then((blob) => URL.createObjectURL(blob)));
  }
  return kept.get(picture);
}

// Resolves when it can be seen. Until it comes no other is seen instead; one that comes late does not take the place
// of what was asked for since.
export async function showPicture(img, picture) {
  img.dataset.picture = picture;
  img.style.visibility = "hidden";
  const url = await address(picture);
  if (img.dataset.picture !== picture) return;
  img.style.visibility = "";
  img.src = url;
  await img.decode().catch(() => {}); // taken from the page meanwhile
}

export const fetchPictures = (pictures) => Promise.all(pictures.map(address));

// Lets all others go, which by the end would be hundreds.
export function keepOnly(pictures) {
  for (const [picture, url] of kept) {
    if (pictures.includes(picture)) continue;
    kept.delete(picture);
    url.then(URL.revokeObjectURL, () => {});
  }
}
