// The page: what is chosen, what was answered, and when to draw. One request at a time; a newer one ends the older.

import { describe, explain, listModels, listSamples, readSample, ServiceError } from "./api.js";
import { byId, element, fillSelect, markSample, showBars, showCard, showRegions, showSamples } from "./panel.js";
import { canvasSize, compose, decodeImage, decodeMap, drawBase, drawLegend, drawRegions, fullLight, toField } from "./picture.js";
import { number, pictureWords, score, statusWords, timingWords } from "./words.js";

const state = {
  models: [], card: null,
  image: null, // {blob, bitmap, name, credit}
  answer: null, // as received
  base: null, field: null, // the picture's ingredients, at canvas size
  full: 1, // the weight at which a white pixel is fully lit
  request: null, // AbortController of the one under way
  turn: 0, // counts images, so that a slow decode cannot overtake
};
const looks = { spotlight: { part: "positive", opacity: 1 }, overlay: { part: "both", opacity: 0.85 } };

const ANSWERED = ["answer", "tools", "tools-after", "scores"]; // shown while there is an answer

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const say = (text) => (byId("status").textContent = text);

function complain(error) {
  const text = error instanceof ServiceError ? error.message : `Something went wrong on this page: ${error.message}`;
  byId("alert").textContent = text;
  say("");
}

function busy(on) {
  byId("figure").setAttribute("aria-busy", String(on));
  document.body.classList.toggle("busy", on);
}

// What was asked

async function chooseModel() {
  const model = state.models.find(({ name }) => name === byId("model").value);
  const methods = model?.methods ?? [];
  fillSelect(byId("method"), methods, "");
  byId("method-line").hidden = methods.length < 2;
  const { card } = await describe(model.name);
  if (byId("model").value !== model.name) return; // chosen anew meanwhile
  state.card = card;
  fillSelect(byId("target"), card?.labels ?? [], byId("target").value, "predicted class");
  byId("target").disabled = card?.explanation?.class_specific === false;
  document.querySelector("input[name=scale][value=model]").disabled = !card?.explanation?.range;
  if (card) showCard(card);
}

