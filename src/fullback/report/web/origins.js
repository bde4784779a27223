// Where a number comes from: of every cell, the formula and the cells that it is made of.
//
// An origin is {title, rule, formula, terms, value, equations, lit, note}. A term is a product:
// {factors: [{label, value, cell, why}], product}. The sum of all products is the value, where
// `sum` is true. An equation is a window laid out in rows: {caption, left, right, product}, each
// {caption, rows: [[{value, cell, why, won}]]}; `lit` are cells that count beside those of the terms.

import { flat, number, unflat } from "./arrays.js";

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

// Words ---------------------------------------------------------------------------------------

export function titleOf(model, { array, index }) {
  const [letter, name] = array.includes(":") ? array.split(":") : ["", array];
  if (array === "probabilities") return `Probability of ${model.classes[index[0]]}`;
  if (array === "target") return `Target of ${model.classes[index[0]]}`;
  const what = { a: "Output of", d: "Delta of", p: "", g: "Gradient of", k: "Kept:" }[letter];
  return `${what} ${letter === "a" && name === "input" ? "the input" : name}${placeOf(model, { array, index })}`.trim();
}

export function placeOf(model, { array, index }) {
  const shape = model.shape(array);
  if (array.startsWith("p:") || array.startsWith("g:")) {
    if (index.length === 4) {
      const of = `, filter ${index[0]}`;
      return `${of}${shape[1] > 1 ? `, channel ${index[1]}` : ""}, row ${index[2]}, column ${index[3]}`;
    }
    if (index.length === 2) return `, unit ${index[0]}, input ${index[1]}`;
    return `, number ${index[0]}`;
  }
  if (index.length === 3) {
    return `${shape[0] > 1 ? `, ${channelOf(array, index[0], shape[0])}` : ""}, row ${index[1]}, column ${index[2]}`;
  }
  return `, number ${index[0]}`;
}

function channelOf(array, n, count) {
  const colour = array.endsWith(":input") && count === 3 ? ["red", "green", "blue"][n] : "";
  return colour ? `channel ${n} (${colour})` : `channel ${n}`;
}

export function label({ array, index }) {
  const [letter, name] = array.includes(":") ? array.split(":") : ["", array];
  const prefix = { a: "", d: "δ ", p: "", g: "d ", k: "", "": "" }[letter];
  const short = array === "probabilities" ? "p" : array === "target" ? "y" : name;
  return `${prefix}${short}[${index.join(",")}]`;
}

// Factors -------------------------------------------------------------------------------------

function taken(model, array, index, factor = {}) {
  const cell = { array, index };
  return { cell, value: model.value(cell), label: label(cell), ...factor };
}

function constant(value, text) {
  return { value, label: text };
}

function nothing(why) {
  return { value: 0, label: why, why };
}

function grid(caption, rows) {
  return { caption, rows };
}

function product(one, other) {
  return one.rows.map((row, r) =>
    row.map((left, c) => ({ value: left.value * other.rows[r][c].value })),
  );
}

function equation(caption, left, right) {
  return { caption, left, right, product: grid("products", product(left, right)) };
}

function termsOf(equations) {
  return equations.flatMap(({ left, right, caption }) =>
    left.rows.flatMap((row, r) =>
      row.map((one, c) => ({ factors: [one, right.rows[r][c]], caption })),
    ),
  );
}

function counting(length) {
  return [...Array(length).keys()];
}

// Activations: forward --------------------------------------------------------------------------

