// The columns of the picture, and what its arrays are called.

// The columns from left to right: every array of maps, and before it the weights that make it.
export function columnsOf(model) {
  const columns = [];
  for (const name of model.names) {
    const layer = name === "input" ? null : model.layer(name);
    const shape = model.shape(`a:${name}`);
    const own = [...model.packed.keys()]
      .filter((id) => id.startsWith(`p:${name}.`))
      .map((id) => id.slice(2));
    if (own.length) {
      columns.push({
        kind: "parameters",
        name,
        shape: own[0].split(".")[1],
        note: `The parameters of ${name}`,
        weight: model.shape(`p:${own[0]}`).length,
        channels: layer.kind === "conv" ? model.shape(`p:${own[0]}`)[0] : 1,
        forward: own.map((key) => `p:${key}`),
        backward: own.map((key) => `g:${key}`),
      });
    }
    columns.push({
      kind: shape.length === 3 ? "maps" : "vector",
      name,
      shape: shape.join("×"),
      note: layer ? layer.text : "The image",
      channels: shape.length === 3 ? shape[0] : 1,
      forward: [`a:${name}`],
      backward: [`d:${name}`],
    });
  }
  columns.push({
    kind: "loss",
    name: "loss",
    shape: { softmax_cross_entropy: "softmax", binary_cross_entropy: "sigmoid" }[model.network.loss] ?? "",
    note: model.network.loss_text,
    forward: [],
    backward: [],
    channels: 1,
  });
  return columns.map((column) => ({ ...column, wanted: [] }));
}

export function nameOf(id) {
  const [letter, name] = id.split(":");
  return { a: name, d: `Delta of ${name}`, p: name, g: `Gradient of ${name}` }[letter];
}
