// Step through the program: a scrubber, the arrow keys, and the listing.

import { make } from "./elements.js";

// Mount the scrubber in `root` and the program's listing in `listing`. `onStep(i)` is called with
// the number of an instruction, or with their count where the whole pass is shown.
export function mountStepper(root, listing, document, { onStep = () => {} } = {}) {
  return new Stepper(root, listing, document, onStep);
}

class Stepper {
  constructor(root, listing, document, onStep) {
    Object.assign(this, { root, listing, onStep });
    root.classList.add("stepper");
    listing.classList.add("listing");
    const buttons = make(root, "div", {
      className: "buttons",
      role: "group",
      ariaLabel: "Step through the program",
    });
    this.back = [
      this.button(buttons, "|←", "First instruction", () => 0),
      this.button(buttons, "←", "One instruction back", () => this.at - 1),
    ];
    this.on = [
      this.button(buttons, "→", "One instruction on", () => this.at + 1),
      this.button(buttons, "→|", "The whole pass", () => this.count),
    ];
    const track = make(root, "div", { className: "track" });
    this.scrubber = make(track, "input", { type: "range", min: 0, ariaLabel: "Instruction" });
    this.scrubber.addEventListener("input", () => this.go(Number(this.scrubber.value)));
    this.passes = make(track, "div", { className: "passes", ariaHidden: true });
    this.sentence = make(root, "p", { className: "sentence", ariaLive: "polite" });
    root.ownerDocument.addEventListener("keydown", (event) => this.key(event));
    this.update(document);
  }

  button(parent, text, says, where) {
    const button = make(parent, "button", {
      type: "button",
      textContent: text,
      title: says,
      ariaLabel: says,
    });
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") !== "true") this.go(where());
    });
    return button;
  }

  // Take another document; return whether its program is another one, which is then shown whole.
  update(document) {
    const same = JSON.stringify(document.program) === JSON.stringify(this.program);
    this.program = document.program;
    if (same) return false;
    this.count = document.program.length;
    this.scrubber.max = this.count;
    this.passes.replaceChildren();
    for (const pass of ["forward", "backward"]) {
      const part = make(this.passes, "span", { className: pass, textContent: pass });
      part.style.flexGrow = this.program.filter((step) => step.pass === pass).length;
    }
    this.list();
    this.show(this.count);
    return true;
  }

  list() {
    this.listing.replaceChildren();
    make(this.listing, "h2", { textContent: "The program" });
    if (!this.count)
      make(this.listing, "p", {
        textContent: "The engine has no kernel for one of these layers, and so no program.",
      });
    const scroller = make(this.listing, "div", {
      className: "lines",
      tabIndex: 0,
      role: "region",
      ariaLabel: "Instructions",
    });
    for (const pass of ["forward", "backward"]) {
      const steps = this.program.filter((step) => step.pass === pass);
      if (!steps.length) continue;
      make(scroller, "h3", { textContent: pass });
      const list = make(scroller, "ol", { start: steps[0].index + 1 });
      for (const step of steps) {
        const button = make(make(list, "li", {}), "button", { type: "button" });
        button.dataset.step = step.index;
        make(button, "code", { textContent: step.text });
        make(button, "span", {
          className: "writes",
          textContent: step.writes.length ? ` → ${step.writes.join(", ")}` : "",
        });
        button.addEventListener("click", () => this.go(step.index));
      }
    }
    this.lines = scroller;
  }

  // The arrow keys, where nothing else on the page wants them.
  key(event) {
    const target = event.target;
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    if (
      target !== this.scrubber &&
      !this.lines?.contains(target) &&
      target.closest?.("input, textarea, select, canvas, [contenteditable], [role=region], dialog")
    )
      return;
    if (target === this.scrubber) return; // it has its own keys
    const to = {
      ArrowRight: this.at >= this.count ? this.at : this.at + 1,
      ArrowLeft: this.at - 1,
      Home: 0,
      End: this.count,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.go(to);
  }

  go(i) {
    const to = Number.isInteger(i) ? Math.max(0, Math.min(this.count, i)) : this.count;
    this.show(to);
    this.onStep(to);
  }

  show(i) {
    this.at = i;
    const step = this.program[i];
    this.scrubber.value = i;
    for (const button of this.back) button.setAttribute("aria-disabled", String(i <= 0));
    for (const button of this.on) button.setAttribute("aria-disabled", String(i >= this.count));
    const where = step ? `Instruction ${i + 1} of ${this.count}, ${step.pass}` : "The whole pass";
    this.scrubber.setAttribute("aria-valuetext", step ? `${where}: ${step.text}` : where);
    this.sentence.replaceChildren();
    make(this.sentence, "strong", { textContent: `${where}. ` });
    this.sentence.append(
      step
        ? step.sentence
        : "All that was computed is shown. Step back, or go to the first instruction, to see it happen.",
    );
    for (const button of this.listing.querySelectorAll("[data-step]")) {
      const here = Number(button.dataset.step) === i;
      if (here) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
      button.classList.toggle("past", Number(button.dataset.step) < i);
      if (here) this.reveal(button);
    }
  }

  reveal(button) {
    const top = button.offsetTop; // from the top of all lines
    if (
      top < this.lines.scrollTop ||
      top + button.offsetHeight > this.lines.scrollTop + this.lines.clientHeight
    ) {
      this.lines.scrollTop = top - this.lines.clientHeight / 3;
    }
  }
}
