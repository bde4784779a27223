// Where does this number come from: the formula with the actual numbers, and each of its terms.

import { cellKey, exponentOf, extent, number, palette, power, scaleOf } from "./arrays.js";
import { make } from "./elements.js";
import { isNoise } from "./noise.js";
import { origin } from "./origins.js";
import { paintGrid } from "./windows.js";
import { label } from "./words.js";

const FEW = 4; // equations, and factors of a line, that are shown at once
const ROWS = 60; // rows of the table that are shown at once
const MOVES = [
  ["←", "left", 0, -1],
  ["↑", "up", -1, 0],
  ["↓", "down", 1, 0],
  ["→", "right", 0, 1],
];
const WRITTEN = 7; // a grid with as many columns has its numbers written into it
const GRID = 180; // pixels of a grid; three of them stand side by side, where they can

// Mount the panel. `onSelect(cell)` is called where another number is asked for, `onShine(cells)`
// with the cells of a term that is pointed at, `onMove(rows, columns)` to go to a cell beside.
export function mountPanel(
  root,
  { onSelect = () => {}, onShine = () => {}, onMove = () => {} } = {},
) {
  return new Panel(root, onSelect, onShine, onMove);
}

class Panel {
  constructor(root, onSelect, onShine, onMove) {
    Object.assign(this, { root, onSelect, onShine, onMove, zeros: false });
    root.classList.add("panel");
    this.empty();
  }

  empty() {
    this.root.replaceChildren();
    make(this.root, "h2", { textContent: "Where does this number come from?" });
    make(this.root, "p", {
      className: "hint",
      textContent:
        "Click any cell of the picture: a map, a filter, a delta, a gradient, a probability. Its formula " +
        "appears here with the actual numbers, and the cells it is made of light up. With the keyboard: " +
        "Tab to an array, then the arrow keys.",
    });
  }

  show(model, cell) {
    this.model = model;
    this.origin = origin(model, cell);
    this.colours = palette(this.root);
    this.root.replaceChildren();
    this.root.dataset.cell = cellKey(cell);
    this.root.dataset.value = String(this.origin.value);
    this.head();
    this.equations();
    this.table();
    return litCells(this.origin);
  }

  head() {
    const { title, value, rule, formula, sum, terms, working, links = [] } = this.origin;
    const heading = make(this.root, "h2", {});
    make(heading, "span", { textContent: title });
    make(heading, "output", { className: "value", textContent: ` = ${number(value)}` });
    this.moves(heading);
    make(this.root, "p", { className: "rule", textContent: rule });
    if (isNoise(this.model, this.origin.cell.array))
      make(this.root, "p", {
        className: "noise",
        textContent:
          "Rounding noise: its terms cancel, or come from terms that do, and what is left is as small " +
          "as what float32 rounds off. Without rounding it would be 0, or next to 0.",
      });
    if (formula) make(this.root, "div", { className: "formula", textContent: formula });
    if (working)
      make(this.root, "div", {
        className: "formula numbers",
        textContent: `= ${working} = ${number(value)}`,
      });
    if (sum) this.line(terms, value);
    for (const { text, cell } of links) {
      const line = make(this.root, "p", { className: "link" });
      line.append(`${text} `);
      this.reference(line, { cell, label: label(cell), value: this.model.value(cell) });
    }
  }

  // Buttons that move to the cells beside this one, for fingers.
  moves(heading) {
    const pad = make(heading, "span", {
      className: "moves",
      role: "group",
      ariaLabel: "Move to the cell beside it",
    });
    for (const [text, says, rows, columns] of MOVES) {
      const button = make(pad, "button", {
        type: "button",
        textContent: text,
        title: says,
        ariaLabel: says,
      });
      button.dataset.move = says;
      button.addEventListener("click", () => this.onMove(rows, columns));
    }
  }

  // The sum with its numbers, as far as it fits on a line.
  line(terms, value) {
    const counted = terms.length <= FEW + 1 ? terms : terms.filter(({ product }) => product !== 0);
    const shown = counted
      .slice(0, FEW + 1)
      .map(({ factors }) => factors.map(({ value: own }) => number(own, 3)).join(" × "));
    const more = counted.length - shown.length;
    const text = shown.length
      ? shown.join("  +  ")
      : terms.length
        ? `all ${terms.length} products are 0`
        : "no terms";
    make(this.root, "div", {
      className: "formula numbers",
      textContent: `= ${text}${more > 0 ? `  +  … (${more} more)` : ""} = ${number(value)}`,
    });
  }

