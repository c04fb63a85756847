// The page: what is chosen, what was answered, and when to draw. One request at a time; a newer one ends the older.

import { describe, explain, listModels, listSamples, readSample, ServiceError } from "./api.js";
import { Edit, Surface } from "./brush.js";
import { able, byId, element, fillSelect, markSample, showBars, showCard, showComparison, showLevels, showRegions, showSamples } from "./panel.js";
import { canvasSize, compose, decodeImage, decodeMap, drawBase, drawCells, drawLegend, drawRegions, drawSmall, fullLight, toField } from "./picture.js";
import { cellCount, cellWords, editWords, number, pictureWords, score, statusWords, timingWords } from "./words.js";

const state = {
  models: [], card: null, samples: [],
  image: null, // {blob, bitmap, name, credit}
  sample: null, // the file of the sample that was chosen last
  answer: null, // as received
  plain: null, // the answer without an edit
  edit: null, // what is painted, where the model takes it
  asked: "", // the edit that was answered, as text
  grid: "", // the width and height of its maps, as text
  level: 0, // which of several maps, 0 the finest
  picture: null, // what the image looks like
  base: null, field: null, own: null, // the picture's ingredients: at canvas size, and the network's own map
  grey: null, // {opacity, image}: what the cells are painted on
  full: 1, // the weight at which a white pixel is fully lit
  request: null, // AbortController of the one under way
  turn: 0, // counts images, so that a slow decode cannot overtake
};
const looks = {
  spotlight: { part: "positive", opacity: 1 },
  overlay: { part: "both", opacity: 0.85 },
  edit: { part: "positive", opacity: 0.85 },
};

const FIRST = "abn-magnetic-tile"; // the model to begin with, where it is served
const ANSWERED = ["answer", "tools", "tools-after", "scores"]; // shown while there is an answer

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const choose = (name, value) => (document.querySelector(`input[name=${name}][value=${value}]`).checked = true);
const specific = () => state.card?.explanation?.class_specific !== false;
const signed = () => state.card?.explanation?.map_kind !== "attention_map"; // attention is never against
const editing = () => chosen("view") === "edit" && state.edit !== null;
const say = (text) => (byId("status").textContent = text);

function complain(error) {
  const text = error instanceof ServiceError ? error.message : `Something went wrong on this page: ${error.message}`;
  byId("alert").textContent = text;
  byId("alert").scrollIntoView({ block: "nearest" });
  say("");
}

function busy(on) {
  byId("figure").setAttribute("aria-busy", String(on));
  document.body.classList.toggle("busy", on);
}

// What was asked

async function chooseModel() {
  state.request?.abort(); // what another model answers is not wanted any more
  const model = state.models.find(({ name }) => name === byId("model").value);
  const methods = model?.methods ?? [];
  fillSelect(byId("method"), methods, "");
  byId("method-line").hidden = methods.length < 2;
  const { card } = await describe(model.name);
  if (byId("model").value !== model.name) return; // chosen anew meanwhile
  state.card = card;
  fillSelect(byId("target"), card?.labels ?? [], specific() ? byId("target").value : "", "predicted class");
  byId("target-line").hidden = !specific();
  state.edit = null;
  byId("view-edit").hidden = !card?.explanation?.takes_attention;
  if (byId("view-edit").hidden && chosen("view") === "edit") choose("view", "spotlight");
  syncTools();
  offerSamples();
  byId("then-class").hidden = !specific();
  byId("then-edit").hidden = byId("view-edit").hidden;
  if (card) showCard(card);
}

// The first time; afterwards the model is the person's choice.
function firstModel(models) {
  return models.find(({ name }) => name === FIRST) ?? models.find(({ methods }) => methods.includes("attention")) ?? models[0];
}

// Those that show what the model knows, and those that show nothing any model knows.
function offerSamples() {
  const known = ({ label }) => state.card?.labels.includes(label);
  const suits = state.samples.some(known) ? (sample) => !sample.label || known(sample) : () => true;
  showSamples(state.samples.filter(suits), (sample) => giveSample(sample).catch(complain));
  markSample(state.sample);
}

// read: a promise of the bytes. The latest image given wins, however long an earlier one takes to read.
async function give(read, { name, credit = "", sample = null }) {
  const turn = ++state.turn;
  state.request?.abort();
  byId("alert").textContent = "";
  state.sample = sample;
  markSample(sample);
  if (state.answer) byId("target").value = "";
  forget();
  const blob = await read;
  const bitmap = await decodeImage(blob);
  if (turn !== state.turn) return;
  state.image = { blob, bitmap, name, credit };
  if (bitmap) showPicture(bitmap, [bitmap.width, bitmap.height]);
  byId("credit").textContent = credit;
  await ask();
}

