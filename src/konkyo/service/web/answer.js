// An answer on the page: the class, its map or maps, the scores and the words.

import { showPicture } from "./draw.js";
import { tell } from "./edit.js";
import { byId, element, showBars, showComparison, showLevels, showRegions, showText } from "./panel.js";
import { canvasSize, decodeMap, drawSmall, toField } from "./picture.js";
import { atLevel, drawable, editing, looks, methodOf, say, signed, specific, state } from "./state.js";
import { syncTools } from "./tools.js";
import { showTruth, sidesOf } from "./truth.js";
import { score, statusWords, timingWords } from "./words.js";

const ANSWERED = ["answer", "tools", "tools-after", "scores"]; // shown while there is an answer

export function forget() {
  Object.assign(state, { image: null, answer: null, shown: null, plain: null, edit: null, base: null, sides: [] });
  for (const id of [...ANSWERED, "compare", "text-part", "levels-part"]) byId(id).hidden = true;
  syncTools();
  byId("legend").hidden = byId("canvas").hidden = byId("side-true").hidden = byId("of-predicted").hidden = true;
  byId("empty").hidden = byId("intro").hidden = false;
  byId("words").textContent = byId("credit").textContent = "";
}

export function show(answer) {
  const { geometry } = answer;
  const explanation = atLevel(answer.explanation);
  Object.assign(state, { answer, shown: methodOf(answer) });
  state.sides = sidesOf(answer).map((side) => toSide(side, geometry));
  state.own = state.edit && decodeMap(atLevel(state.plain.explanation).map);
  showPicture(state.picture, geometry.original);

  byId("label").textContent = answer.label;
  byId("score").textContent = score(answer.score);
  const target = explanation?.target?.label ?? answer.label;
  const before = answer.original ? `Before: ${answer.original.label}, ${score(answer.original.score)}.` : "";
  showTargetWords(answer, target, before);
  showTruth(answer);
  byId("bars-hint").hidden = !specific();
  showBars(answer, state.sides.map((side) => side.explanation?.target?.label ?? answer.label), specific());
  const explanations = state.sides.map((side) => side.explanation);
  showRegions(explanations, signed() ? "evidence" : "attention");
  showText(explanations.filter((side) => side?.text));
  const words = [...new Set(state.sides.map((side) => statusWords(side.explanation?.status)))];
  byId("words").textContent = [...words, ...pictureNotes(answer)].filter(Boolean).join(" ");
  byId("timing").textContent = timingWords(answer.timing_ms ?? {}, answer.batch_size);
  for (const id of ANSWERED) byId(id).hidden = false;
  byId("intro").hidden = true;
  showMaps();
  syncTools();
  announce(answer, before || (specific() ? `Map of ${target}.` : ""), words);
}

// A map and what is needed to draw it; none where it is no picture, or holds no numbers.
function toSide(explanation, geometry) {
  const map = drawable() && explanation?.status !== "non_finite" ? decodeMap(explanation?.map) : null;
  return { explanation, field: map && toField(map, geometry.map_to_original, geometry.original, canvasSize(geometry.original)) };
}

function showTargetWords(answer, target, before) {
  const name = element("strong", { id: "target-name", textContent: target });
  const relation = target === answer.label ? ", the predicted class." : ", which is not the predicted class.";
  const what = drawable() ? "Shown: the map of " : "Told: what speaks for ";
  const shown = specific() ? [what, name, relation] : ["The map is one for all classes."];
  byId("target-words").replaceChildren(...(before ? [`With your edit. ${before}`] : shown));
  byId("target-words").hidden = Boolean(answer.truth);
}

function pictureNotes({ geometry }) {
  const [x0, y0, x1, y1] = geometry.crop;
  const cut = x1 - x0 < geometry.original[0] - 1 || y1 - y0 < geometry.original[1] - 1;
  return [
    state.picture ? "" : "This browser cannot show the file; the map stands alone.",
    cut && drawable() ? "The network sees the middle of the image; what lies outside is left dark." : "",
  ];
}

function announce(answer, of, status) {
  const truth = byId("truth-words").textContent;
  const words = [`${answer.label}, ${score(answer.score)}.`, truth, answer.truth ? "" : of, ...status].filter(Boolean).join(" ");
  const near = answer.original && editing(); // the words beside the button that was pressed are read out as well: once is enough
  say(near ? "" : words);
  if (near) tell(words);
}

// Small pictures of every map: of the levels, and before and after.
function showMaps() {
  const { answer, picture } = state;
  const before = answer.original ?? answer;
  const mapsOf = ({ truth, explanation }) => (truth ? [] : (explanation?.maps ?? [explanation]).map((entry) => entry?.map).filter((map) => map?.data));
  const maps = [...mapsOf(before), ...mapsOf(answer)];
  const scale = Math.max(0, ...maps.flatMap(({ min, max }) => [-min, max])) || 1; // one for all, to compare
  const look = { ...looks.overlay, part: signed() ? "both" : "positive", floor: 0, scale };
  const draw = (canvas, map) => drawSmall(canvas, picture, decodeMap(map), state.plain.geometry, look);
  const levels = mapsOf(answer);
  showLevels(levels.length > 1 ? levels : [], state.level, draw, (level) => { state.level = level; show(answer); });
  if (state.edit) showComparison(before, mapsOf(before), answer.original ? answer : null, levels, draw);
}

// What a long explanation has so far, in the place of the answer that stays until it is there.
export function showInterim(method, explanation) {
  const { crop, ...geometry } = state.answer.geometry;
  const { width, height } = explanation.map;
  const across = [(crop[2] - crop[0]) / width, 0, crop[0]];
  const place = { ...geometry, map_to_original: [...across, 0, (crop[3] - crop[1]) / height, crop[1]] };
  state.shown = method;
  state.sides = sidesOf({ truth: state.truth, explanation }).map((side) => toSide(side, place));
  showPicture(state.picture, geometry.original);
  syncTools();
}