  // Windows and what they meet --------------------------------------------------------------------

  equations() {
    if (!this.origin.equations.length) return;
    const counts = ({ product }) =>
      !product || product.rows.flat().some(({ value }) => value !== 0);
    const [some, none] = [true, false].map((wanted) =>
      this.origin.equations.filter((one) => counts(one) === wanted),
    );
    const equations = [...some, ...none]; // those whose products are all 0 come last
    const all = make(this.root, "div", { className: "equations" });
    const show = (from, to) => equations.slice(from, to).forEach((one) => this.equation(all, one));
    show(0, FEW);
    if (equations.length > FEW) {
      const more = make(this.root, "button", {
        type: "button",
        className: "more",
        textContent: `show the other ${equations.length - FEW}${none.length ? `, ${none.length} of them 0` : ""}`,
      });
      more.addEventListener("click", () => {
        more.remove();
        show(FEW);
      });
    }
  }

  equation(parent, { caption, left, right, product, said }) {
    const row = make(parent, "div", { className: "equation" });
    if (caption) make(row, "div", { className: "caption", textContent: caption });
    const parts = make(row, "div", { className: "parts" });
    this.grid(parts, left);
    if (right) {
      make(parts, "span", { className: "sign", textContent: product ? "×" : "←" });
      this.grid(parts, right);
    }
    if (product) {
      make(parts, "span", { className: "sign", textContent: "=" });
      this.grid(parts, product, [left, right]);
      const sum = product.rows.flat().reduce((all, { value }) => all + value, 0);
      make(parts, "span", { className: "sign", textContent: `Σ = ${number(sum)}` });
    }
    if (said) make(parts, "span", { className: "sign", textContent: said });
  }

  grid(parent, { caption, rows }, factors = null) {
    const figure = make(parent, "figure", { className: "window" });
    const values = rows.flat().map(({ value }) => value);
    const most = extent(values);
    const id = rows.flat().find(({ cell }) => cell)?.cell.array ?? "d:";
    const scale = this.model.has(id) ? scaleOf(id, this.model) : "backward";
    const canvas = make(figure, "canvas", { className: "window-cells" });
    const columns = Math.max(...rows.map((row) => row.length));
    const side = Math.max(84, Math.min(GRID, (this.root.clientWidth - 110) / 3));
    const cell =
      columns <= WRITTEN && rows.length <= WRITTEN + 5
        ? [side < 120 ? 36 : 44, 22]
        : Array(2).fill(
            Math.max(3, Math.min(14, Math.floor(side / Math.max(columns, rows.length)))),
          );
    const exponent = exponentOf(most);
    canvas.setAttribute("role", "img");
    canvas.setAttribute(
      "aria-label",
      `${caption}: ${rows
        .map((row) => row.map(({ value, why }) => (why ? `${why} 0` : number(value, 3))).join(", "))
        .slice(0, 12)
        .join("; ")}`,
    );
    paintGrid(canvas, rows, { cell, most, scale, exponent, colours: this.colours });
    make(figure, "figcaption", {
      textContent: `${caption}${cell[0] > 30 && exponent ? `, in ${power(exponent)}` : ""}`,
    });
    const under = ({ offsetX, offsetY }) => [
      Math.floor(offsetY / cell[1]),
      Math.floor(offsetX / cell[0]),
    ];
    const found = (grid, [r, c]) => grid.rows[r]?.[c];
    canvas.addEventListener("pointermove", (event) => {
      const each = (factors ?? [{ rows }])
        .map((grid) => found(grid, under(event)))
        .filter((one) => one?.cell);
      canvas.title = each.map(({ label: name, value }) => `${name} = ${number(value)}`).join(" × ");
      this.onShine(each.map(({ cell: own }) => own));
    });
    canvas.addEventListener("pointerleave", () => this.onShine([]));
    canvas.addEventListener("click", (event) => {
      const one = found({ rows }, under(event));
      if (one?.cell) this.onSelect(one.cell);
    });
  }

  // Every term ------------------------------------------------------------------------------------