// With an edit, how the network would decide if it looked as the person painted.
async function ask(edit = null) {
  if (!state.image || !byId("model").value) return;
  state.request?.abort();
  const request = (state.request = new AbortController());
  const { blob, bitmap } = state.image;
  byId("alert").textContent = "";
  busy(true);
  say("Asking…");
  try {
    const method = byId("method-line").hidden ? "" : byId("method").value;
    const attention = edit?.rows();
    const wanted = { target: byId("target").value, method, picture: !bitmap && !edit, attention };
    const answer = await explain(byId("model").value, blob, wanted, request.signal);
    const picture = edit ? state.picture : (bitmap ?? (await pictureOf(answer)));
    if (state.request !== request) return;
    if (!edit) begin(answer, picture);
    state.asked = JSON.stringify(attention ?? []);
    show(answer);
  } catch (error) {
    if (error.name !== "AbortError" && state.request === request) complain(error);
  } finally {
    if (state.request === request) busy(false);
  }
}

// Nothing is painted yet.
function begin(answer, picture) {
  const grid = answer.geometry.map ?? [0, 0];
  const { status, map } = answer.explanation ?? {};
  const takes = state.card?.explanation?.takes_attention && map && status !== "non_finite";
  Object.assign(state, { plain: answer, picture, level: 0, edit: takes ? new Edit(...grid) : null });
  byId("cell").textContent = "";
  if (state.grid === String(grid)) return; // the brush stays as it was chosen
  state.grid = String(grid);
  byId("size").value = Math.max(...grid) < 24 ? 1 : 3;
}

// For formats the browser does not show, the service sends the picture along.
async function pictureOf(answer) {
  const overlay = answer.explanation?.overlay;
  if (!overlay?.data) return null;
  const bytes = Uint8Array.from(atob(overlay.data), (character) => character.charCodeAt(0));
  return decodeImage(new Blob([bytes], { type: overlay.media_type }));
}

// What is shown

function forget() {
  Object.assign(state, { image: null, answer: null, plain: null, edit: null, base: null, field: null });
  for (const id of ANSWERED) byId(id).hidden = true;
  syncTools();
  byId("legend").hidden = byId("canvas").hidden = true;
  byId("empty").hidden = byId("intro").hidden = false;
  byId("words").textContent = byId("credit").textContent = "";
}

function showPicture(bitmap, original) {
  const size = canvasSize(original);
  Object.assign(state, { base: drawBase(bitmap, size), grey: null });
  [byId("canvas").width, byId("canvas").height] = size;
  byId("canvas").hidden = false;
  byId("empty").hidden = true;
  if (state.field) state.full = fullLight(state.base, state.field);
  draw();
}

function show(answer) {
  const { geometry } = answer;
  const explanation = atLevel(answer.explanation);
  const map = decodeMap(explanation?.map);
  state.answer = answer;
  const size = canvasSize(geometry.original);
  const drawn = map && explanation.status !== "non_finite";
  state.field = drawn ? toField(map, geometry.map_to_original, geometry.original, size) : null;
  state.own = state.edit && decodeMap(atLevel(state.plain.explanation).map);
  showPicture(state.picture, geometry.original);

  byId("label").textContent = answer.label;
  byId("score").textContent = score(answer.score);
  const target = explanation?.target?.label ?? answer.label;
  const before = answer.original ? `Before: ${answer.original.label}, ${score(answer.original.score)}.` : "";
  const name = element("strong", { id: "target-name", textContent: target });
  const relation = target === answer.label ? ", the predicted class." : ", which is not the predicted class.";
  const shown = specific() ? ["Shown: the map of ", name, relation] : ["The map is one for all classes."];
  byId("target-words").replaceChildren(...(before ? [`With your edit. ${before}`] : shown));
  byId("bars-hint").hidden = !specific();
  showBars(answer, target, specific() && ((label) => { byId("target").value = label; ask(); }));
  showRegions(explanation?.regions ?? [], signed() ? "evidence" : "attention");
  const [x0, y0, x1, y1] = geometry.crop;
  const cut = x1 - x0 < geometry.original[0] - 1 || y1 - y0 < geometry.original[1] - 1;
  byId("words").textContent = [
    statusWords(explanation?.status),
    state.picture ? "" : "This browser cannot show the file; the map stands alone.",
    cut ? "The network sees the middle of the image; what lies outside is left dark." : "",
  ].filter(Boolean).join(" ");
  byId("timing").textContent = timingWords(answer.timing_ms ?? {}, answer.batch_size);
  for (const id of ANSWERED) byId(id).hidden = false;
  byId("intro").hidden = true;
  showMaps();
  syncTools();
  const of = specific() ? `Map of ${target}.` : "";
  const words = [`${answer.label}, ${score(answer.score)}.`, before || of, statusWords(explanation?.status)].filter(Boolean).join(" ");
  const near = before && editing(); // the words beside the button that was pressed are read out as well: once is enough
  say(near ? "" : words);
  if (near) tell(words);
}

