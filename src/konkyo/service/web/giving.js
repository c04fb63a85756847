// Every way to give an image: chosen, pasted or dropped.

import { giveFile } from "./ask.js";
import { byId } from "./panel.js";

export function wireGiving() {
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) giveFile(target.files[0]);
    target.value = ""; // so that the same file can be given again
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files[0]) giveFile(clipboardData.files[0]);
  });
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    byId("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byId("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    byId("drop").classList.remove("over");
    if (!event.dataTransfer?.files[0]) return;
    event.preventDefault();
    giveFile(event.dataTransfer.files[0]);
  });
}
