// Where a number comes from: of every cell, the formula and the cells that it is made of.
//
// An origin is {title, rule, formula, terms, value, equations, lit, note}. A term is a product:
// {factors: [{label, value, cell, why}], product}. The sum of all products is the value, where
// `sum` is true. An equation is a window laid out in rows: {caption, left, right, product}, each
// {caption, rows: [[{value, cell, why, won}]]}; `lit` are cells that count beside those of the terms.

import { number } from "./arrays.js";
import { titleOf } from "./words.js";
import { cellAt, counting } from "./terms.js";
import { activation } from "./forward.js";
import { delta } from "./backward.js";
import { gradient } from "./gradients.js";

export function origin(model, cell) {
  const [letter, name] = cell.array.includes(":") ? cell.array.split(":") : ["", cell.array];
  const made = { a: activation, d: delta, p: parameter, g: gradient, "": atLoss }[letter](
    model,
    name,
    cell,
  );
  const terms = (made.terms ?? []).map((term) => ({
    ...term,
    product: term.factors.reduce((product, factor) => product * factor.value, 1),
  }));
  return {
    sum: true,
    equations: [],
    lit: [],
    ...made,
    terms,
    cell,
    value: model.value(cell),
    title: titleOf(model, cell),
  };
}

function parameter(model, name, cell) {
  const frozen = model.network.frozen.includes(name.split(".")[0]);
  return {
    rule:
      "A number that was learned" +
      (frozen
        ? ", and is frozen now: training leaves it alone."
        : ": a step of training moves it against its gradient."),
    formula: frozen ? "" : "w ← w − rate · dL/dw",
    sum: false,
    links: [{ text: "its gradient is", cell: { array: `g:${name}`, index: cell.index } }],
  };
}

function atLoss(model, name, { index: [k] }) {
  if (name === "target") {
    return {
      rule:
        model.network.loss === "softmax_cross_entropy"
          ? "The target: 1 for the label, 0 elsewhere" +
            (model.network.loss_text.includes("smoothing") ? ", smoothed." : ".")
          : "The target that was given.",
      formula: "y[k]",
      sum: false,
    };
  }
  const outputs = `a:${model.last}`;
  const count = model.shape(outputs)[0];
  const logits = counting(count).map((n) => cellAt(model, outputs, [n]));
  const links = [
    {
      text: "less the target, it is the first delta,",
      cell: { array: `d:${model.last}`, index: [k] },
    },
  ];
  if (model.network.loss === "binary_cross_entropy") {
    return {
      rule: "Sigmoid: every logit becomes a probability for itself.",
      formula: "p[k] = 1 / (1 + exp(−x[k]))",
      sum: false,
      working: `1 / (1 + exp(${number(-logits[k].value)}))`,
      terms: [{ factors: [{ ...logits[k] }] }],
      links,
    };
  }
  const most = Math.max(...logits.map(({ value }) => value));
  const all = logits.reduce((sum, { value }) => sum + Math.exp(value - most), 0);
  return {
    rule:
      "Softmax: the exponential of the logit, divided by the sum of all. The largest logit is subtracted " +
      "first, which changes nothing and keeps the exponentials small.",
    formula: "p[k] = exp(x[k] − max) / Σ(j) exp(x[j] − max)",
    sum: false,
    working:
      `exp(${number(logits[k].value)} − ${number(most)}) / ${number(all)} = ` +
      `${number(Math.exp(logits[k].value - most))} / ${number(all)}`,
    terms: logits.map((logit) => ({ factors: [{ ...logit }] })),
    links,
  };
}
