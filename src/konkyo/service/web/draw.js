// When and how to draw: the large picture, its legend, and the value under the pointer.

import { byId } from "./panel.js";
import { canvasSize, compose, drawBase, drawCells, drawLegend, drawRegions, fullLight, mean, strong, toField } from "./picture.js";
import { chosen, drawable, editing, kind, looks, range, sides, signed, specific, state } from "./state.js";
import { number, pictureWords } from "./words.js";

const CANVASES = ["canvas", "canvas-true"];

export function showPicture(bitmap, original) {
  const size = canvasSize(original);
  Object.assign(state, { base: drawBase(bitmap, size), grey: null });
  const two = state.sides.length > 1 && drawable();
  for (const id of CANVASES) [byId(id).width, byId(id).height] = size;
  byId("canvas").hidden = false;
  byId("side-true").hidden = byId("of-predicted").hidden = !two;
  byId("empty").hidden = true;
  state.fill = state.sides.map(fill);
  draw();
}

// A saliency map means nothing by its mean, which is what showing any pixel gives, and any other map by 0.
const floorOf = (field) => (kind() === "saliency_map" ? mean(field) : 0);

const largest = (values) => Math.max(0, ...values.map((value) => Math.abs(value ?? 0))) || 1;

// The values that fill the colours, from none to all. Each map has its own: of a class that is hardly believed in, one
// scale for two would show nothing. The model's scale, which can be chosen, is the same for all.
function fill({ field, explanation }) {
  if (!field) return { spotlight: [0, 1], overlay: [0, 1] };
  const turned = sides()?.[0] === "against"; // its negative part is the map it turns, and may be far larger
  const shown = turned ? field.map((value) => Math.max(value, 0)) : field;
  const low = floorOf(shown);
  const full = fullLight(state.base, shown, low);
  const { min, max } = explanation?.map ?? {};
  const high = kind() === "input_gradient" ? strong(shown) : largest(turned ? [max] : [min, max]);
  return { spotlight: [low, low + full], overlay: [low, high > low ? high : low + 1] };
}

export function look(side = 0) {
  const view = chosen("view");
  let [floor, scale] = view === "edit" || !state.fill[side] ? [0, 1] : state.fill[side][view]; // an edit as painted
  if (view !== "edit" && chosen("scale") === "model" && range()) [floor, scale] = signed() ? [0, largest(range())] : range();
  const regions = byId("regions").checked && view !== "edit" && drawable();
  const part = signed() ? looks[view].part : "positive";
  return { view, ...looks[view], part, floor, scale, regions, sides: sides() };
}

export function draw() {
  if (!state.base) return;
  const current = look();
  byId("legend").hidden = !state.sides.some(({ field }) => field) && !editing();
  byId("region-part").hidden = !current.regions;
  const drawn = drawable() && state.sides.length ? state.sides : [{}];
  drawn.forEach((side, index) => drawSide(byId(CANVASES[index]), side, look(index)));
  if (!byId("legend").hidden) showLegend(current);
}

function drawSide(canvas, { field, explanation }, current) {
  const { base, answer } = state;
  const context = canvas.getContext("2d");
  const pixelRatio = canvas.width / (canvas.clientWidth || canvas.width);
  if (editing()) {
    context.putImageData(greyed(current), 0, 0);
    drawCells(context, state.own, state.edit, state.plain.geometry, current, pixelRatio);
  } else {
    context.putImageData(field ? compose(base, field, current, new ImageData(base.width, base.height)) : base, 0, 0);
  }
  if (!answer) return canvas.setAttribute("aria-label", "The image, not yet judged");
  if (current.regions && explanation?.regions) drawRegions(context, explanation.regions, answer.geometry.original, pixelRatio);
  const shown = field || editing();
  const target = specific() ? (explanation?.target?.label ?? answer.label) : null;
  canvas.setAttribute("aria-label", shown ? pictureWords(current, target) : "The image, without a map");
}

function showLegend(current) {
  const maps = state.sides.map(({ explanation }) => explanation?.map ?? {});
  const [min, max] = [Math.min(...maps.map((map) => map.min)), Math.max(...maps.map((map) => map.max))];
  const [low, high] = drawLegend(byId("legend-bar"), current);
  const [positive, negative] = current.sides ?? ["", ""];
  const own = maps.length > 1 && chosen("scale") === "map";
  const end = (value, beyond) => (own ? "" : `${beyond}${number(value)}`);
  byId("legend-low").textContent = low === 0 ? "0" : `${negative} ${end(low, min < low ? "≤ " : "")}`.trim();
  byId("legend-high").textContent = high === 0 ? "0" : `${end(high, max > high ? "≥ " : "")} ${positive}${own ? ", each on its own scale" : ""}`.trim();
  byId("legend").title = `${maps.length > 1 ? "These maps go" : "This map goes"} from ${number(min)} to ${number(max)}.`;
}

// The picture without its map: kept, for it stays the same from one touch of the brush to the next.
function greyed({ opacity }) {
  if (state.grey?.opacity !== opacity) {
    const { base, own, plain } = state;
    const field = toField(own, plain.geometry.map_to_original, plain.geometry.original, [base.width, base.height]);
    const nothing = field.map((value) => (Number.isNaN(value) ? value : 0));
    state.grey = { opacity, image: compose(base, nothing, { ...looks.edit, opacity, floor: 0, scale: 1 }, new ImageData(base.width, base.height)) };
  }
  return state.grey.image;
}

// The map's value under the pointer.
function read(canvas, field, { offsetX, offsetY }) {
  const { base, answer } = state;
  if (!field || !answer) return;
  const x = Math.floor((offsetX / canvas.clientWidth) * base.width);
  const y = Math.floor((offsetY / canvas.clientHeight) * base.height);
  const value = field[y * base.width + x];
  const [width, height] = answer.geometry.original;
  const at = `x ${Math.floor((x * width) / base.width)}, y ${Math.floor((y * height) / base.height)}`;
  byId("reading").textContent = value === undefined ? "" : `${at}: ${Number.isNaN(value) ? "not seen" : number(value)}`;
}

export function wireReading() {
  CANVASES.forEach((id, index) => {
    byId(id).addEventListener("pointermove", (event) => read(byId(id), state.sides[index]?.field, event));
  });
  for (const id of [...CANVASES, "cells"]) byId(id).addEventListener("pointerleave", () => (byId("reading").textContent = ""));
}
