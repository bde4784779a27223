// Arrays of a document: decoding, places in them, numbers as text, colours.
//
// An array is named as in document.py: "a:conv1" is an activation, "d:conv1" its delta,
// "p:conv1.weight" a parameter, "g:conv1.weight" its gradient; "probabilities" and "target" stand at
// the loss, "k:dropout1.mask" is what a layer kept. A cell is {array, index}.

export function unpack({ shape, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n += 1) bytes[n] = text.charCodeAt(n); // faster than Uint8Array.from
  return { shape, values: new Float32Array(bytes.buffer) };
}

export class Model {
  constructor(document) {
    this.document = document;
    this.network = document.network;
    this.classes = document.classes;
    this.layers = document.layers;
    this.program = document.program;
    this.names = ["input", ...document.layers.map((layer) => layer.name)];
    this.last = this.names[this.names.length - 1];
    this.packed = new Map();
    this.unpacked = new Map();
    const groups = { a: "activations", d: "deltas", p: "parameters", g: "gradients", k: "kept" };
    for (const [letter, group] of Object.entries(groups)) {
      for (const [name, array] of Object.entries(document[group] ?? {})) {
        this.packed.set(`${letter}:${name}`, array);
      }
    }
    if (document.probabilities) this.packed.set("probabilities", document.probabilities);
    if (document.target) this.packed.set("target", document.target);
    this.range = document.range ?? [0, 1]; // what is drawn black and white in a picture of the input
    this.noise = new Map(); // by the array's name: whether it is nothing but rounding
  }

  has(id) {
    return this.packed.has(id);
  }

  array(id) {
    let array = this.unpacked.get(id);
    if (!array) {
      array = unpack(this.packed.get(id));
      this.unpacked.set(id, array);
    }
    return array;
  }

  shape(id) {
    return this.packed.get(id).shape;
  }

  // The value of a cell, or undefined where there is none.
  value({ array, index }) {
    if (!this.has(array)) return undefined;
    const { shape, values } = this.array(array);
    return inside(index, shape) ? values[flat(index, shape)] : undefined;
  }

  layer(name) {
    return this.layers[this.names.indexOf(name) - 1];
  }

  // The cell of an array whose number is the largest in magnitude; null where there is none.
  largest(id) {
    if (!this.has(id)) return null;
    const { shape, values } = this.array(id);
    let [best, most] = [0, -1];
    values.forEach((value, n) => {
      if (Math.abs(value) > most) [best, most] = [n, Math.abs(value)];
    });
    return values.length ? { array: id, index: unflat(best, shape) } : null;
  }

  before(name) {
    return this.names[this.names.indexOf(name) - 1];
  }

  after(name) {
    return this.names[this.names.indexOf(name) + 1];
  }
}

export function flat(index, shape) {
  return index.reduce((place, n, axis) => place * shape[axis] + n, 0);
}

export function unflat(place, shape) {
  const index = [];
  for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
    index.unshift(place % shape[axis]);
    place = Math.floor(place / shape[axis]);
  }
  return index;
}

export function inside(index, shape) {
  return index.length === shape.length && index.every((n, axis) => n >= 0 && n < shape[axis]);
}

export function sameCell(one, other) {
  return Boolean(one && other) && cellKey(one) === cellKey(other);
}

export function cellKey({ array, index }) {
  return `${array}/${index.join(",")}`;
}

export function parseCell(text) {
  const [array, numbers] = text.split("/");
  return { array, index: numbers ? numbers.split(",").map(Number) : [] };
}

// The largest magnitude of what is finite, which the colours span.
export function extent(values) {
  let most = 0;
  for (const value of values) {
    const size = Math.abs(value);
    if (size > most && size < Infinity) most = size;
  }
  return most;
}

const MINUS = "−";
const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";

export function signed(text) {
  return text.replace("-", MINUS);
}

// Four significant digits, as people write them.
export function number(value, digits = 4) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : `${MINUS}∞`;
  if (Number.isInteger(value) && Math.abs(value) < 1e4) return signed(String(value + 0));
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return `${signed(mantissa)}·${power(Number(exponent))}`;
  }
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return signed(value.toFixed(Math.min(places, 8)));
}

export function power(exponent) {
  const raised = [...String(Math.abs(exponent))].map((digit) => RAISED[Number(digit)]).join("");
  return `10${exponent < 0 ? "⁻" : ""}${raised}`;
}

// A share as a percentage. What is not 0 and not all is never written as if it were.
export function percent(share) {
  if (!Number.isFinite(share)) return number(share);
  if (share > 0 && share < 0.0005) return "<0.1 %";
  if (share < 1 && share > 0.9995) return ">99.9 %";
  return `${signed((100 * share).toFixed(1))} %`;
}

// The power of ten that the numbers written into cells leave out: 0 where they need none.
export function exponentOf(most) {
  if (most === 0 || !Number.isFinite(most)) return 0;
  const exponent = Math.floor(Math.log10(most));
  return exponent < -1 || exponent > 2 ? exponent : 0;
}

// A number as short as a small cell takes it, divided by ten to the exponent.
export function brief(value, exponent = 0) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : signed(value > 0 ? "∞" : "-∞");
  if (value === 0) return "0";
  const scaled = value / 10 ** exponent;
  const size = Math.abs(scaled);
  const text = scaled.toFixed(size >= 99.5 ? 0 : size >= 9.95 ? 1 : 2);
  return signed(Number(text) === 0 ? "0" : text);
}

// Colours -------------------------------------------------------------------------------------

const NAMES = [
  "zero",
  "ink",
  "forward-plus",
  "forward-minus",
  "backward-plus",
  "backward-minus",
  "wrong",
  "select",
  "read",
  "write",
  "focus",
];

// The colours of the style sheet as they are now, light or dark, as [r, g, b].
export function palette(element) {
  const probe = element.ownerDocument.createElement("span");
  probe.hidden = true;
  element.append(probe);
  const colours = {};
  for (const name of NAMES) {
    probe.style.color = `var(--${name})`;
    const found = getComputedStyle(probe).color;
    colours[name] = found
      .match(/[\d.]+/g)
      .slice(0, 3)
      .map(Number);
  }
  probe.remove();
  return colours;
}

export function css([red, green, blue], alpha = 1) {
  return `rgb(${red} ${green} ${blue} / ${alpha})`;
}

// The colour of a number in an array whose largest magnitude is `most`; `scale` is "forward",
// "backward", or, for a picture, the numbers [black, white].
export function colourOf(value, most, colours, scale) {
  if (!Number.isFinite(value)) return colours.wrong;
  if (Array.isArray(scale)) return Array(3).fill(byteOf(value, scale));
  const share = most > 0 ? Math.min(1, Math.abs(value) / most) ** 0.7 : 0;
  const end = colours[`${scale}-${value < 0 ? "minus" : "plus"}`];
  return colours.zero.map((own, n) => Math.round(own + (end[n] - own) * share));
}

// Black or white, whichever reads better on a colour.
export function inkOn([red, green, blue]) {
  const linear = [red, green, blue].map((n) => (n / 255) ** 2.2);
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return light > 0.2 ? "#111" : "#fff";
}

// How bright a number of a picture is, from 0 to 255.
export function byteOf(value, [black, white]) {
  return Math.max(0, Math.min(255, Math.round(((value - black) / (white - black)) * 255)));
}

// Which scale an array is shown in: a picture as it is; what flows forward, and back, in colours.
export function scaleOf(id, model) {
  if (id === "a:input" && model.shape(id).length === 3) return model.range;
  return id.startsWith("d:") || id.startsWith("g:") ? "backward" : "forward";
}
