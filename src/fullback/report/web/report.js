// A report: one document in a page of its own. The address keeps the place.

import { cellKey, number, parseCell } from "./arrays.js";
import { showSureness } from "./noise.js";
import { mountView } from "./view.js";

const given = JSON.parse(document.getElementById("document").textContent);
const said = document.getElementById("said");
const labelled = given.label === null ? "" : `Its label is ${given.classes[given.label]}, its `;
said.textContent = `${labelled || "Its "}loss is ${given.loss === null ? "not finite" : number(given.loss)}`;
const view = mountView(document.getElementById("view"), given, {
  onChange: ({ step, cell }) => {
    const place = new URLSearchParams({ step, ...(cell ? { cell: cellKey(cell) } : {}) });
    history.replaceState(null, "", `#${place}`);
  },
});

const place = new URLSearchParams(location.hash.slice(1));
if (place.has("step")) view.step(Number(place.get("step")));
if (place.has("cell")) {
  const cell = parseCell(place.get("cell"));
  if (view.picture.model.value(cell) !== undefined) view.select(cell);
}
showSureness(document.getElementById("sure"), view.picture.model);
window.fullback = view;
