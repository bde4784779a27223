"""Sessions: every tab has a network, an image and a training run of its own."""

from __future__ import annotations

import base64
import secrets
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fullback.errors import InputError, OptionError, ShapeError
from fullback.layers import Normalize
from fullback.layers.base import Array, Shape
from fullback.layers.text import layers_text, parse_layers
from fullback.network import Network, array_shapes
from fullback.pages.document import document
from fullback.pages.explorer.start import Data, Start, require_shown, require_small
from fullback.pages.explorer.training import Run, Trainer, described, set_frozen
from fullback.training.optimizers import SGD

MOST_SESSIONS = 24
MOST_ACTIONS = 200  # that a link can hold

_LOOKED_AT, _UNSURE = 300, 0.7  # test images, and the probability of the first one's label
_ADAPTED_ON = 4096  # images that a Normalize layer is measured on


@dataclass(eq=False)
class Session:
    """One tab's network, image and label.

    Attributes
    ----------
    start : what the server was started with
    id : the random word that the tab knows it by
    lock : what is held while the network is read or changed
    net, name : the network, and what to call it
    image, origin : the image (C, H, W), and where it is from
    label : its label; None for whatever the network predicts
    trainer : the run that trains the network, or has trained it last
    actions : what made the network of the one that the server was started with, for a link;
        None where that cannot be told
    """

    start: Start
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.net = self.start.net.copy()
        self.name = self.start.name
        self.trainer: Trainer | None = None
        self.actions: list[dict[str, Any]] | None = []
        self.label: int | None = None
        self.image = np.zeros(self.net.input_shape, np.uint8)
        self.origin: dict[str, Any] = {"from": "drawing"}
        if self.fits:
            self.pick("test", self._telling_image())

    # What is shown ------------------------------------------------------------------------------

    @property
    def data(self) -> Data:
        """The data set."""
        return self.start.data

    @property
    def fits(self) -> bool:
        """Whether the network takes the data set's images and has an output for every class."""
        classes = len(self.data.class_names)
        return self.net.input_shape == self.data.image_shape and self.net.output_shape[0] >= classes

    @property
    def classes(self) -> list[str]:
        """Names of the network's outputs."""
        names = list(self.data.class_names) if self.fits else []
        return names + [str(n) for n in range(len(names), self.net.output_shape[0])]

    @property
    def shown_label(self) -> int:
        """The label that the loss is computed with."""
        if self.label is not None:
            return self.label
        return int(self.net.trace(self.image[None], [0]).activations[self.net.names[-1]].argmax())

    def document(self) -> dict[str, Any]:
        """Return the image's forward and backward pass, and what the page keeps beside it."""
        with self.lock:
            shown = document(self.net, self.image, self.shown_label, classes=self.classes)
            shown["image"] = {**self.origin, "label_given": self.label is not None}
            return shown

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
                "freezable": sorted({name.split(".")[0] for name in self.net.parameters}),
                "frozen": sorted(self.net.frozen),
                "data": {
                    "name": data.name,
                    "train": len(data.x_train),
                    "test": len(data.x_test),
                    "shape": list(data.image_shape),
                    "fits": self.fits,
                },
                "training": self.training_report(),
                "actions": None if self.actions is None else self.actions + self._unsettled(),
                "start": self.fingerprint(),
            }

    def fingerprint(self) -> str:
        """Return a word that tells the networks apart that servers are started with."""
        net = self.start.net
        total = zlib.crc32(repr(net).encode())
        for array in (*net.parameters.values(), *net.statistics.values()):
            total = zlib.crc32(array.tobytes(), total)
        return f"{total:08x}"

    # The image ----------------------------------------------------------------------------------

    def pick(self, part: str, index: int) -> None:
        """Take an image of the data set, with its label."""
        if not self.fits:
            raise ShapeError(self.misfit())
        x, y = self.part(part)
        if index >= len(x):
            raise InputError(f"the {part} part has {len(x)} images; give a number below {len(x)}")
        self.image = np.array(x[index])
        self.label = int(y[index])
        self.origin = {"from": "data", "part": part, "index": index}

    def _telling_image(self) -> int:
        """Return a test image that the network is right about, but not sure: its deltas are seen.

        Of an image that it is sure of, all of them are next to 0.
        """
        x, y = self.data.x_test[:_LOOKED_AT], self.data.y_test[:_LOOKED_AT]
        try:
            p = self.net.predict_proba(x)[np.arange(len(x)), y]
        except InputError:  # its weights are not finite, which the page shows
            return 0
        return int(abs(p - _UNSURE).argmin())

    def part(self, name: str) -> tuple[Array, Array]:
        """Return the images and labels of the data set's training or test part."""
        data = self.data
        if name == "train":
            return data.x_train, data.y_train
        return data.x_test, data.y_test

    def misfit(self) -> str:
        """Say why the data set does not go with the network."""
        return (
            f"{self.name} takes images of {_times(self.net.input_shape)} and tells "
            f"{self.net.output_shape[0]} classes apart, but {self.data.name} has "
            f"{_times(self.data.image_shape)} and {len(self.data.class_names)}; draw or upload a "
            "picture, or start fullback explore with --data of its own"
        )

    def show_image(self, pixels: Array, origin: str) -> None:
        """Take a drawing or an upload; its label is what the network predicts, until it is set."""
        self.image, self.origin = pixels, {"from": origin}
        self.label = None

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
        if net.input_shape != shape:
            self.image, self.label = np.zeros(net.input_shape, np.uint8), None
            self.origin = {"from": "drawing"}
            if self.fits:
                self.pick("test", 0)
        if self.label is not None and self.label >= net.output_shape[0]:
            self.label = None

    def build(self, text: str, seed: int) -> None:
        """Take a network in text form, with its initial weights."""
        text = " ".join(text.split())
        shape = self.data.image_shape
        layers = parse_layers(text)
        parameters, _ = array_shapes(layers, shape)
        require_small(len(layers), sum(int(np.prod(own)) for own in parameters.values()))
        net = Network(layers, shape, seed=seed)
        require_shown(net)
        classes = len(self.data.class_names)
        if net.output_shape[0] != classes:
            raise OptionError(
                f"the network has {net.output_shape[0]} outputs, but {self.data.name} has "
                f"{classes} classes; end with dense{classes}"
            )
        self._adapt(net)
        self.replace(net, "your network")
        self._note({"do": "network", "text": text, "seed": seed}, anew=True)

    def reset(self, seed: int) -> None:
        """Give the network new initial weights."""
        self.require_idle()
        old = self.net
        net = old.copy(seed=seed)
        net.unfreeze(*net.frozen)
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
        if not self.fits:
            raise ShapeError(self.misfit())
        self.settle()
        data = self.data
        trainer = Trainer(
            self.net, self.lock, (data.x_train, data.y_train), (data.x_test, data.y_test), run
        )
        self.trainer = trainer
        return trainer

    def settle(self) -> None:
        """Note what the last run did, when nobody can go on with it any more."""
        for action in self._unsettled():
            self._note(action)
        self.trainer = None

    def _unsettled(self) -> list[dict[str, Any]]:
        """Return the last run as an action, while somebody may still go on with it."""
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
            self._note(
                {"do": "step", "rate": rate, "freeze": list(freeze), "label": label}
                | {"image": self.image_for_link()}
            )
            return {"label": label, "before": _answer(before), "after": _answer(after)}

    def image_for_link(self) -> dict[str, Any]:
        """Return what names the image in a link: its place in the data set, or its pixels."""
        if self.origin["from"] == "data":
            return {"part": self.origin["part"], "index": self.origin["index"]}
        return {"pixels": base64.b64encode(self.image.tobytes()).decode("ascii")}


class Sessions:
    """The sessions of a server; the ones that were used longest ago make room for new ones."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self._lock = threading.Lock()
        self._all: OrderedDict[str, Session] = OrderedDict()

    def new(self) -> Session:
        """Return a new session."""
        session = Session(self.start)
        with self._lock:
            self._all[session.id] = session
            left = [self._all.popitem(last=False)[1] for _ in range(len(self._all) - MOST_SESSIONS)]
        for old in left:
            if old.trainer is not None:
                old.trainer.pause()
        return session

    def find(self, name: str) -> Session | None:
        """Return the session of that id, or None where there is none any more."""
        with self._lock:
            if name in self._all:
                self._all.move_to_end(name)
            return self._all.get(name)

    def close(self) -> None:
        """Pause every run."""
        with self._lock:
            every = list(self._all.values())
        for session in every:
            if session.trainer is not None:
                session.trainer.pause()


def _answer(trace: Any) -> dict[str, Any]:
    return {"loss": trace.loss, "probabilities": [float(p) for p in trace.probabilities[0]]}


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))
