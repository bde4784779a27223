"""The mistake lab: the catalogue's mistakes, switched on in this network's own backward pass.

The wrong passes are the ones that ``fullback.diagnose`` recognises. A mistake is made in a batch:
the image on the page, first, and a few others, because some mistakes cannot be seen in one image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fullback.check.diagnose import diagnose
from fullback.check.gradients import check_gradients
from fullback.check.mistakes import MISTAKES, Mutant, gradient, mutants_of, next_delta
from fullback.check.mistakes.loss import first_delta
from fullback.check.probe import probe
from fullback.check.report import Diagnosis
from fullback.check.scene import World
from fullback.check.world import build_worlds, in_float64
from fullback.errors import InputError
from fullback.explain.document import packed
from fullback.layers import Normalize
from fullback.layers.base import Array
from fullback.network import Network
from fullback.training.optimizers import SGD
from fullback.training.schedules import warm_cosine

RATE, DECAY = 0.05, 0.01  # of an early update, and of an L2 term, where nothing trains
COMPANIONS = 4  # images beside the one on the page: enough for mistakes that mix images
STEPS = 160  # of the training curves

_BATCH = 32
_MOST_SENT = 60_000  # numbers of an array that is sent to be looked at
_SAME = 1e-9  # relative difference of arrays that are equal but for rounding
_SAMPLES = 8  # entries of each array that finite differences are taken of
_TESTED = 200  # test images on which accuracy is measured along the curves
_EVERY = 10  # steps from one measurement to the next

_NEEDS = {
    # mistake: (what a network needs, so that it can be made there; one that has it)
    "channels-swapped": (
        "a convolution of several channels with several filters",
        "conv4 relu pool conv6 relu pool flatten dense{classes}",
    ),
    "filter-sum-lost": (
        "a convolution with several filters",
        "conv4 relu pool conv6 relu pool flatten dense{classes}",
    ),
    "stride-not-dilated": (
        "a convolution with a stride",
        "conv4(stride=2, padding=1) relu conv6(stride=2, padding=1) relu flatten dense{classes}",
    ),
    "stride-leftover": (
        "a stride that leaves rows or columns over",
        "conv4(stride=2, padding=1) relu conv6(stride=2, padding=1) relu flatten dense{classes}",
    ),
    "pool-overlap-assigned": (
        "pooling windows that overlap",
        "conv4 relu pool3(stride=2) conv6 relu pool3(stride=2) flatten dense{classes}",
    ),
    "dropout-mask-lost": (
        "dropout",
        "conv4 relu pool flatten dense32 relu dropout0.5 dense{classes}",
    ),
}
_ANY = (
    "layers that this network does not have",
    "conv4 relu pool conv6 relu pool flatten dense32 relu dense{classes}",
)


@dataclass(frozen=True)
class Choice:
    """What is switched on: a mistake, how it was made, and where.

    ``said`` is the mutant's sentence; ``layer`` is a layer's name, "loss", or None for everywhere
    that it can be made.
    """

    mistake: str
    said: str
    layer: str | None = None


@dataclass(frozen=True, eq=False)
class Pass:
    """A backward pass: deltas and gradients, by the names of ``Network.trace``."""

    deltas: dict[str, Array]
    gradients: dict[str, Array]


@dataclass(frozen=True, eq=False)
class Batch:
    """A float64 network with checked images and targets; the first image is the page's."""

    net: Network
    x: Array
    y: Array

    @classmethod
    def of(cls, net: Network, x: Array, y: Array) -> Batch:
        """Check a batch."""
        double = in_float64(net)
        images = double.check_images(x)
        return cls(double, images, double.loss.targets(y, len(images), double.output_shape[0]))

    @property
    def world(self) -> World:
        """The forward pass, with all that mistakes are made of."""
        return build_worlds(
            self.net, self.x, self.y, 2.0**-52, {}, None, training=True, seed=0, noisy=False
        ).true


# What can be switched on ------------------------------------------------------------------------


