// Training: one step on the image, and live runs with their curve.

import { number, percent } from "./arrays.js";
import { colour, drawCurves, smooth } from "./chart.js";
import { make } from "./elements.js";

const WAIT = 120; // milliseconds from one look at a run to the next
const GHOSTS = 3; // earlier runs whose curves stay
const ROWS = 6; // runs in the table

export class Training {
  constructor(app, byId) {
    Object.assign(this, { app, byId, run: null, earlier: [], losses: [], watching: false });
    byId("step").addEventListener("click", () => this.step());
    byId("train").addEventListener("click", () => this.start());
    byId("pause").addEventListener("click", () => this.pauseOrGoOn());
    byId("reset").addEventListener("click", () => this.reset());
    byId("pace").addEventListener("change", () => this.setPace());
    new ResizeObserver(() => this.draw()).observe(byId("curve"));
  }

  get seed() {
    return Number(this.byId("seed").value) || 0;
  }

  get freeze() {
    const filters = this.app.state.freezable.filter((name) => name.startsWith("conv"));
    return this.byId("freeze").checked ? filters : [];
  }

  // What the form says; throws where a number is missing or out of range.
  number(name) {
    const input = this.byId(name);
    if (!input.checkValidity()) {
      throw new Error(`${input.labels[0].textContent}: ${input.validationMessage}`);
    }
    return Number(input.value);
  }

  say(text) {
    this.byId("training-said").textContent = text;
  }

  // Another network, or other weights: earlier steps and runs are no part of it.
  show(state) {
    this.byId("step-result").replaceChildren();
    this.byId("freeze").disabled = !state.freezable.some((name) => name.startsWith("conv"));
    for (const name of ["train", "epochs", "pace"]) this.byId(name).disabled = !state.data.fits;
    this.run = null;
    this.losses = [];
    this.say("");
    this.draw();
    if (state.training) this.watch(state.training);
    this.buttons();
  }

  // One step on the image -------------------------------------------------------------------------

  step() {
    return this.app.trying(async () => {
      this.app.unfold("training", true);
      const made = await this.app.client.post("/step", { rate: this.number("step-rate"), freeze: this.freeze });
      this.app.update(made.document);
      this.showStep(made);
      await this.app.refresh();
    });
  }

  showStep({ label, before, after }) {
    const result = this.byId("step-result");
    result.replaceChildren();
    make(result, "p", { textContent: `loss ${number(before.loss)} → ${number(after.loss)}` });
    const table = make(result, "table", { className: "bars" });
    make(table, "caption", { className: "spoken", textContent: "Probabilities before and after the step" });
    const head = make(make(table, "thead"), "tr");
    for (const name of ["class", "before", "after"]) make(head, "th", { scope: "col", textContent: name });
    const body = make(table, "tbody");
    const order = [...before.probabilities.keys()];
    const most = order.sort((a, b) => Math.max(before.probabilities[b], after.probabilities[b]) - Math.max(before.probabilities[a], after.probabilities[a])).slice(0, 5);
    if (!most.includes(label)) most[most.length - 1] = label;
    for (const n of most) {
      const row = make(body, "tr", { className: n === label ? "label" : "" });
      make(row, "th", { scope: "row", textContent: this.app.state.classes[n] });
      for (const p of [before.probabilities[n], after.probabilities[n]]) {
        const cell = make(row, "td", { textContent: percent(p) });
        cell.style.setProperty("--share", p);
      }
    }
  }

  // Runs ------------------------------------------------------------------------------------------

  start() {
    return this.app.trying(async () => {
      const options = { epochs: this.number("epochs"), rate: this.number("rate"), seed: this.number("seed"), freeze: this.freeze, pace: this.byId("pace").value };
      this.app.unfold("training", true);
      const report = await this.app.client.post("/training", options);
      this.keep();
      this.losses = [];
      this.watch(report);
    });
  }

  // Put the curve and the figures of the run before away.
  keep() {
    if (!this.run?.epochs.length) return;
    const { epochs, frozen, rate } = this.run;
    this.earlier.push({ losses: this.losses, epochs, frozen, rate });
    this.earlier = this.earlier.slice(-ROWS);
  }

  pauseOrGoOn() {
    return this.app.trying(async () => {
      const going = this.run?.running;
      const report = await this.app.client.post(`/training/${going ? "pause" : "resume"}`, { first: this.losses.length });
      this.losses.push(...report.losses);
      this.run = report;
      if (going) await this.app.refresh();
      else this.watch(report);
      this.buttons();
    });
  }

