// One array as tiles of cells on a canvas: the maps of an activation, the slices of filters.

import {
  brief,
  colourOf,
  css,
  exponentOf,
  extent,
  flat,
  inkOn,
  inside,
  number,
  power,
  scaleOf,
  unflat,
} from "./arrays.js";
import { isNoise } from "./noise.js";
import { rowLength } from "./terms.js";

const GAP = 6; // between tiles
const EDGE = 3; // room around all, for outlines
const FOLDED = 4; // tiles of a folded array
const LARGEST = 30; // pixels of a cell of a map
const WEIGHT = [25, 15]; // pixels of a weight that is written as a number
const COLUMNS = 3; // of a filter whose weights are
const LETTER = 13; // room for the name of a channel
const LIST = 12; // a vector as long as this is a list of numbers

// How an array is cut into tiles: how many, rows and columns of each, cells of each, tiles a row.
export function tiling(shape) {
  if (shape.length === 3) return cut(shape[0], shape[1], shape[2], shape[1] * shape[2], 1);
  if (shape.length === 4)
    return cut(shape[0] * shape[1], shape[2], shape[3], shape[2] * shape[3], shape[1]);
  const length = shape[shape.length - 1];
  const columns = rowLength(length);
  const tiles = shape.length === 2 ? shape[0] : 1;
  return {
    ...cut(tiles, Math.ceil(length / columns), columns, length, 1),
    list: shape.length === 1 && length <= LIST,
  };
}

// A bias, or another row of numbers that belongs to channels: one number, or a small square.
function rowTiling(length) {
  const columns = length === 1 ? 1 : Math.ceil(Math.sqrt(length));
  return { ...cut(1, Math.ceil(length / columns), columns, length, 1), list: length === 1 };
}

function cut(count, rows, columns, cells, across) {
  return { count, rows, columns, cells, across, list: false };
}

// Which tiles are shown, and how many in a row. Folded, that is four: those that are wanted, and
// the first ones.
export function arrangement(shape, { folded, size, row = false, wanted = [] }) {
  const whole = row ? rowTiling(shape[0]) : tiling(shape);
  const every = [...Array(whole.count).keys()];
  if (shape.length === 4) {
    const channels = whole.across;
    const channel = (wanted[0] ?? 0) % channels;
    const filters = chosen(
      shape[0],
      wanted.filter((n) => n % channels === channel).map((n) => Math.floor(n / channels)),
    );
    const shown = folded ? filters.map((k) => k * channels + channel) : every;
    const written = whole.columns <= COLUMNS && (folded || whole.count <= FOLDED);
    const least = whole.count > 256 ? 4 : 7; // where all of many filters are shown
    const side = folded ? Math.max(1, size / Math.max(whole.rows, whole.columns)) : least;
    const [width, height] = written ? WEIGHT : [side, side];
    return {
      ...whole,
      shown,
      across: folded ? 1 : acrossAll(shape, width / height),
      width,
      height,
      hidden: whole.count - shown.length,
    };
  }
  if (whole.list) {
    return { ...whole, shown: every, across: 1, width: 42, height: 15, hidden: 0 };
  }
  if (row) {
    const side = Math.max(4, Math.min(12, size / 2 / whole.columns));
    return { ...whole, shown: every, across: 1, width: side, height: side, hidden: 0 };
  }
  if (shape.length === 2) {
    const shown = folded ? chosen(whole.count, wanted) : every;
    const across = folded ? Math.min(2, shown.length) : Math.ceil(Math.sqrt(whole.count));
    const side = whole.columns === 1 ? size * 0.8 : size * 0.44;
    const cell = Math.max(side / whole.rows, 1);
    return {
      ...whole,
      shown,
      across,
      width: whole.columns === 1 ? Math.max(cell, 6) : cell,
      height: cell,
      hidden: whole.count - shown.length,
    };
  }
  const shown = folded ? chosen(whole.count, wanted) : every;
  const across = folded ? 1 : Math.ceil(Math.sqrt(whole.count / 1.5));
  const tile =
    shape.length === 1
      ? Math.max(38, size * 0.66)
      : folded || whole.count <= 4
        ? size
        : Math.max(28, size * 0.6);
  const cell = Math.min(LARGEST, tile / Math.max(whole.rows, whole.columns));
  return {
    ...whole,
    shown,
    across: whole.count <= 4 ? 1 : across,
    width: cell,
    height: cell,
    hidden: whole.count - shown.length,
  };
}

// How many slices of filters stand in a row, where all are shown: a filter's channels stand side by
// side, as many filters as make the whole about as wide as high.
function acrossAll([filters, channels, rows, columns], ratio) {
  const high = (filters * rows) / (columns * ratio);
  return channels * Math.max(1, Math.min(filters, Math.round(Math.sqrt(high / channels))));
}

function chosen(count, wanted) {
  const must = [...new Set(wanted)].slice(0, FOLDED);
  const others = [...Array(count).keys()]
    .filter((n) => !must.includes(n))
    .slice(0, Math.max(0, FOLDED - must.length));
  return [...must, ...others].sort((one, other) => one - other);
}

