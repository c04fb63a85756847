// The page: which model, what it can do, and what happens when a control is used. What follows is in the modules.
//
//   state.js     what is chosen and what was answered
//   ask.js       an image given, asked about, answered      answer.js, truth.js, edit.js   the answer on the page
//   draw.js      the large picture                          tools.js                       the controls around it

import { show } from "./answer.js";
import { describe, listModels, listSamples, ServiceError } from "./api.js";
import { ask, cancel, complain, giveSample, useMethod, want } from "./ask.js";
import { offerClasses, wireClassInput } from "./classes.js";
import { wireReading } from "./draw.js";
import { wireEdit } from "./edit.js";
import { wireGiving } from "./giving.js";
import { wireKey } from "./key.js";
import { offerMethods } from "./methods.js";
import { byId, fillSelect, markSample, showCard, showSamples } from "./panel.js";
import { wireSaving } from "./saving.js";
import { say, state } from "./state.js";
import { syncTools, wireTools } from "./tools.js";
import { nameTruth } from "./truth.js";

const FIRST = ["efficientnet-lite0-imagenet", "abn-magnetic-tile"]; // the models to begin with, where they are served

// The first time; afterwards the model is the person's choice.
function firstModel(models) {
  const named = FIRST.map((first) => models.find(({ name }) => name === first)).find(Boolean);
  return named ?? models.find(({ methods }) => methods.includes("attention")) ?? models[0];
}

const UNREADY = { name: "", default: true, class_specific: true }; // of a model that is not loaded, which says so when asked

async function chooseModel() {
  state.request?.abort(); // what another model answers is not wanted any more
  const name = byId("model").value;
  const { card, methods } = await describe(name);
  if (byId("model").value !== name) return; // chosen anew meanwhile
  const kept = state.method?.default ? null : methods.find((method) => method.name === state.method?.name);
  Object.assign(state, { card, methods, shown: null, edit: null });
  offerMethods(methods);
  useMethod(kept ?? methods[0] ?? UNREADY);
  const labels = card?.labels ?? [];
  const known = (label) => (labels.includes(label) ? label : "");
  offerClasses(labels);
  want({ target: known(state.target), truth: known(state.truth) });
  nameTruth([byId("truth").value, ...(state.image?.labels ?? [])]);
  syncTools();
  offerSamples();
  byId("then-edit").hidden = byId("view-edit").hidden;
  if (card) showCard(card);
}

// Those that show what the model knows, and those that show nothing any model knows.
function offerSamples() {
  const known = ({ labels }) => labels?.some((label) => state.card?.labels.includes(label));
  const suits = state.samples.some(known) ? (sample) => !sample.labels || known(sample) : () => true;
  showSamples(state.samples.filter(suits), (sample) => giveSample(sample).catch(complain));
  markSample(state.sample);
}

function chooseTarget(label) {
  want({ target: label });
  ask();
}

// Enter in its input changes it and submits it: asked once.
function compare(truth) {
  if (truth === state.truth) return;
  want({ truth });
  ask();
}

function wireAsking() {
  byId("model").addEventListener("change", () => chooseModel().then(() => ask()).catch(complain));
  byId("method").addEventListener("change", ({ target }) => {
    useMethod(state.methods.find(({ name }) => name === target.value));
    ask();
  });
  const labels = () => state.card?.labels ?? [];
  wireClassInput(byId("target"), byId("target-problem"), labels, (label) => { if (label !== state.target) chooseTarget(label); });
  byId("bars").addEventListener("click", ({ target }) => {
    const button = target.closest("[data-label]");
    if (button) chooseTarget(button.dataset.label);
  });
  wireClassInput(byId("truth"), byId("truth-problem"), labels, compare);
  byId("truth-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (byId("truth").value && !byId("truth-problem").textContent) compare(byId("truth").value);
  });
  byId("truth-end").addEventListener("click", () => {
    byId("truth").focus(); // the button goes
    compare("");
  });
  byId("cancel").addEventListener("click", cancel);
}

async function start() {
  wireAsking();
  wireGiving();
  wireTools();
  wireReading();
  wireSaving();
  wireKey({ given: () => begin().catch(complain), forgotten: () => { state.request?.abort(); say("The key is forgotten."); } });
  wireEdit({ ask, restore: () => { state.request?.abort(); show(state.plain); } });
  syncTools();
  await begin();
}

async function begin() {
  if (state.models.length) return;
  const [samples, models] = await Promise.all([listSamples().catch(() => []), listModels()]);
  Object.assign(state, { samples, models });
  if (!models.length) throw new ServiceError("The service has no model yet.");
  fillSelect(byId("model"), models.map(({ name }) => name), firstModel(models).name);
  await chooseModel();
}

start().catch(complain);
