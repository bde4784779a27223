// Other networks: typed as text, or opened from a file.

import { make } from "./elements.js";

const EXAMPLES = [
  ["the question's", "conv1 relu pool conv1 relu pool flatten dense49 relu dense{k}"],
  ["small", "conv8 relu pool conv16 relu pool flatten dense64 relu dense{k}"],
  ["wide", "conv32 relu pool conv64 relu pool flatten dense128 relu dense{k}"],
  ["LeNet-1", "conv4(kernel_size=5, padding=valid) tanh avgpool conv12(kernel_size=5, padding=valid) tanh avgpool flatten dense{k}"],
  ["strides in place of pooling", "conv4(stride=2) relu conv8(stride=2) relu flatten dense{k}"],
  ["overlapping pooling", "conv4 relu pool3(stride=2) conv8 relu pool3(stride=2) flatten dense{k}"],
  ["with dropout", "conv4 relu pool flatten dense32 relu dropout0.5 dense{k}"],
  ["with batch normalisation", "conv4 batchnorm relu pool conv8 batchnorm relu pool flatten dense{k}"],
  ["without a convolution", "flatten dense32 relu dense{k}"],
];

export class Models {
  constructor(app, byId) {
    Object.assign(this, { app, byId });
    const examples = byId("examples");
    make(examples, "option", { value: "", textContent: "choose one" });
    EXAMPLES.forEach(([name], n) => make(examples, "option", { value: n, textContent: name }));
    examples.addEventListener("change", () => {
      if (examples.value === "") return;
      byId("text").value = EXAMPLES[examples.value][1].replace("{k}", app.state.classes.length);
    });
    byId("build").addEventListener("click", () => this.build(byId("text").value));
    byId("model").addEventListener("change", () => this.open());
    byId("save").addEventListener("click", () => this.save());
  }

  show({ text }) {
    this.byId("text").value = text;
  }

  // Build a network; it has initial weights, and is trained in the card above.
  build(text) {
    return this.app.trying(async () => {
      const { state, document } = await this.app.client.post("/network", { text, seed: this.app.training.seed });
      this.app.take(state, document);
      this.app.training.say("The network has new weights: train it.");
    });
  }

  open() {
    const input = this.byId("model");
    const [file] = input.files;
    input.value = "";
    if (!file) return null;
    if (file.name.toLowerCase().endsWith(".onnx")) {
      this.app.fail("ONNX models come with the importer, later; open a .safetensors file that fullback saved");
      return null;
    }
    return this.app.trying(async () => {
      const { state, document } = await this.app.client.post("/model", file);
      this.app.take({ ...state, name: file.name }, document);
    });
  }

  save() {
    return this.app.trying(async () => {
      const answer = await this.app.client.ask("GET", `${this.app.client.path}/model`);
      const address = URL.createObjectURL(await answer.blob());
      const link = make(document.body, "a", { href: address, download: "model.safetensors", hidden: true });
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
    });
  }
}
