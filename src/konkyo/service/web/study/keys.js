// What a key does to the place of a card.

// The place it moves to, counted from 0, or null where the key means nothing. columns: of the cards as they lie.
export function placeFor(key, place, count, columns) {
  const last = count - 1;
  if (/^[0-9]$/.test(key)) return Math.min(key === "0" ? 9 : Number(key) - 1, last);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  if (step !== undefined) return Math.min(Math.max(place + step, 0), last);
  return { Home: 0, End: last }[key] ?? null;
}
