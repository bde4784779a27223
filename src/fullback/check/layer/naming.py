"""Which mistake a wrong gradient has: of the catalogue, or one that shows in every layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.layer.calls import CallInputs
from fullback.check.layer.cases import Case
from fullback.check.layer.reference import SAME, Reference
from fullback.check.layer.report import LayerRow
from fullback.check.layer.truth import ByReference, Slopes
from fullback.check.layer.user_layer import UserLayer
from fullback.check.mistakes import LayerPass, Mutant, compatible
from fullback.layers.base import Array

_MOST = 2  # mistakes in one gradient


@dataclass(frozen=True, eq=False)
class Observed:
    """A gradient that a layer gave on one input.

    Attributes
    ----------
    name, gradient : which, in the user's layout
    case, dy : on which input, and for which delta
    truth, verdict : what is right, and how far it is from that
    """

    name: str
    gradient: Array
    case: Case
    dy: Array
    truth: Slopes | ByReference
    verdict: LayerRow

    def mutants(self) -> dict[tuple[str, str], Mutant]:
        """Return the mistakes of the catalogue that it can have, by their keys."""
        return {} if self.case.reference is None else self.case.reference.mutants(self.name)

    def explained(self, chosen: Sequence[Mutant]) -> bool:
        """Whether these mistakes give exactly the gradient."""
        reference, possible = self.case.reference, self.mutants()
        if reference is None:
            return True
        mutants = [possible[mutant.key] for mutant in chosen if mutant.key in possible]
        if len(mutants) < len(chosen) and reference.p.images == 1:
            return True  # some need a batch: one image alone does not speak against them
        gradient = reference.in_reference_layout(self.name, self.gradient)
        with np.errstate(all="ignore"):
            try:
                computed = reference.computed(self.name, self.dy, mutants)
            except ValueError:  # stages of two mutants that do not fit each other
                return False
            if computed.shape != gradient.shape:
                return False
            computed = self._with_numbers(reference, gradient, mutants, computed)
            off, *sizes = map(np.linalg.norm, (gradient - computed, computed, gradient))
            return bool(off <= SAME * max(sizes))

    def _with_numbers(
        self, reference: Reference, gradient: Array, mutants: Sequence[Mutant], computed: Array
    ) -> Array:
        """Return what is computed with the numbers that mistakes have, a rate or a threshold."""
        p = reference.p
        if not isinstance(p, LayerPass):
            return computed

        def with_rates(rate: float, number: float) -> Array:
            one = replace(reference, p=p.with_rates(rate, number))
            return one.computed(self.name, self.dy, mutants)

        for mutant in mutants:
            if mutant.solve is not None:
                others = [other for other in mutants if other is not mutant]
                base = reference.computed(self.name, self.dy, others)
                return with_rates(0.0, mutant.solve(p, base, gradient))
        if any(mutant.unknown for mutant in mutants):  # a rate, in which the result is linear
            slope = with_rates(1.0, 0.0) - computed
            rate = float(((gradient - computed) * slope).sum() / (slope**2).sum())
            return computed + slope * rate
        return computed


def find_mistakes(observed: Sequence[Observed]) -> tuple[Mutant, ...]:
    """Return the fewest mistakes that give exactly the gradient on every input; () if none do.

    Where none do, inputs on which cells tie are left out: another choice among these is right.
    """
    for places in (observed, [one for one in observed if not one.case.ties]):
        known = {key: m for one in places for key, m in one.mutants().items()}
        for count in range(1, _MOST + 1):
            for chosen in itertools.combinations(known.values(), count):
                if compatible(chosen) and all(one.explained(chosen) for one in places):
                    return chosen
    return ()


def plain_mistake(layer: UserLayer, one: Observed, batch: int | None) -> tuple[str, str] | None:
    """Name a mistake that shows whatever the layer does.

    Parameters
    ----------
    layer : the layer
    one : its wrong gradient
    batch : which axis of x and y counts the images; None where there is one image

    Returns
    -------
    mistake : the catalogue's id and a sentence, or None
    """
    name, gradient, inputs, dy = one.name, one.gradient, one.case.inputs, one.dy

    def right(other: Array, dy: Array) -> bool:
        return one.truth.of(dy).judge(name, other).wrong is None

    if right(-gradient, dy):
        return "sign-flipped", f"{name} has the wrong sign"
    count = inputs.x.shape[batch] if batch is not None and inputs.x.ndim > batch else 1
    if count < 2 or batch is None:
        return None
    if right(gradient / count, dy):
        return "batch-scale", f"{name} is {count} times too large: a sum over the batch for a mean"
    if right(gradient * count, dy):
        return "batch-scale", f"{name} is {count} times too small: divided by the batch once more"
    if inputs.labels is not None or dy.ndim < inputs.x.ndim or dy.shape[batch] != count:
        return None
    alone = _one_by_one(layer, name, inputs, dy, batch)
    if alone is None:
        return None
    last = np.zeros_like(dy)
    at = _image(batch, count - 1)
    last[at] = dy[at]
    if right(gradient, last):
        return "last-sample-only", f"{name} is that of the batch's last image alone"
    if right(alone, dy):
        words = f"{name} is right for every image alone, and wrong for the batch of them"
        return "images-mixed", words
    return None


def _one_by_one(
    layer: UserLayer, name: str, inputs: CallInputs, dy: Array, axis: int
) -> Array | None:
    """Return a gradient put together from single images; None where these do not stand alone."""
    y = layer.output(inputs)
    gradients = []
    for n in range(inputs.x.shape[axis]):
        at = _image(axis, n)
        image = replace(inputs, x=inputs.x[at])
        try:
            alone = layer.output(image)
            if alone.shape != y[at].shape or not np.allclose(alone, y[at], rtol=1e-6, atol=1e-9):
                return None
            gradients.append(layer.gradients(image, dy[at])[name])
        except Exception:  # noqa: BLE001 -- a layer may want batches
            return None
    whole = np.concatenate(gradients, axis=axis) if name == "dx" else np.sum(gradients, axis=0)
    shape = (inputs.x if name == "dx" else inputs.parameters[name[1:]]).shape
    return whole.reshape(shape) if whole.size == np.prod(shape, dtype=int) else None


def _image(axis: int, n: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(n, n + 1))
