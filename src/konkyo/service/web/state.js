// What is chosen and what was answered. Everything else on the page follows from it.

import { signs } from "./methods.js";
import { byId } from "./panel.js";

export const state = {
  models: [], card: null, samples: [],
  methods: [], // what the chosen model can do here, its own first
  method: null, // the one that is asked for; an answer keeps its own in `shown`
  image: null, // {blob, bitmap, name, credit, labels}
  sample: null, // the file of the sample that was chosen last
  target: "", // the class whose map is asked for, "" for the predicted one
  truth: "", // the class it should be, while its map is asked for beside that of the predicted one
  answer: null, // as received
  shown: null, // the method of that answer
  plain: null, // the answer without an edit
  view: null, // the view a person chose; else it follows the kind of map
  edit: null, // what is painted, where the model takes it
  asked: "", // the edit that was answered, as text
  grid: "", // the width and height of its maps, as text
  level: 0, // which of several maps, 0 the finest
  picture: null, // what the image looks like
  base: null, // the picture at canvas size
  sides: [], // {explanation, field} of each map that is drawn: one, or that of the predicted and that of the true class
  own: null, // the network's own map, where it can be edited
  grey: null, // {opacity, image}: what the cells are painted on
  fill: [], // of each side, the values at which a view begins to colour, and is full
  request: null, // AbortController of the one under way
  turn: 0, // counts images, so that a slow decode cannot overtake
};

export const looks = {
  spotlight: { part: "positive", opacity: 1 },
  overlay: { part: "both", opacity: 0.85 },
  edit: { part: "positive", opacity: 0.85 },
};

export const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

export const choose = (name, value) => (document.querySelector(`input[name=${name}][value=${value}]`).checked = true);

export const say = (text) => (byId("status").textContent = text);

export const methodOf = ({ explanation }) => state.methods.find(({ name }) => name === explanation?.method) ?? state.method;

// Of what is shown; before there is an answer, of what will be.
const current = () => state.shown ?? state.method;

export const kind = () => current()?.map_kind;

// Whether there is one map for each class, and not one for all.
export const specific = () => current()?.class_specific !== false;

// Attention and saliency are never against.
export const signed = () => !["attention_map", "saliency_map"].includes(kind());

// Whether there is a picture of it.
export const drawable = () => kind() !== "neuron_importance";

// What positive and negative values say; null of a map that has no sign.
export const sides = () => (signed() ? signs(current()) : null);

// Whether a person may paint on the map: on the model's own alone.
export const paintable = () => Boolean(state.card?.explanation?.takes_attention && current()?.default);

export const editing = () => chosen("view") === "edit" && state.edit !== null;

// What shows a map of this kind best: light for one as fine as the image, colour for a coarse one.
export const bestView = () => state.view ?? (["class_weight_map", "input_gradient"].includes(kind()) ? "spotlight" : "overlay");

// Smallest and largest value on validation data: known of the model's own map.
export const range = () => (current()?.default ? state.card?.explanation?.range : undefined);

// Of an answer's maps the one that is looked at.
export const atLevel = (explanation) => explanation?.maps?.[state.level] ?? explanation;