export class Tiles {
  constructor(document, id, spoken) {
    this.id = id;
    this.spoken = spoken;
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.className = "tiles";
    this.canvas.dataset.array = id;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-roledescription", "map of numbers");
    this.caption = document.createElement("figcaption");
    this.element = document.createElement("figure");
    this.element.className = "array";
    this.element.dataset.array = id;
    this.element.append(this.canvas, this.caption);
    this.marks = { lit: [], boxes: [], bright: [], selected: null };
  }

  arrange(shape, options) {
    this.shape = shape;
    this.letters = /^[ad]:input$/.test(this.id) && shape.length === 3 && shape[0] === 3 ? "RGB" : "";
    this.left = EDGE + (this.letters ? LETTER : 0);
    const row = shape.length === 1 && /^[pg]:/.test(this.id);
    this.plan = arrangement(shape, { ...options, row });
    const { shown, across, rows, columns, width, height } = this.plan;
    const down = Math.ceil(shown.length / across);
    this.pitch = [columns * width + GAP, rows * height + GAP];
    this.size = [
      across * this.pitch[0] - GAP + EDGE + this.left,
      down * this.pitch[1] - GAP + 2 * EDGE,
    ];
    this.canvas.style.width = `${this.size[0]}px`;
    this.canvas.style.height = `${this.size[1]}px`;
  }

  // The tile that a cell lies on.
  tileOf(index) {
    return Math.floor(flat(index, this.shape) / tiling(this.shape).cells);
  }

  // What is to be said of the tiles, where they are not the first ones.
  get chosen() {
    const { shown, hidden } = this.plan;
    if (!hidden || shown.every((n, at) => n === at * (this.shape.length === 4 ? this.shape[1] : 1)))
      return "";
    if (this.shape.length !== 4) return shown.join(", ");
    const channels = this.shape[1];
    const filters = shown.map((n) => Math.floor(n / channels)).join(", ");
    return channels > 1 ? `${filters} of ch. ${shown[0] % channels}` : filters;
  }

  // The upper left corner of a cell on the canvas; null where its tile is folded away.
  corner(index) {
    const place = flat(index, this.shape);
    const { cells, columns, shown, across, width, height } = this.plan;
    const at = shown.indexOf(Math.floor(place / cells));
    if (at < 0) return null;
    const within = place % cells;
    return [
      this.left + (at % across) * this.pitch[0] + (within % columns) * width,
      EDGE + Math.floor(at / across) * this.pitch[1] + Math.floor(within / columns) * height,
    ];
  }

  // The index of the cell at a place on the canvas, or null.
  cellAt(x, y) {
    const { cells, rows, columns, shown, across, width, height } = this.plan;
    const [tileX, tileY] = [x - this.left, y - EDGE].map((n, axis) =>
      Math.floor(n / this.pitch[axis]),
    );
    const column = Math.floor((x - this.left - tileX * this.pitch[0]) / width);
    const row = Math.floor((y - EDGE - tileY * this.pitch[1]) / height);
    const tile = shown[tileY * across + tileX];
    if (tile === undefined || tileX < 0 || tileX >= across) return null;
    if (column < 0 || column >= columns || row < 0 || row >= rows) return null;
    const within = row * columns + column;
    return within < cells ? unflat(tile * cells + within, this.shape) : null;
  }

  // The index of the cell that lies beside another one, for the arrow keys; null at the edge.
  moved(index, rows, columns) {
    const { cells, columns: wide, shown, across, rows: high } = this.plan;
    const place = flat(index, this.shape);
    let at = shown.indexOf(Math.floor(place / cells));
    let row = Math.floor((place % cells) / wide) + rows;
    let column = ((place % cells) % wide) + columns;
    if (row < 0) [at, row] = [at - across, high - 1];
    else if (row >= high) [at, row] = [at + across, 0];
    if (column < 0) [at, column] = at % across ? [at - 1, wide - 1] : [-1, 0];
    else if (column >= wide) [at, column] = (at + 1) % across ? [at + 1, 0] : [-1, 0];
    const tile = shown[at];
    const within = row * wide + column;
    return tile === undefined || within >= cells ? null : unflat(tile * cells + within, this.shape);
  }

  // The same cell of the next tile, or of the one before it; null at the end.
  onTile(index, step) {
    const { cells, shown } = this.plan;
    const place = flat(index, this.shape);
    const tile = shown[shown.indexOf(Math.floor(place / cells)) + step];
    return tile === undefined ? null : unflat(tile * cells + (place % cells), this.shape);
  }

  first() {
    return unflat(this.plan.shown[0] * this.plan.cells, this.shape);
  }

  draw(model, colours) {
    const { values } = model.array(this.id);
    const most = extent(values);
    const scale = scaleOf(this.id, model);
    const noise = isNoise(model, this.id);
    this.exponent = exponentOf(most);
    this.caption.textContent = Array.isArray(scale)
      ? `${scale.map((end) => number(end, 2)).join(" to ")}`
      : most === 0
        ? "all 0"
        : `±${number(most, 2)}`;
    if (noise) this.caption.textContent = `rounding noise, ${this.caption.textContent}`;
    this.caption.classList.toggle("noise", noise);
    if (this.chosen) {
      const chosen = document.createElement("span");
      chosen.className = "chosen";
      chosen.textContent = this.chosen;
      this.caption.prepend(chosen);
    }
    if (this.numbered && this.exponent && !noise)
      this.caption.append(document.createElement("br"), `in ${power(this.exponent)}`);
    // Noise is drawn as the 0 that it stands for.
    this.paint(noise ? new Float32Array(values.length) : values, noise ? 0 : most, colours, scale);
  }

