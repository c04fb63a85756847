// What is shown, as files.

import { byId, element } from "./panel.js";
import { beside } from "./picture.js";
import { state } from "./state.js";

export function wireSaving() {
  byId("save-png").addEventListener("click", () => {
    const canvases = ["canvas", "canvas-true"].slice(0, state.sides.length).map(byId);
    const picture = canvases.length > 1 ? beside(canvases) : canvases[0];
    picture.toBlob((blob) => save(blob, "png"), "image/png");
  });
  byId("save-json").addEventListener("click", () => {
    save(new Blob([JSON.stringify(state.answer, null, 2)], { type: "application/json" }), "json");
  });
}

function save(blob, extension) {
  const targets = state.sides.map(({ explanation }) => explanation?.target?.label ?? state.answer.label);
  const name = ["konkyo", state.image.name.replace(/\.[^.]*$/, ""), ...targets].join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_");
  const link = element("a", { href: URL.createObjectURL(blob), download: `${name}.${extension}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
