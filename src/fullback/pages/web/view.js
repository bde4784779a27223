// Picture, panel and stepper together.

import { origin } from "./origins.js";
import { make, mountPicture } from "./picture.js";
import { mountPanel } from "./panel.js";
import { mountStepper } from "./stepper.js";

// Mount the whole view of a document. `onChange({step, cell})` is called when the reader moves.
export function mountView(root, document, { onChange = () => {} } = {}) {
  root.classList.add("view");
  const stepperRoot = make(root, "section", { ariaLabel: "Steps" });
  const pictureRoot = make(root, "section", { ariaLabel: "The network" });
  const lower = make(root, "div", { className: "lower" });
  const panelRoot = make(lower, "section", { ariaLabel: "Where a number comes from" });
  const listing = make(lower, "section", { ariaLabel: "Program" });
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

  function step(i) {
    view.step = i;
    picture.step(i);
  }

  function show(cell) {
    view.cell = cell;
    const lit = cell ? panel.show(picture.model, cell) : panel.empty();
    picture.select(cell, lit);
  }

  function select(cell) {
    show(cell);
    onChange({ step: view.step, cell: view.cell });
  }

  function update(next) {
    view.document = next;
    const known = picture.built;
    picture.update(next);
    stepper.update(next);
    if (picture.built !== known) {
      view.cell = null;
      panel.empty();
      step(next.program.length);
    } else if (view.cell) {
      show(view.cell);
    }
  }

  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && view.cell) select(null);
  });
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
