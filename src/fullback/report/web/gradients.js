// Where a gradient comes from: of every parameter of every kind of layer, its formula.

import { unflat } from "./arrays.js";
import {
  cellAt,
  cellOrPadding,
  equation,
  filtersOf,
  grid,
  met,
  moments,
  table,
  tapped,
  termsOf,
  unknown,
} from "./terms.js";

export function gradient(model, name, cell) {
  const [owner, key] = name.split(".");
  const layer = model.layer(owner);
  const made = GRADIENT[`${layer.kind}.${key}`];
  return made ? made(model, layer, cell.index, model.before(owner)) : unknown(layer, "backward");
}

const GRADIENT = {
  "conv.weight"(model, layer, [k, c, r, s], before) {
    const { channels, each, filters } = filtersOf(model, layer);
    const channel = Math.floor(k / each) * channels + c;
    const [, rows, columns] = layer.output_shape;
    const seen = table(rows, columns, (p, q) =>
      cellOrPadding(model, `a:${before}`, [channel, ...tapped(layer, [p, q], [r, s])]),
    );
    const deltas = table(rows, columns, (p, q) => cellAt(model, `d:${layer.name}`, [k, p, q]));
    const equations = [
      equation(
        "",
        grid(`${before}, the part under this weight`, seen),
        grid(`delta of ${layer.name}${filters > 1 ? `, filter ${k}` : ""}`, deltas),
      ),
    ];
    return {
      rule:
        `This weight met every cell of that part of ${before}, and each product went into one output. So ` +
        "its gradient adds up, over all places, input times delta: the delta slides over the input " +
        "just as the filter did.",
      formula: `dw[k, c, r, s] = Σ(p, q) dy[k, p, q] · x[c, ${met(layer, 0)}, ${met(layer, 1)}]`,
      equations,
      terms: termsOf(equations),
    };
  },

  "conv.bias"(model, layer, [k]) {
    const [, rows, columns] = layer.output_shape;
    return {
      rule: "The bias went into every output of its filter, so its gradient is the sum of their deltas.",
      formula: "db[k] = Σ(p, q) dy[k, p, q]",
      terms: table(rows, columns, (p, q) => ({
        factors: [cellAt(model, `d:${layer.name}`, [k, p, q])],
      })).flat(),
    };
  },

  "dense.weight": (model, layer, [k, c], before) => ({
    rule: "The delta of the weight's unit times the weight's input.",
    formula: "dw[k, c] = dy[k] · x[c]",
    terms: [
      {
        factors: [
          cellAt(model, `d:${layer.name}`, [k]),
          cellAt(model, `a:${before}`, unflat(c, model.shape(`a:${before}`))),
        ],
      },
    ],
  }),

  "dense.bias": (model, layer, [k]) => ({
    rule: "The delta of the bias's unit.",
    formula: "db[k] = dy[k]",
    terms: [{ factors: [cellAt(model, `d:${layer.name}`, [k])] }],
  }),

  "batchnorm.weight"(model, layer, [channel], before) {
    const [mean, scale] = moments(model, layer, channel);
    const [, rows, columns] = layer.input_shape;
    return {
      rule: "The sum of delta times normalised value z = (x − m) / √(v + ε), over all places.",
      formula: "dweight[c] = Σ(i, j) dy[c, i, j] · z[c, i, j]",
      terms: table(rows, columns, (i, j) => {
        const index = [channel, i, j];
        const x = cellAt(model, `a:${before}`, index);
        return {
          factors: [
            cellAt(model, `d:${layer.name}`, index),
            { ...x, value: (x.value - mean) * scale, label: `z of ${x.label}` },
          ],
        };
      }).flat(),
    };
  },

  "batchnorm.bias"(model, layer, [channel]) {
    const [, rows, columns] = layer.input_shape;
    return {
      rule: "The shift went into every cell of its channel, so its gradient is the sum of their deltas.",
      formula: "dbias[c] = Σ(i, j) dy[c, i, j]",
      terms: table(rows, columns, (i, j) => ({
        factors: [cellAt(model, `d:${layer.name}`, [channel, i, j])],
      })).flat(),
    };
  },
};
