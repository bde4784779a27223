// The drawing pad: as many cells as the network's image has, drawn with mouse, finger or keys.

import { byteOf } from "./arrays.js";

const BRUSH = 0.055; // radius of the brush, as a share of the rows
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

// Mount the pad on a canvas. `onDraw(bytes)` is called with one byte a pixel, in the order of the
// network's input, whenever something was drawn.
export class Pad {
  constructor(canvas, onDraw) {
    Object.assign(this, { canvas, onDraw, cursor: null, from: null });
    this.shape = [1, 28, 28];
    this.cells = new Uint8Array(28 * 28);
    this.colours = null; // an image of three channels that was not drawn here
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { this.from = null; });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cursor = null; this.paint(); });
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  get rows() {
    return this.shape[1];
  }

  get columns() {
    return this.shape[2];
  }

  // Show an image that comes from elsewhere: numbers in the order (C, H, W), and which of them are
  // black and white.
  show(shape, values, range) {
    if (this.from) return; // a line is being drawn
    this.shape = shape;
    const size = this.rows * this.columns;
    const byte = (value) => byteOf(value, range);
    if (shape[0] === 3) this.colours = Uint8Array.from(values, byte);
    else this.colours = null;
    this.cells = Uint8Array.from({ length: size }, (_, n) => byte(shape[0] === 3 ? (values[n] + values[n + size] + values[n + 2 * size]) / 3 : values[n]));
    this.paint();
  }

  // The image as the network takes it.
  get bytes() {
    if (this.shape[0] === 1) return this.cells;
    return this.colours ?? Uint8Array.from([...this.cells, ...this.cells, ...this.cells]);
  }

  // Without drawing, the pad only shows the image.
  allow(drawing) {
    this.locked = !drawing;
    this.canvas.setAttribute("aria-disabled", String(this.locked));
    this.canvas.style.cursor = drawing ? "" : "default";
  }

  clear() {
    this.cells.fill(0);
    this.colours = null;
    this.changed();
  }

  changed() {
    this.paint();
    this.onDraw(this.bytes);
  }

  press(event) {
    if (event.button || this.locked) return;
    event.preventDefault();
    this.canvas.focus({ focusVisible: false });
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor = null;
    this.from = this.place(event);
    this.line(this.from, this.from);
    this.changed();
  }

  drag(event) {
    if (!this.from) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) {
      const to = this.place(one);
      this.line(this.from, to);
      this.from = to;
    }
    this.changed();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientY - box.top) / box.height) * this.rows - 0.5,
      ((event.clientX - box.left) / box.width) * this.columns - 0.5,
    ];
  }

  // Draw a line from one place to another, with soft edges.
  line([top, left], [bottom, right]) {
    this.colours = null;
    const radius = Math.max(0.6, BRUSH * this.rows);
    const [down, across] = [bottom - top, right - left];
    const length = down * down + across * across;
    for (let r = Math.max(0, Math.floor(Math.min(top, bottom) - radius - 1)); r <= Math.min(this.rows - 1, Math.max(top, bottom) + radius + 1); r += 1) {
      for (let c = Math.max(0, Math.floor(Math.min(left, right) - radius - 1)); c <= Math.min(this.columns - 1, Math.max(left, right) + radius + 1); c += 1) {
        const along = length ? Math.max(0, Math.min(1, ((r - top) * down + (c - left) * across) / length)) : 0;
        const distance = Math.hypot(r - top - along * down, c - left - along * across);
        const ink = Math.round(255 * Math.max(0, Math.min(1, radius + 0.5 - distance)));
        const n = r * this.columns + c;
        this.cells[n] = Math.max(this.cells[n], ink);
      }
    }
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || this.locked) return;
    const move = ARROWS[event.key];
    if (move) {
      const before = this.cursor ?? [Math.floor(this.rows / 2), Math.floor(this.columns / 2)];
      const [row, column] = before.map((n, axis) => n + move[axis]);
      this.cursor = [Math.max(0, Math.min(this.rows - 1, row)), Math.max(0, Math.min(this.columns - 1, column))];
      if (event.shiftKey) {
        this.line(before, this.cursor);
        this.changed();
      }
    } else if (event.key === " " || event.key === "Enter") {
      this.cursor ??= [Math.floor(this.rows / 2), Math.floor(this.columns / 2)];
      this.line(this.cursor, this.cursor);
      this.changed();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else {
      return;
    }
    event.preventDefault();
    this.paint();
  }

  paint() {
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.canvas.style.aspectRatio = `${this.columns} / ${this.rows}`;
    if (!width) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(picture(this.shape, this.bytes), 0, 0, this.canvas.width, this.canvas.height);
    if (!this.cursor) return;
    const [down, across] = [this.canvas.height / this.rows, this.canvas.width / this.columns];
    context.strokeStyle = "#ff4fa8";
    context.lineWidth = 2 * ratio;
    context.strokeRect(this.cursor[1] * across, this.cursor[0] * down, across, down);
  }
}

// An image of bytes, (C, H, W), as a small canvas.
export function picture([channels, rows, columns], bytes) {
  const small = new OffscreenCanvas(columns, rows);
  const context = small.getContext("2d");
  const image = context.createImageData(columns, rows);
  const size = rows * columns;
  for (let n = 0; n < size; n += 1) {
    const [red, green, blue] = [0, 1, 2].map((channel) => bytes[n + (channels === 3 ? channel * size : 0)]);
    image.data.set([red, green, blue, 255], 4 * n);
  }
  context.putImageData(image, 0, 0);
  return small;
}

// Bytes as base64, and back.
export function toBase64(bytes) {
  let text = "";
  for (let n = 0; n < bytes.length; n += 8192) text += String.fromCharCode(...bytes.subarray(n, n + 8192));
  return btoa(text);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
