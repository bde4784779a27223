// What is nothing but rounding: sums whose terms cancel, and what is made of such sums.

import { extent, number, percent } from "./arrays.js";
import { origin } from "./origins.js";

const CANCELLED = 5e-7; // of the terms' magnitudes: what float32 leaves of a sum that is 0
const LARGE = 1e-3; // what is as large is never looked at, for speed
const SURE = 1e-3; // first deltas below this teach next to nothing

// Whether all numbers of a delta or gradient are rounding noise.
export function isNoise(model, id) {
  if (!model.noise.has(id)) {
    model.noise.set(id, false); // until it is known
    model.noise.set(id, found(model, id));
  }
  return model.noise.get(id);
}

function found(model, id) {
  if (!/^[dg]:/.test(id) || !model.has(id)) return false;
  const most = extent(model.array(id).values);
  if (most === 0 || most >= LARGE) return false;
  const { terms, sum } = origin(model, model.largest(id));
  const counted = terms.filter(({ product }) => product !== 0);
  if (!counted.length) return false;
  const scale = counted.reduce((all, { product }) => all + Math.abs(product), 0);
  if (sum && counted.length > 1 && most <= CANCELLED * scale) return true;
  return counted.every(({ factors }) =>
    factors.some(({ cell }) => cell && cell.array !== id && isNoise(model, cell.array)),
  );
}

// Say so in an element where the network is sure of the label and next to nothing flows back.
export function showSureness(element, model) {
  element.textContent = sureness(model);
  element.hidden = !element.textContent;
}

function sureness(model) {
  const { label } = model.document;
  if (label === null || !model.has("probabilities")) return "";
  const most = extent(model.array(`d:${model.last}`).values);
  const p = model.array("probabilities").values[label];
  if (!(most < SURE) || !Number.isFinite(p)) return "";
  const size = isNoise(model, `d:${model.last}`) ? "nothing but rounding" : "almost nothing";
  return (
    `The network is already sure (${percent(p)} for ${model.classes[label]}): the error that flows ` +
    `back is ${size}, at most ${number(most, 2)}. Pick an image that it gets wrong.`
  );
}