  get numbered() {
    return this.plan.width >= 24 && this.plan.height >= 14;
  }

  paint(values, most, colours, scale) {
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    this.canvas.width = Math.round(this.size[0] * ratio);
    this.canvas.height = Math.round(this.size[1] * ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = false;
    const { cells, rows, columns, shown, across, width, height } = this.plan;
    const tile = new OffscreenCanvas(columns, rows);
    const small = tile.getContext("2d");
    shown.forEach((n, at) => {
      const image = small.createImageData(columns, rows);
      for (let cell = 0; cell < cells; cell += 1) {
        const colour = colourOf(values[n * cells + cell], most, colours, scale);
        image.data.set([...colour, 255], cell * 4);
      }
      small.putImageData(image, 0, 0);
      const x = this.left + (at % across) * this.pitch[0];
      const y = EDGE + Math.floor(at / across) * this.pitch[1];
      context.drawImage(tile, x, y, columns * width, rows * height);
      if (this.letters) this.letter(context, this.letters[n], y + (rows * height) / 2, colours);
      if (this.numbered) this.write(context, values, n, [x, y], { most, colours, scale });
      context.strokeStyle = css(colours.ink, 0.25);
      context.lineWidth = 1;
      context.strokeRect(x - 0.5, y - 0.5, columns * width + 1, rows * height + 1);
    });
    this.outline(context, colours);
  }

  // The name of a channel, before its tile.
  letter(context, text, y, colours) {
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = css(colours.ink);
    context.fillText(text, LETTER / 2 + 1, y);
  }

  write(context, values, n, [x, y], { most, colours, scale }) {
    const { cells, columns, width, height } = this.plan;
    context.font = `${Math.max(9, Math.min(12, width * 0.36, height * 0.75))}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let cell = 0; cell < cells; cell += 1) {
      const value = values[n * cells + cell];
      context.fillStyle = inkOn(colourOf(value, most, colours, scale));
      context.fillText(
        brief(value, this.exponent),
        x + ((cell % columns) + 0.5) * width,
        y + (Math.floor(cell / columns) + 0.5) * height + 0.5,
        width - 1,
      );
    }
  }

  outline(context, colours) {
    for (const index of this.marks.lit) this.frame(context, index, css(colours.select, 0.9), 1.25);
    for (const index of this.marks.bright) this.frame(context, index, css(colours.focus), 2.5);
    if (this.marks.selected) this.frame(context, this.marks.selected, css(colours.focus), 2.5, 1.5);
    for (const box of this.marks.boxes) this.box(context, box, css(colours.select));
  }

  frame(context, index, style, line, out = 0) {
    const corner = inside(index, this.shape) ? this.corner(index) : null;
    if (!corner) return;
    context.strokeStyle = style;
    context.lineWidth = line;
    context.strokeRect(
      corner[0] - out,
      corner[1] - out,
      this.plan.width + 2 * out,
      this.plan.height + 2 * out,
    );
  }

  // One outline around all cells from one to another of the same tile.
  box(context, { from, to }, style) {
    const [one, other] = [this.corner(from), this.corner(to)];
    if (!one || !other) return;
    context.strokeStyle = style;
    context.lineWidth = 2;
    context.strokeRect(
      one[0] - 1,
      one[1] - 1,
      other[0] - one[0] + this.plan.width + 2,
      other[1] - one[1] + this.plan.height + 2,
    );
  }

  // Mark the cells of this array: those of a tile as a box where they fill one, else each.
  mark(cells, bright, selected) {
    const tiles = new Map();
    for (const index of cells) {
      const lead = index.slice(0, -2).join();
      if (!tiles.has(lead)) tiles.set(lead, []);
      tiles.get(lead).push(index);
    }
    const boxes = [];
    const lit = [];
    for (const own of tiles.values()) {
      const box = boxOf(own);
      if (box) boxes.push(box);
      else lit.push(...own);
    }
    this.marks = { lit, boxes, bright, selected };
  }
}

// The corners of the box that cells of one tile fill, where there are four or more; else null.
function boxOf(cells) {
  if (cells.length < 4 || cells[0].length < 3) return null;
  const [rows, columns] = [-2, -1].map((axis) => cells.map((index) => index.at(axis)));
  const [from, to] = [Math.min, Math.max].map((most) => [most(...rows), most(...columns)]);
  const distinct = new Set(cells.map((index) => index.slice(-2).join())).size;
  if ((to[0] - from[0] + 1) * (to[1] - from[1] + 1) !== distinct) return null;
  const lead = cells[0].slice(0, -2);
  return { from: [...lead, ...from], to: [...lead, ...to] };
}
