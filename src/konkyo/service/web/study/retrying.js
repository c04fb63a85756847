// Asking until the service answers.

import { Away } from "./api.js";

const SHORTEST = 1000; // milliseconds
const LONGEST = 30_000;

let failing = 0; // how many questions wait for their next try
let told = () => {};
let returns = 0; // how often the network came back
addEventListener("online", () => (returns += 1));

// told: called when the service is lost, and when it is back.
export const watchReach = (callback) => (told = callback);

export const outOfReach = () => failing > 0;

// The outcome of an action, tried again while nobody answers it, ever more rarely.
export async function persist(action) {
  for (let wait = SHORTEST; ; wait = Math.min(2 * wait, LONGEST)) {
    const before = returns;
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof Away)) throw error;
      if (returns !== before) continue; // it came back while this was failing
      failing += 1;
      told();
      await pause(Math.max(wait, error.wait));
      failing -= 1;
    } finally {
      told();
    }
  }
}

// Not all at the same moment; and at once when the network is back.
function pause(milliseconds) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds * (0.75 + Math.random() / 2));
    addEventListener("online", end);
  });
}
