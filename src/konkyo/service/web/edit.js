// The map in a person's hand: the brush, what is told of it, and the buttons beside it.

import { Surface } from "./brush.js";
import { draw } from "./draw.js";
import { able, byId } from "./panel.js";
import { chosen, editing, state } from "./state.js";
import { cellCount, cellWords, editWords } from "./words.js";

const brush = () => ({ size: Number(byId("size").value), value: Number(chosen("tool")) });

export const tell = (words) => (byId("cell").textContent = words);

const cellNow = ([x, y]) => cellWords([x, y], state.own.values[y * state.own.width + x], state.edit.at(x, y));
const editNow = () => editWords(state.edit.count, state.edit.cells.length);

const surface = new Surface(byId("cells"), byId("cursor"), {
  brush,
  changed: painted,
  moved: (cell) => tell(cellNow(cell)),
  pointed: (cell) => (byId("reading").textContent = cellNow(cell)),
  ended: () => tell(editNow()),
});

export function syncBrush() {
  const { edit, answer, plain, asked } = state;
  const [x0, y0, x1, y1] = plain.geometry.crop;
  const [width, height] = plain.geometry.original;
  surface.place(edit, [x0 / width, y0 / height, x1 / width, y1 / height]);
  byId("cells").setAttribute("aria-label", `Attention, ${edit.width} by ${edit.height} cells`);
  byId("size-out").textContent = cellCount(brush().size);
  const { count } = edit;
  able(byId("undo"), edit.steps > 0);
  able(byId("reset"), count > 0);
  able(byId("again"), count > 0);
  byId("cell").textContent ||= "Paint where the network should look, erase where it should not.";
  const fresh = JSON.stringify(edit.rows()) === asked;
  const same = answer.original && fresh ? "The same network, made to look as you painted." : "Ask again for the answer to what you painted.";
  byId("compare-hint").textContent = count ? same : "Paint on the picture, then ask again.";
}

let emptied = () => {}; // nothing is painted any more

function painted() {
  if (!state.edit.count && !surface.drawing) return emptied();
  draw();
  syncBrush();
}

function takeBack(how) { // undo or reset
  if (surface.drawing) return;
  state.edit[how]();
  painted();
  tell(editNow());
}

// ask(edit): asks again; restore(): shows the answer without an edit.
export function wireEdit({ ask, restore }) {
  emptied = restore;
  byId("size").addEventListener("input", syncBrush);
  byId("undo").addEventListener("click", () => takeBack("undo"));
  byId("reset").addEventListener("click", () => takeBack("reset"));
  byId("again").addEventListener("click", () => { if (state.edit?.count) ask(state.edit); });
  byId("figure").addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.key !== "z" || !editing()) return;
    event.preventDefault();
    takeBack("undo");
  });
}