// Of an answer's maps the one that is looked at.
const atLevel = (explanation) => explanation?.maps?.[state.level] ?? explanation;

// Small pictures of every map: of the levels, and before and after.
function showMaps() {
  const { answer, picture } = state;
  const before = answer.original ?? answer;
  const mapsOf = ({ explanation }) => (explanation?.maps ?? [explanation]).map((entry) => entry?.map).filter((map) => map?.data);
  const maps = [...mapsOf(before), ...mapsOf(answer)];
  const scale = Math.max(0, ...maps.flatMap(({ min, max }) => [-min, max])) || 1; // one for all, to compare
  const look = { ...looks.overlay, part: signed() ? "both" : "positive", floor: 0, scale };
  const draw = (canvas, map) => drawSmall(canvas, picture, decodeMap(map), state.plain.geometry, look);
  const levels = mapsOf(answer);
  showLevels(levels.length > 1 ? levels : [], state.level, draw, (level) => { state.level = level; show(answer); });
  if (state.edit) showComparison(before, mapsOf(before), answer.original ? answer : null, levels, draw);
}

function look() {
  const view = chosen("view");
  const { min, max } = atLevel(state.answer?.explanation)?.map ?? {};
  const largest = (range) => Math.max(...range.map((value) => Math.abs(value ?? 0))) || 1;
  const { range } = state.card?.explanation ?? {};
  let [floor, scale] = [0, view === "spotlight" ? state.full : largest([min, max])];
  if (chosen("scale") === "model" && range) [floor, scale] = signed() ? [0, largest(range)] : range;
  if (view === "edit") [floor, scale] = [0, 1]; // as painted
  const regions = byId("regions").checked && view !== "edit";
  return { view, ...looks[view], ...(signed() ? {} : { part: "positive" }), floor, scale, regions };
}

