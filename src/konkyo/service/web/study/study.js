// The page on which a person orders the maps of each image: what comes after what.

import { able, byId } from "../panel.js";
import { Refused, finish, hasToken, readItem, readStudy } from "./api.js";
import { Deck } from "./deck.js";
import { readDraft } from "./drafts.js";
import { wireOverview } from "./overview.js";
import { fetchPictures, keepOnly, showPicture } from "./pictures.js";
import { outOfReach, persist, watchReach } from "./retrying.js";
import { Saver, complete } from "./saver.js";
import { showPlain, showWork } from "./screens.js";
import { wireViewer } from "./viewer.js";
import * as words from "./words.js";

let study = null; // {subject, title, instruction, maps, items: [{item, number, state}], closed, finished}
let current = null; // the item that is shown
let doubted = false; // whether an order nobody touched has been questioned
let turn = 0; // counts what is asked to be shown, so that a slow answer cannot overtake
const items = new Map(); // those read so far, by id

const say = (text) => (byId("said").textContent = text);
const warn = (text) => (byId("alert").textContent = text);

const saver = new Saver({ changed: sync, overtaken, refused });
const deck = new Deck(byId("deck"), { moved, opened: (card) => viewer.open(card) });
const viewer = wireViewer(deck);
const overview = wireOverview((item) => show(item));

async function start() {
  watchReach(sync);
  if (!hasToken()) return showPlain(words.WRONG_LINK);
  study = await persist(readStudy);
  for (const { item } of study.items) {
    if (readDraft({ ...study, item })) await load(item);
  }
  byId("title").textContent = study.title;
  byId("instruction").textContent = study.instruction;
  if (study.closed || study.finished) return end();
  if (study.items.some(({ state }) => state !== "new")) return proceed();
  showPlain([study.title, words.welcomeWords(study)], ["Begin", proceed]);
  load(study.items[0].item).then(({ image, maps }) => fetchPictures([image, ...maps])).catch(() => {}); // told when it is wanted
}

async function load(id) {
  if (!items.has(id)) {
    const found = await persist(() => readItem(id));
    const touched = found.ranking.length > 0;
    const ranking = complete(found.ranking, found.maps);
    const item = { ...found, subject: study.subject, ranking, touched, sent: [], dirty: false };
    items.set(id, item);
    if (!study.closed && !study.finished) saver.restore(item);
    note(item);
  }
  return items.get(id);
}

// The overview's idea of an item follows the item's own.
function note({ item, done, touched }) {
  study.items.find((entry) => entry.item === item).state = done ? "done" : touched ? "draft" : "new";
  sync();
}

// To the first image that is not done, looking from one on; to the end if there is none.
function proceed(from = 0) {
  const open = [...study.items.slice(from), ...study.items.slice(0, from)].find(({ state }) => state !== "done");
  return open ? show(open.item) : end();
}

async function show(id) {
  const entry = study.items.find(({ item }) => item === id);
  turn += 1;
  const mine = turn;
  const item = await load(id).catch(refused);
  if (!item || mine !== turn) return;
  current = item;
  warn("");
  doubt(false);
  able(byId("previous"), entry.number > 1);
  byId("number").textContent = words.numberWords(entry, study.items.length);
  document.title = `${words.numberWords(entry, study.items.length)} — ${study.title}`;
  for (const [index, text] of words.questionWords(item.label).entries()) byId("question").childNodes[index].textContent = text;
  const neighbours = [study.items[entry.number - 2], study.items[entry.number]].filter(Boolean).map((each) => items.get(each.item));
  keepOnly([item, ...neighbours].filter(Boolean).flatMap(({ image, maps }) => [image, ...maps]));
  byId("image").replaceWith(picture(item));
  const shown = [showPicture(byId("image"), item.image), deck.show(item)];
  showWork();
  sync();
  await Promise.all(shown).catch(refused);
  const next = study.items[entry.number];
  if (next && current === item) load(next.item).then(({ image, maps }) => fetchPictures([image, ...maps])).catch(() => {});
}

// Another <img>: the picture of the image before must not stand here until the new one is there.
function picture({ width, height }) {
  return Object.assign(new Image(width, height), { id: "image", alt: "The image" });
}

function moved(card) {
  Object.assign(current, { ranking: deck.order, touched: true, done: false });
  warn("");
  doubt(false);
  say(words.movedWords(card, deck.place(card), current.maps.length));
  saver.save(current);
  note(current);
}

function next() {
  if (!current.touched && !doubted) return doubt(true);
  Object.assign(current, { touched: true, done: true });
  saver.save(current, 0);
  note(current);
  return proceed(study.items.find(({ item }) => item === current.item).number);
}

function previous() {
  const { number } = study.items.find(({ item }) => item === current.item);
  if (number > 1) show(study.items[number - 2].item);
}

function doubt(on) {
  doubted = on;
  byId("doubt").textContent = on ? words.DOUBT : "";
  byId("next").textContent = on ? "The order is right" : "Next";
}

function end() {
  turn += 1;
  current = null;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  document.title = study.title;
  sync();
  if (study.finished) return showPlain(words.THANKS);
  if (study.closed) return showPlain(words.CLOSED);
  return showPlain(words.allDoneWords(study.items.length), ["Send my answers", send], ["Look at them again", () => overview.open(study.items, null)]);
}

async function send() {
  showPlain(words.SENDING);
  await saver.flush();
  try {
    if (study.items.every(({ state }) => state === "done")) study.finished = (await persist(finish)).finished;
    else return proceed(); // one was overtaken by a draft
  } catch (error) {
    return refused(error);
  }
  return end();
}

// Another window, or the same person elsewhere, has ordered this image since.
function overtaken(item) {
  item.touched = true;
  note(item);
  if (item !== current) return warn(words.elsewhereWords(item));
  viewer.close();
  deck.show(item);
  doubt(false);
  return warn(words.OVERTAKEN);
}

function refused(error) {
  if (!(error instanceof Refused)) throw error;
  if (error.code === "study_closed" || error.code === "study_finished") {
    Object.assign(study, error.code === "study_closed" ? { closed: true } : { finished: true });
    end();
  } else if (error.code === "study_unfinished") location.reload(); // another window made one of them a draft again
  else if (error.status === 401 || error.status === 404) showPlain(words.WRONG_LINK);
  else warn(words.unsavedWords(error.message));
}

function sync() {
  const [state, text] = words.stateWords(!saver.saved, outOfReach());
  Object.assign(byId("state"), { textContent: text, hidden: !study || (!current && state === "saved") });
  byId("state").dataset.state = state;
  if (!study) return outOfReach() ? showPlain(words.LOST) : null;
  const done = study.items.filter((entry) => entry.state === "done").length;
  byId("overview-button").hidden = study.closed || study.finished;
  byId("overview-button").textContent = words.doneWords(done, study.items.length);
  return overview.sync(study.items, current?.item);
}

// An answer is not given by a click or a key that was meant for the one before.
byId("next").addEventListener("click", ({ detail }) => (detail < 2 ? next() : null));
byId("next").addEventListener("keydown", (event) => (event.repeat ? event.preventDefault() : null));
byId("previous").addEventListener("click", previous);
byId("overview-button").addEventListener("click", () => overview.open(study.items, current?.item));
byId("skip").addEventListener("click", () => byId("main").focus()); // a link to #main would replace the token
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") saver.flush();
});
addEventListener("beforeunload", (event) => {
  if (saver.atRisk) event.preventDefault();
});
addEventListener("hashchange", () => location.reload()); // another subject

start().catch(refused);
