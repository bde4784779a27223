// Where a delta comes from: of every kind of layer, the formula of its backward pass.

import { flat, number } from "./arrays.js";
import {
  cellAt,
  cellOrPadding,
  constant,
  counting,
  equation,
  filtersOf,
  grid,
  maskFactors,
  maskOf,
  moments,
  noCell,
  poolWindow,
  reached,
  table,
  termsOf,
  unknown,
  usesBatch,
  vectors,
  winnerOf,
} from "./terms.js";

export function delta(model, name, cell) {
  if (name === model.last) return firstDelta(model, name, cell.index);
  const layer = model.layer(model.after(name));
  const backward = BACKWARD[layer.kind];
  return backward ? backward(model, layer, cell.index, name) : unknown(layer, "backward");
}

function firstDelta(model, name, [k]) {
  const target = cellAt(model, "target", [k]);
  if (model.network.loss === "softmax_cross_entropy") {
    return {
      rule:
        "Here the backward pass begins. The derivative of softmax and cross-entropy together is " +
        "the probability less the target: p − y, with y 1 for the label and 0 elsewhere.",
      formula: "dL/dx[k] = p[k] − y[k]",
      terms: [
        { factors: [cellAt(model, "probabilities", [k])] },
        { factors: [constant(-1, "−1"), target] },
      ],
    };
  }
  if (model.network.loss === "binary_cross_entropy") {
    return {
      rule:
        "Here the backward pass begins. The derivative of the sigmoid and binary cross-entropy together " +
        "is the probability less the target: p − y.",
      formula: "dL/dx[k] = p[k] − y[k]",
      terms: [
        { factors: [cellAt(model, "probabilities", [k])] },
        { factors: [constant(-1, "−1"), target] },
      ],
    };
  }
  if (model.network.loss === "mean_squared_error") {
    const outputs = model.shape(`a:${name}`)[0];
    const share = constant(2 / outputs, `2/${outputs}`);
    return {
      rule: "Here the backward pass begins: twice the difference from the target, divided by the outputs.",
      formula: "dL/dx[k] = 2 (x[k] − y[k]) / K",
      terms: [
        { factors: [share, cellAt(model, `a:${name}`, [k])] },
        { factors: [constant(-2 / outputs, `−2/${outputs}`), target] },
      ],
    };
  }
  return unknown({ name: "the loss", text: model.network.loss_text }, "backward");
}

