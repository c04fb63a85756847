// Words alone, or an image with its maps.

import { byId, element } from "../panel.js";

// go, back: [what the button says, what it does]; without one there is no button.
export function showPlain([title, paragraphs], go = null, back = null) {
  byId("work").hidden = true;
  byId("plain").hidden = false;
  byId("plain-title").textContent = title;
  byId("plain-words").replaceChildren(...paragraphs.map((textContent) => element("p", { textContent })));
  offer(byId("plain-go"), go);
  offer(byId("plain-back"), back);
  byId("plain-title").focus();
}

function offer(button, offered) {
  button.hidden = !offered;
  if (!offered) return;
  const [words, action] = offered;
  button.textContent = words;
  button.onclick = () => action();
}

// A reader is told the question anew, and begins at the top.
export function showWork() {
  byId("plain").hidden = true;
  byId("work").hidden = false;
  scrollTo(0, 0);
  byId("question").focus({ preventScroll: true });
}
