// Picture, panel and stepper together.

import { number, sameCell } from "./arrays.js";
import { make } from "./elements.js";
import { origin } from "./origins.js";
import { mountPanel } from "./panel.js";
import { mountPicture } from "./picture.js";
import { mountStepper } from "./stepper.js";
import { titleOf } from "./words.js";

// Mount the whole view of a document. `onChange({step, cell})` is called when the reader moves. The
// panel goes to `panelRoot`, where that is given, and else beside the picture.
export function mountView(root, document, { onChange = () => {}, panelRoot = null } = {}) {
  root.classList.add("view");
  const stepperRoot = make(root, "section", { ariaLabel: "Steps" });
  const pictureRoot = make(root, "section", { ariaLabel: "The network" });
  panelRoot ??= make(root, "section", {});
  panelRoot.setAttribute("aria-label", "Where a number comes from");
  const listing = make(root, "section", { ariaLabel: "Program" });
  const view = { cell: null, step: document.program.length, document };

  const panel = mountPanel(panelRoot, {
    onSelect: (cell) => select(cell),
    onShine: (cells) => picture.shine(cells),
    onMove: (rows, columns) => {
      const next = picture.beside(view.cell, rows, columns);
      if (!next) return;
      const { move } = root.ownerDocument.activeElement.dataset;
      select(next);
      panelRoot.querySelector(`[data-move="${move}"]`)?.focus();
    },
  });
  const picture = mountPicture(pictureRoot, document, {
    onSelect: (cell) => select(cell),
    onStep: (i) => stepper.go(i),
  });
  const stepper = mountStepper(stepperRoot, listing, document, {
    onStep: (i) => {
      step(i);
      onChange({ step: view.step, cell: view.cell });
    },
  });
  const peek = mountPeek(root, panelRoot);

  // Go to an instruction. The panel follows, to a number that the instruction computes.
  function step(i) {
    view.step = i;
    picture.step(i);
    const wanted = view.document.program[i] && shownBy(picture.model, view.document.program[i]);
    if (wanted && wanted.array !== view.cell?.array) show(wanted);
  }

  function show(cell) {
    const same = sameCell(view.cell, cell);
    view.cell = cell;
    const lit = cell ? panel.show(picture.model, cell) : panel.empty();
    if (!same) panelRoot.scrollTop = 0;
    picture.select(cell, lit);
    peek(cell && `${titleOf(picture.model, cell)} = ${number(picture.model.value(cell))}`);
  }

  function select(cell) {
    show(cell);
    onChange({ step: view.step, cell: view.cell });
  }

  function update(next) {
    view.document = next;
    const known = picture.built;
    picture.update(next);
    const another = stepper.update(next);
    if (picture.built !== known) {
      view.cell = null;
      step(next.program.length);
      show(firstCell(picture.model));
      return;
    }
    if (another) step(next.program.length);
    if (view.cell) show(view.cell);
  }

  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && view.cell) select(null);
  });
  show(firstCell(picture.model));
  picture.scroller.scrollLeft = 0; // the picture begins with the image
  return {
    picture,
    panel,
    stepper,
    update,
    select,
    step: (i) => stepper.go(i),
    origin: (cell) => origin(picture.model, cell),
    get state() {
      return { step: view.step, cell: view.cell };
    },
  };
}

// What is looked at first: the largest number of the last convolution's filter gradient.
function firstCell(model) {
  const weights = model.layers.filter(({ name }) => model.has(`g:${name}.weight`));
  const layer = weights.findLast(({ kind }) => kind === "conv") ?? weights.at(-1);
  return model.largest(layer ? `g:${layer.name}.weight` : `d:${model.last}`);
}

// The largest number of what an instruction computes, or else of what it reads.
function shownBy(model, { shows, from }) {
  const computes = (id) => model.layer(id.split(":")[1])?.kind !== "flatten";
  const known = [...shows].reverse().filter((id) => model.has(id));
  const made = [...known.filter(computes), ...known];
  const id =
    made.find((one) => one.startsWith("g:") && one.endsWith(".weight")) ??
    made[0] ??
    from.find((one) => model.has(one));
  return id ? model.largest(id) : null;
}

// A line at the bottom of the screen that leads to the panel, where the panel is out of sight.
function mountPeek(root, panelRoot) {
  const button = make(root, "button", { type: "button", className: "peek", hidden: true });
  let [text, seen] = ["", true];
  const draw = () => {
    button.hidden = !text || seen || !root.clientWidth;
    button.textContent = text;
  };
  button.addEventListener("click", () => panelRoot.scrollIntoView({ block: "start" }));
  const watch = ([entry]) => {
    seen = entry.isIntersecting;
    draw();
  };
  new IntersectionObserver(watch, { rootMargin: "0px 0px -25% 0px" }).observe(panelRoot);
  return (next) => {
    text = next ?? "";
    draw();
  };
}
