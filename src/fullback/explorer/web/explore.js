// The explorer's page: the picture, and everything around it that asks the server.

import { addressOf, readAddress, remember, stored } from "./address.js";
import { byteOf, cellKey, number, parseCell, percent, unpack } from "./arrays.js";
import { Client, Failure, latest } from "./client.js";
import { Pad, toBase64 } from "./draw.js";
import { Gallery } from "./gallery.js";
import { Lab } from "./lab.js";
import { Models } from "./models.js";
import { showSureness } from "./noise.js";
import { make } from "./elements.js";
import { nextTheme, showTheme } from "./theme.js";
import { Training } from "./training.js";
import { mountView } from "./view.js";

const byId = (name) => document.getElementById(name);

class App {
  constructor(client) {
    this.client = client;
    this.state = null;
    this.document = null;
    this.view = null;
    this.labelGiven = false;
  }

  // Starting ------------------------------------------------------------------------------------

  async start(link) {
    const answer = await this.openSession(link);
    this.client.session = answer.session;
    remember("sessionStorage", "session", answer.session);
    this.pad = new Pad(byId("pad"), latest((bytes) => this.draw(bytes)));
    this.training = new Training(this, byId);
    this.gallery = new Gallery(this, byId);
    this.models = new Models(this, byId);
    this.lab = new Lab(this, byId);
    this.lab.wanted = link?.lab ?? null;
    this.wire();
    this.take(answer, await this.client.get("/document"));
    this.wireOrder();
    if (answer.left_out) this.fail(`The link was not restored whole: ${answer.left_out}`);
    if (link?.step !== undefined) this.view.step(link.step);
    if (link?.cell) this.selectCell(parseCell(link.cell));
    if (link?.view === "lab") this.open("lab");
    document.documentElement.dataset.ready = "true";
  }

  // The session that this tab had before it was reloaded, or a new one with what the link tells.
  async openSession(link) {
    const [entry] = performance.getEntriesByType("navigation");
    this.client.session = stored("sessionStorage", "session");
    if (this.client.session && entry?.type === "reload") {
      try {
        return await this.client.get("");
      } catch (error) {
        if (error.status !== 404) throw error;
      }
    }
    const { actions, image, label, partial, start } = link ?? {};
    return (await this.client.ask("POST", "api/sessions", { actions, image, label, partial, start })).json();
  }

  selectCell(cell) {
    if (this.view.picture.model.value(cell) !== undefined) this.view.select(cell);
  }

  // Showing -------------------------------------------------------------------------------------

  // Take another state of the session: another network, or other weights.
  take(state, shown) {
    this.state = state;
    byId("about").textContent = `${state.name}: ${state.text}`;
    const label = byId("label");
    label.replaceChildren();
    make(label, "option", { value: "", textContent: "what it predicts" });
    state.classes.forEach((name, n) => make(label, "option", { value: n, textContent: name }));
    for (const name of ["pick", "previous", "next", "wrong"]) byId(name).disabled = !state.data.fits;
    this.allowDrawing(state);
    this.models.show(state);
    this.update(shown);
    this.training.show(state);
    if (this.lab.shown) this.lab.open();
  }

  // Take another document: another image or label, or another step of training. What was drawn on
  // the pad stays there: it may hold more by now than the answer.
  update(shown, { drawn = false } = {}) {
    this.document = shown;
    if (this.view) this.view.update(shown);
    else this.view = mountView(byId("picture-view"), shown, { onChange: () => this.remember(), panelRoot: byId("panel") });
    const { shape, values } = unpack(shown.input);
    if (!drawn) this.pad.show(shape, values, shown.range);
    if (shown.image.from === "upload") byId("invert").checked = shown.image.inverted;
    byId("label").value = shown.image.label_given ? shown.label : "";
    byId("origin").textContent = originText(shown.image);
    this.answer(shown);
    this.remember();
  }

  // Drawings and uploads need to know what is black and white for the network.
  allowDrawing({ drawable, data }) {
    for (const name of ["clear", "upload", "invert"]) byId(name).disabled = drawable !== null;
    this.pad.allow(drawable === null);
    byId("invert-row").hidden = drawable !== null;
    byId("undrawn").textContent = [drawable, data.fits ? null : data.misfit].filter(Boolean).join(" ");
    byId("undrawn").hidden = !byId("undrawn").textContent;
  }

