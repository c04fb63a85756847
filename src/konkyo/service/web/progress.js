// How far a long explanation is, and the way out of it.

import { byId } from "./panel.js";
import { say } from "./state.js";
import { percent, waitWords } from "./words.js";

let begun = 0;
let told = 0; // quarters that have been read out

export function beginProgress(title) {
  if (!byId("working").hidden) return; // begun already
  [begun, told] = [performance.now(), 0];
  byId("working-title").textContent = title;
  byId("working-left").textContent = "";
  byId("progress").removeAttribute("value"); // nothing is known yet
  byId("working").hidden = false;
}

export function showProgress({ done, total }) {
  const share = total ? done / total : 0;
  byId("progress").value = share;
  byId("working-left").textContent = [percent(share, 0), waitWords(performance.now() - begun, share)].filter(Boolean).join(", ");
  const quarters = Math.floor(4 * share);
  if (quarters > told && quarters < 4) say(`${byId("working-title").textContent}: ${percent(quarters / 4, 0)}`);
  told = Math.max(told, quarters);
}

let free = 0; // when the next picture may be drawn

// Draws what there is so far, as often as leaves the page most of its time: steps may come faster than pictures.
export function showSoFar(draw) {
  const before = performance.now();
  if (before < free) return;
  draw();
  free = performance.now() + 4 * (performance.now() - before);
}

export function endProgress() {
  if (byId("working").contains(document.activeElement)) byId("method").focus(); // and not to the top of the page
  byId("working").hidden = true;
}
