// What the page says.

export const placeWords = (card, place, count) => `Map ${card.dataset.letter}, place ${place + 1} of ${count}`;

export const movedWords = (card, place, count) => `Map ${card.dataset.letter} moved to place ${place + 1} of ${count}`;

// Around the class; an image may have none that is known.
export const questionWords = (label) => (label ? ["Where would you look to recognise the ", label, "?"] : ["Where would you look to see what this is?", "", ""]);

export const numberWords = ({ number }, count) => `Image ${number} of ${count}`;

export const doneWords = (done, count) => `${done} of ${count} done`;

const STATES = { new: "to do", draft: "begun", done: "ordered" };

export const itemWords = ({ number, state }) => `Image ${number}, ${STATES[state]}`;

// unsaved: whether something waits; lost: whether the service is out of reach.
export function stateWords(unsaved, lost) {
  if (lost) return ["failing", unsaved ? "Not saved, trying again" : "No connection, trying again"];
  return unsaved ? ["saving", "Saving …"] : ["saved", "Saved"];
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export const welcomeWords = ({ instruction, items, maps }) => [
  instruction,
  `There ${items.length === 1 ? "is" : "are"} ${plural(items.length, "image")}, each with ${plural(maps, "map")} to put in order. Red and yellow in a map are where a computer looked most, blue where it looked least.`,
  "Stop whenever you like: what you have done is kept, and the link that brought you here brings you back to where you were.",
];

export const LOST = ["The service cannot be reached", ["The page goes on trying; there is nothing you need to do."]];

export const WRONG_LINK = ["This link does not work", ["Open it as it was sent to you, complete to its last character. If it still does not work, ask whoever invited you for a new one."]];

export const CLOSED = ["This study is closed", ["It takes no more answers. What you had ordered by then is kept. Thank you."]];

export const THANKS = ["Thank you", ["Your answers have arrived. You can close this page."]];

export const allDoneWords = (count) => [
  count === 1 ? "The image is ordered" : `All ${count} images are ordered`,
  ["You can still look at them and change an order. Send your answers when you are content with them; then they are final."],
];

export const SENDING = ["Sending your answers", ["Please leave this page open for a moment."]];

export const DOUBT = "You have not moved any map. If the order is right as it is, say so once more.";

export const OVERTAKEN = "This image was ordered in another window meanwhile. That order is shown now.";

export const elsewhereWords = ({ number }) => `Image ${number} was ordered in another window meanwhile. That order counts.`;

export const unsavedWords = (message) => `An order could not be saved: ${message}`;
