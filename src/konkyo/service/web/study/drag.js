// Dragging cards in a list: a mouse takes a card anywhere, a finger or a pen by its grip, as elsewhere it scrolls the
// page. The card's place in the list follows, so that what is seen is what dropping it gives.

import { element } from "../panel.js";

const THRESHOLD = 5; // pixels; less is a click
const EDGE = 0.12; // of the window, in which it scrolls
const SPEED = 16; // pixels a frame, at most

// move(card, place): called on the way; dropped(card): once, where it changed its place.
export function wireDrag(list, { move, dropped }) {
  let drag = null; // {card, from, id, x, y, grabbed: [dx, dy], ghost}

  list.addEventListener("pointerdown", (event) => {
    const card = event.target.closest("li");
    if (drag || !card || event.button || !event.isPrimary) return;
    if (event.pointerType !== "mouse" && !event.target.closest(".grip")) return;
    const box = card.getBoundingClientRect();
    const grabbed = [event.clientX - box.left, event.clientY - box.top];
    drag = { card, from: placeOf(list, card), id: event.pointerId, x: event.clientX, y: event.clientY, grabbed, ghost: null };
    addEventListener("pointermove", follow);
    addEventListener("pointerup", drop);
    addEventListener("pointercancel", cancel);
    addEventListener("keydown", escape, true);
  });
  list.addEventListener("dragstart", (event) => event.preventDefault());

  function follow(event) {
    if (event.pointerId !== drag.id) return;
    if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < THRESHOLD) return;
    Object.assign(drag, { x: event.clientX, y: event.clientY });
    if (!drag.ghost) lift();
    put();
  }

  function lift() {
    const { card, id } = drag;
    drag.ghost = element("div", { className: "ghost", ariaHidden: "true", inert: true }, card.firstChild.cloneNode(true));
    drag.ghost.style.width = `${card.offsetWidth}px`;
    document.body.append(drag.ghost);
    card.classList.add("slot");
    document.documentElement.classList.add("dragging");
    card.firstChild.setPointerCapture(id);
    requestAnimationFrame(scroll);
  }

  function put() {
    const { card, x, y, grabbed, ghost } = drag;
    ghost.style.translate = `${x - grabbed[0]}px ${y - grabbed[1]}px`;
    move(card, nearest(list, x - grabbed[0] + card.offsetWidth / 2, y - grabbed[1] + card.offsetHeight / 2));
    ghost.querySelector(".grip").textContent = card.querySelector(".grip").textContent; // the place it would get
  }

  function scroll() {
    if (!drag?.ghost) return;
    const edge = EDGE * innerHeight;
    const above = ceiling(list) + edge - drag.y;
    const below = drag.y - (innerHeight - edge);
    const step = below > 0 ? below : above > 0 ? -above : 0;
    if (step) {
      scrollBy(0, Math.sign(step) * Math.min(Math.abs(step) / edge, 1) * SPEED);
      put();
    }
    requestAnimationFrame(scroll);
  }

  function drop(event) {
    if (event.pointerId !== drag.id) return;
    const { card, from, ghost } = drag;
    end();
    if (!ghost) return;
    swallowClick();
    if (placeOf(list, card) !== from) dropped(card);
  }

  function cancel() {
    if (!drag) return;
    const { card, from, ghost } = drag;
    end();
    if (ghost) move(card, from);
  }

  function escape(event) {
    if (event.key !== "Escape") return;
    event.preventDefault();
    if (drag.ghost) swallowClick(true);
    cancel();
  }

  function end() {
    drag.ghost?.remove();
    drag.card.classList.remove("slot");
    document.documentElement.classList.remove("dragging");
    drag = null;
    removeEventListener("pointermove", follow);
    removeEventListener("pointerup", drop);
    removeEventListener("pointercancel", cancel);
    removeEventListener("keydown", escape, true);
  }

  return { cancel };
}

const placeOf = (list, card) => [...list.children].indexOf(card);

// The place whose middle is nearest; as the cards lie, not as they slide there.
function nearest(list, x, y) {
  const { left, top } = list.getBoundingClientRect();
  const far = [...list.children].map((card) => Math.hypot(
    left + card.offsetLeft + card.offsetWidth / 2 - x,
    top + card.offsetTop + card.offsetHeight / 2 - y,
  ));
  return far.indexOf(Math.min(...far));
}

// Where the part of the window begins in which the list is seen: on a narrow screen the image stays above it.
function ceiling(list) {
  const { left, right } = list.getBoundingClientRect();
  const seen = document.getElementById("seen").getBoundingClientRect();
  return seen.right > left && seen.left < right ? Math.max(seen.bottom, 0) : 0;
}

// The browser makes a click of the end of a drag. down: the button is held still.
function swallowClick(down = false) {
  const swallow = (event) => {
    event.preventDefault();
    event.stopPropagation();
  };
  const stop = () => setTimeout(() => removeEventListener("click", swallow, true));
  addEventListener("click", swallow, true);
  if (down) addEventListener("pointerup", stop, { once: true });
  else stop();
}
