// An edit of an attention map, and the surface it is painted on.
//
// A cell holds what the person gave it, or OWN: the network keeps its own value there.

export const OWN = -1;

export class Edit {
  #past = [];

  constructor(width, height) {
    Object.assign(this, { width, height });
    this.cells = new Int8Array(width * height).fill(OWN);
  }

  get count() {
    return this.cells.reduce((sum, value) => sum + (value !== OWN), 0);
  }

  get steps() {
    return this.#past.length;
  }

  at(x, y) {
    return this.cells[y * this.width + x];
  }

  rows() {
    return Array.from({ length: this.height }, (_, y) => [...this.cells.subarray(y * this.width, (y + 1) * this.width)]);
  }

  // The part of the grid a square brush covers, its middle on a cell: [left, top, right, bottom].
  covered(x, y, size) {
    const left = x - ((size - 1) >> 1);
    const top = y - ((size - 1) >> 1);
    return [Math.max(0, left), Math.max(0, top), Math.min(this.width, left + size), Math.min(this.height, top + size)];
  }

  // What happens between begin() and end() is one step to undo.
  begin() {
    this.#past.push(this.cells.slice());
  }

  end() {
    if (this.#past.at(-1).every((value, k) => value === this.cells[k])) this.#past.pop();
  }

  paint([x, y], { size, value }) {
    const [left, top, right, bottom] = this.covered(x, y, size);
    for (let j = top; j < bottom; j++) this.cells.fill(value, j * this.width + left, j * this.width + right);
  }

  // No gaps, however fast the pointer goes.
  line([x0, y0], [x1, y1], brush) {
    const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1);
    for (let k = 1; k <= steps; k++) {
      this.paint([Math.round(x0 + ((x1 - x0) * k) / steps), Math.round(y0 + ((y1 - y0) * k) / steps)], brush);
    }
  }

  undo() {
    if (this.#past.length) this.cells = this.#past.pop();
  }

  reset() {
    this.begin();
    this.cells.fill(OWN);
    this.end();
  }
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const ERASER_BUTTON = 32; // of a pen turned round, in PointerEvent.buttons

// Lays a surface over the cells of a picture: pointer and keyboard paint through it.
//
// brush() gives {size, value}; changed() is called after every change, moved(cell) when keys have moved the cursor,
// pointed(cell) when the pointer is over a cell, and ended() after a stroke of the pointer.
export class Surface {
  #cell = [0, 0];
  #stroke = null; // {pointer, brush} while one is drawn

  constructor(node, cursor, { brush, changed, moved, pointed, ended }) {
    Object.assign(this, { node, cursor, brush, changed, moved, pointed, ended, edit: null });
    node.addEventListener("pointerdown", (event) => this.#press(event));
    node.addEventListener("pointermove", (event) => this.#drag(event));
    node.addEventListener("pointerup", (event) => this.#release(event));
    node.addEventListener("pointercancel", (event) => this.#release(event, true)); // two fingers: it was a zoom
    node.addEventListener("keydown", (event) => this.#key(event));
  }

  get drawing() {
    return this.#stroke !== null;
  }

  // crop: where the cells lie, in shares of the picture: [x0, y0, x1, y1].
  place(edit, [x0, y0, x1, y1]) {
    if (this.edit !== edit) {
      this.#cell = [edit.width >> 1, edit.height >> 1];
      this.#stroke = null;
    }
    this.edit = edit;
    const [left, top, width, height] = [x0, y0, x1 - x0, y1 - y0].map((share) => `${100 * share}%`);
    Object.assign(this.node.style, { left, top, width, height });
    this.showCursor();
  }

  showCursor() {
    const { width: w, height: h } = this.edit;
    const [left, top, right, bottom] = this.edit.covered(...this.#cell, this.brush().size);
    Object.assign(this.cursor.style, {
      left: `${(100 * left) / w}%`,
      top: `${(100 * top) / h}%`,
      width: `${(100 * (right - left)) / w}%`,
      height: `${(100 * (bottom - top)) / h}%`,
    });
  }

  #under({ clientX, clientY }) {
    const { left, top, width, height } = this.node.getBoundingClientRect();
    const place = (share, cells) => Math.min(Math.max(Math.floor(share * cells), 0), cells - 1);
    return [place((clientX - left) / width, this.edit.width), place((clientY - top) / height, this.edit.height)];
  }

  #go(cell) {
    this.#cell = cell;
    this.showCursor();
  }

  #press(event) {
    if (this.#stroke || !event.isPrimary || (event.button !== 0 && !(event.buttons & ERASER_BUTTON))) return;
    this.node.setPointerCapture(event.pointerId);
    const brush = event.buttons & ERASER_BUTTON ? { ...this.brush(), value: 0 } : this.brush();
    this.#stroke = { pointer: event.pointerId, brush };
    this.#go(this.#under(event));
    this.edit.begin();
    this.edit.paint(this.#cell, brush);
    this.changed();
  }

  #drag(event) {
    if (this.#stroke && event.pointerId !== this.#stroke.pointer) return;
    if (this.#stroke) {
      const passed = event.getCoalescedEvents();
      for (const each of passed.length ? passed : [event]) {
        const cell = this.#under(each);
        this.edit.line(this.#cell, cell, this.#stroke.brush);
        this.#cell = cell;
      }
      this.changed();
    }
    this.#go(this.#under(event));
    this.pointed(this.#cell);
  }

  #release({ pointerId }, cancelled = false) {
    if (pointerId !== this.#stroke?.pointer) return;
    this.#stroke = null;
    if (cancelled) this.edit.undo();
    else this.edit.end();
    this.changed();
    this.ended();
  }

  #key(event) {
    const { key, shiftKey } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || this.#stroke) return;
    const { width, height } = this.edit;
    const [x, y] = this.#cell;
    const move = { ...MOVES, Home: [-x, 0], End: [width - 1 - x, 0], PageUp: [0, -y], PageDown: [0, height - 1 - y] }[key];
    const paints = key === " " || key === "Enter";
    if (!move && !paints) return;
    event.preventDefault();
    const [i, j] = move ?? [0, 0];
    const to = [Math.min(Math.max(x + i, 0), width - 1), Math.min(Math.max(y + j, 0), height - 1)];
    if (paints || shiftKey) {
      this.edit.begin();
      this.edit.paint(this.#cell, this.brush());
      this.edit.line(this.#cell, to, this.brush());
      this.edit.end();
      this.changed();
    }
    this.#go(to);
    this.moved(to);
  }
}
