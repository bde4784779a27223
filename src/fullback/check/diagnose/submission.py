"""What a user submits: dicts of arrays, under the network's names and in every likely reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.forward import read_activations
from fullback.check.diagnose.layouts import UNUSUAL, USUAL, Reading, SubmittedArray, read
from fullback.check.diagnose.names import Names, as_array
from fullback.errors import OptionError
from fullback.layers import Flatten
from fullback.layers.base import Array, Shape
from fullback.network import Network
from fullback.passes import Trace


@dataclass(frozen=True, eq=False)
class Submitted:
    """The arrays to judge, by the network's names, in every likely reading."""

    gradients: Mapping[str, tuple[Reading, ...]]
    deltas: Mapping[str, tuple[Reading, ...]]


@dataclass(eq=False)
class Submission:
    """Everything that was submitted.

    Attributes
    ----------
    gradients, deltas, activations : by the network's names
    probabilities : the probabilities, where they were submitted
    guessed : the user's names that were matched by their shape alone
    """

    gradients: dict[str, SubmittedArray] = field(default_factory=dict)
    deltas: dict[str, SubmittedArray] = field(default_factory=dict)
    activations: dict[str, SubmittedArray] = field(default_factory=dict)
    probabilities: SubmittedArray | None = None
    guessed: list[str] = field(default_factory=list)

    def every(self) -> list[tuple[str, SubmittedArray]]:
        """Return every array with the words that it is called by in a diagnosis."""
        found = list(self.gradients.items())
        found += [(f"delta of {name}", m) for name, m in self.deltas.items()]
        found += [(f"output of {name}", m) for name, m in self.activations.items()]
        if self.probabilities is not None:
            found.append(("probabilities", self.probabilities))
        return found

    def finite(self) -> tuple[dict[str, SubmittedArray], dict[str, SubmittedArray]]:
        """Return the arrays that can be judged, and those that cannot, as they are not finite."""
        usable: dict[str, SubmittedArray] = {}
        unusable: dict[str, SubmittedArray] = {}
        for name, array in self.every():
            finite = np.isfinite(array.values).all()
            (usable if finite else unusable)[name] = array
        return usable, unusable


def receive(
    net: Network,
    trace: Trace,
    images: int,
    gradients: Any,
    deltas: Any,
    activations: Any,
    probabilities: Any,
) -> Submission:
    """Bring what was submitted to the network's names and shapes.

    Raises
    ------
    OptionError, ShapeError, InputError
        A name is not known, an array does not fit or is none, or nothing was submitted.
    """
    shapes: dict[str, Shape] = {"input": net.input_shape}
    shapes.update(zip(net.names, net.shapes, strict=True))
    parameters = {name: p.shape for name, p in net.parameters.items()}
    named: dict[str, dict[str, tuple[str, Array]]] = {}
    guessed: list[str] = []
    for what, arrays, wanted, count in (
        ("gradient", gradients, parameters, None),
        ("delta", deltas, shapes, images),
        ("activation", activations, shapes, images),
    ):
        named[what], by_shape = _named(what, arrays, wanted, count)
        guessed += by_shape
    truths = {
        "gradient": trace.gradients, "delta": trace.deltas, "activation": trace.activations
    }  # fmt: skip

    def read_all(folds: dict[str, Shape], *, reordered: bool) -> list[tuple[dict[str, Any], bool]]:
        return [
            _read_all(
                named[what], truths[what], folds, batch=what != "gradient", reordered=reordered
            )
            for what in named
        ]

    reordered = any(other for _, other in read_all({}, reordered=False))
    readings = [found for found, _ in read_all(_folds(net), reordered=reordered)]
    gradient, delta, activation = readings
    submission = Submission(gradient, delta, activation, guessed=guessed)
    submission.gradients = _squares(submission.gradients)
    submission.activations = read_activations(net, trace, submission.activations)
    if probabilities is not None:
        if trace.probabilities is None:
            raise OptionError(f"probabilities need a classifier, but the loss is {net.loss}")
        array, truth = as_array("probabilities", probabilities), trace.probabilities
        matched = read("probabilities", "probabilities", array, truth.shape, truth, batch=True)
        submission.probabilities = _nearest(matched, truth)
    if not submission.every():
        raise OptionError(
            "there is nothing to judge: give gradients, deltas, activations or probabilities"
        )
    return submission


def _named(
    what: str, arrays: Any, shapes: dict[str, Shape], images: int | None
) -> tuple[dict[str, tuple[str, Array]], list[str]]:
    """Return the user's names and arrays by the network's, and what was matched by shape alone."""
    if arrays is None:
        return {}, []
    if not isinstance(arrays, Mapping):
        raise OptionError(
            f"{what}s must be a dict of arrays by name, like {{{next(iter(shapes))!r}: ...}}, got "
            f"{type(arrays).__name__}"
        )
    arrays = {str(name): as_array(str(name), value) for name, value in arrays.items()}
    names = Names(what, shapes, images)
    found = {known: (name, arrays[name]) for name, known in names.match(arrays).items()}
    by_shape = [f"{name} as {known}" for known, (name, _) in found.items() if name in names.guessed]
    return found, by_shape


def _read_all(
    named: dict[str, tuple[str, Array]],
    truth: Mapping[str, Array],
    folds: dict[str, Shape],
    *,
    batch: bool,
    reordered: bool,
) -> tuple[dict[str, SubmittedArray], bool]:
    """Return the readings, and whether one array at least has another layout than the network's."""
    found, other = {}, False
    for known, (name, array) in named.items():
        wanted = truth[known].shape
        open_to = reordered or array.shape != wanted
        folded = folds.get(known) if open_to else None
        if not folds and array.ndim > 2 and len(wanted) == 2:
            other = True  # certainly another layout; it is read in the second pass
            continue
        found[known] = read(known, name, array, wanted, truth[known], batch=batch, folded=folded)
        other = other or found[known].reordered
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


def _squares(matched: dict[str, SubmittedArray]) -> dict[str, SubmittedArray]:
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


def _nearest(matched: SubmittedArray, truth: Array) -> SubmittedArray:
    """Keep the reading that is nearest to the truth."""
    with np.errstate(all="ignore"):
        errors = [length(reading.values - truth) for reading in matched.readings]
    best = int(np.argmin([e if np.isfinite(e) else np.inf for e in errors]))
    return replace(matched, readings=(matched.readings[best],))
