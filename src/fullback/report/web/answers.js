// The end of the forward pass: every class with its output, and the loss, where deltas begin.

import { number, percent, sameCell } from "./arrays.js";
import { make } from "./elements.js";

const LONG = 7; // letters of a class name that stand beside its bar; longer ones stand above it
const LISTED = 12; // classes that are listed at once

export class Answers {
  // `forward` and `backward` are where the classes and the loss stand; `onSelect(cell)` is called
  // for a class that is pressed.
  constructor(forward, backward, onSelect) {
    this.onSelect = onSelect;
    this.all = false;
    this.classes = make(forward, "div", { className: "answers", role: "group" });
    this.verdict = make(backward, "div", { className: "verdict" });
  }

  draw(model) {
    this.model = model;
    const { classes } = this;
    this.id = model.has("probabilities") ? "probabilities" : `a:${model.last}`;
    const probable = this.id === "probabilities";
    const { values } = model.array(this.id);
    classes.replaceChildren();
    classes.setAttribute("aria-label", probable ? "Probabilities" : "Outputs");
    const best = values.indexOf(Math.max(...values));
    const most = probable ? 1 : Math.max(...values.map(Math.abs)) || 1;
    const longest = Math.max(...model.classes.map((name) => [...name].length));
    classes.classList.toggle("long", longest > LONG);
    const listed = this.listed(values);
    values.forEach((value, k) => {
      if (!listed.has(k)) return;
      const row = make(classes, "button", { type: "button", className: "answer" });
      const share = probable ? percent(value) : number(value, 3);
      row.title = model.classes[k];
      row.dataset.class = k;
      row.dataset.value = String(value);
      row.classList.toggle("best", k === best);
      row.classList.toggle("label", k === model.document.label);
      make(row, "bdi", { className: "class", textContent: model.classes[k] });
      const bar = make(make(row, "span", { className: "bar" }), "span", {});
      bar.style.width = `${(100 * Math.abs(value)) / most}%`;
      make(row, "span", { className: "share", textContent: share });
      const labelled = k === model.document.label ? ", the label" : "";
      row.setAttribute("aria-label", `${model.classes[k]}: ${share}${labelled}`);
      row.addEventListener("click", () => this.onSelect({ array: this.id, index: [k] }));
    });
    if (listed.size < values.length) this.drawMore(values.length);
    this.drawVerdict();
  }

  drawMore(count) {
    const more = make(this.classes, "button", {
      type: "button",
      className: "fold",
      textContent: `all ${count}`,
    });
    more.addEventListener("click", () => {
      this.all = true;
      this.draw(this.model);
    });
  }

  // The classes that are listed: of many, the largest outputs and the label.
  listed(values) {
    const order = [...values.keys()].sort((one, other) => values[other] - values[one]);
    if (this.all || values.length <= LISTED) return new Set(order);
    const { label } = this.model.document;
    const others = order.filter((k) => k !== label);
    return new Set([...(label === null ? [] : [label]), ...others].slice(0, LISTED));
  }

  drawVerdict() {
    const { loss, label } = this.model.document;
    this.verdict.replaceChildren();
    make(this.verdict, "div", {
      className: "loss-value",
      textContent: `loss ${loss === null ? "not finite" : number(loss)}`,
    });
    if (label !== null) {
      const named = make(this.verdict, "div", { className: "label-name" });
      named.append("label ");
      make(named, "bdi", { textContent: this.model.classes[label] });
    }
    make(this.verdict, "div", {
      className: "start",
      textContent: label === null ? "← 2 (x − y) / K" : "← p − y",
    });
  }

  // Mark the class that is selected, and those among the cells that the selected one is made of.
  outline(selected, lit) {
    for (const row of this.classes.children) {
      const cell = { array: this.id, index: [Number(row.dataset.class)] };
      row.classList.toggle("selected", sameCell(cell, selected));
      row.classList.toggle(
        "lit",
        lit.some((one) => sameCell(one, cell)),
      );
    }
  }
}
