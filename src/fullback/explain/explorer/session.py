"""Sessions: every tab has a network, an image and a training run of its own."""

from __future__ import annotations

import base64
import secrets
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fullback.errors import FullbackError, InputError, OptionError, ShapeError
from fullback.explain.document import document
from fullback.explain.explorer.fields import Fields
from fullback.explain.explorer.training import SCHEDULES, Run, Trainer, set_frozen
from fullback.explain.explorer.uploads import ReadImage, read_pixels
from fullback.layers import Normalize
from fullback.layers.base import Array, Shape
from fullback.layers.text import layers_text, parse_layers
from fullback.network import Network, array_shapes
from fullback.training.optimizers import SGD

MOST_SESSIONS = 24
MOST_EPOCHS = 500

_MOST_LAYERS = 60
_MOST_PARAMETERS = 4_000_000
_MOST_VALUES = 2_000_000  # of all activations of one image
_LONGEST_TEXT = 2000
_MOST_ACTIONS = 200
_MOST_REPEATED = 20_000  # batches of training that a link does again
_LOOKED_AT, _UNSURE = 300, 0.7  # test images, and the probability of the first one's label
_ADAPTED_ON = 4096  # images that a Normalize layer is measured on


class Data(Protocol):
    """The data set that images are picked from, and that networks are trained on."""

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def x_train(self) -> Array:
        """Training images (N, C, H, W)."""

    @property
    def y_train(self) -> Array:
        """Their labels."""

    @property
    def x_test(self) -> Array:
        """Test images."""

    @property
    def y_test(self) -> Array:
        """Their labels."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""

    @property
    def image_shape(self) -> Shape:
        """Shape (C, H, W) of an image."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a server is started with.

    Attributes
    ----------
    net : the network that every tab begins with a copy of
    name : what to call it
    data : the data set
    read_image : reads image files; see ``uploads``
    read_model, write_model : read a network from a model file, and write it to one
    """

    net: Network
    name: str
    data: Data
    read_image: ReadImage
    read_model: Callable[[Path], Network]
    write_model: Callable[[Network, Path], None]

    def __post_init__(self) -> None:
        require_shown(self.net)


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
        self.net = copy_of(self.start.net)
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
        _require_small(len(layers), sum(int(np.prod(own)) for own in parameters.values()))
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
        net = Network(
            old.layers,
            old.input_shape,
            loss=old.loss,
            seed=seed,
            dtype=str(old.dtype),  # type: ignore[arg-type]
        )
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
        if self.actions is not None and len(self.actions) > _MOST_ACTIONS:
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

    # Links --------------------------------------------------------------------------------------

    def restore(self, given: Fields) -> str | None:
        """Do again what a link tells: the network's actions, the image, the label.

        Return why some of it was left out, or None: a link may be damaged, or from a server that
        was started with another network.
        """
        left_out = None
        for work in (self._restore_network, self._restore_shown):
            try:
                work(given)
            except FullbackError as error:
                left_out = left_out or str(error)
        return left_out

    def _restore_network(self, given: Fields) -> None:
        actions = given.given.get("actions") or []
        if not isinstance(actions, list) or len(actions) > _MOST_ACTIONS:
            raise InputError("it is damaged: its actions are no list")
        builds = bool(actions) and Fields.of(actions[0], "an action").has("text")
        if given.has("start") and given.text("start", 8) != self.fingerprint() and not builds:
            raise InputError("it was made with another network than this server was started with")
        every = [Fields.of(action, "an action") for action in actions]
        if sum(action.whole("batches", 0, 10**9, 0) for action in every) > _MOST_REPEATED:
            raise InputError(
                f"its network was trained on more than {_MOST_REPEATED:,} batches, which would "
                "take too long to do again; save the model, and open it"
            )
        for action in every:
            self._repeat(action)
        if given.flag("partial"):
            raise InputError("it could not hold how its network was made")

    def _restore_shown(self, given: Fields) -> None:
        if given.has("image"):
            self._restore_image(Fields.of(given.given["image"], "image"))
        if given.has("label"):
            self.set_label(given.whole("label", 0, 10**6))

    def _restore_image(self, image: Fields) -> None:
        if image.has("pixels"):
            text = image.text("pixels", 4 * _MOST_VALUES)
            self.show_image(read_pixels(text, self.net.input_shape), "drawing")
        else:
            part = image.choice("part", ("test", "train"))
            self.pick(part, image.whole("index", 0, 10**9))

    def _repeat(self, action: Fields) -> None:
        kind = action.choice("do", ("network", "reset", "train", "step"))
        if kind == "network":
            self.build(action.text("text", _LONGEST_TEXT), action.whole("seed", 0, 2**31))
        elif kind == "reset":
            self.reset(action.whole("seed", 0, 2**31))
        elif kind == "train":
            run = read_run(action)
            trainer = self.train(run)
            trainer.train(action.whole("batches", 0, trainer.total))
            self.settle()
        else:
            self._restore_image(Fields.of(action.given.get("image"), "image"))
            self.set_label(action.whole("label", 0, 10**6))
            freeze = tuple(action.texts("freeze", 40, _MOST_LAYERS))
            self.step(action.number("rate", "(0, 100]"), freeze)


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


def read_run(given: Fields) -> Run:
    """Read the options of a training run."""
    return Run(
        epochs=given.whole("epochs", 1, MOST_EPOCHS),
        batch_size=given.whole("batch_size", 1, 4096, 64),
        rate=given.number("rate", "(0, 100]", 0.05),
        momentum=given.number("momentum", "[0, 1)", 0.9),
        schedule=given.choice("schedule", tuple(SCHEDULES), "warm_cosine"),
        seed=given.whole("seed", 0, 2**31, 0),
        freeze=tuple(given.texts("freeze", 40, _MOST_LAYERS)),
    )


def described(run: Run) -> dict[str, Any]:
    """Return a run's options as ``read_run`` reads them."""
    return {**run.__dict__, "freeze": list(run.freeze)}


