// What it should be: the class a person names, and its map beside that of the predicted class.

import { byId, element } from "./panel.js";
import { atLevel, specific, state } from "./state.js";
import { score, truthWords } from "./words.js";

// What a sample's own labels say, where one of them is a class of the model.
const labelOf = (labels = []) => labels.find((label) => state.card?.labels.includes(label)) ?? "";

// Puts the class that is known where one is asked for.
export const nameTruth = (labels) => (byId("truth").value = labelOf(labels));

// The maps to draw: of the predicted and of the true class where that was asked for, else the one that is looked at.
export const sidesOf = ({ truth, explanation }) => (truth ? (explanation.maps ?? [explanation]) : [atLevel(explanation)]);

export function showTruth(answer) {
  const known = answer.truth ?? said(answer);
  const words = known ? truthWords(known, answer.label) : [];
  byId("truth-words").replaceChildren(...words.map((word, index) => (index % 2 ? element("strong", { textContent: word }) : word)));
  byId("truth-form").hidden = !specific();
  byId("truth-end").hidden = !answer.truth;
  byId("truth-go").hidden = Boolean(answer.truth);
  byId("of-predicted").replaceChildren("Predicted: ", ...named(answer));
  if (answer.truth) byId("of-true").replaceChildren("True: ", ...named(answer.truth));
}

// The sample knows what it is, though nobody has asked for the two maps.
function said(answer) {
  const label = labelOf(state.image?.labels);
  return label && { label, correct: label === answer.label };
}

const named = ({ label, score: share }) => [element("strong", { textContent: label }), ` ${score(share)}`];
