// From an image and a signed map to the picture on the canvas. Knows no DOM but canvases.
//
// A field is the map brought to the canvas: one float a pixel, NaN where the network did not look.

const WARM = [238, 119, 22]; // for the class; with COOL a pair that colour-blind eyes keep apart
const COOL = [20, 110, 225];
const SMALLEST = 768; // longest side of the canvas, in its own pixels
const LARGEST = 1600;
const SMALL = 320; // longest side of a small picture

export async function decodeImage(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    return null; // a format this browser does not show, or no image at all
  }
}

export function decodeMap(map) {
  if (!map?.data) return null;
  const bytes = Uint8Array.from(atob(map.data), (character) => character.charCodeAt(0));
  const values = new Float32Array(bytes.buffer); // little-endian, as are all machines with browsers
  if (values.length !== map.width * map.height) return null;
  return { values, width: map.width, height: map.height };
}

export function canvasSize([width, height], smallest = SMALLEST, largest = LARGEST) {
  const longest = Math.max(width, height);
  const factor = Math.min(Math.max(longest, smallest), largest) / longest;
  return [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
}

// The upright image on white, as the service decodes it.
export function drawBase(bitmap, [width, height]) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = bitmap ? "#fff" : "#808080";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  if (bitmap) context.drawImage(bitmap, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// Bilinear, edges held. mapToOriginal takes the map's grid to pixels of the original; we go back.
export function toField(map, mapToOriginal, original, [width, height]) {
  const [a, b, c, d, e, f] = mapToOriginal;
  const det = a * e - b * d;
  const field = new Float32Array(width * height);
  const { values, width: w, height: h } = map;
  const at = (x, y) => {
    const value = values[Math.min(Math.max(y, 0), h - 1) * w + Math.min(Math.max(x, 0), w - 1)];
    return Number.isFinite(value) ? value : 0;
  };
  for (let j = 0, k = 0; j < height; j++) {
    const y = ((j + 0.5) * original[1]) / height - f;
    for (let i = 0; i < width; i++, k++) {
      const x = ((i + 0.5) * original[0]) / width - c;
      const u = (e * x - b * y) / det;
      const v = (a * y - d * x) / det;
      if (u < 0 || v < 0 || u > w || v > h) {
        field[k] = NaN;
        continue;
      }
      const left = Math.floor(u - 0.5);
      const top = Math.floor(v - 0.5);
      const s = u - 0.5 - left;
      const t = v - 0.5 - top;
      field[k] =
        (at(left, top) * (1 - s) + at(left + 1, top) * s) * (1 - t) +
        (at(left, top + 1) * (1 - s) + at(left + 1, top + 1) * s) * t;
    }
  }
  return field;
}

// The weight at which a white pixel of the spotlight is fully lit. The brightest 0.5 % may saturate, or one pixel would
// leave the rest dark; the service scales its spotlight in the same way. floor: the value that means nothing.
export function fullLight(base, field, floor = 0) {
  const products = [];
  for (let k = 0; k < field.length; k += 5) {
    const p = 4 * k;
    const brightest = Math.max(base.data[p], base.data[p + 1], base.data[p + 2]) / 255;
    if (!Number.isNaN(field[k])) products.push(Math.abs(field[k] - floor) * brightest);
  }
  return nearLargest(products) || 1;
}

const nearLargest = (values) => Float32Array.from(values).sort()[Math.floor(0.995 * (values.length - 1))];

// A size close to the largest: of a map as fine as the image, a single pixel may stand far above the rest.
export const strong = (field) => nearLargest(field.filter((value) => !Number.isNaN(value)).map(Math.abs)) || 1;

export function mean(field) {
  const seen = field.filter((value) => !Number.isNaN(value));
  return seen.reduce((sum, value) => sum + value, 0) / (seen.length || 1);
}

// How much colour covers the picture: values below the middle would else be lost on a photograph.
const cover = (size) => 0.92 * Math.min(1, size) ** 0.75;

// look: {view: spotlight|overlay|edit, part: positive|negative|both, opacity: 0..1, floor < scale, sides}; values from
// floor, which is 0 for signed maps, to scale fill the colours. sides, if there are: what positive and negative values say.
// All views leave the plain image at opacity 0.
export function compose(base, field, look, out) {
  const { part, opacity, floor, scale } = look;
  const spotlight = look.view === "spotlight";
  const [positive, negative] = look.sides?.[0] === "against" ? [COOL, WARM] : [WARM, COOL];
  const from = base.data;
  const to = out.data;
  for (let k = 0, p = 0; k < field.length; k++, p += 4) {
    const seen = !Number.isNaN(field[k]);
    let t = seen ? (field[k] - floor) / (scale - floor) : 0;
    if (part === "positive") t = Math.max(t, 0);
    if (part === "negative") t = Math.min(t, 0);
    const size = Math.abs(t);
    const grey = 0.2126 * from[p] + 0.7152 * from[p + 1] + 0.0722 * from[p + 2];
    const ink = t < 0 ? negative : positive;
    const strength = cover(size);
    for (let n = 0; n < 3; n++) {
      const plain = from[p + n];
      // The product of map and image; or colour over an image that steps back to grey, so that colour means the map.
      const shown = spotlight
        ? Math.min(255, plain * size)
        : grey * (seen ? 0.85 : 0.4) * (1 - strength) + ink[n] * strength;
      to[p + n] = plain + (shown - plain) * opacity;
    }
    to[p + 3] = 255;
  }
  return out;
}

// The legend goes through compose() too, over light grey, so it cannot disagree with the picture.
export function drawLegend(canvas, look) {
  const context = canvas.getContext("2d");
  const { width } = canvas;
  const low = look.part === "positive" ? look.floor : -look.scale;
  const high = look.part === "negative" ? 0 : look.scale;
  const field = Float32Array.from({ length: width }, (_, i) => low + ((high - low) * i) / (width - 1));
  const base = new ImageData(width, 1);
  base.data.fill(look.view === "spotlight" ? 255 : 168);
  context.putImageData(compose(base, field, look, new ImageData(width, 1)), 0, 0);
  return [low, high];
}

// A small picture of a map over the image.
export function drawSmall(canvas, bitmap, map, { map_to_original, original }, look) {
  const size = canvasSize(original, SMALL, SMALL);
  [canvas.width, canvas.height] = size;
  const base = drawBase(bitmap, size);
  const field = toField(map, map_to_original, original, size);
  canvas.getContext("2d").putImageData(compose(base, field, look, new ImageData(...size)), 0, 0);
}

// The cells of a map on a picture in grey: the network's own values, and the edit. What is painted is framed, and
// hatched where it is 0, so that neither colour nor brightness has to be told apart.
export function drawCells(context, map, edit, { map_to_original, original }, { opacity }, pixelRatio) {
  const [a, , c, , e, f] = map_to_original;
  const across = (x) => Math.round(((a * x + c) * context.canvas.width) / original[0]);
  const down = (y) => Math.round(((e * y + f) * context.canvas.height) / original[1]);
  const { width: w, height: h } = edit;
  const [grid, frame, hatch] = [new Path2D(), new Path2D(), new Path2D()];
  const line = (path, x0, y0, x1, y1) => { path.moveTo(across(x0), down(y0)); path.lineTo(across(x1), down(y1)); };
  context.fillStyle = `rgb(${WARM})`;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const painted = edit.at(x, y);
      context.globalAlpha = opacity * cover(painted < 0 ? Math.max(map.values[y * w + x], 0) : painted);
      const [left, top] = [across(x), down(y)];
      context.fillRect(left, top, across(x + 1) - left, down(y + 1) - top);
      if (painted === 0) for (const s of [0.25, 0.75]) line(hatch, x + s - 0.25, y + s + 0.25, x + s + 0.25, y + s - 0.25);
      if (painted !== (x + 1 < w ? edit.at(x + 1, y) : -1)) line(frame, x + 1, y, x + 1, y + 1);
      if (painted !== (y + 1 < h ? edit.at(x, y + 1) : -1)) line(frame, x, y + 1, x + 1, y + 1);
      if (x === 0 && painted >= 0) line(frame, 0, y, 0, y + 1);
      if (y === 0 && painted >= 0) line(frame, x, 0, x + 1, 0);
    }
  }
  for (let x = 0; x <= w; x++) line(grid, x, 0, x, h);
  for (let y = 0; y <= h; y++) line(grid, 0, y, w, y);
  context.globalAlpha = 1;
  for (const [path, colour, width] of [[grid, "#fff3", 1], [hatch, "#0009", 2.5], [hatch, "#fff", 1], [frame, "#000c", 3.5], [frame, "#fff", 1.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = width * pixelRatio;
    context.stroke(path);
  }
}

export function drawRegions(context, regions, original, pixelRatio) {
  const sx = context.canvas.width / original[0];
  const sy = context.canvas.height / original[1];
  const stroke = (path) => {
    for (const [colour, width] of [["#000c", 4], ["#fff", 1.75]]) {
      context.strokeStyle = colour;
      context.lineWidth = width * pixelRatio;
      context.stroke(path);
    }
  };
  context.font = `600 ${13 * pixelRatio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.textAlign = "center";
  regions.forEach(({ box: [x0, y0, x1, y1], peak }, index) => {
    const outline = new Path2D();
    outline.rect(x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy);
    stroke(outline);
    const [x, y, r] = [peak[0] * sx, peak[1] * sy, 6 * pixelRatio];
    const cross = new Path2D();
    cross.moveTo(x - r, y);
    cross.lineTo(x + r, y);
    cross.moveTo(x, y - r);
    cross.lineTo(x, y + r);
    stroke(cross);
    const side = 20 * pixelRatio;
    const left = Math.max(0, Math.min(x0 * sx, context.canvas.width - side));
    const top = Math.max(0, Math.min(y0 * sy, context.canvas.height - side));
    context.fillStyle = "#fff";
    context.fillRect(left, top, side, side);
    context.fillStyle = "#000";
    context.fillText(String(index + 1), left + side / 2, top + side / 2);
  });
}

// Canvases of one size as one picture, with a small white gap between them.
export function beside(canvases) {
  const [{ width, height }] = canvases;
  const gap = Math.max(4, Math.floor(width / 50));
  const out = Object.assign(document.createElement("canvas"), { width: canvases.length * (width + gap) - gap, height });
  const context = out.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, out.width, height);
  canvases.forEach((canvas, index) => context.drawImage(canvas, index * (width + gap), 0));
  return out;
}
