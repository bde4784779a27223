// What a cell is called: in a heading, and as a factor of a term.

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