def copy_of(net: Network) -> Network:
    """Return a network with the same layers, numbers and frozen layers."""
    copy = Network(net.layers, net.input_shape, loss=net.loss, dtype=str(net.dtype))  # type: ignore[arg-type]
    copy.parameters.update(net.parameters)
    copy.statistics.update(net.statistics)
    set_frozen(copy, tuple(net.frozen))
    return copy


def require_shown(net: Network) -> None:
    """Raise where the page cannot show a network: no images, no classes, or too much of it."""
    if len(net.input_shape) != 3 or net.input_shape[0] not in (1, 3):
        raise ShapeError(
            "the page shows networks that take images of one or three channels, (C, H, W); this "
            f"one takes {net.input_shape}"
        )
    if not net.loss.classifies:
        raise InputError(
            f"the page shows networks that tell classes apart; this one answers in numbers: its "
            f"loss is {net.loss}"
        )
    _require_small(len(net.layers), sum(array.size for array in net.parameters.values()))
    values = sum(int(np.prod(shape)) for shape in (net.input_shape, *net.shapes))
    if values > _MOST_VALUES:
        raise ShapeError(
            f"one image makes {values:,} activations; the page shows at most {_MOST_VALUES:,}: "
            "use fewer filters, smaller images or a stride"
        )


def _require_small(layers: int, parameters: int) -> None:
    if layers > _MOST_LAYERS:
        raise ShapeError(f"the network has {layers} layers; the page shows at most {_MOST_LAYERS}")
    if parameters > _MOST_PARAMETERS:
        raise ShapeError(
            f"the network has {parameters:,} parameters; the page takes at most "
            f"{_MOST_PARAMETERS:,}: use smaller layers"
        )


def _answer(trace: Any) -> dict[str, Any]:
    return {"loss": trace.loss, "probabilities": [float(p) for p in trace.probabilities[0]]}


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))