def catalogue(batch: Batch) -> list[dict[str, Any]]:
    """Return every mistake of the catalogue with the ways and places to make it here."""
    ways: dict[str, dict[str, list[str]]] = {name: {} for name in MISTAKES}
    for layer, mutant in _every_mutant(batch.world):
        if mutant.mistake is not None:
            places = ways[mutant.mistake].setdefault(mutant.said, [])
            if layer not in places:
                places.append(layer)
    classes = batch.net.output_shape[0]
    entries = []
    for name, mistake in MISTAKES.items():
        needs, text = _NEEDS.get(name, _ANY)
        entry: dict[str, Any] = {
            "id": name,
            "sentence": mistake.sentence,
            "mend": mistake.mend,
            "hint": mistake.hint,
            "ways": [{"said": said, "places": places} for said, places in ways[name].items()],
        }
        if not ways[name]:
            entry |= {"needs": needs, "network": text.format(classes=classes)}
        entries.append(entry)
    return entries


def _every_mutant(world: World) -> Iterator[tuple[str, Mutant]]:
    for mutant in mutants_of(world.loss):
        yield "loss", mutant
    for name in reversed(world.scenes):
        for mutant in mutants_of(world.scenes[name]):
            yield name, mutant


def chosen(world: World, choice: Choice) -> dict[str, tuple[Mutant, ...]]:
    """Return the mutants that a choice switches on, by layer; none where it cannot be made.

    Of a layer's mutants with the same sentence, one for each thing that it computes is taken.
    """
    found: dict[str, dict[str, Mutant]] = {}
    for layer, mutant in _every_mutant(world):
        wanted = mutant.mistake == choice.mistake and mutant.said == choice.said
        if wanted and choice.layer in (None, layer):
            found.setdefault(layer, {}).setdefault(mutant.target, mutant)
    return {layer: tuple(own.values()) for layer, own in found.items()}


def require_possible(batch: Batch, choice: Choice) -> dict[str, tuple[Mutant, ...]]:
    """Return the mutants of a choice.

    Raises
    ------
    InputError
        This network cannot have that mistake there.
    """
    if choice.mistake not in MISTAKES:
        raise InputError(f"the catalogue has no mistake {choice.mistake[:60]!r}")
    mutants = chosen(batch.world, choice)
    if not mutants:
        where = f" in {choice.layer}" if choice.layer else ""
        raise InputError(f"{choice.mistake} cannot be made so{where} in this network")
    return mutants


# The wrong pass ---------------------------------------------------------------------------------


def backward(world: World, mutants: dict[str, tuple[Mutant, ...]], rate: float = RATE) -> Pass:
    """Run the backward pass of a world with these mistakes."""

    def own(layer: str, target: str) -> tuple[Mutant, ...]:
        return tuple(m for m in mutants.get(layer, ()) if m.target == target)

    delta = first_delta(world.loss, own("loss", "delta"))
    deltas: dict[str, Array] = {}
    gradients: dict[str, Array] = {}
    for name in reversed(world.scenes):
        deltas[name] = delta
        scene = world.scenes[name].with_rates(rate, DECAY)
        for target in scene.layer.parameter_shapes(scene.x.shape[1:]):
            mistakes = own(name, target)
            gradients[f"{name}.{target}"] = gradient(scene, target, delta, mistakes)  # type: ignore[arg-type]
        delta = next_delta(scene, delta, own(name, "delta"))
    deltas["input"] = delta
    return Pass(deltas, gradients)


def compared(batch: Batch, choice: Choice) -> dict[str, Any]:
    """Return every delta and gradient, right and wrong: numbers of the difference, and maps.

    Deltas are those of the first image. Maps of arrays that are too large to look at are left out.
    """
    mutants = require_possible(batch, choice)
    world = batch.world
    right, wrong = backward(world, {}), backward(world, mutants)
    rows = []
    for kind in ("deltas", "gradients"):
        theirs: dict[str, Array] = getattr(wrong, kind)
        for name, array in getattr(right, kind).items():
            row = {"name": name, "kind": kind[:-1], **difference(array, theirs[name])}
            shown = [array[0], theirs[name][0]] if kind == "deltas" else [array, theirs[name]]
            if row["changed"] and shown[0].size <= _MOST_SENT:
                row |= {"right": packed(shown[0]), "wrong": packed(shown[1])}
            rows.append(row)
    order = ["loss", *reversed(batch.net.names), "input"]
    rows.sort(key=lambda row: (order.index(row["name"].split(".")[0]), row["kind"]))
    return {"images": len(batch.x), "places": list(mutants), "rows": rows}


