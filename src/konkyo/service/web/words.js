// Numbers and states in words.

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

const roughly = (share) => (share > 0 && share < 0.005 ? "< 1 %" : percent(share, 0));

// A share that is not quite nothing or all is not written as if it were.
export function score(share) {
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  if (share < 1 && share >= 0.9995) return "> 99.9 %";
  return percent(share);
}

export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return text.replace(/^-/, "−");
}

// How long is left, once that can be told.
export function waitWords(elapsed, share) {
  if (share < 0.05 || share >= 1) return "";
  const seconds = ((elapsed / share) * (1 - share)) / 1000;
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

export const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

const STATUS = {
  flat: "The map is the same everywhere: it singles out no part of the image.",
  all_negative: "Nothing in the image speaks for this class: the map is negative throughout.",
  non_finite: "The map holds values that are not numbers, so there is nothing to show.",
  shed: "The service is busy: it gave the class, but no map.",
};

export const statusWords = (status) => (!status || status === "ok" ? "" : (STATUS[status] ?? `Map: ${status}.`));

export function timingWords({ total, ...stages }, batch) {
  const parts = Object.entries(stages)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([stage, value]) => `${stage} ${milliseconds(value)}`);
  const words = total === undefined ? [] : [`${milliseconds(total)} in all`];
  if (parts.length) words.push(parts.join(", "));
  if (batch) words.push(`batch of ${batch}`);
  return words.join(" · ");
}

// of: what the map is made of.
export function regionWords({ box, peak, area, mass }, of) {
  const [x0, y0, x1, y1] = box.map(Math.round);
  const [x, y] = peak.map(Math.round);
  return `x ${x0} to ${x1}, y ${y0} to ${y1}; peak at ${x}, ${y}; ${roughly(area)} of the image, ${roughly(mass)} of the ${of}`;
}

const HOW = {
  spotlight: "The image, lit by",
  overlay: "The image in grey, coloured by",
  edit: "The image in grey, its cells coloured by",
};

// target: null where the map is one for all classes; sides: what positive and negative values say.
export function pictureWords({ view, part, regions, sides }, target) {
  const [positive, negative] = sides ?? ["for", "against"];
  const what = { positive: `what speaks ${positive} ${target}`, negative: `what speaks ${negative} ${target}`, both: `what speaks for and against ${target}` };
  return `${HOW[view]} ${target === null ? "where the network looks" : what[part]}${regions ? "; regions framed and numbered" : ""}`;
}

export function explanationWords({ method, map_kind: kind, scales = 1 }) {
  return [method, kind?.replaceAll("_", " "), scales > 1 ? `${scales} scales` : ""].filter(Boolean).join(", ");
}

// Of several maps, finest first.
export function levelWords(level, levels) {
  if (level === 0) return "Fine";
  if (level === levels - 1) return "Coarse";
  return levels === 3 ? "Middle" : `Middle ${level}`;
}

export const cellCount = (count) => `${count} ${count === 1 ? "cell" : "cells"}`;

// value: the network's own; painted: negative where it is left.
export function cellWords([x, y], value, painted) {
  const place = `Column ${x + 1}, row ${y + 1}`;
  return painted < 0 ? `${place}: ${number(value)}` : `${place}: painted ${painted}, was ${number(value)}`;
}

export const editWords = (count, all) => (count ? `${count} of ${cellCount(all)} painted` : "Nothing is painted.");

// A neuron without a name goes by its number.
export const neuronWords = ({ name, neuron }) => name ?? `neuron ${neuron}`;

// truth: {label, correct}
export const truthWords = ({ label, correct }, answer) => (correct ? ["Right: it is ", label, "."] : ["Wrong: it took ", label, " for ", answer, "."]);

export function nearWords(typed, near) {
  const names = near.map((label) => `“${label}”`).join(", ");
  return `This model has no class “${typed}”.${names ? ` There is ${names}.` : ""}`;
}