function activation(model, name, cell) {
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

// The index of the cell that a filter's tap meets, as a formula writes it: p + r − 1.
function met(layer, axis) {
  const { step, reach = [1, 1], pads } = layer.options;
  const times = (n, name) => (n > 1 ? `${n}${name}` : name);
  const padding = pads[axis][0] ? ` − ${pads[axis][0]}` : "";
  return `${times(step[axis], "pq"[axis])} + ${times(reach[axis], "rs"[axis])}${padding}`;
}

// The index of the output that a cell went into through a tap: i + 1 − r.
function reached(layer, axis) {
  const { step, reach, pads } = layer.options;
  const padding = pads[axis][0] ? ` + ${pads[axis][0]}` : "";
  const tap = reach[axis] > 1 ? `${reach[axis]}${"rs"[axis]}` : "rs"[axis];
  const index = `${"ij"[axis]}${padding} − ${tap}`;
  return step[axis] > 1 ? `(${index}) / ${step[axis]}` : index;
}

function unknown(layer, pass) {
  return {
    rule:
      `${layer.name} is a layer that this page has no formula for (${layer.text}). Its ${pass} ` +
      "pass computed this number; it is shown as it came.",
    formula: "",
    sum: false,
  };
}

const FORWARD = {
  conv(model, layer, [k, p, q], before) {
    const {
      window: [rows, columns],
      step,
      reach,
      pads,
      groups,
    } = layer.options;
    const [filters, channels] = model.shape(`p:${layer.name}.weight`);
    const first = Math.floor(k / (filters / groups)) * channels;
    const equations = counting(channels).map((c) => {
      const seen = counting(rows).map((r) =>
        counting(columns).map((s) => {
          const i = p * step[0] + r * reach[0] - pads[0][0];
          const j = q * step[1] + s * reach[1] - pads[1][0];
          return cellOrPadding(model, `a:${before}`, [first + c, i, j]);
        }),
      );
      const weights = counting(rows).map((r) =>
        counting(columns).map((s) => taken(model, `p:${layer.name}.weight`, [k, c, r, s])),
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
      terms: [{ factors: [taken(model, `a:${before}`, index)] }],
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
    terms: [{ factors: [taken(model, `a:${before}`, index)] }],
  }),

  tanh: (model, layer, index, before) => ({
    rule: "Hyperbolic tangent.",
    formula: "y = tanh(x)",
    sum: false,
    terms: [{ factors: [taken(model, `a:${before}`, index)] }],
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
      terms: counting(rows * columns).map((n) => ({
        factors: [
          taken(model, `a:${before}`, [c, Math.floor(n / columns), n % columns]),
          constant(1 / (rows * columns), `1/${rows * columns}`),
        ],
      })),
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
        { factors: [taken(model, `a:${before}`, index), ...maskFactors(model, layer, index)] },
      ],
    };
  },

  normalize(model, layer, index, before) {
    const deviation = taken(model, `k:${layer.name}.deviation`, [index[0]]);
    const scale = constant(1 / deviation.value, `1 / s = 1 / ${number(deviation.value)}`);
    const mean = taken(model, `k:${layer.name}.mean`, [index[0]]);
    return {
      rule:
        "Normalize: less the channel's mean m, divided by its deviation s, both measured on the " +
        "training images.",
      formula: "y = (x − m) / s",
      terms: [
        { factors: [taken(model, `a:${before}`, index), scale] },
        { factors: [constant(-mean.value, "−m"), scale] },
      ],
    };
  },

  batchnorm(model, layer, index, before) {
    const [mean, scale] = moments(model, layer, index[0]);
    const weight = taken(model, `p:${layer.name}.weight`, [index[0]]);
    return {
      rule:
        `Batch normalisation: ${whose(model, layer)} mean m and variance v bring the channel to mean 0 ` +
        "and variance 1; then weight and bias.",
      formula: "y = weight · (x − m) / √(v + ε) + bias",
      terms: [
        { factors: [weight, taken(model, `a:${before}`, index), constant(scale, "1/√(v + ε)")] },
        { factors: [weight, constant(-mean, "−m"), constant(scale, "1/√(v + ε)")] },
        { factors: [taken(model, `p:${layer.name}.bias`, [index[0]])] },
      ],
    };
  },
};

function bias(model, layer, k) {
  const array = `p:${layer.name}.bias`;
  return model.has(array) ? [{ factors: [taken(model, array, [k])], caption: "bias" }] : [];
}

function cellOrPadding(model, array, index) {
  const cell = { array, index };
  return model.value(cell) === undefined ? nothing("padding") : taken(model, array, index);
}

// A vector and the weights that meet it, in rows as the picture lays vectors out.
function vectors(model, array, weight, place, captions) {
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
      rows.map((row) => row.map((n) => taken(model, array, unflat(n, shape)))),
    ),
    grid(
      captions.right,
      rows.map((row) => row.map((n) => taken(model, weight, place(n)))),
    ),
  );
}

export function rowLength(length) {
  return length <= 12 ? 1 : Math.ceil(Math.sqrt(length));
}

function slopeForward(model, before, index, { rule, formula, slope }) {
  const x = taken(model, `a:${before}`, index);
  return { rule, formula, terms: [{ factors: [x, constant(...slope(x.value))] }] };
}

function poolWindow(model, layer, [c, p, q], before) {
  const {
    window: [rows, columns],
    step,
    pads,
  } = layer.options;
  const seen = counting(rows).map((r) =>
    counting(columns).map((s) => {
      const index = [c, p * step[0] + r - pads[0][0], q * step[1] + s - pads[1][0]];
      return cellOrPadding(model, `a:${before}`, index);
    }),
  );
  if (layer.kind === "pool") {
    const won = winnerOf(seen);
    if (won) won.won = true;
  }
  return seen;
}

