// What terms are made of: cells with their values, windows, and the words for their indices.

import { unflat } from "./arrays.js";
import { label } from "./words.js";

export function cellAt(model, array, index, factor = {}) {
  const cell = { array, index };
  return { cell, value: model.value(cell), label: label(cell), ...factor };
}

export function constant(value, text) {
  return { value, label: text };
}

export function noCell(why) {
  return { value: 0, label: why, why };
}

export function grid(caption, rows) {
  return { caption, rows };
}

export function product(one, other) {
  return one.rows.map((row, r) =>
    row.map((left, c) => ({ value: left.value * other.rows[r][c].value })),
  );
}

export function equation(caption, left, right) {
  return { caption, left, right, product: grid("products", product(left, right)) };
}

export function termsOf(equations) {
  return equations.flatMap(({ left, right, caption }) =>
    left.rows.flatMap((row, r) =>
      row.map((one, c) => ({ factors: [one, right.rows[r][c]], caption })),
    ),
  );
}

export function counting(length) {
  return [...Array(length).keys()];
}

// Rows of what is found for every row and column.
export function table(rows, columns, of) {
  return counting(rows).map((r) => counting(columns).map((c) => of(r, c)));
}

// The window of a convolution, the channels that a filter sees, and the filters that see the same.
export function filtersOf(model, layer) {
  const { window, groups } = layer.options;
  const [filters, channels] = model.shape(`p:${layer.name}.weight`);
  return { rows: window[0], columns: window[1], filters, channels, each: filters / groups };
}

// The row and column of the input on which a place of a window lies.
export function tapped(layer, [p, q], [r, s]) {
  const { step, reach, pads } = layer.options;
  return [p * step[0] + r * reach[0] - pads[0][0], q * step[1] + s * reach[1] - pads[1][0]];
}

// The index of the cell that a filter's tap meets, as a formula writes it: p + r − 1.
export function met(layer, axis) {
  const { step, reach, pads } = layer.options;
  const times = (n, name) => (n > 1 ? `${n}${name}` : name);
  const padding = pads[axis][0] ? ` − ${pads[axis][0]}` : "";
  return `${times(step[axis], "pq"[axis])} + ${times(reach[axis], "rs"[axis])}${padding}`;
}

// The index of the output that a cell went into through a tap: i + 1 − r.
export function reached(layer, axis) {
  const { step, reach, pads } = layer.options;
  const padding = pads[axis][0] ? ` + ${pads[axis][0]}` : "";
  const tap = reach[axis] > 1 ? `${reach[axis]}${"rs"[axis]}` : "rs"[axis];
  const index = `${"ij"[axis]}${padding} − ${tap}`;
  return step[axis] > 1 ? `(${index}) / ${step[axis]}` : index;
}

export function unknown(layer, pass) {
  return {
    rule:
      `${layer.name} is a layer that this page has no formula for (${layer.text}). Its ${pass} ` +
      "pass computed this number; it is shown as it came.",
    formula: "",
    sum: false,
  };
}

export function bias(model, layer, k) {
  const array = `p:${layer.name}.bias`;
  return model.has(array) ? [{ factors: [cellAt(model, array, [k])], caption: "bias" }] : [];
}

export function cellOrPadding(model, array, index) {
  const cell = { array, index };
  return model.value(cell) === undefined ? noCell("padding") : cellAt(model, array, index);
}

// A vector and the weights that meet it, in rows as the picture lays vectors out.
export function vectors(model, array, weight, place, captions) {
  const shape = model.shape(array);
  const length = shape.reduce((all, n) => all * n, 1);
  const columns = rowLength(length);
  const rows = counting(Math.ceil(length / columns)).map((r) =>
    counting(columns)
      .map((c) => r * columns + c)
      .filter((n) => n < length),
  );
  return equation(
    "",
    grid(
      captions.left,
      rows.map((row) => row.map((n) => cellAt(model, array, unflat(n, shape)))),
    ),
    grid(
      captions.right,
      rows.map((row) => row.map((n) => cellAt(model, weight, place(n)))),
    ),
  );
}

export function rowLength(length) {
  return length <= 12 ? 1 : Math.ceil(Math.sqrt(length));
}

export function poolWindow(model, layer, [c, p, q], before) {
  const [rows, columns] = layer.options.window;
  const seen = table(rows, columns, (r, s) =>
    cellOrPadding(model, `a:${before}`, [c, ...tapped(layer, [p, q], [r, s])]),
  );
  if (layer.kind === "pool") {
    const won = winnerOf(seen);
    if (won) won.won = true;
  }
  return seen;
}

// The first of the largest cells, in row-major order; padding never wins. NaN wins, as in NumPy.
export function winnerOf(seen) {
  let best = null;
  for (const one of seen.flat()) {
    if (!one.cell) continue;
    if (
      best === null ||
      one.value > best.value ||
      (Number.isNaN(one.value) && !Number.isNaN(best.value))
    )
      best = one;
  }
  return best;
}

export function maskOf(model, layer, index) {
  const array = `k:${layer.name}.mask`;
  return model.has(array) ? cellAt(model, array, index) : null;
}

export function maskFactors(model, layer, index) {
  const mask = maskOf(model, layer, index);
  return mask ? [constant(mask.value, "m")] : [];
}

export function moments(model, layer, channel) {
  const mean = model.value({ array: `k:${layer.name}.mean`, index: [channel] });
  const variance = model.value({ array: `k:${layer.name}.variance`, index: [channel] });
  return [mean, 1 / Math.sqrt(variance + layer.options.epsilon)];
}

export function usesBatch(model, layer) {
  return model.value({ array: `k:${layer.name}.batch`, index: [] }) === 1;
}

export function whose(model, layer) {
  return usesBatch(model, layer) ? "this image's" : "the running";
}
