// Where an activation comes from: of every kind of layer, the formula of its forward pass.

import { number, unflat } from "./arrays.js";
import {
  bias,
  cellAt,
  cellOrPadding,
  constant,
  counting,
  equation,
  filtersOf,
  grid,
  maskFactors,
  maskOf,
  met,
  moments,
  poolWindow,
  table,
  tapped,
  termsOf,
  unknown,
  vectors,
  whose,
  winnerOf,
} from "./terms.js";

export function activation(model, name, cell) {
  if (name === "input") {
    return {
      rule: "A pixel of the image, as the network takes it.",
      formula: "x",
      sum: false,
    };
  }
  const layer = model.layer(name);
  const forward = FORWARD[layer.kind];
  return forward
    ? forward(model, layer, cell.index, model.before(name))
    : unknown(layer, "forward");
}

const FORWARD = {
  conv(model, layer, [k, p, q], before) {
    const { rows, columns, channels, each } = filtersOf(model, layer);
    const first = Math.floor(k / each) * channels;
    const equations = counting(channels).map((c) => {
      const seen = table(rows, columns, (r, s) =>
        cellOrPadding(model, `a:${before}`, [first + c, ...tapped(layer, [p, q], [r, s])]),
      );
      const weights = table(rows, columns, (r, s) =>
        cellAt(model, `p:${layer.name}.weight`, [k, c, r, s]),
      );
      return equation(
        channels > 1 ? `channel ${first + c}` : "",
        grid(`window of ${before}`, seen),
        grid(`${layer.name}.weight`, weights),
      );
    });
    return {
      rule:
        `The filter lies on a window of ${before}: each weight times the cell under it, all added ` +
        "up, and the bias.",
      formula: `y[k, p, q] = b[k] + Σ(c, r, s) w[k, c, r, s] · x[c, ${met(layer, 0)}, ${met(layer, 1)}]`,
      equations,
      terms: [...bias(model, layer, k), ...termsOf(equations)],
    };
  },

  dense(model, layer, [k], before) {
    const equations = [
      vectors(model, `a:${before}`, `p:${layer.name}.weight`, (n) => [k, n], {
        left: before,
        right: `${layer.name}.weight, unit ${k}`,
      }),
    ];
    return {
      rule: `The unit adds up all of ${before}, each times its weight, and its bias.`,
      formula: "y[k] = b[k] + Σ(c) w[k, c] · x[c]",
      equations,
      terms: [...bias(model, layer, k), ...termsOf(equations)],
    };
  },

  flatten(model, layer, [n], before) {
    const index = unflat(n, layer.input_shape);
    return {
      rule: "Flatten writes the maps one behind the other, row by row. Nothing is computed.",
      formula: "y[n] = x[c, i, j],  n = (c · H + i) · W + j",
      terms: [{ factors: [cellAt(model, `a:${before}`, index)] }],
    };
  },

  relu: (model, layer, index, before) =>
    slopeForward(model, before, index, {
      rule: "ReLU: what is negative becomes 0.",
      formula: "y = max(x, 0)",
      slope: (x) => [x > 0 ? 1 : 0, x > 0 ? "1 (x > 0)" : "0 (x ≤ 0)"],
    }),

  leakyrelu: (model, layer, index, before) =>
    slopeForward(model, before, index, {
      rule: "Leaky ReLU: what is negative becomes small.",
      formula: "y = x where x > 0, else a · x",
      slope: (x) => [x > 0 ? 1 : layer.options.slope, x > 0 ? "1 (x > 0)" : "a (x ≤ 0)"],
    }),

  sigmoid: (model, layer, index, before) => ({
    rule: "Sigmoid.",
    formula: "y = 1 / (1 + exp(−x))",
    sum: false,
    terms: [{ factors: [cellAt(model, `a:${before}`, index)] }],
  }),

  tanh: (model, layer, index, before) => ({
    rule: "Hyperbolic tangent.",
    formula: "y = tanh(x)",
    sum: false,
    terms: [{ factors: [cellAt(model, `a:${before}`, index)] }],
  }),

  pool(model, layer, [c, p, q], before) {
    const seen = poolWindow(model, layer, [c, p, q], before);
    const won = winnerOf(seen);
    return {
      rule:
        "Max pooling: the largest cell of the window. It alone made a difference, so on the way " +
        "back it alone gets this cell's delta.",
      formula: `y[c, p, q] = max over r, s of x[c, ${met(layer, 0)}, ${met(layer, 1)}]`,
      equations: [{ caption: "", left: grid(`window of ${before}`, seen) }],
      sum: false,
      lit: seen
        .flat()
        .filter(({ cell }) => cell)
        .map(({ cell }) => cell),
      terms: [{ factors: [won] }],
      links: [
        { text: "and its delta went to", cell: { array: `d:${before}`, index: won.cell.index } },
      ],
    };
  },

  avgpool(model, layer, index, before) {
    const seen = poolWindow(model, layer, index, before).flat();
    return {
      rule:
        "Average pooling: the mean of the window" +
        (seen.some(({ why }) => why) ? ", zeros of the padding counted." : "."),
      formula: `y[c, p, q] = Σ(r, s) x[c, ${met(layer, 0)}, ${met(layer, 1)}] / (R · S)`,
      terms: seen.map((one) => ({ factors: [one, constant(1 / seen.length, `1/${seen.length}`)] })),
    };
  },

  globalavgpool(model, layer, [c], before) {
    const [, rows, columns] = layer.input_shape;
    return {
      rule: `The mean of channel ${c}.`,
      formula: "y[c] = Σ(i, j) x[c, i, j] / (H · W)",
      terms: table(rows, columns, (i, j) => ({
        factors: [
          cellAt(model, `a:${before}`, [c, i, j]),
          constant(1 / (rows * columns), `1/${rows * columns}`),
        ],
      })).flat(),
    };
  },

  dropout(model, layer, index, before) {
    return {
      rule: maskOf(model, layer, index)
        ? "Dropout: the feature times its mask, which is 0 where it " +
          "is left out and 1 / (1 − rate) where it stays."
        : "Dropout is not in force: nothing changes.",
      formula: "y = m · x",
      terms: [
        { factors: [cellAt(model, `a:${before}`, index), ...maskFactors(model, layer, index)] },
      ],
    };
  },

  normalize(model, layer, index, before) {
    const deviation = cellAt(model, `k:${layer.name}.deviation`, [index[0]]);
    const scale = constant(1 / deviation.value, `1 / s = 1 / ${number(deviation.value)}`);
    const mean = cellAt(model, `k:${layer.name}.mean`, [index[0]]);
    return {
      rule:
        "Normalize: less the channel's mean m, divided by its deviation s, both measured on the " +
        "training images.",
      formula: "y = (x − m) / s",
      terms: [
        { factors: [cellAt(model, `a:${before}`, index), scale] },
        { factors: [constant(-mean.value, "−m"), scale] },
      ],
    };
  },

  batchnorm(model, layer, index, before) {
    const [mean, scale] = moments(model, layer, index[0]);
    const weight = cellAt(model, `p:${layer.name}.weight`, [index[0]]);
    return {
      rule:
        `Batch normalisation: ${whose(model, layer)} mean m and variance v bring the channel to mean 0 ` +
        "and variance 1; then weight and bias.",
      formula: "y = weight · (x − m) / √(v + ε) + bias",
      terms: [
        { factors: [weight, cellAt(model, `a:${before}`, index), constant(scale, "1/√(v + ε)")] },
        { factors: [weight, constant(-mean, "−m"), constant(scale, "1/√(v + ε)")] },
        { factors: [cellAt(model, `p:${layer.name}.bias`, [index[0]])] },
      ],
    };
  },
};

function slopeForward(model, before, index, { rule, formula, slope }) {
  const x = cellAt(model, `a:${before}`, index);
  return { rule, formula, terms: [{ factors: [x, constant(...slope(x.value))] }] };
}
