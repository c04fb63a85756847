// The explanations in plain words, and the list to choose from. A method the page has never heard of is offered by its
// name, and described by the kind of its maps.

import { byId, element } from "./panel.js";

// title, what it shows in a few words and in a sentence; where a positive value speaks against the class, it says so.
const KNOWN = {
  gcm: ["Class weight map", "what each pixel adds", "How much each pixel adds to the class: map times image sums up to its score."],
  attention: ["Attention", "where the network looks", "Where the network looks before it decides; one map for all classes."],
  cam: ["CAM", "regions that raise the class", "The regions whose features raise the class, by the weights of the last layer."],
  gradcam: ["Grad-CAM", "regions that raise the class", "The regions whose features raise the score of the class, and those that lower it."],
  counterfactual: ["Counterfactual", "regions that lower the class", "What would change the network’s mind: without these regions the class would score higher."],
  "gradcam-absolute": ["Grad-CAM, absolute", "regions that matter either way", "The regions whose features the score depends on, whether they raise or lower it."],
  "gradcam-max": ["Grad-CAM, strongest", "by the strongest gradient", "Grad-CAM by the largest instead of the mean gradient of each feature."],
  "gradcam-guided": ["Grad-CAM, guided", "by what raises the class alone", "Grad-CAM that follows back only what raises the class, through what was active."],
  "gradcam-deconv": ["Grad-CAM, deconvnet", "by what raises the class alone", "Grad-CAM that follows back only what raises the class, active or not."],
  "gradcam-plus-plus": ["Grad-CAM++", "several objects of one class", "Grad-CAM that gives small and repeated objects of the class more weight."],
  hirescam: ["HiResCAM", "each place by its own gradient", "Grad-CAM that weighs every place by its own gradient instead of the mean."],
  layercam: ["LayerCAM", "places that raise the class", "The places whose own gradient raises the class; finer in early layers."],
  "guided-backprop": ["Guided backprop", "edges and textures", "The edges and textures the network responds to; hardly depends on the class."],
  deconvnet: ["Deconvnet", "edges and textures", "The patterns that would call up this response; hardly depends on the class."],
  "guided-gradcam": ["Guided Grad-CAM", "fine detail of the class", "Edges and textures where Grad-CAM finds the class."],
  "deconv-gradcam": ["Deconvnet Grad-CAM", "fine detail of the class", "The patterns of the deconvnet where Grad-CAM finds the class."],
  text: ["In words", "what it saw, by name", "The features that speak for the class and against it, in words instead of a map."],
  occlusion: ["Occlusion", "what it cannot do without", "Covers the image piece by piece: where the score falls, the class rests on what was covered."],
  rise: ["RISE", "what keeps the class alive", "Shows the image through random masks: bright where the class scored high whenever it could be seen."],
};

const KINDS = {
  class_weight_map: "how much each pixel adds",
  class_activation_map: "regions that raise the class",
  attention_map: "where the network looks",
  input_gradient: "fine detail",
  neuron_importance: "in words",
  score_drop: "what it cannot do without",
  saliency_map: "what matters",
};

const GROUPS = [
  ["The model’s own", ({ default: own }) => own],
  ["Regions", (method) => !method.long && !["input_gradient", "neuron_importance"].includes(method.map_kind)],
  ["Fine detail", ({ map_kind: kind }) => kind === "input_gradient"],
  ["Words", ({ map_kind: kind }) => kind === "neuron_importance"],
  ["By trying it out; takes a while", ({ long }) => long],
];

export const methodTitle = ({ name }) => KNOWN[name]?.[0] ?? name;

const brief = ({ name, map_kind: kind }) => KNOWN[name]?.[1] ?? KINDS[kind] ?? kind.replaceAll("_", " ");

export function methodWords(method) {
  const sentence = KNOWN[method.name]?.[2] ?? `${brief(method)[0].toUpperCase()}${brief(method).slice(1)}.`;
  return method.long ? `${sentence} Takes a while.` : sentence;
}

// What a positive value of the map says, and a negative one.
export const signs = (method) => (method?.name === "counterfactual" ? ["against", "for"] : ["for", "against"]);

// Those that can be had, the model's own first. One method is no choice.
export function offerMethods(methods) {
  const rest = new Set(methods);
  const groups = GROUPS.map(([label, takes]) => {
    const members = [...rest].filter(takes);
    members.forEach((method) => rest.delete(method));
    const options = members.map((method) => {
      const takes = method.long ? " (takes a while)" : "";
      return element("option", { value: method.name, textContent: `${methodTitle(method)}: ${brief(method)}${takes}` });
    });
    return options.length ? element("optgroup", { label }, ...options) : "";
  });
  byId("method").replaceChildren(...groups);
  byId("method-line").hidden = methods.length < 2;
}