  reset() {
    return this.app.trying(async () => {
      if (this.run?.running) await this.app.client.post("/training/pause");
      this.keep();
      const { state, document } = await this.app.client.post("/reset", { seed: this.number("seed") });
      this.app.take(state, document);
      this.say(`New weights, from the seed ${this.seed}.`);
      this.draw();
    });
  }

  setPace() {
    if (!this.run?.running) return;
    this.app.trying(() => this.app.client.post("/training/pace", { pace: this.byId("pace").value }));
  }

  // Follow a run until it stops.
  async watch(report) {
    this.run = report;
    this.buttons();
    if (this.watching) return;
    this.watching = true;
    let wait = WAIT;
    try {
      do {
        await new Promise((done) => setTimeout(done, wait));
        const start = performance.now();
        await this.look();
        wait = Math.max(WAIT, 2 * (performance.now() - start)); // large networks are looked at less often
      } while (this.run?.running);
    } catch (error) {
      this.say("This run was lost sight of.");
      this.app.fail(error.message);
      if (this.run) this.run.running = false;
      return;
    } finally {
      this.watching = false;
      this.buttons();
    }
    await this.app.trying(() => this.app.refresh());
  }

  async look() {
    const first = this.losses.length;
    const report = await this.app.client.get("/training", { first, document: 1 });
    if (report.first === this.losses.length) this.losses.push(...report.losses);
    if (report.points < this.losses.length) this.losses = []; // thinned out: all of it anew
    this.run = report.total ? report : null;
    this.app.update(report.document);
    this.progress();
    this.draw();
  }

  progress() {
    if (!this.run) return;
    const { batches, batches_per_epoch: each, epochs, failure, finished, running, total } = this.run;
    const last = epochs[epochs.length - 1];
    const where = `epoch ${Math.min(Math.floor(batches / each) + 1, total / each)} of ${total / each}`;
    const figures = last ? `: loss ${number(last.loss, 3)}, ${percent(last.test_accuracy)} of the test images right` : "";
    const dead = last?.dead.length ? `. ${last.dead.join(" and ")} ${last.dead.length > 1 ? "are" : "is"} dead: 0 for every image, so nothing below learns` : "";
    this.say(failure ?? `${finished ? `Done, ${total / each} epochs` : running ? `In ${where}` : `Paused in ${where}`}${figures}${dead}.`);
  }

  buttons() {
    const { run } = this;
    const going = Boolean(run?.running);
    const pausing = this.byId("pause");
    pausing.textContent = run && !going && !run.finished && !run.failure ? "Go on" : "Pause";
    pausing.disabled = !run || (!going && (run.finished || Boolean(run.failure)));
    this.byId("train").disabled = going || !this.app.state.data.fits;
    this.byId("step").disabled = going;
    this.table();
  }

  table() {
    const now = this.run?.epochs.length ? [{ ...this.run, losses: this.losses }] : [];
    const runs = [...this.earlier, ...now].slice(-ROWS);
    this.byId("runs").hidden = !runs.length;
    const body = this.byId("runs").tBodies[0];
    body.replaceChildren();
    for (const { epochs, frozen, rate } of runs) {
      const last = epochs[epochs.length - 1];
      const row = make(body, "tr");
      const said = frozen.length ? "filters frozen" : "all trained";
      make(row, "th", { scope: "row", textContent: `${said}, ${epochs.length} × ${rate}` });
      make(row, "td", { textContent: number(last.loss, 3) });
      make(row, "td", { textContent: percent(last.test_accuracy) });
    }
  }

  draw() {
    const canvas = this.byId("curve");
    const lines = this.earlier.slice(-GHOSTS).map(({ losses }) => ({ points: smooth(losses), colour: colour(canvas, "line"), width: 1.5 }));
    if (this.losses.length) {
      lines.push({ points: this.losses, colour: colour(canvas, "faint"), width: 1 });
      lines.push({ points: smooth(this.losses), colour: colour(canvas, "accent"), width: 2 });
    }
    canvas.hidden = !lines.length;
    if (!lines.length) return;
    const [, loss] = this.losses[this.losses.length - 1] ?? [0, NaN];
    canvas.setAttribute("aria-label", `Loss curve of ${this.losses.length} points; the last loss is ${number(loss, 3)}`);
    drawCurves(canvas, lines, { last: this.run?.total });
  }
}
