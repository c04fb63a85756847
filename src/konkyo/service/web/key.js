// The API key, where the service asks for one: kept in this tab until it is closed or forgotten, and sent to this service alone.

import { byId } from "./panel.js";

const NAME = "konkyo-key";

const kept = () => sessionStorage.getItem(NAME);

export const keyHeaders = () => (kept() ? { authorization: `Bearer ${kept()}` } : {});

let wanted = false; // whether the service has asked for one
let asking = null; // one question at a time, whoever waits for its answer

// Whether a person gave a key. used: the key of the request that was refused, undefined where it had none.
export function askForKey(used) {
  if (keyHeaders().authorization !== used) return Promise.resolve(true); // another was given meanwhile
  asking ??= open(used ? "The service does not know this key." : "").finally(() => (asking = null));
  return asking;
}

function open(problem) {
  const dialog = byId("key-dialog");
  wanted = true;
  forget();
  byId("key-problem").textContent = problem;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "given";
      if (given) keep(byId("key").value.trim());
      byId("key").value = "";
      resolve(given);
    }, { once: true });
  });
}

function keep(key) {
  sessionStorage.setItem(NAME, key);
  sync();
}

function forget() {
  sessionStorage.removeItem(NAME);
  sync();
}

// A plain link carries no key.
function sync() {
  byId("key-button").hidden = !wanted && !kept();
  byId("key-button").textContent = kept() ? "Forget the key" : "Give a key";
  byId("models-link").hidden = wanted || Boolean(kept());
}

// What to do once a key is given without being asked for, and once it is gone.
export function wireKey({ given, forgotten }) {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("key-dialog").close("given");
  });
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("key-button").addEventListener("click", async () => {
    wanted = true;
    if (kept()) {
      forget();
      forgotten();
    } else if (await askForKey()) given();
  });
  sync();
}
