// All images with how far each is, and the way to any of them.

import { byId, element } from "../panel.js";
import { itemWords } from "./words.js";

export function wireOverview(choose) {
  const dialog = byId("overview");

  function sync(items, current) {
    if (!dialog.open) return;
    const buttons = items.map((item) => {
      const mark = element("span", { className: `mark ${item.state}` });
      const button = element("button", { type: "button", ariaLabel: itemWords(item) }, mark, String(item.number));
      if (item.item === current) button.ariaCurrent = "true";
      button.addEventListener("click", () => {
        dialog.close();
        choose(item.item);
      });
      return element("li", {}, button);
    });
    byId("items").replaceChildren(...buttons);
  }

  function open(items, current) {
    dialog.showModal();
    sync(items, current);
  }

  byId("overview-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close(); // beside it
  });

  return { open, sync };
}
