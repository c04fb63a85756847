// Answers on their way to the service: each is kept in the browser first, sent a moment later, and sent again until
// it is taken. A revision tells the service which answer a new one follows, so that two tabs cannot overwrite
// each other unseen.

import { putRanking } from "./api.js";
import { dropDraft, keepDraft, readDraft } from "./drafts.js";
import { persist } from "./retrying.js";

const MOMENT = 400; // milliseconds, for more changes to come

const same = (one, other) => one.done === other.done && one.ranking.join() === other.ranking.join();

export class Saver {
  #waiting = new Map(); // of each item that is not saved: the promise of its being so, or null before it is sent
  #timers = new Map();
  #kept = true; // whether the browser keeps what waits
  #told;

  // told: {changed(), overtaken(item), refused(error)}
  constructor(told) {
    this.#told = told;
  }

  get saved() {
    return !this.#waiting.size;
  }

  // Whether closing the tab would lose something.
  get atRisk() {
    return !this.saved && !this.#kept;
  }

  save(item, moment = MOMENT) {
    item.dirty = true;
    this.#kept = keepDraft(item);
    if (!this.#waiting.has(item)) this.#waiting.set(item, null);
    clearTimeout(this.#timers.get(item));
    this.#timers.set(item, setTimeout(() => this.#send(item), moment));
    this.#told.changed();
  }

  // Sends what waits at once; resolves when all of it is saved.
  async flush() {
    await Promise.all([...this.#waiting.keys()].map((item) => this.#send(item)));
  }

  // Takes up what an earlier visit could not send.
  restore(item) {
    const draft = readDraft(item);
    if (!draft || !fits(draft, item)) return;
    const arrived = draft.sent.some((body) => same(body, item));
    if (draft.revision !== item.revision && !arrived) {
      if (!same(draft, item)) this.#told.overtaken(item);
      keepDraft(item);
      dropDraft(item);
      return;
    }
    Object.assign(item, { ranking: draft.ranking, done: draft.done, touched: true });
    this.save(item, 0);
  }

  #send(item) {
    clearTimeout(this.#timers.get(item));
    const sending = this.#waiting.get(item) ?? this.#deliver(item);
    this.#waiting.set(item, sending);
    return sending;
  }

  async #deliver(item) {
    try {
      while (item.dirty) await persist(() => this.#put(item));
      clearTimeout(this.#timers.get(item));
      this.#waiting.delete(item);
      dropDraft(item);
    } catch (error) {
      this.#waiting.set(item, null); // the next change, or the end, tries again
      this.#told.refused(error);
    }
    this.#told.changed();
  }

  async #put(item) {
    const body = { revision: item.revision, ranking: [...item.ranking], done: item.done };
    item.dirty = false;
    item.sent.push(body);
    keepDraft(item);
    try {
      const { revision } = await putRanking(item.item, body);
      Object.assign(item, { revision, sent: [] });
    } catch (error) {
      item.dirty = true;
      if (error.code !== "stale_ranking") throw error;
      this.#overtake(item, error.detail);
    }
  }

  // The service has another answer than ours followed. It may be one of ours after all, whose receipt was lost.
  #overtake(item, { ranking, done, revision }) {
    const ours = item.sent.some((body) => same(body, { ranking, done }));
    item.revision = revision;
    item.sent = [];
    if (ours) return;
    Object.assign(item, { ranking: complete(ranking, item.maps), done, dirty: false });
    this.#told.overtaken(item);
  }
}

const fits = ({ ranking }, { maps }) => [...ranking].sort().join() === [...maps].sort().join();

// A ranking of some of the maps, with the others after them.
export const complete = (ranking, maps) => [...ranking, ...maps.filter((map) => !ranking.includes(map))];