const BACKWARD = {
  conv(model, layer, [c, i, j], name) {
    const { rows, columns, channels, each } = filtersOf(model, layer);
    const { step, reach, pads } = layer.options;
    const first = Math.floor(c / channels) * each;
    const turned = (of) => table(rows, columns, (r, s) => of(rows - 1 - r, columns - 1 - s));
    const equations = counting(each).map((n) => {
      const k = first + n;
      const deltas = turned((r, s) => {
        const down = i + pads[0][0] - r * reach[0];
        const across = j + pads[1][0] - s * reach[1];
        if (down % step[0] || across % step[1]) return noCell("between (stride)");
        return cellOrPadding(model, `d:${layer.name}`, [k, down / step[0], across / step[1]]);
      });
      const weights = turned((r, s) =>
        cellAt(model, `p:${layer.name}.weight`, [k, c % channels, r, s]),
      );
      return equation(
        each > 1 ? `filter ${k}` : "",
        grid(`delta of ${layer.name}, zeros around it`, deltas),
        grid(`${layer.name}.weight, turned by 180°`, weights),
      );
    });
    return {
      rule:
        `The full convolution: this cell went into the outputs of ${layer.name} around it, through ` +
        "one weight each; its delta collects theirs through the same weights. The index runs " +
        "backwards, which turns the filter by 180°; where there is no output, there is a zero." +
        (each > 1 ? ` Added up over ${each} filters.` : ""),
      formula:
        `dx[c, i, j] = Σ(k, r, s) w[k, c, r, s] · dy[k, ${reached(layer, 0)}, ${reached(layer, 1)}]` +
        (Math.max(...layer.options.step) > 1 ? ", where that is whole" : ""),
      equations,
      terms: termsOf(equations),
    };
  },

  dense(model, layer, index, name) {
    const place = flat(index, model.shape(`d:${name}`));
    const equations = [
      vectors(model, `d:${layer.name}`, `p:${layer.name}.weight`, (n) => [n, place], {
        left: `delta of ${layer.name}`,
        right: `${layer.name}.weight, input ${place}`,
      }),
    ];
    return {
      rule:
        `This number went to every unit of ${layer.name}, through one weight each; its delta collects ` +
        "theirs through the same weights.",
      formula: "dx[c] = Σ(k) w[k, c] · dy[k]",
      equations,
      terms: termsOf(equations),
    };
  },

  flatten(model, layer, index) {
    return {
      rule: "Flatten computed nothing: the delta is the same number, put back in its place in the map.",
      formula: "dx[c, i, j] = dy[n],  n = (c · H + i) · W + j",
      terms: [{ factors: [cellAt(model, `d:${layer.name}`, [flat(index, layer.input_shape)])] }],
    };
  },

  relu: (model, layer, index, name) =>
    slopeBackward(model, layer, index, name, {
      rule: "ReLU's mask: the delta passes where the input was positive, and stops elsewhere.",
      formula: "dx = dy where x > 0, else 0",
      slope: ({ x }) => [x > 0 ? 1 : 0, `mask: x = ${number(x)} ${x > 0 ? "> 0" : "≤ 0"}`],
    }),

  leakyrelu: (model, layer, index, name) =>
    slopeBackward(model, layer, index, name, {
      rule: "Leaky ReLU's slope: the delta passes where the input was positive, and shrinks elsewhere.",
      formula: "dx = dy where x > 0, else a · dy",
      slope: ({ x }) => [
        x > 0 ? 1 : layer.options.slope,
        `slope: x = ${number(x)} ${x > 0 ? "> 0" : "≤ 0"}`,
      ],
    }),

  sigmoid: (model, layer, index, name) =>
    slopeBackward(model, layer, index, name, {
      rule: "The delta times the slope of the sigmoid there.",
      formula: "dx = dy · y (1 − y)",
      slope: ({ y }) => [y * (1 - y), `slope y (1 − y), y = ${number(y)}`],
    }),

  tanh: (model, layer, index, name) =>
    slopeBackward(model, layer, index, name, {
      rule: "The delta times the slope of tanh there.",
      formula: "dx = dy · (1 − y²)",
      slope: ({ y }) => [1 - y * y, `slope 1 − y², y = ${number(y)}`],
    }),

  pool(model, layer, [c, i, j], name) {
    const windows = windowsOver(layer, i, j).map(([p, q]) => {
      const seen = poolWindow(model, layer, [c, p, q], name);
      const { cell } = winnerOf(seen);
      const won = cell.index[1] === i && cell.index[2] === j;
      return { p, q, seen, won, dy: cellAt(model, `d:${layer.name}`, [c, p, q]), winner: cell };
    });
    return {
      rule:
        windows.length === 0
          ? "No window holds this cell (the stride left it over): its delta is 0."
          : "Max pooling: a cell gets the delta of a window that it won, as the largest (the first, where " +
            "several are). The others made no difference, and get 0.",
      formula: "dx[c, i, j] = sum of dy[c, p, q] over the windows that (i, j) won",
      equations: windows.map(({ p, q, seen, dy, won }) => ({
        caption: windows.length > 1 ? `window ${p}, ${q}` : "",
        left: grid(`window of ${name}`, seen),
        right: grid(`delta of ${layer.name}`, [[dy]]),
        said: won ? "won by this cell" : "won by another cell",
      })),
      lit: windows
        .flatMap(({ seen }) => seen.flat())
        .filter(({ cell }) => cell)
        .map(({ cell }) => cell),
      terms: windows.map(({ won, dy }) => ({
        factors: [constant(won ? 1 : 0, won ? "1 (won)" : "0 (lost)"), dy],
      })),
      links: windows
        .filter(({ won }) => !won)
        .map(({ winner }) => ({
          text: "its delta went to the winner,",
          cell: { array: `d:${name}`, index: winner.index },
        })),
    };
  },

  avgpool(model, layer, [c, i, j]) {
    const size = layer.options.window[0] * layer.options.window[1];
    return {
      rule: "Average pooling: each window that holds this cell gives it an equal share of its delta.",
      formula: "dx[c, i, j] = sum of dy[c, p, q] / (R · S) over the windows that hold (i, j)",
      terms: windowsOver(layer, i, j).map(([p, q]) => ({
        factors: [constant(1 / size, `1/${size}`), cellAt(model, `d:${layer.name}`, [c, p, q])],
      })),
    };
  },

  globalavgpool(model, layer, [c]) {
    const cells = layer.input_shape[1] * layer.input_shape[2];
    return {
      rule: "The mean of a whole map shares its delta out evenly.",
      formula: "dx[c, i, j] = dy[c] / (H · W)",
      terms: [
        { factors: [constant(1 / cells, `1/${cells}`), cellAt(model, `d:${layer.name}`, [c])] },
      ],
    };
  },

  dropout(model, layer, index) {
    return {
      rule: maskOf(model, layer, index)
        ? "Dropout: the delta times the same mask as forward."
        : "Dropout is not in force: nothing changes.",
      formula: "dx = m · dy",
      terms: [
        { factors: [...maskFactors(model, layer, index), cellAt(model, `d:${layer.name}`, index)] },
      ],
    };
  },

  normalize(model, layer, index) {
    const deviation = cellAt(model, `k:${layer.name}.deviation`, [index[0]]);
    return {
      rule: "Normalize divided by the deviation s, and so does its delta.",
      formula: "dx = dy / s",
      terms: [
        {
          factors: [
            constant(1 / deviation.value, `1 / s = 1 / ${number(deviation.value)}`),
            cellAt(model, `d:${layer.name}`, index),
          ],
        },
      ],
    };
  },

  batchnorm(model, layer, index, name) {
    const channel = index[0];
    const [mean, scale] = moments(model, layer, channel);
    const weight = cellAt(model, `p:${layer.name}.weight`, [channel]);
    const factors = [weight, constant(scale, "1/√(v + ε)")];
    const terms = [{ factors: [...factors, cellAt(model, `d:${layer.name}`, index)] }];
    if (usesBatch(model, layer)) {
      const count = layer.input_shape[1] * layer.input_shape[2];
      const z = (model.value({ array: `a:${name}`, index }) - mean) * scale;
      terms.push(
        {
          factors: [
            ...factors,
            cellAt(model, `g:${layer.name}.bias`, [channel]),
            constant(-1 / count, `−1/${count}`),
          ],
        },
        {
          factors: [
            ...factors,
            cellAt(model, `g:${layer.name}.weight`, [channel]),
            constant(-z / count, `−z/${count}`),
          ],
        },
      );
    }
    return {
      rule: usesBatch(model, layer)
        ? "The delta times the scale, less two terms that are there because every " +
          "cell of the channel also moved its mean and its variance."
        : "The delta times the scale; mean and variance are the running ones, which are constants.",
      formula: usesBatch(model, layer)
        ? "dx = weight/√(v + ε) · (dy − dbias/M − z · dweight/M)"
        : "dx = weight/√(v + ε) · dy",
      terms,
      lit: [{ array: `a:${name}`, index }],
    };
  },
};

function slopeBackward(model, layer, index, name, { rule, formula, slope }) {
  const x = { array: `a:${name}`, index };
  const y = { array: `a:${layer.name}`, index };
  const factor = constant(...slope({ x: model.value(x), y: model.value(y) }));
  return {
    rule,
    formula,
    terms: [{ factors: [factor, cellAt(model, `d:${layer.name}`, index)] }],
    lit: [layer.kind.endsWith("relu") ? x : y],
  };
}

// The windows of a pooling that hold a cell, in row-major order.
function windowsOver(layer, i, j) {
  const { window, step, pads } = layer.options;
  const [rows, columns] = [i, j].map((place, axis) =>
    counting(layer.output_shape[axis + 1]).filter((n) => {
      const start = n * step[axis] - pads[axis][0];
      return start <= place && place < start + window[axis];
    }),
  );
  return rows.flatMap((p) => columns.map((q) => [p, q]));
}