  answer({ probabilities, classes, label, loss }) {
    const { values } = unpack(probabilities);
    const best = values.indexOf(Math.max(...values));
    const answer = byId("answer");
    answer.replaceChildren();
    if (best < 0) {
      answer.append("No answer: the network's output is not finite.");
      return;
    }
    answer.append("It says ");
    make(make(answer, "strong"), "bdi", { textContent: classes[best], id: "predicted" });
    answer.append(` (${percent(values[best])}); loss `);
    showSureness(byId("sure"), this.view.picture.model);
    make(answer, "span", { textContent: loss === null ? "not finite" : number(loss), id: "loss" });
    answer.classList.toggle("missed", best !== label);
  }

  // Ask for state and document anew, after a run.
  async refresh() {
    this.state = { ...await this.client.get(""), name: this.state.name };
    this.update(await this.client.get("/document"));
  }

  // The image -----------------------------------------------------------------------------------

  async draw(bytes) {
    await this.trying(async () => {
      const keep = this.document.image.from === "drawing" && this.document.image.label_given;
      this.update(await this.client.post("/image", { pixels: toBase64(bytes), keep_label: keep }), { drawn: true });
      if (this.lab.shown && this.lab.mistake?.ways.length) this.lab.run();
    });
  }

  pick(part, index) {
    return this.change(() => this.client.post("/image", { part, index }));
  }

  // Go on to an image that the network gets wrong.
  pickWrong() {
    const { from, part, index } = this.document.image;
    const after = from === "data" && part === "test" ? index : -1;
    return this.change(() => this.client.post("/image", { wrong: true, after }));
  }

  // Swap dark and light in the uploaded picture at once, and in later ones.
  invert() {
    if (this.document.image.from !== "upload") return null;
    return this.change(() => this.client.post("/image", { invert: byId("invert").checked }));
  }

  beside(by) {
    const { from, part, index } = this.document.image;
    if (from !== "data") return this.pick("test", 0);
    const count = this.state.data[part];
    return this.pick(part, (index + by + count) % count);
  }

  upload(file) {
    if (!file) return null;
    if (this.state.drawable !== null) return this.fail(this.state.drawable);
    const query = byId("invert").checked ? "?invert=1" : "";
    return this.change(() => this.client.post(`/upload${query}`, file));
  }

  change(work) {
    return this.trying(async () => {
      this.update(await work());
      if (this.lab.shown) this.lab.open();
    });
  }

  // Views, links, failures ----------------------------------------------------------------------

  open(name) {
    document.body.classList.toggle("in-lab", name === "lab");
    for (const own of ["picture", "lab"]) {
      const here = own === name;
      byId(`${own}-view`).hidden = !here;
      byId(`tab-${own}`).setAttribute("aria-selected", here);
      byId(`tab-${own}`).tabIndex = here ? 0 : -1;
    }
    if (name === "lab") this.lab.open();
    else this.lab.stop();
    this.remember();
  }

  // What a link restores.
  get link() {
    const { image, label, input, range } = this.document;
    const { step, cell } = this.view.state;
    const whole = step === this.document.program.length;
    return {
      start: this.state.start,
      ...(this.state.actions?.length ? { actions: this.state.actions } : {}),
      ...(this.state.actions === null ? { partial: true } : {}),
      image: image.from === "data" ? { part: image.part, index: image.index } : { pixels: toBase64(Uint8Array.from(unpack(input).values, (value) => byteOf(value, range))) },
      ...(image.label_given ? { label } : {}),
      ...(whole ? {} : { step }),
      ...(cell ? { cell: cellKey(cell) } : {}),
      ...(this.lab.shown ? { view: "lab", lab: this.lab.state } : {}),
    };
  }

  get hash() {
    return addressOf(this.client.token, this.link);
  }

