// The lists beside the picture.

import { explanationWords, levelWords, neuronWords, number, percent, regionWords, score as scoreWords } from "./words.js";

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// A button that cannot be used now keeps its place and its focus.
export const able = (button, can) => button.setAttribute("aria-disabled", String(!can));

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

// The cells of a row: class, bar, score.
function bar({ label, score, logit }) {
  const fill = element("span", { className: "fill" });
  fill.style.inlineSize = percent(Math.max(0, Math.min(1, score)), 2).replace(" ", "");
  const rail = element("span", { className: "rail" }, fill);
  rail.setAttribute("aria-hidden", "true");
  const value = element("span", { className: "value", textContent: scoreWords(score) });
  if (logit !== undefined) value.title = `logit ${number(logit)}`;
  return [element("span", { className: "class", textContent: label }), rail, value];
}

// One button a class, pressed where its map is shown. Focus stays on the class it was on, though the list is made anew.
export function showBars(answer, shown, choosable) {
  const list = byId("bars");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.label : null;
  list.replaceChildren(
    ...answer.top_k.map((entry) => {
      if (!choosable) return element("li", { className: "row" }, ...bar(entry));
      const button = element("button", { type: "button", className: "row" }, ...bar(entry));
      button.dataset.label = entry.label;
      button.setAttribute("aria-pressed", String(shown.includes(entry.label)));
      return element("li", {}, button);
    }),
  );
  if (focused !== null) list.querySelector(`[data-label="${CSS.escape(focused)}"]`)?.focus();
}

// before and after: answers, after null until it is there; each with its maps, finest first.
export function showComparison(before, mapsBefore, after, mapsAfter, draw) {
  showSide(byId("before"), before, mapsBefore, draw);
  showSide(byId("after"), after, after ? mapsAfter : mapsBefore, after ? draw : (canvas, map) => {
    draw(canvas, map); // for its size alone
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  });
}

function showSide(side, answer, maps, draw) {
  const when = side.id;
  const pictures = maps.map((map, level) => {
    const canvas = element("canvas", { className: answer ? "" : "pending" });
    draw(canvas, map);
    const words = maps.length > 1 ? `, ${levelWords(level, maps.length).toLowerCase()}` : "";
    if (answer) canvas.setAttribute("role", "img");
    canvas.setAttribute(answer ? "aria-label" : "aria-hidden", answer ? `Attention ${when}${words}` : "true");
    return canvas;
  });
  side.querySelector(".maps").replaceChildren(...pictures);
  side.querySelector(".class").textContent = answer?.label ?? "–";
  side.querySelector(".value").textContent = answer ? scoreWords(answer.score) : "";
  side.querySelector(".bars").replaceChildren(...(answer?.top_k ?? []).map((entry) => element("li", { className: "row" }, ...bar(entry))));
}

// One button for each of several maps; none for one alone.
export function showLevels(maps, chosen, draw, choose) {
  const list = byId("levels");
  const focused = list.contains(document.activeElement);
  list.replaceChildren(
    ...maps.map((map, level) => {
      const canvas = element("canvas");
      canvas.setAttribute("aria-hidden", "true");
      draw(canvas, map);
      const button = element("button", { type: "button" }, canvas, element("span", { textContent: levelWords(level, maps.length) }));
      button.setAttribute("aria-pressed", String(level === chosen));
      button.addEventListener("click", () => choose(level));
      return element("li", {}, button);
    }),
  );
  byId("levels-part").hidden = !maps.length;
  if (focused) list.querySelector("[aria-pressed=true]")?.focus();
}

// Of one map or of two; of: what a map is made of, in a word.
export function showRegions(explanations, of) {
  const lists = explanations.flatMap((explanation) => {
    const items = (explanation?.regions ?? []).map((region) => element("li", { textContent: regionWords(region, of) }));
    if (!items.length) items.push(element("li", { className: "none", textContent: "No region stands out." }));
    const list = element("ol", { className: "regions" }, ...items);
    if (explanations.length === 1) return [list];
    return [element("h4", { className: "quiet", textContent: explanation.target.label }), list];
  });
  byId("region-lists").replaceChildren(...lists);
}

// Explanations in words: for each class, what it rests on and what speaks against it.
export function showText(explanations) {
  const sides = explanations.map(({ text, target }) => {
    const lists = [["because of", text.because], ["despite", text.despite]].map(([why, neurons]) => {
      const items = neurons.map((unit) => {
        const value = element("span", { className: "value", textContent: number(unit.importance) });
        return element("li", {}, element("span", { className: "class", textContent: neuronWords(unit) }), value);
      });
      if (!items.length) items.push(element("li", { className: "none", textContent: "nothing" }));
      return element("div", {}, element("h4", { textContent: why }), element("ol", { className: "neurons" }, ...items));
    });
    return element("div", { className: "text" }, element("h3", { textContent: target.label }), element("div", { className: "pair" }, ...lists));
  });
  const named = explanations.some(({ text }) => [...text.because, ...text.despite].some(({ name }) => name));
  byId("text-hint").hidden = named;
  byId("texts").replaceChildren(...sides);
  byId("text-part").hidden = !sides.length;
}

export function showCard(card) {
  const facts = [["Name", `${card.name}, version ${card.version}`], ["Network", card.architecture]];
  if (card.input) facts.push(["Input", `${card.input.width} × ${card.input.height} pixels`]);
  if (card.explanation) facts.push(["Explanation", explanationWords(card.explanation)]);
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
