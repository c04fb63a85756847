// The maps of an image as cards, in the order that a person gives them.

import { element } from "../panel.js";
import { wireDrag } from "./drag.js";
import { placeFor } from "./keys.js";
import { showPicture } from "./pictures.js";
import { placeWords } from "./words.js";

const ROW = 5; // cards in a row at most, so that they are not too small

export class Deck {
  #drag;
  #told;

  // told: {moved(card), opened(card)}; moved comes once a card stays where it is, not on its way.
  constructor(list, told) {
    this.list = list;
    this.#told = told;
    this.#drag = wireDrag(list, { move: (card, place) => this.#arrange(card, place), dropped: told.moved });
    list.addEventListener("click", ({ target }) => {
      const card = target.closest("li");
      if (card) told.opened(card);
    });
    list.addEventListener("keydown", (event) => this.#press(event));
  }

  get cards() {
    return [...this.list.children];
  }

  get order() {
    return this.cards.map((card) => card.dataset.map);
  }

  place(card) {
    return this.cards.indexOf(card);
  }

  // Resolves when all can be seen.
  show({ maps, ranking, width, height }) {
    this.#drag.cancel();
    this.list.style.setProperty("--most", Math.ceil(maps.length / Math.ceil(maps.length / ROW))); // full rows
    const cards = ranking.map((map) => {
      const picture = element("img", { alt: "", width, height, draggable: false });
      const grip = element("span", { className: "grip" });
      const card = element("li", {}, element("button", { type: "button", className: "card" }, grip, picture));
      Object.assign(card.dataset, { map, letter: String.fromCharCode(65 + maps.indexOf(map)) });
      return card;
    });
    this.list.replaceChildren(...cards);
    this.#number();
    return Promise.all(cards.map((card) => showPicture(card.querySelector("img"), card.dataset.map)));
  }

  // Puts a card at a place, counted from 0; whether it was elsewhere.
  move(card, place) {
    if (!this.#arrange(card, place)) return false;
    this.#told.moved(card);
    return true;
  }

  // The card itself is not taken out of the page: it keeps the focus, and the pointer that drags it.
  #arrange(card, place) {
    const cards = this.cards;
    const from = cards.indexOf(card);
    if (from === place) return false;
    const before = new Map(cards.map((each) => [each, corner(each)]));
    cards.splice(from, 1);
    cards.splice(place, 0, card);
    card.before(...cards.slice(0, place));
    card.after(...cards.slice(place + 1));
    this.#number();
    for (const each of cards) slide(each, before.get(each));
    return true;
  }

  #number() {
    for (const [index, card] of this.cards.entries()) {
      card.querySelector(".grip").textContent = String(index + 1);
      card.querySelector("button").ariaLabel = placeWords(card, index, this.cards.length);
    }
  }

  #press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const card = event.target.closest("li");
    const cards = this.cards;
    const columns = cards.filter((each) => each.offsetTop === cards[0].offsetTop).length;
    const place = placeFor(event.key, cards.indexOf(card), cards.length, columns);
    if (place === null) return;
    event.preventDefault();
    this.move(card, place);
    card.scrollIntoView({ block: "nearest" });
  }
}

const corner = (card) => [card.offsetLeft, card.offsetTop];

// Shows where a card came from.
function slide(card, [left, top]) {
  const [x, y] = [left - card.offsetLeft, top - card.offsetTop];
  if ((!x && !y) || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  card.animate([{ translate: `${x}px ${y}px` }, { translate: "none" }], { duration: 180, easing: "ease-out" });
}
