// A map large beside its image.

import { able, byId } from "../panel.js";
import { placeFor } from "./keys.js";
import { showPicture } from "./pictures.js";
import { movedWords, placeWords } from "./words.js";

export function wireViewer(deck) {
  const dialog = byId("viewer");
  let card = null;

  function open(chosen) {
    card = chosen;
    byId("viewer-said").textContent = "";
    showPicture(byId("viewer-image"), byId("image").dataset.picture);
    sync();
    if (!dialog.open) dialog.showModal();
  }

  function sync() {
    const place = deck.place(card);
    const last = deck.cards.length - 1;
    byId("viewer-title").textContent = placeWords(card, place, last + 1);
    byId("viewer-map").alt = placeWords(card, place, last + 1);
    showPicture(byId("viewer-map"), card.dataset.map);
    for (const id of ["viewer-better", "viewer-before"]) able(byId(id), place > 0);
    for (const id of ["viewer-worse", "viewer-after"]) able(byId(id), place < last);
  }

  function move(place) {
    const last = deck.cards.length - 1;
    if (place < 0 || place > last || !deck.move(card, place)) return;
    sync();
    byId("viewer-said").textContent = movedWords(card, place, last + 1); // all else is inert now
  }

  function turn(step) {
    const other = deck.cards[deck.place(card) + step];
    if (other) open(other);
  }

  byId("viewer-better").addEventListener("click", () => move(deck.place(card) - 1));
  byId("viewer-worse").addEventListener("click", () => move(deck.place(card) + 1));
  byId("viewer-before").addEventListener("click", () => turn(-1));
  byId("viewer-after").addEventListener("click", () => turn(1));
  byId("viewer-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return null;
    if (event.key === "ArrowLeft") return turn(-1);
    if (event.key === "ArrowRight") return turn(1);
    const place = placeFor(event.key, deck.place(card), deck.cards.length, 1);
    if (place === null) return null;
    event.preventDefault();
    return move(place);
  });
  dialog.addEventListener("close", () => card.querySelector("button").focus());

  return { open, close: () => dialog.close() };
}