def difference(right: Array, wrong: Array) -> dict[str, Any]:
    """Return how far a wrong array is from the right one: in all, in direction, in length."""
    size, theirs = float(np.linalg.norm(right)), float(np.linalg.norm(wrong))
    off = float(np.linalg.norm(wrong - right))
    error = off / size if size else (0.0 if not off else float("inf"))
    product = float((right * wrong).sum())
    return {
        "changed": bool(off > _SAME * max(size, theirs)),
        "error": _finite(error),
        "cosine": _finite(product / (size * theirs) if size and theirs else float("nan")),
        "ratio": _finite(theirs / size if size else float("nan")),
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


# Which check catches it -------------------------------------------------------------------------


def checks(batch: Batch, choice: Choice) -> Iterator[dict[str, Any]]:
    """Make every check on the wrong pass; yield what each was, whether it caught the mistake."""
    mutants = require_possible(batch, choice)
    wrong = backward(batch.world, mutants)
    with threadpool_limits(1, "blas"):
        fits = all(
            array.shape == batch.net.parameters[name].shape
            for name, array in wrong.gradients.items()
        )
        yield _verdict(
            "shapes", "Every gradient has the shape of its parameter", not fits, "all shapes fit"
        )
        yield _row_sums(batch, wrong)
        yield _differences(
            "one image", "Finite differences, with the image on the page alone",
            Batch(batch.net, batch.x[:1], batch.y[:1]), choice,
        )  # fmt: skip
        yield _differences(
            "noise", "Finite differences, with a batch of random noise", _noise(batch), choice
        )
        yield _differences(
            "batch", f"Finite differences, with these {len(batch.x)} images", batch, choice
        )
        probed = Batch.of(batch.net, *probe(batch.net))
        theirs = backward(probed.world, chosen(probed.world, choice))
        for deltas, title in (
            (False, "fullback diagnose, from the gradients alone"),
            (True, "fullback diagnose, from gradients and deltas"),
        ):
            found = diagnose(
                probed.net, probed.x, probed.y, gradients=theirs.gradients,
                deltas=theirs.deltas if deltas else None,
            )  # fmt: skip
            yield _named(title, found, choice)


def _verdict(name: str, title: str, caught: bool, said: str) -> dict[str, Any]:
    return {"check": name, "title": title, "caught": bool(caught), "said": said}


def _row_sums(batch: Batch, wrong: Pass) -> dict[str, Any]:
    delta = wrong.deltas[batch.net.names[-1]]
    sums = abs(delta.sum(axis=1)) / np.maximum(abs(delta).sum(axis=1), 1e-300)
    worst = float(sums.max())
    return _verdict(
        "row sums",
        "The deltas of an image's logits add up to 0",
        worst > 1e-6,
        "they do" if worst <= 1e-6 else f"they do not: off by {worst:.2g} of their size",
    )


def _noise(batch: Batch) -> Batch:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *batch.net.input_shape))
    return Batch(batch.net, x, np.resize(batch.y, 3))


def _differences(name: str, title: str, batch: Batch, choice: Choice) -> dict[str, Any]:
    world = batch.world
    wrong = backward(world, chosen(world, choice))
    report = check_gradients(
        batch.net, batch.x, batch.y, gradients=wrong.gradients, samples=_SAMPLES, directions=1
    )
    bad = [row.name for row in report.rows if not row.ok]
    caught = bool(bad) or not all(row.ok for row in report.directional)
    said = "every gradient passes"
    if bad:
        said = f"wrong: {', '.join(bad[:3])}" + (f" and {len(bad) - 3} more" * (len(bad) > 3))
    return _verdict(name, title, caught, said)


