"""The mistake lab: the catalogue's mistakes, switched on in this network's own backward pass.

The wrong passes are the ones that ``fullback.diagnose`` recognises. A mistake is made in a batch:
the image on the page, first, and a few others, because some mistakes cannot be seen in one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fullback.check.diagnose.ensemble import forward_pass
from fullback.check.mistakes import MISTAKES as CATALOGUE
from fullback.check.mistakes import BackwardPass, ForwardPass, Mutant, every_mutant
from fullback.check.mistakes import backward as mistaken_backward
from fullback.errors import InputError
from fullback.layers.base import Array
from fullback.network import Network
from fullback.report.document import packed

MISTAKES = {
    name: mistake
    for name, mistake in CATALOGUE.items()
    if name != "binary-term-lost"  # of another loss
}
RATE, DECAY = 0.05, 0.01  # of an early update, and of an L2 term or a factor, where nothing trains
COMPANIONS = 4  # images beside the one on the page: enough for mistakes that mix images

_MOST_SENT = 60_000  # numbers of an array that is sent to be looked at
_SAME = 1e-9  # relative difference of arrays that are equal but for rounding

_SMOOTH = "a sigmoid or tanh", "conv4 tanh pool conv6 tanh pool flatten dense{classes}"
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
    "input-channels-merged": (
        "a convolution of several channels",
        "conv4 relu pool conv6 relu pool flatten dense{classes}",
    ),
    "full-convolution-cropped": (
        "a convolution without padding",
        "conv4(padding=valid) relu pool conv6(padding=valid) relu flatten dense{classes}",
    ),
    "slope-missing": _SMOOTH,
    "slope-twice": _SMOOTH,
    "slope-at-wrong-place": _SMOOTH,
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
ELSEWHERE = {"binary-term-lost"}
"""Mistakes of another loss, which no network of the page can have."""

_ANY = (
    "layers that this network does not have",
    "conv4 relu pool conv6 relu pool flatten dense32 relu dense{classes}",
)


@dataclass(frozen=True)
class Choice:
    """What is switched on: a mistake, how it was made, and where.

    ``description`` is the mutant's sentence; ``layer`` is a layer's name, "loss", or None for
    everywhere that it can be made.
    """

    mistake: str
    description: str
    layer: str | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """A float64 network with checked images and targets; the first image is the page's."""

    net: Network
    x: Array
    y: Array

    @classmethod
    def of(cls, net: Network, x: Array, y: Array) -> Batch:
        """Check a batch."""
        double = net.copy(dtype="float64")
        images = double.check_images(x)
        double.trained_on = None  # the images are on its scale now; noise, which checks use, is not
        return cls(double, images, double.loss.targets(y, len(images), double.output_shape[0]))

    @cached_property
    def forward_pass(self) -> ForwardPass:
        """The forward pass, with all that mistakes are made of."""
        return forward_pass(self.net, self.x, self.y)


# What can be switched on ------------------------------------------------------------------------


def catalogue(batch: Batch) -> list[dict[str, Any]]:
    """Return every mistake of the catalogue with the ways and places to make it here."""
    ways: dict[str, dict[str, list[str]]] = {name: {} for name in MISTAKES}
    for layer, mutant in every_mutant(batch.forward_pass):
        if mutant.mistake is not None:
            places = ways[mutant.mistake].setdefault(mutant.description, [])
            if layer not in places:
                places.append(layer)
    classes = batch.net.output_shape[0]
    entries = []
    for name, mistake in MISTAKES.items():
        if name in ELSEWHERE:
            continue
        needs, text = _NEEDS.get(name, _ANY)
        entry: dict[str, Any] = {
            "id": name,
            "sentence": mistake.sentence,
            "mend": mistake.mend,
            "hint": mistake.hint,
            "ways": [{"description": way, "places": places} for way, places in ways[name].items()],
        }
        if not ways[name]:
            entry |= {"needs": needs, "network": text.format(classes=classes)}
        entries.append(entry)
    return entries


def chosen(forward: ForwardPass, choice: Choice) -> dict[str, tuple[Mutant, ...]]:
    """Return the mutants that a choice switches on, by layer; none where it cannot be made.

    Of a layer's mutants with the same sentence, one for each thing that it computes is taken.
    """
    found: dict[str, dict[str, Mutant]] = {}
    for layer, mutant in every_mutant(forward):
        wanted = mutant.mistake == choice.mistake and mutant.description == choice.description
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
    mutants = chosen(batch.forward_pass, choice)
    if not mutants:
        where = f" in {choice.layer}" if choice.layer else ""
        raise InputError(f"{choice.mistake} cannot be made so{where} in this network")
    return mutants


# The wrong pass ---------------------------------------------------------------------------------


def backward(
    forward: ForwardPass, mutants: dict[str, tuple[Mutant, ...]], rate: float = RATE
) -> BackwardPass:
    """Run the backward pass of a forward pass with these mistakes."""
    return mistaken_backward(forward, mutants, rate=rate, decay=DECAY)


def compared(batch: Batch, choice: Choice) -> dict[str, Any]:
    """Return every delta and gradient, right and wrong: numbers of the difference, and maps.

    Deltas are those of the first image. Maps of arrays that are too large to look at are left out.
    """
    mutants = require_possible(batch, choice)
    forward = batch.forward_pass
    right, wrong = backward(forward, {}), backward(forward, mutants)
    rows = []
    for kind in ("deltas", "gradients"):
        mistaken: dict[str, Array] = getattr(wrong, kind)
        for name, array in getattr(right, kind).items():
            row = {"name": name, "kind": kind[:-1], **difference(array, mistaken[name])}
            shown = [array[0], mistaken[name][0]] if kind == "deltas" else [array, mistaken[name]]
            if row["changed"] and shown[0].size <= _MOST_SENT:
                row |= {"right": packed(shown[0]), "wrong": packed(shown[1])}
            rows.append(row)
    order = ["loss", *reversed(batch.net.names), "input"]
    rows.sort(key=lambda row: (order.index(row["name"].split(".")[0]), row["kind"]))
    return {"images": len(batch.x), "places": list(mutants), "rows": rows}


def difference(right: Array, wrong: Array) -> dict[str, Any]:
    """Return how far a wrong array is from the right one: in all, in direction, in length."""
    size, mistaken = float(np.linalg.norm(right)), float(np.linalg.norm(wrong))
    off = float(np.linalg.norm(wrong - right))
    error = off / size if size else (0.0 if not off else float("inf"))
    product = float((right * wrong).sum())
    return {
        "changed": bool(off > _SAME * max(size, mistaken)),
        "error": finite(error),
        "cosine": finite(product / (size * mistaken) if size and mistaken else float("nan")),
        "ratio": finite(mistaken / size if size else float("nan")),
    }


def finite(value: float) -> float | None:
    """Return a number as JSON takes it: None where it is not finite."""
    return value if np.isfinite(value) else None