function draw() {
  const { base, field, answer } = state;
  if (!base) return;
  const canvas = byId("canvas");
  const context = canvas.getContext("2d");
  const current = look();
  const pixelRatio = canvas.width / (canvas.clientWidth || canvas.width);
  if (editing()) {
    context.putImageData(greyed(current), 0, 0);
    drawCells(context, state.own, state.edit, state.plain.geometry, current, pixelRatio);
  } else {
    const out = field ? compose(base, field, current, new ImageData(base.width, base.height)) : base;
    context.putImageData(out, 0, 0);
  }
  byId("legend").hidden = !field && !editing();
  byId("region-part").hidden = !current.regions;
  if (!answer) return canvas.setAttribute("aria-label", "The image, not yet judged");
  const explanation = atLevel(answer.explanation);
  if (current.regions && explanation?.regions) drawRegions(context, explanation.regions, answer.geometry.original, pixelRatio);
  if (byId("legend").hidden) return canvas.setAttribute("aria-label", "The image, without a map");
  canvas.setAttribute("aria-label", pictureWords(current, specific() ? (explanation?.target?.label ?? answer.label) : null));
  const { min, max } = explanation?.map ?? {};
  const [low, high] = drawLegend(byId("legend-bar"), current);
  byId("legend-low").textContent = low === 0 ? "0" : `${signed() ? "against " : ""}${min < low ? "≤ " : ""}${number(low)}`;
  byId("legend-high").textContent = high === 0 ? "0" : `${max > high ? "≥ " : ""}${number(high)}${signed() ? " for" : ""}`;
  byId("legend").title = `This map goes from ${number(min)} to ${number(max)}.`;
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
function read({ offsetX, offsetY }) {
  const { field, base, answer } = state;
  if (!field || !answer) return;
  const canvas = byId("canvas");
  const x = Math.floor((offsetX / canvas.clientWidth) * base.width);
  const y = Math.floor((offsetY / canvas.clientHeight) * base.height);
  const value = field[y * base.width + x];
  const [width, height] = answer.geometry.original;
  const at = `x ${Math.floor((x * width) / base.width)}, y ${Math.floor((y * height) / base.height)}`;
  byId("reading").textContent = value === undefined ? "" : `${at}: ${Number.isNaN(value) ? "not seen" : number(value)}`;
}

function syncTools() {
  const view = chosen("view");
  const paints = editing();
  const both = document.querySelector("input[name=part][value=both]");
  both.parentElement.hidden = view === "spotlight"; // light has no sign
  choose("part", looks[view].part);
  byId("part-line").hidden = !signed();
  byId("opacity").value = Math.round(100 * looks[view].opacity);
  byId("opacity-out").textContent = `${byId("opacity").value} %`;
  for (const input of document.querySelectorAll("input[name=scale], #regions")) input.disabled = paints;
  if (!state.card?.explanation?.range) document.querySelector("input[name=scale][value=model]").disabled = true;

  byId("cells").hidden = byId("brush").hidden = !paints;
  byId("compare").hidden = !state.edit || !(paints || state.answer?.original);
  byId("bars-part").hidden = !byId("compare").hidden;
  if (paints) syncBrush();
}

// The edit

const brush = () => ({ size: Number(byId("size").value), value: Number(chosen("tool")) });

function syncBrush() {
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

function painted() {
  if (state.edit.count || surface.drawing) {
    draw();
    return syncBrush();
  }
  state.request?.abort(); // nothing is left to ask about
  show(state.plain);
}

const tell = (words) => (byId("cell").textContent = words);
const cellNow = ([x, y]) => cellWords([x, y], state.own.values[y * state.own.width + x], state.edit.at(x, y));
const editNow = () => editWords(state.edit.count, state.edit.cells.length);

const surface = new Surface(byId("cells"), byId("cursor"), {
  brush,
  changed: painted,
  moved: (cell) => tell(cellNow(cell)),
  pointed: (cell) => (byId("reading").textContent = cellNow(cell)),
  ended: () => tell(editNow()),
});

function takeBack(how) { // undo or reset
  if (surface.drawing) return;
  state.edit[how]();
  painted();
  tell(editNow());
}

function save(blob, extension) {
  const { answer } = state;
  const target = answer.explanation?.target?.label ?? answer.label;
  const name = ["konkyo", state.image.name.replace(/\.[^.]*$/, ""), target].join("-").replace(/[^\p{L}\p{N}._-]+/gu, "_");
  const link = element("a", { href: URL.createObjectURL(blob), download: `${name}.${extension}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Wiring

function wire() {
  for (const input of document.querySelectorAll("input[name=view]")) {
    input.addEventListener("change", () => { syncTools(); draw(); });
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
  byId("model").addEventListener("change", () => chooseModel().then(() => ask()).catch(complain));
  for (const id of ["method", "target"]) byId(id).addEventListener("change", () => ask());
  byId("canvas").addEventListener("pointermove", read);
  for (const id of ["canvas", "cells"]) byId(id).addEventListener("pointerleave", () => (byId("reading").textContent = ""));
  byId("size").addEventListener("input", syncBrush);
  byId("undo").addEventListener("click", () => takeBack("undo"));
  byId("reset").addEventListener("click", () => takeBack("reset"));
  byId("again").addEventListener("click", () => { if (state.edit?.count) ask(state.edit); });
  byId("figure").addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.key !== "z" || !editing()) return;
    event.preventDefault();
    takeBack("undo");
  });
  byId("save-png").addEventListener("click", () => byId("canvas").toBlob((blob) => save(blob, "png"), "image/png"));
  byId("save-json").addEventListener("click", () => {
    save(new Blob([JSON.stringify(state.answer, null, 2)], { type: "application/json" }), "json");
  });

  const giveFile = (file) => give(file, { name: file.name || "pasted", credit: file.name }).catch(complain);
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

function giveSample(sample) {
  const credit = `${sample.credit} (${sample.licence === "not stated" ? "licence not stated" : sample.licence})`;
  return give(readSample(sample), { name: sample.file, credit, sample: sample.file });
}

async function start() {
  wire();
  syncTools();
  const [samples, models] = await Promise.all([listSamples().catch(() => []), listModels()]);
  Object.assign(state, { samples, models });
  if (!models.length) throw new ServiceError("The service has no model yet.");
  fillSelect(byId("model"), models.map(({ name }) => name), firstModel(models).name);
  await chooseModel();
}

start().catch(complain);