  // Keep the address in step with what is shown; browsers allow so many changes a second only.
  remember() {
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => history.replaceState(null, "", this.hash), 250);
  }

  copyLink() {
    return this.trying(async () => {
      this.state = { ...await this.client.get(""), name: this.state.name };
      history.replaceState(null, "", this.hash);
      const button = byId("link");
      const left = this.state.actions === null ? ", without the network's weights" : "";
      try {
        await navigator.clipboard.writeText(location.href);
        button.textContent = `Copied${left}`;
      } catch {
        button.textContent = `It is in the address bar${left}`;
      }
      setTimeout(() => { button.textContent = "Copy link"; }, 2500);
    });
  }

  // Do something that can fail; say why it did, and go on.
  async trying(work) {
    try {
      const made = await work();
      byId("problem").hidden = true;
      return made;
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error.message);
      return null;
    }
  }

  fail(message) {
    showProblem(message);
  }

  // The controls --------------------------------------------------------------------------------

  wire() {
    byId("clear").addEventListener("click", () => this.pad.clear());
    byId("pick").addEventListener("click", () => this.gallery.open());
    byId("previous").addEventListener("click", () => this.beside(-1));
    byId("next").addEventListener("click", () => this.beside(1));
    byId("wrong").addEventListener("click", () => this.pickWrong());
    byId("invert").addEventListener("change", () => this.invert());
    for (const name of ["training", "network"]) {
      byId(`fold-${name}`).addEventListener("click", () => this.unfold(name, byId(`${name}-body`).hidden));
    }
    byId("upload").addEventListener("change", () => {
      const [file] = byId("upload").files;
      this.upload(file);
      byId("upload").value = "";
    });
    byId("label").addEventListener("change", () => {
      const { value } = byId("label");
      this.change(() => this.client.post("/label", value === "" ? {} : { label: Number(value) }));
    });
    this.wireDrops();
    this.wireTabs();
    byId("link").addEventListener("click", () => this.copyLink());
    byId("controls").addEventListener("click", () => {
      const hidden = document.body.classList.toggle("without-controls");
      byId("controls").setAttribute("aria-expanded", !hidden);
      byId("controls").textContent = hidden ? "Show controls" : "Hide controls";
    });
    byId("theme").addEventListener("click", () => {
      nextTheme(byId("theme"));
      this.view.picture.recolour();
      if (this.view.state.cell) this.view.select(this.view.state.cell);
      this.training.draw();
      this.lab.recolour();
    });
  }

  // Show or hide a card's controls.
  unfold(name, open) {
    byId(`${name}-body`).hidden = !open;
    byId(`fold-${name}`).setAttribute("aria-expanded", open);
  }

  // Pictures that are dropped anywhere on the page are uploads; so are pasted ones.
  wireDrops() {
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.upload(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => {
      const [file] = event.clipboardData.files;
      if (file) this.upload(file);
    });
  }

  // On a narrow page all stands in one column: the image, what it does in the network, where a number
  // comes from, the other controls. The order of the page is that of the keyboard.
  wireOrder() {
    const narrow = matchMedia("(max-width: 999px)");
    const parts = (...names) => names.map(byId);
    const order = () => {
      if (narrow.matches) {
        byId("left").append(...parts("image-card", "main", "training-card", "network-card"));
        document.querySelector(".listing").before(byId("panel"));
      } else {
        byId("left").append(...parts("training-card", "network-card", "main"));
        byId("side").append(...parts("image-card", "panel"));
      }
      if (narrow.matches) for (const name of ["training", "network"]) this.unfold(name, true);
    };
    narrow.addEventListener("change", order);
    order();
  }

  wireTabs() {
    for (const name of ["picture", "lab"]) {
      const tab = byId(`tab-${name}`);
      const other = name === "picture" ? "lab" : "picture";
      tab.addEventListener("click", () => this.open(name));
      tab.addEventListener("keydown", (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        event.preventDefault();
        this.open(other);
        byId(`tab-${other}`).focus();
      });
    }
  }
}

function originText({ from, part, index }) {
  if (from === "data") return `Image ${index} of the ${part === "train" ? "training" : "test"} images`;
  return from === "upload" ? "Your picture" : "Your drawing";
}

function showProblem(message) {
  byId("problem").textContent = message;
  byId("problem").hidden = false;
}

async function main() {
  showTheme(byId("theme"), stored("localStorage", "theme"));
  const { tokens, state } = readAddress();
  if (state === undefined) showProblem("The link is damaged; the page begins anew.");
  for (const token of new Set(tokens.filter(Boolean))) {
    if (await opened(token, state) !== 401) return;
  }
  ask(state);
}

// Open the page with a token; return the status with which the server refuses it.
async function opened(token, state) {
  try {
    const app = new App(new Client(token));
    byId("problem").hidden = state !== undefined;
    await app.start(state);
    window.fullback = app;
    remember("localStorage", "token", token); // for links of an earlier run of the server
    return null;
  } catch (error) {
    showProblem(error.message);
    if (!(error instanceof Failure)) throw error;
    return error.status;
  }
}

// Ask for the token where the address has none, or that of an earlier run of the server.
function ask(state) {
  document.body.classList.add("asking");
  byId("ask").hidden = false;
  byId("token").focus();
  if (byId("problem").hidden) showProblem("This page needs its whole address: open the address that fullback explore printed, with all that is behind the #.");
  byId("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = byId("token").value.trim();
    const token = new URLSearchParams(given.split("#").at(-1)).get("token") ?? given;
    document.body.classList.remove("asking"); // the picture is laid out by the room that it has
    byId("ask").hidden = await opened(token, state) === null;
    document.body.classList.toggle("asking", !byId("ask").hidden);
  });
}

main();
