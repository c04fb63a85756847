// The way of an image: given, asked about, answered. One request at a time; a newer one ends the older.

import { forget, show, showInterim } from "./answer.js";
import { explain, explainLong, readSample, ServiceError } from "./api.js";
import { Edit } from "./brush.js";
import { showPicture } from "./draw.js";
import { methodTitle, methodWords, signs } from "./methods.js";
import { byId, markSample } from "./panel.js";
import { decodeImage } from "./picture.js";
import { beginProgress, endProgress, showProgress, showSoFar } from "./progress.js";
import { bestView, choose, chosen, looks, methodOf, paintable, say, state } from "./state.js";
import { nameTruth } from "./truth.js";

export function complain(error) {
  const text = error instanceof ServiceError ? error.message : `Something went wrong on this page: ${error.message}`;
  byId("alert").textContent = text;
  byId("alert").scrollIntoView({ block: "nearest" });
  say("");
}

const PATIENCE = 500; // ms, after which a person is told what is under way, and may end it

// Whether the answer is the chosen model's, and not still that of another.
const answered = () => state.answer !== null && state.answer.model.name === state.card?.name;

function busy(on) {
  byId("figure").setAttribute("aria-busy", String(on));
  document.body.classList.toggle("busy", on);
}

function rest() {
  busy(false);
  endProgress();
}

// read: a promise of the bytes. The latest image given wins, however long an earlier one takes to read.
async function give(read, { name, credit = "", sample = null, labels = [] }) {
  const turn = ++state.turn;
  state.request?.abort();
  byId("alert").textContent = "";
  state.sample = sample;
  markSample(sample);
  if (state.answer) want({});
  forget();
  nameTruth(labels);
  const blob = await read;
  const bitmap = await decodeImage(blob);
  if (turn !== state.turn) return;
  state.image = { blob, bitmap, name, credit, labels };
  if (bitmap) showPicture(bitmap, [bitmap.width, bitmap.height]);
  byId("credit").textContent = credit;
  await ask();
}

export function giveSample(sample) {
  const credit = `${sample.credit} (${sample.licence === "not stated" ? "licence not stated" : sample.licence})`;
  return give(readSample(sample), { name: sample.file, credit, sample: sample.file, labels: sample.labels });
}

export const giveFile = (file) => give(file, { name: file.name || "pasted", credit: file.name }).catch(complain);

// The class whose map is shown, or the class it should be: one ends the other.
export function want({ target = "", truth = "" }) {
  Object.assign(state, { target, truth });
  byId("target").value = target;
}

// With an edit, how the network would decide if it looked as the person painted.
export async function ask(edit = null) {
  if (!state.image || !state.method) return;
  state.request?.abort();
  endProgress();
  const request = (state.request = new AbortController());
  byId("alert").textContent = "";
  busy(true);
  say("Asking…");
  const slow = setTimeout(() => beginProgress(methodTitle(state.method)), PATIENCE);
  try {
    if (!edit && state.method.long) await askLong(request);
    else await askOnce(request, state.method, edit);
  } catch (error) {
    if (error.name === "AbortError" || state.request !== request) return;
    restore();
    complain(error);
  } finally {
    clearTimeout(slow);
    if (state.request === request) rest();
  }
}

async function askOnce(request, method, edit = null) {
  const { blob, bitmap } = state.image;
  const attention = edit?.rows();
  const picture = !bitmap && !edit;
  const answer = await explain(byId("model").value, blob, { ...wanted(method), picture, attention }, request.signal);
  const seen = edit ? state.picture : (bitmap ?? (await pictureOf(answer)));
  if (state.request !== request) return;
  if (!edit) begin(answer, seen);
  state.asked = JSON.stringify(attention ?? []);
  show(answer);
}

// The class is there at once, by the model's own explanation, and the map when all passes are done.
async function askLong(request) {
  const { method } = state;
  if (!answered()) await askOnce(request, state.methods[0]);
  if (state.request !== request) return;
  beginProgress(methodTitle(method));
  const answer = await explainLong(byId("model").value, state.image.blob, wanted(method), request.signal, (progress) => {
    if (state.request !== request) return;
    showProgress(progress);
    if (progress.explanation?.map) showSoFar(() => showInterim(method, progress.explanation));
  });
  if (state.request !== request) return;
  begin(answer, state.picture);
  show(answer);
}

function wanted(method) {
  const name = method.default ? "" : method.name; // the model's own needs no name
  if (!method.class_specific) return { method: name };
  return { method: name, target: state.target, truth: state.truth };
}

// End what is under way, and go back to what was shown before.
export function cancel() {
  state.request?.abort();
  state.request = null;
  rest();
  restore();
  say("Cancelled.");
}

// What is shown is an answer again, and the controls say which.
function restore() {
  if (answered()) show(state.answer);
  useMethod(answered() ? state.shown : (state.methods[0] ?? state.method));
}

export function useMethod(method) {
  const turned = (one) => signs(one ?? method)[0] === "against";
  // Of both parts, a map whose signs are turned looks like the one it turns.
  if (turned(state.method) !== turned(method)) looks.overlay.part = turned(method) ? "positive" : "both";
  state.method = method;
  byId("method").value = method.name;
  byId("target-line").hidden = !method.class_specific;
  byId("method-words").textContent = method.name ? methodWords(method) : "";
}

// Nothing is painted yet.
function begin(answer, picture) {
  const grid = answer.geometry.map ?? [0, 0];
  const { status, map } = answer.explanation ?? {};
  state.shown = methodOf(answer);
  if (chosen("view") !== "edit") choose("view", bestView());
  const takes = paintable() && map && status !== "non_finite";
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