// The first of the largest cells, in row-major order; padding never wins. NaN wins, as in NumPy.
function winnerOf(seen) {
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

function maskOf(model, layer, index) {
  const array = `k:${layer.name}.mask`;
  return model.has(array) ? taken(model, array, index) : null;
}

function maskFactors(model, layer, index) {
  const mask = maskOf(model, layer, index);
  return mask ? [constant(mask.value, "m")] : [];
}

function moments(model, layer, channel) {
  const mean = model.value({ array: `k:${layer.name}.mean`, index: [channel] });
  const variance = model.value({ array: `k:${layer.name}.variance`, index: [channel] });
  return [mean, 1 / Math.sqrt(variance + layer.options.epsilon)];
}

function usesBatch(model, layer) {
  return model.value({ array: `k:${layer.name}.batch`, index: [] }) === 1;
}

function whose(model, layer) {
  return usesBatch(model, layer) ? "this image's" : "the running";
}

// Deltas: backward ------------------------------------------------------------------------------

function delta(model, name, cell) {
  if (name === model.last) return firstDelta(model, name, cell.index);
  const layer = model.layer(model.after(name));
  const backward = BACKWARD[layer.kind];
  return backward ? backward(model, layer, cell.index, name) : unknown(layer, "backward");
}

function firstDelta(model, name, [k]) {
  const target = taken(model, "target", [k]);
  if (model.network.loss === "softmax_cross_entropy") {
    return {
      rule:
        "Here the backward pass begins. The derivative of softmax and cross-entropy together is " +
        "the probability less the target: p − y, with y 1 for the label and 0 elsewhere.",
      formula: "dL/dx[k] = p[k] − y[k]",
      terms: [
        { factors: [taken(model, "probabilities", [k])] },
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
        { factors: [share, taken(model, `a:${name}`, [k])] },
        { factors: [constant(-2 / outputs, `−2/${outputs}`), target] },
      ],
    };
  }
  return unknown({ name: "the loss", text: model.network.loss_text }, "backward");
}

const BACKWARD = {
  conv(model, layer, [c, i, j], name) {
    const {
      window: [rows, columns],
      step,
      reach,
      pads,
      groups,
    } = layer.options;
    const [filters, channels] = model.shape(`p:${layer.name}.weight`);
    const each = filters / groups;
    const first = Math.floor(c / channels) * each;
    const equations = counting(each).map((n) => {
      const k = first + n;
      const turned = (length) => counting(length).reverse();
      const deltas = turned(rows).map((r) =>
        turned(columns).map((s) => {
          const down = i + pads[0][0] - r * reach[0];
          const across = j + pads[1][0] - s * reach[1];
          if (down % step[0] || across % step[1]) return nothing("between (stride)");
          return cellOrPadding(model, `d:${layer.name}`, [k, down / step[0], across / step[1]]);
        }),
      );
      const weights = turned(rows).map((r) =>
        turned(columns).map((s) => taken(model, `p:${layer.name}.weight`, [k, c % channels, r, s])),
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
      terms: [{ factors: [taken(model, `d:${layer.name}`, [flat(index, layer.input_shape)])] }],
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
      return { p, q, seen, won, dy: taken(model, `d:${layer.name}`, [c, p, q]), winner: cell };
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
        factors: [constant(1 / size, `1/${size}`), taken(model, `d:${layer.name}`, [c, p, q])],
      })),
    };
  },

  globalavgpool(model, layer, [c]) {
    const cells = layer.input_shape[1] * layer.input_shape[2];
    return {
      rule: "The mean of a whole map shares its delta out evenly.",
      formula: "dx[c, i, j] = dy[c] / (H · W)",
      terms: [
        { factors: [constant(1 / cells, `1/${cells}`), taken(model, `d:${layer.name}`, [c])] },
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
        { factors: [...maskFactors(model, layer, index), taken(model, `d:${layer.name}`, index)] },
      ],
    };
  },

  normalize(model, layer, index) {
    const deviation = taken(model, `k:${layer.name}.deviation`, [index[0]]);
    return {
      rule: "Normalize divided by the deviation s, and so does its delta.",
      formula: "dx = dy / s",
      terms: [
        {
          factors: [
            constant(1 / deviation.value, `1 / s = 1 / ${number(deviation.value)}`),
            taken(model, `d:${layer.name}`, index),
          ],
        },
      ],
    };
  },

  batchnorm(model, layer, index, name) {
    const channel = index[0];
    const [mean, scale] = moments(model, layer, channel);
    const weight = taken(model, `p:${layer.name}.weight`, [channel]);
    const factors = [weight, constant(scale, "1/√(v + ε)")];
    const terms = [{ factors: [...factors, taken(model, `d:${layer.name}`, index)] }];
    if (usesBatch(model, layer)) {
      const count = layer.input_shape[1] * layer.input_shape[2];
      const z = (model.value({ array: `a:${name}`, index }) - mean) * scale;
      terms.push(
        {
          factors: [
            ...factors,
            taken(model, `g:${layer.name}.bias`, [channel]),
            constant(-1 / count, `−1/${count}`),
          ],
        },
        {
          factors: [
            ...factors,
            taken(model, `g:${layer.name}.weight`, [channel]),
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
    terms: [{ factors: [factor, taken(model, `d:${layer.name}`, index)] }],
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

// Gradients and parameters ----------------------------------------------------------------------

function gradient(model, name, cell) {
  const [owner, key] = name.split(".");
  const layer = model.layer(owner);
  const made = GRADIENT[`${layer.kind}.${key}`];
  return made ? made(model, layer, cell.index, model.before(owner)) : unknown(layer, "backward");
}

const GRADIENT = {
  "conv.weight"(model, layer, [k, c, r, s], before) {
    const { step, reach, pads, groups } = layer.options;
    const [filters, channels] = model.shape(`p:${layer.name}.weight`);
    const channel = Math.floor(k / (filters / groups)) * channels + c;
    const [, rows, columns] = layer.output_shape;
    const seen = counting(rows).map((p) =>
      counting(columns).map((q) => {
        const i = p * step[0] + r * reach[0] - pads[0][0];
        const j = q * step[1] + s * reach[1] - pads[1][0];
        return cellOrPadding(model, `a:${before}`, [channel, i, j]);
      }),
    );
    const deltas = counting(rows).map((p) =>
      counting(columns).map((q) => taken(model, `d:${layer.name}`, [k, p, q])),
    );
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
      terms: counting(rows * columns).map((n) => ({
        factors: [taken(model, `d:${layer.name}`, [k, Math.floor(n / columns), n % columns])],
      })),
    };
  },

  "dense.weight": (model, layer, [k, c], before) => ({
    rule: "The delta of the weight's unit times the weight's input.",
    formula: "dw[k, c] = dy[k] · x[c]",
    terms: [
      {
        factors: [
          taken(model, `d:${layer.name}`, [k]),
          taken(model, `a:${before}`, unflat(c, model.shape(`a:${before}`))),
        ],
      },
    ],
  }),

  "dense.bias": (model, layer, [k]) => ({
    rule: "The delta of the bias's unit.",
    formula: "db[k] = dy[k]",
    terms: [{ factors: [taken(model, `d:${layer.name}`, [k])] }],
  }),

  "batchnorm.weight"(model, layer, [channel], before) {
    const [mean, scale] = moments(model, layer, channel);
    const [, rows, columns] = layer.input_shape;
    return {
      rule: "The sum of delta times normalised value z = (x − m) / √(v + ε), over all places.",
      formula: "dweight[c] = Σ(i, j) dy[c, i, j] · z[c, i, j]",
      terms: counting(rows * columns).map((n) => {
        const index = [channel, Math.floor(n / columns), n % columns];
        const x = taken(model, `a:${before}`, index);
        return {
          factors: [
            taken(model, `d:${layer.name}`, index),
            { ...x, value: (x.value - mean) * scale, label: `z of ${x.label}` },
          ],
        };
      }),
    };
  },

  "batchnorm.bias"(model, layer, [channel]) {
    const [, rows, columns] = layer.input_shape;
    return {
      rule: "The shift went into every cell of its channel, so its gradient is the sum of their deltas.",
      formula: "dbias[c] = Σ(i, j) dy[c, i, j]",
      terms: counting(rows * columns).map((n) => ({
        factors: [taken(model, `d:${layer.name}`, [channel, Math.floor(n / columns), n % columns])],
      })),
    };
  },
};

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

// At the loss -----------------------------------------------------------------------------------

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
  const logits = counting(count).map((n) => taken(model, outputs, [n]));
  const most = Math.max(...logits.map(({ value }) => value));
  const all = logits.reduce((sum, { value }) => sum + Math.exp(value - most), 0);
  return {
    rule:
      "Softmax: the exponential of the logit, divided by the sum of all. The largest logit is taken away " +
      "first, which changes nothing and keeps the exponentials small.",
    formula: "p[k] = exp(x[k] − max) / Σ(j) exp(x[j] − max)",
    sum: false,
    working:
      `exp(${number(logits[k].value)} − ${number(most)}) / ${number(all)} = ` +
      `${number(Math.exp(logits[k].value - most))} / ${number(all)}`,
    terms: logits.map((logit) => ({ factors: [{ ...logit }] })),
    links: [
      {
        text: "less the target, it is the first delta,",
        cell: { array: `d:${model.last}`, index: [k] },
      },
    ],
  };
}
