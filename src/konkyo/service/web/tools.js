// The controls around the picture: which can be used now, and how they stand.

import { draw } from "./draw.js";
import { syncBrush } from "./edit.js";
import { byId } from "./panel.js";
import { bestView, choose, chosen, drawable, editing, looks, paintable, range, sides, state } from "./state.js";

export function syncTools() {
  byId("view-edit").hidden = !paintable();
  if (byId("view-edit").hidden && chosen("view") === "edit") choose("view", bestView());
  const view = chosen("view");
  const paints = editing();
  byId("tools").hidden = !state.answer || !drawable();
  for (const id of ["scale-line", "regions-line", "save-png"]) byId(id).hidden = !drawable();
  const both = document.querySelector("input[name=part][value=both]");
  both.parentElement.hidden = view === "spotlight"; // light has no sign
  choose("part", looks[view].part);
  byId("part-line").hidden = !sides();
  [byId("part-positive").textContent, byId("part-negative").textContent] = sides() ?? ["", ""];
  byId("opacity").value = Math.round(100 * looks[view].opacity);
  byId("opacity-out").textContent = `${byId("opacity").value} %`;
  for (const input of document.querySelectorAll("input[name=scale], #regions")) input.disabled = paints;
  const model = document.querySelector("input[name=scale][value=model]");
  model.disabled ||= !range();
  if (!range()) choose("scale", "map");

  byId("cells").hidden = byId("brush").hidden = !paints;
  byId("compare").hidden = !state.edit || !(paints || state.answer?.original);
  byId("bars-part").hidden = !byId("compare").hidden;
  if (paints) syncBrush();
}

export function wireTools() {
  for (const input of document.querySelectorAll("input[name=view]")) {
    input.addEventListener("change", ({ target }) => {
      if (target.value !== "edit") state.view = target.value;
      syncTools();
      draw();
    });
  }
  for (const input of document.querySelectorAll("input[name=part]")) {
    input.addEventListener("change", () => { looks[chosen("view")].part = chosen("part"); draw(); });
  }
  byId("opacity").addEventListener("input", ({ target }) => {
    looks[chosen("view")].opacity = target.value / 100;
    byId("opacity-out").textContent = `${target.value} %`;
    draw();
  });
  for (const input of document.querySelectorAll("input[name=scale], #regions")) input.addEventListener("change", draw);
}