// read: a promise of the bytes. The latest image given wins, however long an earlier one takes to read.
async function give(read, { name, credit = "", sample = null }) {
  const turn = ++state.turn;
  state.request?.abort();
  byId("alert").textContent = "";
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

async function ask() {
  if (!state.image || !byId("model").value) return;
  state.request?.abort();
  const request = (state.request = new AbortController());
  const { blob, bitmap } = state.image;
  byId("alert").textContent = "";
  busy(true);
  say("Asking…");
  try {
    const method = byId("method-line").hidden ? "" : byId("method").value;
    const wanted = { target: byId("target").value, method, picture: !bitmap };
    const answer = await explain(byId("model").value, blob, wanted, request.signal);
    const picture = bitmap ?? (await pictureOf(answer));
    if (state.request === request) show(answer, picture);
  } catch (error) {
    if (error.name !== "AbortError" && state.request === request) complain(error);
  } finally {
    if (state.request === request) busy(false);
  }
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
  Object.assign(state, { image: null, answer: null, base: null, field: null });
  for (const id of ANSWERED) byId(id).hidden = true;
  byId("legend").hidden = byId("canvas").hidden = true;
  byId("empty").hidden = byId("intro").hidden = false;
  byId("words").textContent = byId("credit").textContent = "";
}

function showPicture(bitmap, original) {
  const size = canvasSize(original);
  state.base = drawBase(bitmap, size);
  [byId("canvas").width, byId("canvas").height] = size;
  byId("canvas").hidden = false;
  byId("empty").hidden = true;
  if (state.field) state.full = fullLight(state.base, state.field);
  draw();
}

function show(answer, picture) {
  const { explanation, geometry } = answer;
  const map = decodeMap(explanation?.map);
  state.answer = answer;
  const size = canvasSize(geometry.original);
  const drawn = map && explanation.status !== "non_finite";
  state.field = drawn ? toField(map, geometry.map_to_original, geometry.original, size) : null;
  showPicture(picture, geometry.original);

  byId("label").textContent = answer.label;
  byId("score").textContent = score(answer.score);
  const target = explanation?.target?.label ?? answer.label;
  const specific = state.card?.explanation?.class_specific !== false;
  const name = element("strong", { id: "target-name", textContent: target });
  const relation = target === answer.label ? ", the predicted class." : ", which is not the predicted class.";
  const shown = specific ? ["Shown: the map of ", name, relation] : ["The map is one for all classes."];
  byId("target-words").replaceChildren(...shown);
  byId("bars-hint").hidden = !specific;
  showBars(answer, target, specific && ((label) => { byId("target").value = label; ask(); }));
  showRegions(explanation?.regions ?? []);
  const [x0, y0, x1, y1] = geometry.crop;
  const cut = x1 - x0 < geometry.original[0] - 1 || y1 - y0 < geometry.original[1] - 1;
  byId("words").textContent = [
    statusWords(explanation?.status),
    picture ? "" : "This browser cannot show the file; the map stands alone.",
    cut ? "The network sees the middle of the image; what lies outside is left dark." : "",
  ].filter(Boolean).join(" ");
  byId("timing").textContent = timingWords(answer.timing_ms ?? {}, answer.batch_size);
  for (const id of ANSWERED) byId(id).hidden = false;
  byId("intro").hidden = true;
  say(`${answer.label}, ${score(answer.score)}. Map of ${target}. ${statusWords(explanation?.status)}`);
}

function look() {
  const view = chosen("view");
  const { min, max } = state.answer?.explanation?.map ?? {};
  const largest = (range) => Math.max(...range.map((value) => Math.abs(value ?? 0))) || 1;
  let scale = view === "spotlight" ? state.full : largest([min, max]);
  if (chosen("scale") === "model" && state.card?.explanation?.range) scale = largest(state.card.explanation.range);
  return { view, ...looks[view], scale, regions: byId("regions").checked };
}

function draw() {
  const { base, field, answer } = state;
  if (!base) return;
  const canvas = byId("canvas");
  const context = canvas.getContext("2d");
  const current = look();
  const out = field ? compose(base, field, current, new ImageData(base.width, base.height)) : base;
  context.putImageData(out, 0, 0);
  byId("legend").hidden = !field;
  byId("region-part").hidden = !current.regions;
  if (!answer) return canvas.setAttribute("aria-label", "The image, not yet judged");
  const { explanation, geometry } = answer;
  if (current.regions && explanation?.regions) {
    drawRegions(context, explanation.regions, geometry.original, canvas.width / (canvas.clientWidth || canvas.width));
  }
  if (!field) return canvas.setAttribute("aria-label", "The image, without a map");
  canvas.setAttribute("aria-label", pictureWords(current, explanation.target?.label ?? answer.label));
  const { min, max } = explanation.map;
  const [low, high] = drawLegend(byId("legend-bar"), current);
  byId("legend-low").textContent = low === 0 ? "0" : `against ${min < low ? "≤ " : ""}${number(low)}`;
  byId("legend-high").textContent = high === 0 ? "0" : `${max > high ? "≥ " : ""}${number(high)} for`;
  byId("legend").title = `This map goes from ${number(min)} to ${number(max)}.`;
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
  const both = document.querySelector("input[name=part][value=both]");
  both.parentElement.hidden = view === "spotlight"; // light has no sign
  document.querySelector(`input[name=part][value=${looks[view].part}]`).checked = true;
  byId("opacity").value = Math.round(100 * looks[view].opacity);
  byId("opacity-out").textContent = `${byId("opacity").value} %`;
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
  byId("model").addEventListener("change", () => chooseModel().then(ask).catch(complain));
  byId("method").addEventListener("change", ask);
  byId("target").addEventListener("change", ask);
  byId("canvas").addEventListener("pointermove", read);
  byId("canvas").addEventListener("pointerleave", () => (byId("reading").textContent = ""));
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

async function start() {
  wire();
  syncTools();
  const giveSample = (sample) => {
    const credit = `${sample.credit} (${sample.licence === "not stated" ? "licence not stated" : sample.licence})`;
    return give(readSample(sample), { name: sample.file, credit, sample: sample.file });
  };
  listSamples().then((samples) => showSamples(samples, (sample) => giveSample(sample).catch(complain)), () => {});
  state.models = await listModels();
  fillSelect(byId("model"), state.models.map(({ name }) => name), "");
  if (!state.models.length) throw new ServiceError("The service has no model yet.");
  await chooseModel();
}

start().catch(complain);
