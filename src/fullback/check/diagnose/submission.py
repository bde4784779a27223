"""What somebody hands over: their dicts of arrays, under our names and in every likely reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.layouts import UNUSUAL, USUAL, Matched, Reading, read
from fullback.check.diagnose.names import Names, as_array
from fullback.errors import OptionError
from fullback.layers import Flatten
from fullback.layers.base import Array, Shape
from fullback.network import Network
from fullback.passes import Trace


@dataclass(frozen=True, eq=False)
class Given:
    """What somebody computed, by our names, in every likely reading."""

    gradients: Mapping[str, tuple[Reading, ...]]
    deltas: Mapping[str, tuple[Reading, ...]]


@dataclass(eq=False)
class Taken:
    """Everything that was handed over.

    Attributes
    ----------
    gradients, deltas, activations : by our names
    probabilities : the probabilities, where they were given
    guessed : names of theirs that were matched by their shape alone
    """

    gradients: dict[str, Matched] = field(default_factory=dict)
    deltas: dict[str, Matched] = field(default_factory=dict)
    activations: dict[str, Matched] = field(default_factory=dict)
    probabilities: Matched | None = None
    guessed: list[str] = field(default_factory=list)

    def every(self) -> list[tuple[str, Matched]]:
        """Return every array with the words that it is called by in a diagnosis."""
        found = list(self.gradients.items())
        found += [(f"delta of {name}", m) for name, m in self.deltas.items()]
        found += [(f"output of {name}", m) for name, m in self.activations.items()]
        if self.probabilities is not None:
            found.append(("probabilities", self.probabilities))
        return found


def take(
    net: Network,
    trace: Trace,
    images: int,
    gradients: Any,
    deltas: Any,
    activations: Any,
    probabilities: Any,
) -> Taken:
    """Bring what was handed over to our names and shapes.

    Raises
    ------
    OptionError, ShapeError, InputError
        A name is not known, an array does not fit or is none, or nothing was given.
    """
    shapes: dict[str, Shape] = {"input": net.input_shape}
    shapes.update(zip(net.names, net.shapes, strict=True))
    own = {name: p.shape for name, p in net.parameters.items()}
    named: dict[str, dict[str, tuple[str, Array]]] = {}
    guessed: list[str] = []
    for what, theirs, wanted, count in (
        ("gradient", gradients, own, None),
        ("delta", deltas, shapes, images),
        ("activation", activations, shapes, images),
    ):
        named[what], by_shape = _named(what, theirs, wanted, count)
        guessed += by_shape
    truths = {
        "gradient": trace.gradients, "delta": trace.deltas, "activation": trace.activations
    }  # fmt: skip
    foreign = any(
        _read_all(named[what], truths[what], {}, batch=what != "gradient", foreign=False)[1]
        for what in named
    )
    folds = _folds(net)
    made = {
        what: _read_all(named[what], truths[what], folds, batch=what != "gradient", foreign=foreign)
        for what in named
    }
    taken = Taken(made["gradient"][0], made["delta"][0], made["activation"][0], guessed=guessed)
    taken.gradients = _squares(taken.gradients)
    taken.activations = {
        name: _nearest(m, trace.activations[name]) for name, m in taken.activations.items()
    }
    if probabilities is not None:
        if trace.probabilities is None:
            raise OptionError(f"probabilities need a classifier, but the loss is {net.loss}")
        array, truth = as_array("probabilities", probabilities), trace.probabilities
        matched = read("probabilities", "probabilities", array, truth.shape, truth, batch=True)
        taken.probabilities = _nearest(matched, truth)
    if not taken.every():
        raise OptionError(
            "there is nothing to judge: give gradients, deltas, activations or probabilities"
        )
    return taken


def _named(
    what: str, given: Any, shapes: dict[str, Shape], images: int | None
) -> tuple[dict[str, tuple[str, Array]], list[str]]:
    """Return their names and arrays by ours."""
    if given is None:
        return {}, []
    if not isinstance(given, Mapping):
        raise OptionError(
            f"{what}s must be a dict of arrays by name, like {{{next(iter(shapes))!r}: ...}}, got "
            f"{type(given).__name__}"
        )
    arrays = {str(name): as_array(str(name), value) for name, value in given.items()}
    names = Names(what, shapes, images)
    found = {ours: (theirs, arrays[theirs]) for theirs, ours in names.match(arrays).items()}
    by_shape = [
        f"{theirs} as {ours}" for ours, (theirs, _) in found.items() if theirs in names.guessed
    ]
    return found, by_shape


def _read_all(
    named: dict[str, tuple[str, Array]],
    truth: Mapping[str, Array],
    folds: dict[str, Shape],
    *,
    batch: bool,
    foreign: bool,
) -> tuple[dict[str, Matched], bool]:
    """Return the readings, and whether one array at least has another layout than ours."""
    found, other = {}, False
    for ours, (theirs, array) in named.items():
        wanted = truth[ours].shape
        open_to = foreign or array.shape != wanted
        folded = folds.get(ours) if open_to else None
        if not folds and array.ndim > 2 and len(wanted) == 2:
            other = True  # certainly another layout; it is read in the second pass
            continue
        found[ours] = read(ours, theirs, array, wanted, truth[ours], batch=batch, folded=folded)
        other = other or found[ours].foreign
    return found, other


def _folds(net: Network) -> dict[str, Shape]:
    """Return what the features behind Flatten are made of, for the arrays that have them."""
    folds: dict[str, Shape] = {}
    inputs = (net.input_shape, *net.shapes)
    for index, layer in enumerate(net.layers):
        if isinstance(layer, Flatten) and len(inputs[index]) == 3:
            folds[net.names[index]] = inputs[index]
            for name in net.names[index + 1 :]:
                if f"{name}.weight" in net.parameters:
                    folds[f"{name}.weight"] = inputs[index]
                    break
                folds[name] = inputs[index]
    return folds


def _squares(matched: dict[str, Matched]) -> dict[str, Matched]:
    """Read square dense weights transposed where the others came so."""
    if not any(m.readings[0].layout.startswith("transposed") for m in matched.values()):
        return matched
    changed = dict(matched)
    for name, m in matched.items():
        plain = m.readings[0]
        if plain.values.ndim == 2 and not plain.layout and plain.values.shape[0] > 1:
            turned = Reading(np.ascontiguousarray(plain.values.T), "transposed", USUAL)
            if turned.values.shape == plain.values.shape:
                rest = tuple(r for r in m.readings if r is not plain)
                changed[name] = replace(
                    m, readings=(turned, Reading(plain.values, "", UNUSUAL), *rest)
                )
    return changed


def _nearest(matched: Matched, truth: Array) -> Matched:
    """Keep the reading that is nearest to the truth."""
    with np.errstate(all="ignore"):
        errors = [length(reading.values - truth) for reading in matched.readings]
    best = int(np.argmin([e if np.isfinite(e) else np.inf for e in errors]))
    return replace(matched, readings=(matched.readings[best],))
