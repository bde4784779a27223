// The mistake lab: what a mistake changes, which check catches it, and how training goes with it.

import { exponentOf, extent, number, palette, percent, power, unpack } from "./arrays.js";
import { colour, drawCurves, smooth } from "./chart.js";
import { make } from "./elements.js";
import { Tiles } from "./tiles.js";

const MOST_SLICES = 2; // maps of an array that are shown: those that differ most
const MAP = 72; // pixels of a map

export class Lab {
  constructor(app, byId) {
    Object.assign(this, { app, byId, mistakes: [], running: null, curves: [], wanted: null });
    byId("mistake").addEventListener("change", () => this.choose());
    byId("way").addEventListener("change", () => { this.places(); this.run(); });
    byId("place").addEventListener("change", () => this.run());
    byId("other-network").addEventListener("click", () => this.takeOther());
    new ResizeObserver(() => this.draw()).observe(byId("lab-curve"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  get shown() {
    return !this.byId("lab-view").hidden;
  }

  get mistake() {
    return this.mistakes.find(({ id }) => id === this.byId("mistake").value);
  }

  // What is switched on, for a link.
  get state() {
    const { mistake } = this;
    return mistake && { mistake: mistake.id, way: this.byId("way").selectedIndex, place: this.byId("place").value };
  }

  // The lab was opened, or another image, network or mistake is to be looked at.
  open() {
    return this.app.trying(async () => {
      const chosen = this.wanted?.mistake ?? this.byId("mistake").value;
      this.mistakes = (await this.app.client.get("/lab")).mistakes;
      const select = this.byId("mistake");
      select.replaceChildren();
      for (const { id, ways } of this.mistakes) {
        make(select, "option", { value: id, textContent: ways.length ? id : `${id} (not here)`, className: ways.length ? "" : "not-here" });
      }
      select.value = this.mistakes.some(({ id }) => id === chosen) ? chosen : this.mistakes[0].id;
      this.choose();
    });
  }

  choose() {
    const { sentence, mend, hint, ways, needs } = this.mistake;
    this.byId("sentence").textContent = sentence;
    this.byId("mend").textContent = mend;
    this.byId("hint").textContent = hint;
    this.byId("possible").hidden = !ways.length;
    this.byId("impossible").hidden = Boolean(ways.length);
    const way = this.byId("way");
    way.replaceChildren();
    if (!ways.length) {
      this.byId("needs").textContent = `This network cannot have it: it needs ${needs}.`;
      this.stop();
      this.clear();
      return;
    }
    ways.forEach(({ description }, n) => make(way, "option", { value: n, textContent: description }));
    if (this.wanted) way.selectedIndex = Math.max(0, Math.min(ways.length - 1, this.wanted.way));
    this.places();
    if (this.wanted) this.byId("place").value = this.wanted.place;
    this.wanted = null;
    this.run();
  }

  places() {
    const { places } = this.mistake.ways[this.byId("way").value];
    const place = this.byId("place");
    place.replaceChildren();
    if (places.length > 1) make(place, "option", { value: "", textContent: `everywhere: ${places.join(", ")}` });
    for (const name of places) make(place, "option", { value: name, textContent: name });
  }

  takeOther() {
    return this.app.trying(async () => {
      const { network, id } = this.mistake;
      const { state, document } = await this.app.client.post("/network", { text: network, seed: this.app.training.seed });
      this.wanted = { mistake: id, way: 0, place: "" };
      this.app.take(state, document);
    });
  }

  // Running the three parts ------------------------------------------------------------------------

  stop() {
    this.running?.abort();
    this.running = null;
  }

  clear() {
    for (const name of ["changes", "checks"]) this.byId(name).replaceChildren();
    for (const name of ["changes-said", "curves-said"]) this.byId(name).textContent = "";
    this.curves = [];
    this.draw();
  }

  async run() {
    this.stop();
    this.clear();
    this.app.remember();
    const running = new AbortController();
    this.running = running;
    const choice = {
      mistake: this.mistake.id,
      description: this.mistake.ways[this.byId("way").value].description,
      ...(this.byId("place").value ? { layer: this.byId("place").value } : {}),
    };
    this.byId("lab-view").dataset.state = "running";
    try {
      this.showChanges(await this.app.client.post("/lab/pass", choice, { signal: running.signal }));
      await this.app.client.stream("/lab/checks", choice, running.signal, (row) => this.showCheck(row));
      if (this.app.state.data.fits) {
        const options = { ...choice, rate: 0.05, seed: this.app.training.seed };
        await this.app.client.stream("/lab/curves", options, running.signal, (row) => this.addStep(row));
        this.endCurves();
      } else {
        this.byId("curves-said").textContent = "The data set does not go with this network, so there is nothing to train it on.";
      }
      this.byId("lab-view").dataset.state = "done";
    } catch (error) {
      if (error.name !== "AbortError") this.app.fail(error.message);
    }
  }

  // What it changes --------------------------------------------------------------------------------

  showChanges({ images, rows }) {
    const changed = rows.filter((row) => row.changed);
    const right = rows.filter((row) => !row.changed).map(({ name, kind }) => (kind === "delta" ? `δ ${name}` : name));
    this.byId("changes-said").textContent = changed.length
      ? `In a batch of ${images} images, the one on the page first, ${changed.length} of ${rows.length} arrays are wrong, from the loss down. Deltas are this image's.`
      : `In this batch of ${images} images nothing changes: all ${rows.length} arrays are right, and no check on it can see the mistake.`;
    const root = this.byId("changes");
    root.replaceChildren();
    const colours = palette(root);
    for (const row of changed) this.showRow(root, row, colours);
    if (right.length && changed.length) make(root, "p", { className: "small", textContent: `Right all the same: ${right.join(", ")}` });
  }

  showRow(root, row, colours) {
    const { name, kind, error, cosine, ratio } = row;
    const part = make(root, "div", { className: "change" });
    part.dataset.array = `${kind}:${name}`;
    const title = kind === "delta" ? `delta of ${name}` : `gradient of ${name}`;
    make(part, "h3", { textContent: title });
    const figures = [
      error === null ? "where 0 belongs" : `off by ${percent(error)} of its size`,
      ...(cosine === null ? [] : [`cosine ${number(cosine, 3)}`]),
      ...(ratio === null ? [] : [`length × ${number(ratio, 3)}`]),
    ];
    make(part, "p", { className: "small", textContent: figures.join(", ") });
    if (!row.right) return;
    const [right, wrong] = [unpack(row.right), unpack(row.wrong)];
    const most = Math.max(extent(right.values), extent(wrong.values));
    const difference = { shape: right.shape, values: right.values.map((value, n) => wrong.values[n] - value) };
    const slices = telling(difference);
    const sides = make(part, "div", { className: "sides" });
    for (const [name, array] of [["right", right], ["wrong", wrong], ["difference", difference]]) {
      const figure = make(sides, "figure");
      const label = `${title}, ${name}: up to ±${number(extent(array.values), 3)}`;
      this.maps(figure, picked(array, slices), most, colours, label);
      make(figure, "figcaption", { textContent: name });
    }
    if (slices && slices.length < slicesOf(right.shape)) make(part, "p", { className: "small", textContent: nameOf(slices, right.shape) });
  }

  maps(figure, { shape, values }, most, colours, label) {
    const tiles = new Tiles(figure.ownerDocument, "g:", null);
    tiles.arrange(shape, { folded: true, size: MAP });
    tiles.exponent = exponentOf(most);
    tiles.paint(values, most, colours, "backward");
    tiles.canvas.tabIndex = -1;
    tiles.canvas.setAttribute("role", "img");
    tiles.canvas.removeAttribute("aria-roledescription");
    tiles.canvas.setAttribute("aria-label", label);
    figure.append(tiles.canvas);
    if (tiles.exponent && tiles.numbered) make(figure, "div", { className: "small", textContent: `in ${power(tiles.exponent)}` });
  }

  recolour() {
    if (this.shown && this.mistake?.ways.length) this.run();
  }

  // Which check catches it -------------------------------------------------------------------------

  showCheck({ check, title, caught, description, names_it: names }) {
    const item = make(this.byId("checks"), "li", { className: caught ? "caught" : "missed" });
    item.dataset.check = check;
    make(item, "strong", { textContent: caught ? (names ? "names it" : "catches it") : "does not see it" });
    make(item, "span", { textContent: title });
    make(item, "span", { className: "small", textContent: description });
  }

  // The curves -------------------------------------------------------------------------------------

  addStep(row) {
    this.curves.push(row);
    if (row.step % 5 === 0) this.draw();
  }

  endCurves() {
    this.draw();
    const last = (name) => this.curves.findLast((row) => row[name] !== undefined && row[name] !== null)?.[name];
    const ended = this.curves.findIndex((row) => row.wrong === undefined || row.wrong === null);
    const [right, wrong] = [last("right_accuracy"), last("wrong_accuracy")];
    const without = `Without it, ${percent(right ?? 0)} of the test images are right after ${this.curves.length} steps`;
    const broken = ended >= 0 ? `; with it the loss is no longer finite after ${ended} steps` : `; with it, ${percent(wrong ?? 0)}`;
    const verdict = ended < 0 && right - wrong < 0.04 ? ". It learns all the same: a falling loss does not show that a backward pass is right." : ".";
    this.byId("curves-said").textContent = without + broken + verdict;
  }

  draw() {
    const canvas = this.byId("lab-curve");
    const points = (name) => this.curves.filter((row) => Number.isFinite(row[name])).map((row) => [row.step, row[name]]);
    const right = points("right");
    drawCurves(canvas, [
      { points: smooth(right), colour: colour(canvas, "right"), width: 2 },
      { points: smooth(points("wrong")), colour: colour(canvas, "mistaken"), width: 2, dashed: true },
    ], { last: 160, unit: "steps", top: right.length ? Math.max(...right.map(([, loss]) => loss)) * 1.3 : 1 });
  }
}

// Maps, or slices of filters, of an array; 0 where it has none.
function slicesOf(shape) {
  return shape.length < 3 ? 0 : shape.slice(0, -2).reduce((product, n) => product * n, 1);
}

// Where an array has several maps, the numbers of those that differ most; else null.
function telling({ shape, values }) {
  const count = slicesOf(shape);
  if (!count) return null;
  const size = values.length / count;
  const off = (n) => values.subarray(n * size, (n + 1) * size).reduce((sum, value) => sum + value * value, 0);
  const order = [...Array(count).keys()].map((n) => [off(n), n]).sort(([a], [b]) => b - a);
  return order.slice(0, MOST_SLICES).map(([, n]) => n).sort((a, b) => a - b);
}

// Those maps of an array alone.
function picked({ shape, values }, slices) {
  if (!slices) return { shape, values };
  const [rows, columns] = shape.slice(-2);
  const size = rows * columns;
  const kept = new Float32Array(slices.length * size);
  slices.forEach((n, at) => kept.set(values.subarray(n * size, (n + 1) * size), at * size));
  return { shape: shape.length === 3 ? [slices.length, rows, columns] : [slices.length, 1, rows, columns], values: kept };
}

function nameOf(slices, shape) {
  if (shape.length === 3) return `Shown: ${slices.length > 1 ? "channels" : "channel"} ${slices.join(" and ")} of ${shape[0]}, which differ most.`;
  const names = slices.map((n) => `filter ${Math.floor(n / shape[1])}, channel ${n % shape[1]}`);
  return `Shown: ${names.join("; ")}, which differ most.`;
}
