// The network as a picture: what flows forward above, what flows back below it.

import { Answers } from "./answers.js";
import { byteOf, Model, number, palette } from "./arrays.js";
import { columnsOf, nameOf } from "./columns.js";
import { make, scrollSideways } from "./elements.js";
import { Tiles } from "./tiles.js";
import { titleOf } from "./words.js";

const LEAST = 46; // pixels of a map, where the page is narrow

// Mount the picture in `root`. `onSelect(cell)` is called for a cell that is clicked or moved to,
// and `onStep(i)` where a layer's name is pressed, with the first instruction that shows it.
export function mountPicture(root, document, { onSelect = () => {}, onStep = () => {} } = {}) {
  return new Picture(root, document, onSelect, onStep);
}

class Picture {
  constructor(root, document, onSelect, onStep) {
    Object.assign(this, { root, onSelect, onStep, selected: null, lit: [], bright: [], at: null });
    this.folded = new Map();
    root.classList.add("picture");
    this.announcer = make(root, "div", { className: "spoken", ariaLive: "polite" });
    this.scroller = make(root, "div", {
      className: "scroller",
      tabIndex: 0,
      role: "region",
      ariaLabel: "Picture of the network; scrolls sideways",
    });
    this.update(document);
    new ResizeObserver(() => this.fit()).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  // Show another document: of the same network in place, of another one anew.
  update(document) {
    this.model = new Model(document);
    const built = JSON.stringify([
      document.network.text,
      document.network.input_shape,
      document.classes,
    ]);
    if (built !== this.built) {
      this.built = built;
      this.folded.clear();
      this.selected = null;
      [this.lit, this.bright] = [[], []];
      this.at = document.program.length;
      this.build();
    } else {
      this.draw();
    }
  }

  // Show the picture as it is before instruction i + 1: what is not computed yet is pale.
  step(i) {
    this.at = i;
    this.mark();
  }

  // Select a cell, or nothing; `lit` are the cells it is made of, `bright` those of one term.
  select(cell, lit = []) {
    this.selected = cell;
    this.lit = lit;
    this.bright = [];
    this.reveal();
    this.outline();
    const element = cell && this.tiles.get(cell.array)?.element;
    if (element) scrollSideways(this.scroller, element, this.ends);
  }

  shine(cells) {
    this.bright = cells;
    this.outline();
  }

  recolour() {
    this.draw();
  }

  // Building ------------------------------------------------------------------------------------

  build() {
    this.scroller.replaceChildren();
    this.tiles = new Map();
    this.columns = columnsOf(this.model);
    this.grid = make(this.scroller, "div", { className: "grid" });
    band(this.grid, "forward", "values, left to right");
    band(this.grid, "backward", "gradients, right to left");
    this.columns.forEach((column, n) => this.buildColumn(column, n + 2));
    this.size = 0; // nothing is laid out yet, which has to be done while the picture is hidden, too
    this.fit(true);
  }

  buildColumn(column, place) {
    const head = make(this.grid, "div", { className: "head" });
    head.style.gridColumn = place;
    if (column.kind === "loss") head.classList.add("loss");
    this.buildHead(head, column);
    const cells = [];
    for (const [row, ids] of [
      ["forward", column.forward],
      ["backward", column.backward],
    ]) {
      const cell = make(this.grid, "div", { className: `${row} ${column.kind}` });
      cell.style.gridColumn = place;
      if (row === "forward" && column.forward[0] === "a:input") this.buildComposite(cell);
      for (const id of ids) cell.append(this.buildTiles(id).element);
      cells.push(cell);
    }
    if (column.kind === "loss") this.answers = new Answers(...cells, this.onSelect);
  }

  // A picture of three channels, in its colours.
  buildComposite(cell) {
    const shape = this.model.shape("a:input");
    this.composite = null;
    if (shape.length !== 3 || shape[0] !== 3) return;
    const figure = make(cell, "figure", { className: "composite" });
    this.composite = make(figure, "canvas", { width: shape[2], height: shape[1] });
    this.composite.setAttribute("role", "img");
    this.composite.setAttribute("aria-label", "The image in its colours");
    make(figure, "figcaption", { textContent: "in colours" });
  }

  drawComposite() {
    if (!this.composite) return;
    const { shape, values } = this.model.array("a:input");
    const [, rows, columns] = shape;
    const context = this.composite.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let n = 0; n < rows * columns; n += 1) {
      for (let c = 0; c < 3; c += 1)
        image.data[4 * n + c] = byteOf(values[n + c * rows * columns], this.model.range);
      image.data[4 * n + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    const { width, height } = this.tiles.get("a:input").plan;
    this.composite.style.width = `${columns * width}px`;
    this.composite.style.height = `${rows * height}px`;
  }

  buildHead(head, { kind, name, shape, note }) {
    const button = make(head, "button", {
      type: "button",
      className: "name",
      textContent: name,
      title: note,
    });
    button.addEventListener("click", () => this.onStep(this.firstStep(kind, name)));
    make(head, "div", { className: "shape", textContent: shape });
    const of = this.foldable(kind, name);
    if (of) {
      const fold = make(head, "button", { type: "button", className: "fold" });
      fold.dataset.fold = of;
      fold.addEventListener("click", () => this.fold(of, !this.isFolded(of)));
    }
  }

  // The first instruction that shows the layer's output, or its weights' gradient.
  firstStep(kind, name) {
    const wanted =
      kind === "loss"
        ? ["probabilities", `d:${this.model.last}`]
        : kind === "parameters"
          ? [`g:${name}.weight`]
          : [`a:${name}`];
    const found = this.model.program.findIndex(({ shows }) =>
      wanted.some((id) => shows.includes(id)),
    );
    return found < 0 ? this.model.program.length : found;
  }

  foldable(kind, name) {
    const id = kind === "parameters" ? `p:${name}.weight` : `a:${name}`;
    if (kind === "loss" || !this.model.has(id)) return null;
    const tiles = new Tiles(this.root.ownerDocument, id);
    tiles.arrange(this.model.shape(id), { folded: true, size: 60 });
    return tiles.plan.hidden > 0 ? id : null;
  }

  // Columns fold by the array at their top.
  isFolded(id) {
    return this.folded.get(id) ?? true;
  }

  fold(id, folded) {
    this.folded.set(id, folded);
    this.fit(true);
  }

  buildTiles(id) {
    const spoken = (index) =>
      `${titleOf(this.model, { array: id, index })}: ${number(this.model.value({ array: id, index }))}`;
    const tiles = new Tiles(this.root.ownerDocument, id, spoken);
    this.tiles.set(id, tiles);
    const { canvas } = tiles;
    canvas.addEventListener("click", (event) =>
      this.pick(tiles, tiles.cellAt(event.offsetX, event.offsetY)),
    );
    canvas.addEventListener("pointermove", (event) => {
      const index = tiles.cellAt(event.offsetX, event.offsetY);
      canvas.title = index ? spoken(index) : "";
    });
    canvas.addEventListener("keydown", (event) => this.walk(event, tiles));
    return tiles;
  }

  pick(tiles, index) {
    if (index) this.onSelect({ array: tiles.id, index });
  }

  walk(event, tiles) {
    const here = this.selected?.array === tiles.id ? this.selected.index : null;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    let next;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in moves) next = here ? tiles.moved(here, ...moves[event.key]) : tiles.first();
    else if (event.key === "PageDown" || event.key === "PageUp")
      next = here && tiles.onTile(here, event.key === "PageUp" ? -1 : 1);
    else if (event.key === "Enter" || event.key === " ") next = here ?? tiles.first();
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (!next) return;
    this.onSelect({ array: tiles.id, index: next });
    this.announcer.textContent = tiles.spoken(next);
  }

  // The cell beside another one, or null at the edge.
  beside({ array, index }, rows, columns) {
    const tiles = this.tiles.get(array);
    if (!tiles) {
      // the probabilities are a list
      const next = [index[0] + rows + columns];
      return this.model.value({ array, index: next }) === undefined ? null : { array, index: next };
    }
    const next = tiles.corner(index) && tiles.moved(index, rows, columns);
    return next ? { array, index: next } : null;
  }

  // Drawing -------------------------------------------------------------------------------------

  // Fit the picture into the width that there is.
  fit(force = false) {
    const width = this.root.clientWidth;
    if (this.size && (!width || (!force && width === this.width))) return;
    this.width = width;
    const many = this.columns.some(({ channels }) => channels > 1);
    const [least, most] = [LEAST, many ? 84 : 120];
    const narrow = this.widthAt(least);
    const slope = (this.widthAt(most) - narrow) / (most - least);
    this.arrange(Math.max(least, Math.min(most, Math.floor(least + (width - 4 - narrow) / slope))));
    for (const button of this.grid.querySelectorAll("[data-fold]")) this.sayFold(button);
    this.draw();
  }

  widthAt(size) {
    this.arrange(size);
    return this.grid.offsetWidth;
  }

  arrange(size) {
    for (const column of this.columns) {
      for (const id of [...column.forward, ...column.backward]) {
        this.tiles.get(id).arrange(this.model.shape(id), {
          folded: this.isFolded(column.forward[0]),
          size,
          wanted: column.wanted,
        });
      }
    }
    this.size = size;
  }

  // Bring the tiles of the selected cell, and of those it is made of, to where they are seen.
  reveal() {
    for (const column of this.columns) {
      const [first, second] = [column.forward[0], column.backward[0]];
      const cells = [this.selected, ...this.lit].filter(
        (cell) => cell && [first, second].includes(cell.array),
      );
      const wanted = first
        ? [...new Set(cells.map(({ index }) => this.tiles.get(first).tileOf(index)))]
        : [];
      if (wanted.join() === column.wanted.join()) continue;
      column.wanted = wanted;
      for (const id of [first, second]) {
        const tiles = this.tiles.get(id);
        const had = tiles.plan.shown.join();
        tiles.arrange(this.model.shape(id), {
          folded: this.isFolded(first),
          size: this.size,
          wanted,
        });
        if (tiles.plan.shown.join() !== had) tiles.draw(this.model, this.colours);
      }
    }
  }

  sayFold(button) {
    const id = button.dataset.fold;
    const { plan } = this.tiles.get(id);
    const folded = this.isFolded(id);
    button.textContent = folded ? `+${plan.hidden}` : "fold";
    button.setAttribute("aria-expanded", String(!folded));
    button.setAttribute(
      "aria-label",
      folded ? `Show all ${plan.count} of ${nameOf(id)}` : `Fold ${nameOf(id)}`,
    );
  }

  draw() {
    this.colours = palette(this.root);
    for (const [id, tiles] of this.tiles) {
      tiles.draw(this.model, this.colours);
      const shape = this.model.shape(id).join(" by ");
      tiles.canvas.setAttribute(
        "aria-label",
        `${nameOf(id)}, ${shape}, ${tiles.caption.textContent}. Arrow keys choose a cell.`,
      );
    }
    this.drawComposite();
    this.answers.draw(this.model);
    this.mark();
    this.outline();
  }

  // Which arrays are there at the present instruction, and which it reads and writes.
  mark() {
    const { program } = this.model;
    const step = program[this.at];
    const known = new Set(program.slice(0, this.at + 1).flatMap(({ shows }) => shows));
    const all = this.at >= program.length;
    const figures = [
      ...[...this.tiles].map(([id, { element }]) => [id, element]),
      ["probabilities", this.answers.classes],
      [`d:${this.model.last}`, this.answers.verdict],
    ];
    for (const [id, element] of figures) {
      element.classList.toggle("pale", !all && !known.has(id) && !id.startsWith("p:"));
      element.classList.toggle("read", Boolean(step?.from.includes(id)));
      element.classList.toggle("written", Boolean(step?.shows.includes(id)));
    }
    this.grid.dataset.pass = step?.pass ?? "";
    this.showStep(step);
  }

  showStep(step) {
    const { classes } = this.answers;
    const written =
      step &&
      [...step.shows, ...step.from]
        .map((id) => this.tiles.get(id)?.element ?? (id === "probabilities" ? classes : null))
        .find(Boolean);
    if (written && written !== classes) scrollSideways(this.scroller, written, this.ends);
  }

  // What covers the picture at its ends: the names of the passes, and the answers.
  get ends() {
    const column = this.answers.classes.parentElement;
    const covers = getComputedStyle(column).position === "sticky";
    return [40, covers ? column.offsetWidth + 8 : 8];
  }

  outline() {
    const by = (cells, id) => cells.filter(({ array }) => array === id).map(({ index }) => index);
    for (const [id, tiles] of this.tiles) {
      const had = JSON.stringify(tiles.marks);
      tiles.mark(
        by(this.lit, id),
        by(this.bright, id),
        this.selected?.array === id ? this.selected.index : null,
      );
      if (JSON.stringify(tiles.marks) !== had) tiles.draw(this.model, this.colours);
    }
    this.answers.outline(this.selected, this.lit);
  }

  // Where a cell is on the page: of its middle, in CSS pixels. Unfolds what hides it.
  place({ array, index }) {
    const tiles = this.tiles.get(array);
    if (!tiles) return null;
    if (!tiles.corner(index))
      this.fold(
        this.columns.find(({ forward, backward }) => [...forward, ...backward].includes(array))
          .forward[0],
        false,
      );
    const [x, y] = tiles.corner(index);
    const box = tiles.canvas.getBoundingClientRect();
    return { x: box.x + x + tiles.plan.width / 2, y: box.y + y + tiles.plan.height / 2 };
  }
}

function band(grid, name, says) {
  const element = make(grid, "div", { className: `band ${name}-band`, title: says });
  make(element, "span", { textContent: name === "forward" ? "forward →" : "← backward" });
}
