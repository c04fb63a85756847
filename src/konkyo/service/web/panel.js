// The lists beside the picture.

import { number, percent, regionWords, score as scoreWords } from "./words.js";

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function showSamples(samples, choose) {
  byId("samples").replaceChildren(
    ...samples.map((sample) => {
      const picture = element("img", { src: `/static/samples/${sample.file}`, alt: "", width: 56, height: 56 });
      const button = element("button", { type: "button" }, picture, element("span", {}, sample.title));
      button.dataset.sample = sample.file;
      button.addEventListener("click", () => choose(sample));
      return element("li", {}, button);
    }),
  );
}

export function markSample(file) {
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.setAttribute("aria-pressed", String(button.dataset.sample === file));
  }
}

export function fillSelect(select, values, chosen, first = null) {
  const options = values.map((value) => element("option", { value, textContent: value }));
  if (first !== null) options.unshift(element("option", { value: "", textContent: first }));
  select.replaceChildren(...options);
  if (values.includes(chosen)) select.value = chosen;
}

// One button a class. Focus stays on the class it was on, though the list is made anew.
export function showBars(answer, target, choose) {
  const list = byId("bars");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.label : null;
  list.replaceChildren(
    ...answer.top_k.map(({ label, score, logit }) => {
      const fill = element("span", { className: "fill" });
      fill.style.inlineSize = percent(Math.max(0, Math.min(1, score)), 2).replace(" ", "");
      const rail = element("span", { className: "rail" }, fill);
      rail.setAttribute("aria-hidden", "true");
      const value = element("span", { className: "value", textContent: scoreWords(score) });
      if (logit !== undefined) value.title = `logit ${number(logit)}`;
      const row = [element("span", { className: "class", textContent: label }), rail, value];
      if (!choose) return element("li", { className: "row" }, ...row);
      const button = element("button", { type: "button", className: "row" }, ...row);
      button.dataset.label = label;
      button.setAttribute("aria-pressed", String(label === target));
      button.addEventListener("click", () => choose(label));
      return element("li", {}, button);
    }),
  );
  if (focused !== null) list.querySelector(`[data-label="${CSS.escape(focused)}"]`)?.focus();
}

export function showRegions(regions) {
  const items = regions.map((region) => element("li", { textContent: regionWords(region) }));
  if (!items.length) items.push(element("li", { className: "none", textContent: "No region stands out." }));
  byId("region-list").replaceChildren(...items);
}

export function showCard(card) {
  const facts = [["Name", `${card.name}, version ${card.version}`], ["Network", card.architecture]];
  if (card.input) facts.push(["Input", `${card.input.width} × ${card.input.height} pixels`]);
  if (card.explanation) facts.push(["Explanation", `${card.explanation.method}, ${card.explanation.map_kind?.replaceAll("_", " ")}`]);
  const { data, licence, accuracy, accuracy_images: images, parameters, date } = card.provenance ?? {};
  if (accuracy !== null && accuracy !== undefined) {
    facts.push(["Accuracy", percent(accuracy, 2) + (images ? ` on ${images.toLocaleString("en")} images` : "")]);
  }
  if (parameters) facts.push(["Parameters", parameters.toLocaleString("en")]);
  facts.push(["Trained on", data], ["Licence", licence], ["Date", date]);
  byId("card-list").replaceChildren(
    ...facts
      .filter(([, value]) => value)
      .flatMap(([term, value]) => [element("dt", { textContent: term }), element("dd", { textContent: value })]),
  );
  byId("card").hidden = false;
}
