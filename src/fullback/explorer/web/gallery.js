// The dialog in which an image of the data set is picked.

import { fromBase64, picture } from "./draw.js";
import { make } from "./elements.js";

const AT_ONCE = 60;

export class Gallery {
  constructor(app, byId) {
    Object.assign(this, { app, byId, first: 0 });
    this.dialog = byId("gallery");
    byId("gallery-close").addEventListener("click", () => this.dialog.close());
    for (const name of ["part", "label", "wrong"]) {
      byId(`gallery-${name}`).addEventListener("change", () => this.show(0));
    }
    byId("gallery-back").addEventListener("click", () => this.show(Math.max(0, this.first - AT_ONCE)));
    byId("gallery-on").addEventListener("click", () => this.show(this.first + AT_ONCE));
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
  }

  open() {
    const classes = this.byId("gallery-label");
    const kept = classes.value;
    classes.replaceChildren();
    make(classes, "option", { value: "", textContent: "all" });
    this.app.state.classes.forEach((name, n) => make(classes, "option", { value: n, textContent: name }));
    classes.value = kept;
    this.dialog.showModal();
    this.show(0);
  }

  show(first) {
    return this.app.trying(async () => {
      const query = { part: this.byId("gallery-part").value, first, count: AT_ONCE };
      if (this.byId("gallery-label").value) query.label = this.byId("gallery-label").value;
      if (this.byId("gallery-wrong").checked) query.which = "wrong";
      const { total, images } = await this.app.client.get("/images", query);
      this.first = first;
      const last = first + images.length;
      this.byId("gallery-said").textContent = total ? `${first + 1} to ${last} of ${total}` : "there are none";
      this.byId("gallery-back").disabled = first === 0;
      this.byId("gallery-on").disabled = last >= total;
      const list = this.byId("gallery-images");
      list.replaceChildren();
      for (const image of images) this.thumbnail(list, query.part, image);
    });
  }

  thumbnail(list, part, { index, label, predicted, pixels }) {
    const { classes, data } = this.app.state;
    const right = label === predicted;
    const says = `${part} image ${index}: ${classes[label]}, predicted ${classes[predicted]}`;
    const button = make(list, "button", { type: "button", title: says, ariaLabel: says, className: right ? "" : "missed" });
    const canvas = make(button, "canvas", { width: data.shape[2], height: data.shape[1] });
    canvas.getContext("2d").drawImage(picture(data.shape, fromBase64(pixels)), 0, 0);
    make(button, "span", { textContent: right ? classes[label] : `${classes[label]} ≠ ${classes[predicted]}` });
    button.addEventListener("click", () => {
      this.dialog.close();
      this.app.pick(part, index);
    });
  }
}
