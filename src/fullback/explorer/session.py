"""A session: every tab has a network, an image and a training run of its own."""

from __future__ import annotations

import base64
import secrets
import threading
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from fullback.architecture import architecture_of
from fullback.data import Dataset
from fullback.errors import InputError, OptionError, ShapeError
from fullback.explorer.config import LOOKED_AT, ServerConfig, misfit, require_shown, require_small
from fullback.explorer.training import Run, Trainer, described, scale_of, set_frozen
from fullback.layers import Normalize
from fullback.layers.base import Array
from fullback.layers.text import layers_text, parse_layers
from fullback.network import Network
from fullback.passes import Trace, forward_batch
from fullback.report.document import class_names, document, shown_range
from fullback.training.optimizers import SGD

MOST_ACTIONS = 200  # that a link can hold

_UNSURE = 0.7  # the probability of the first image's label
_SURE = 0.999  # a probability from which on next to no error flows back
_SEARCHED = 512  # images that are predicted at once in the search for one that is wrong
_ADAPTED_ON = 4096  # images that a Normalize layer is measured on


@dataclass(eq=False)
class Session:
    """One tab's network, image and label.

    Attributes
    ----------
    config : what the server was started with
    id : the random word that the tab knows it by
    lock : what is held while the network is read or changed
    net, name : the network, and what to call it
    image, origin : the image (C, H, W), and where it is from
    label : its label; None for whatever the network predicts
    misfit : why the data set does not go with the network; None where it does
    trainer : the run that trains the network, or has trained it last
    actions : what made the network of the one that the server was started with, for a link;
        None where that is not known
    """

    config: ServerConfig
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.net = self.config.net.copy()
        self.name = self.config.name
        self.trainer: Trainer | None = None
        self.actions: list[dict[str, Any]] | None = []
        self.label: int | None = None
        self.misfit = misfit(self.net, self.name, self.data)
        self._begin()

    # What is shown ------------------------------------------------------------------------------

    @property
    def data(self) -> Dataset:
        """The data set."""
        return self.config.data

    @property
    def fits(self) -> bool:
        """Whether the network takes the data set's images and has an output for every class."""
        return self.misfit is None

    @property
    def drawable(self) -> str | None:
        """Why the network cannot take drawings and uploads; None where it can."""
        record = self.net.trained_on
        if record is None or record.takes_pixels:
            return None
        return (
            f"{self.name} was trained on numbers from {record.low:g} to {record.high:g}, and which "
            "of them are black and white is not known: it takes images of the data, but no "
            "drawings and no uploads."
        )

    @property
    def classes(self) -> list[str]:
        """Names of the network's outputs."""
        return class_names(self.net, self.data.class_names if self.fits else ())

    @property
    def shown_label(self) -> int:
        """The label that the loss is computed with."""
        if self.label is not None:
            return self.label
        images = self.net.check_images(self.image[np.newaxis])
        return int(forward_batch(self.net, images, training=True)[0][-1].argmax())  # as traced

    def document(self) -> dict[str, Any]:
        """Return the image's forward and backward pass, and what the page keeps beside it."""
        with self.lock:
            shown = document(self.net, self.image, self.shown_label, classes=self.classes)
            shown["image"] = {**self.origin, "label_given": self.label is not None}
            return shown

    def trace(self) -> Trace:
        """Return the image's forward and backward pass."""
        with self.lock:
            return self.net.trace(self.image[np.newaxis], [self.shown_label])

    def state(self) -> dict[str, Any]:
        """Return what the page needs to know beside the document."""
        data = self.data
        with self.lock:
            return {
                "session": self.id,
                "name": self.name,
                "text": layers_text(self.net.layers),
                "classes": self.classes,
                "input_shape": list(self.net.input_shape),
                "drawable": self.drawable,
                "freezable": sorted({name.split(".")[0] for name in self.net.parameters}),
                "frozen": sorted(self.net.frozen),
                "data": {
                    "name": data.name,
                    "train": len(data.x_train),
                    "test": len(data.x_test),
                    "shape": list(data.image_shape),
                    "fits": self.fits,
                    "misfit": self.misfit,
                },
                "training": self.training_report(),
                "actions": None if self.actions is None else self.actions + self._unsettled(),
                "start": self.config.fingerprint,
            }

    # The image ----------------------------------------------------------------------------------

    def pick(self, part: str, index: int) -> None:
        """Take an image of the data set, with its label."""
        self.require_fit()
        x, y = self.part(part)
        if index >= len(x):
            raise InputError(f"the {part} part has {len(x)} images; give a number below {len(x)}")
        self.image = np.array(x[index])
        self.label = int(y[index])
        self.origin = {"from": "data", "part": part, "index": index}

    def _telling_image(self) -> int:
        """Return a test image that the network is not sure of, right if there is one.

        Of an image that it is sure of, all deltas are next to 0.
        """
        x, y = self.data.x_test[:LOOKED_AT], self.data.y_test[:LOOKED_AT]
        try:
            p = self.net.predict_proba(x)[np.arange(len(x)), y]
        except InputError:  # its weights are not finite, which the page shows
            return 0
        return int((abs(p - _UNSURE) + (p > _SURE)).argmin())

    def pick_wrong(self, after: int) -> None:
        """Take the first test image behind a place that the network gets wrong, or from the start.

        Raises
        ------
        InputError
            It gets every test image right.
        """
        self.require_fit()
        x, y = self.part("test")
        order = np.roll(np.arange(len(x)), -(after + 1))
        for start in range(0, len(x), _SEARCHED):
            places = order[start : start + _SEARCHED]
            wrong = np.flatnonzero(self.net.predict(x[places]) != y[places])
            if len(wrong):
                self.pick("test", int(places[wrong[0]]))
                return
        raise InputError(f"{self.name} gets all {len(x)} test images of {self.data.name} right")

    def part(self, name: str) -> tuple[Array, Array]:
        """Return the images and labels of the data set's training or test part."""
        data = self.data
        if name == "train":
            return data.x_train, data.y_train
        return data.x_test, data.y_test

    def require_fit(self) -> None:
        """Raise ShapeError where the data set does not go with the network."""
        if self.misfit is not None:
            raise ShapeError(self.misfit)

    def _begin(self) -> None:
        """Take a first image: a telling one of the data, or an empty one."""
        self.label = None
        self.origin = {"from": "drawing"}
        self.image = np.zeros(self.net.input_shape, np.uint8)
        record = self.net.trained_on
        if self.drawable is not None and record is not None:
            self.image = np.full(self.net.input_shape, record.low, np.float32)
        if self.fits:
            self.pick("test", self._telling_image())

    def show_image(self, pixels: Array, origin: str, *, inverted: bool = False) -> None:
        """Take a drawing or an upload; its label is what the network predicts, until it is set.

        Raises
        ------
        InputError
            It is not known what black and white are for the network.
        """
        self.net.check_images(pixels[np.newaxis])
        self.image, self.origin = pixels, {"from": origin, "inverted": inverted}
        self.label = None

    def invert(self, *, inverted: bool) -> None:
        """Swap dark and light in the uploaded picture, unless they are swapped already."""
        if self.origin["from"] != "upload":
            raise InputError("only an uploaded picture can be inverted")
        if self.origin["inverted"] != inverted:
            black, white = 0.0, 255.0
            if self.image.dtype != np.uint8:  # 16-bit pictures are floats, on the network's scale
                black, white = shown_range(self.net, self.image)
            self.image = (black + white - self.image).astype(self.image.dtype)
            self.origin = {**self.origin, "inverted": inverted}

    def set_label(self, label: int | None) -> None:
        """Take a label for the image; None for what the network predicts."""
        outputs = self.net.output_shape[0]
        if label is not None and label >= outputs:
            raise InputError(f"label must be at most {outputs - 1}, got {label}")
        self.label = label

    # The network --------------------------------------------------------------------------------

    def replace(self, net: Network, name: str) -> None:
        """Take another network."""
        self.require_idle()
        shape = self.net.input_shape
        self.net, self.name, self.trainer = net, name, None
        self.misfit = misfit(self.net, self.name, self.data)
        pictured = self.origin["from"] == "data"
        if net.input_shape != shape or (not self.fits if pictured else self.drawable is not None):
            self._begin()
        if self.label is not None and self.label >= net.output_shape[0]:
            self.label = None

    def build(self, text: str, seed: int) -> None:
        """Take a network in text form, with its initial weights."""
        text = " ".join(text.split())
        shape = self.data.image_shape
        layers = parse_layers(text)
        parameters = architecture_of(layers, shape).parameters
        require_small(len(layers), sum(map(prod, parameters.values())))
        net = Network(layers, shape, seed=seed)
        require_shown(net)
        classes = len(self.data.class_names)
        if net.output_shape[0] != classes:
            raise OptionError(
                f"the network has {net.output_shape[0]} outputs, but {self.data.name} has "
                f"{classes} classes; end with dense{classes}"
            )
        net.class_names = tuple(self.data.class_names)
        self._adapt(net)
        self.replace(net, "your network")
        self._note({"do": "network", "text": text, "seed": seed}, anew=True)

    def reset(self, seed: int) -> None:
        """Give the network new initial weights."""
        self.require_idle()
        net = self.net.copy(seed=seed)
        if self.fits:
            self._adapt(net)
        self.replace(net, self.name)
        if self.actions is not None:  # what was trained before is gone
            self.actions = [action for action in self.actions if action["do"] == "network"]
        self._note({"do": "reset", "seed": seed})

    def open(self, net: Network, name: str) -> None:
        """Take a network that was uploaded."""
        require_shown(net)
        self.replace(net, name)
        self.actions = None

    def _adapt(self, net: Network) -> None:
        """Take the scale of the data's images, as training does."""
        net.trained_on = scale_of(net, net.check_images(self.data.x_train[:_ADAPTED_ON]))
        if isinstance(net.layers[0], Normalize):
            net.adapt(self.data.x_train[:_ADAPTED_ON])

    def _note(self, action: dict[str, Any], *, anew: bool = False) -> None:
        if anew:
            self.actions = []
        if self.actions is not None:
            self.actions.append(action)
        if self.actions is not None and len(self.actions) > MOST_ACTIONS:
            self.actions = None

    # Training -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the network is being trained at this moment."""
        return self.trainer is not None and self.trainer.running

    def require_idle(self) -> None:
        """Raise InputError while the network is being trained."""
        if self.running:
            raise InputError("the network is being trained; pause it first")

    def train(self, run: Run) -> Trainer:
        """Return a new training run on the data set."""
        self.require_idle()
        self.require_fit()
        self.settle()
        data = self.data
        trainer = Trainer(
            self.net, self.lock, (data.x_train, data.y_train), (data.x_test, data.y_test), run
        )
        self.trainer = trainer
        return trainer

    def settle(self) -> None:
        """Note what the last run did, when it cannot be resumed any more."""
        for action in self._unsettled():
            self._note(action)
        self.trainer = None

    def _unsettled(self) -> list[dict[str, Any]]:
        """Return the last run as an action, while it may still be resumed."""
        trainer = self.trainer
        if trainer is None or not trainer.done:
            return []
        return [{"do": "train", **described(trainer.run), "batches": trainer.done}]

    def training_report(self) -> dict[str, Any] | None:
        """Return what the last run did, or None."""
        return None if self.trainer is None else self.trainer.report()

    def step(self, rate: float, freeze: tuple[str, ...]) -> dict[str, Any]:
        """Make one step of gradient descent on the image alone; return before and after."""
        self.require_idle()
        self.settle()
        with self.lock:
            set_frozen(self.net, freeze)
            label = self.shown_label
            before = self.net.trace(self.image[None], [label])
            if not np.isfinite(before.loss):
                raise InputError(
                    f"the loss is {before.loss} before any step: the network's weights, or what it "
                    "makes of the image, are not finite"
                )
            optimizer = SGD(rate)
            names = self.net.trainable()
            state = optimizer.initial_state(self.net.parameters, names)
            kept = {name: array.copy() for name, array in self.net.parameters.items()}
            optimizer.step(self.net.parameters, before.gradients, state, names)
            after = self.net.trace(self.image[None], [label])
            if not np.isfinite(after.loss):
                self.net.parameters.update(kept)
                raise InputError(
                    f"after a step with the learning rate {rate:g} the loss is {after.loss}; the "
                    "step was taken back: give a smaller rate"
                )
            image = self.image_for_link()
            if image is None:
                self.actions = None
            self._note(
                {"do": "step", "rate": rate, "freeze": list(freeze), "label": label, "image": image}
            )
            return {"label": label, "before": _answer(before), "after": _answer(after)}

    def image_for_link(self) -> dict[str, Any] | None:
        """Return what names the image in a link: its place in the data set, or its pixels."""
        if self.origin["from"] == "data":
            return {"part": self.origin["part"], "index": self.origin["index"]}
        if self.image.dtype != np.uint8:
            return None
        return {"pixels": base64.b64encode(self.image.tobytes()).decode("ascii")}


def _answer(trace: Any) -> dict[str, Any]:
    return {"loss": trace.loss, "probabilities": [float(p) for p in trace.probabilities[0]]}