def _named(title: str, found: Diagnosis, choice: Choice) -> dict[str, Any]:
    named = [finding for finding in found.findings if finding.mistake is not None]
    name = "diagnose with deltas" if "deltas" in title else "diagnose"
    if not named:
        said = "nothing is wrong" if found.ok else "wrong, but it has no name"
        return _verdict(name, title, not found.ok, said)
    said = "; ".join(f"{f.layer}: {f.mistake}" for f in named[:2])
    right = any(finding.mistake == choice.mistake for finding in named)
    return _verdict(name, title, True, said) | {"names_it": right}


# The training curves ----------------------------------------------------------------------------


class Student:
    """A float64 network that learns from new weights, rightly or with a mistake."""

    def __init__(self, net: Network, choice: Choice | None, rate: float, seed: int) -> None:
        self.choice, self.rate = choice, rate
        self.net = Network(net.layers, net.input_shape, loss=net.loss, seed=seed, dtype="float64")
        for name, layer in zip(net.names, net.layers, strict=True):
            if isinstance(layer, Normalize):
                for key in layer.statistic_shapes(net.input_shape):
                    self.net.statistics[f"{name}.{key}"] = net.statistics[f"{name}.{key}"]
        self.optimizer = SGD(rate, momentum=0.9, nesterov=True)
        self.state = self.optimizer.initial_state(self.net.parameters, self.net.parameters)
        self.mutants: dict[str, tuple[Mutant, ...]] | None = None if choice else {}
        self.left: dict[str, Array] = {}  # gradients that nobody cleared
        self.alive = True

    def learn(self, x: Array, y: Array, factor: float) -> float:
        """Make one step on a batch; return its loss. The rate is multiplied by the factor."""
        world = Batch(self.net, x, y).world
        if self.mutants is None and self.choice is not None:
            self.mutants = chosen(world, self.choice)
        mutants = self.mutants or {}
        if self.choice is not None and self.choice.mistake == "gradients-not-cleared":
            gradients = self._with_what_is_left(backward(world, {}).gradients, mutants)
        else:
            gradients = backward(world, mutants, self.rate * factor).gradients
        names = self.net.trainable()
        self.optimizer.step(self.net.parameters, gradients, self.state, names, factor=factor)
        for name, scene in world.scenes.items():
            moved = scene.layer.next_statistics(scene.kept, self.net.arrays_of(name))
            for key, value in moved.items():
                self.net.statistics[f"{name}.{key}"] = value
        loss, _ = self.net.loss.forward(world.loss.logits, y)
        arrays = self.net.parameters.values()
        self.alive = bool(np.isfinite(loss)) and all(np.isfinite(a).all() for a in arrays)
        return loss

    def _with_what_is_left(
        self, gradients: dict[str, Array], mutants: dict[str, tuple[Mutant, ...]]
    ) -> dict[str, Array]:
        """Add what earlier steps left, where gradients are not cleared."""
        for layer, own in mutants.items():
            for mutant in own:
                name = f"{layer}.{mutant.target}"
                self.left[name] = gradients[name] = gradients[name] + self.left.get(name, 0.0)
        return gradients


def curves(
    net: Network,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    choice: Choice,
    rate: float,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Train from new weights, rightly and with the mistake; yield the losses, step by step.

    Both see the same batches, at the learning rates of ``schedules.warm_cosine``. A
    network whose loss is no longer finite stops.
    """
    rng = np.random.default_rng(seed)
    size = min(_BATCH, len(train[0]))
    students = {
        "right": Student(net, None, rate, seed), "wrong": Student(net, choice, rate, seed),
    }  # fmt: skip
    for step in range(1, STEPS + 1):
        picked = rng.integers(0, len(train[0]), size)
        x, y = train[0][picked], train[1][picked]
        row: dict[str, Any] = {"step": step}
        for side, student in students.items():
            if not student.alive:
                continue
            with threadpool_limits(1, "blas"), np.errstate(all="ignore"):
                row[side] = _finite(student.learn(x, y, warm_cosine((step - 1) / STEPS)))
                if student.alive and step % _EVERY == 0:
                    shown = test[0][:_TESTED], test[1][:_TESTED]
                    row[f"{side}_accuracy"] = student.net.score(*shown)
        yield row