  table() {
    const { terms, sum } = this.origin;
    if (terms.length < 1) return;
    const zero = sum ? terms.filter(({ product }) => product === 0).length : 0;
    const hidden = zero > 0 && zero < terms.length && !this.zeros && terms.length > 3;
    const list = terms.map((term, n) => ({ ...term, n: n + 1 }));
    let running = 0;
    for (const term of list) {
      running += term.product;
      term.running = running;
    }
    const shown = hidden ? list.filter(({ product }) => product !== 0) : list;
    const controls = make(this.root, "div", { className: "controls" });
    if (zero > 0 && terms.length > 3 && zero < terms.length) this.zeroSwitch(controls, zero);
    const scroller = make(this.root, "div", {
      className: "terms",
      tabIndex: 0,
      role: "region",
      ariaLabel: "Terms",
    });
    const table = make(scroller, "table", {});
    this.header(table, Math.max(...terms.map(({ factors }) => factors.length)), sum);
    const body = make(table, "tbody", {});
    const width = Math.max(...terms.map(({ factors }) => factors.length));
    const add = (from, to) =>
      shown.slice(from, to).forEach((term) => this.row(body, term, width, sum));
    add(0, ROWS);
    if (shown.length > ROWS) {
      const more = make(controls, "button", {
        type: "button",
        className: "more",
        textContent: `show all ${shown.length} terms`,
      });
      more.addEventListener("click", () => {
        more.remove();
        add(ROWS);
      });
    }
    if (sum) this.total(running);
  }

  zeroSwitch(controls, zero) {
    const holder = make(controls, "label", {});
    const box = make(holder, "input", {
      type: "checkbox",
      checked: this.zeros,
      className: "zeros",
    });
    holder.append(` also the ${zero} terms that are 0`);
    box.addEventListener("change", () => {
      this.zeros = box.checked;
      this.show(this.model, this.origin.cell);
      this.root.querySelector(".zeros")?.focus();
    });
  }

  header(table, width, sum) {
    const row = make(make(table, "thead", {}), "tr", {});
    const names = ["#", ...Array(width).fill("factor"), ...(sum ? ["product", "running sum"] : [])];
    for (const name of names)
      make(row, "th", {
        scope: "col",
        textContent: width === 1 && name === "factor" ? "number" : name,
      });
  }

  row(body, { n, factors, product, running }, width, sum) {
    const row = make(body, "tr", {});
    make(row, "td", { textContent: n, className: "n" });
    for (let place = 0; place < width; place += 1) {
      const cell = make(row, "td", {});
      if (factors[place]) this.reference(cell, factors[place]);
    }
    if (sum) {
      for (const [name, value] of [
        ["product", product],
        ["running", running],
      ]) {
        const cell = make(row, "td", { textContent: number(value), className: name });
        cell.dataset.value = String(value);
      }
    }
    const cells = factors.map(({ cell }) => cell).filter(Boolean);
    row.addEventListener("pointerenter", () => this.onShine(cells));
    row.addEventListener("pointerleave", () => this.onShine([]));
    row.addEventListener("focusin", () => this.onShine(cells));
  }

  // A number with its name, which leads to where it comes from in turn.
  reference(parent, { cell, label: name, value, why }) {
    if (!cell) {
      const text = make(parent, "span", {
        className: why ? "padding" : "constant",
        textContent: why
          ? `0 (${why})`
          : `${name}${/[=\d]/.test(name) && !/^slope/.test(name) ? "" : ` = ${number(value)}`}`,
      });
      text.dataset.value = String(value);
      return;
    }
    const button = make(parent, "button", { type: "button", className: "reference" });
    const [what, ...place] = name.split("[");
    const named = make(button, "span", { className: "label", textContent: what });
    if (place.length) {
      make(named, "wbr");
      named.append(`[${place.join("[")}`);
    }
    make(button, "span", { className: "number", textContent: number(value) });
    button.dataset.cell = cellKey(cell);
    button.dataset.value = String(value);
    button.addEventListener("click", () => this.onSelect(cell));
  }

  total(sum) {
    const { value } = this.origin;
    const same = number(sum) === number(value) || Math.abs(sum - value) <= 1e-30;
    make(this.root, "p", {
      className: "total",
      textContent: same
        ? `The terms add up to ${number(sum)}.`
        : `The terms add up to ${number(sum)} here; the trace, which adds in ${this.model.network.dtype}, has ${number(value)}.`,
    });
  }
}

function litCells({ terms, lit }) {
  return [
    ...lit,
    ...terms.flatMap(({ factors }) => factors.map(({ cell }) => cell).filter(Boolean)),
  ];
}
