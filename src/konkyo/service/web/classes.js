// A class typed or picked, of ten or of a thousand.

import { byId, element } from "./panel.js";
import { nearWords } from "./words.js";

export function offerClasses(labels) {
  byId("classes").replaceChildren(...labels.map((value) => element("option", { value })));
}

// labels() gives the classes there are; took(label) is told of each choice, "" when the input was emptied.
export function wireClassInput(input, problem, labels, took) {
  const complain = (words) => {
    problem.textContent = words;
    input.setAttribute("aria-invalid", String(words !== ""));
  };
  const take = () => {
    const typed = input.value.trim();
    const label = find(labels(), typed);
    if (label === undefined) return complain(nearWords(typed, near(labels(), typed)));
    complain("");
    input.value = label;
    took(label);
  };
  input.addEventListener("focus", () => input.select()); // typing begins anew, and the whole list is open again
  input.addEventListener("change", take);
  input.addEventListener("input", ({ inputType }) => {
    complain("");
    if (inputType === "insertReplacementText") take(); // picked from the list: no key that ends it will follow
  });
}

// As it is written, or else but for capitals; undefined if there is none.
function find(labels, typed) {
  if (typed === "" || labels.includes(typed)) return typed;
  return labels.find((label) => label.toLowerCase() === typed.toLowerCase());
}

// Those that hold what was typed, or else have a word that begins alike.
function near(labels, typed) {
  const sought = typed.toLowerCase();
  const holding = labels.filter((label) => label.toLowerCase().includes(sought));
  const alike = (label) => label.toLowerCase().split(" ").some((word) => word.startsWith(sought.slice(0, 3)));
  return (holding.length ? holding : labels.filter(alike)).slice(0, 3);
}
