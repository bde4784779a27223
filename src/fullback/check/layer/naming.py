"""Which mistake a wrong gradient has: of the catalogue, or one that shows in every layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.layer.calls import CallInputs
from fullback.check.layer.kinds import SOFTMAX_MUTANTS, Softmax
from fullback.check.layer.user_layer import UserLayer
from fullback.check.mistakes import (
    LayerPass,
    LossPass,
    Mutant,
    Target,
    compatible,
    first_delta,
    mutants_of,
    propagate,
)
from fullback.check.mistakes.base import run_stages
from fullback.check.mistakes.rules import OWN
from fullback.layers.base import Array

_SAME = 1e-6  # relative: what is a rounding
_MOST = 2  # mistakes in one gradient


@dataclass(frozen=True, eq=False)
class Observation:
    """What a layer computed on one input, in the reference's layouts.

    Attributes
    ----------
    reference : what the reference's forward pass left
    dy : the delta that backward was called with
    gradients : the user's, by the user's names: "dx", "dw", ...
    targets : what each of these is
    ties : whether cells tie, among which the reference may choose others
    """

    reference: LayerPass | LossPass
    dy: Array
    gradients: Mapping[str, Array]
    targets: Mapping[str, Target]
    ties: bool = False

    def mutants(self, quantity: str) -> dict[tuple[str, str], Mutant]:
        """Return the mistakes that a gradient can have here, by their keys."""
        p, target = self.reference, self.targets[quantity]
        softmax = isinstance(p, LayerPass) and isinstance(p.layer, Softmax)
        every = SOFTMAX_MUTANTS.of(p) if softmax else mutants_of(p)
        return {m.key: m for m in every if m.target == target}

    def computed(self, quantity: str, mutants: Sequence[Mutant]) -> Array:
        """Return a gradient as a backward pass with these mistakes computes it."""
        target, p = self.targets[quantity], self.reference
        if isinstance(p, LossPass):
            return first_delta(p, tuple(mutants))
        if isinstance(p.layer, Softmax):
            result: Array = run_stages(OWN, p, self.dy, self.dy, mutants)
            return result
        return propagate(p, target, self.dy, mutants)

    def explained(self, quantity: str, chosen: Sequence[Mutant]) -> bool:
        """Whether these mistakes give exactly the gradient."""
        possible = self.mutants(quantity)
        mutants = [possible[mutant.key] for mutant in chosen if mutant.key in possible]
        if len(mutants) < len(chosen) and self.reference.images == 1:
            return True  # some need a batch: one image alone does not speak against them
        gradient = self.gradients[quantity]
        with np.errstate(all="ignore"):
            try:
                computed = self.computed(quantity, mutants)
            except ValueError:  # stages of two mutants that do not fit each other
                return False
            if computed.shape != gradient.shape:
                return False
            if any(mutant.unknown for mutant in mutants) and isinstance(self.reference, LayerPass):
                # a rate or a coefficient, in which the result is linear
                with_rates = replace(self, reference=self.reference.with_rates(1.0, 1.0))
                slope = with_rates.computed(quantity, mutants) - computed
                rate = float(((gradient - computed) * slope).sum() / (slope**2).sum())
                computed = computed + slope * rate
            off, *sizes = map(np.linalg.norm, (gradient - computed, computed, gradient))
            return bool(off <= _SAME * max(sizes))


def find_mistakes(observations: Sequence[Observation], quantity: str) -> tuple[Mutant, ...]:
    """Return the fewest mistakes that give exactly the gradient on every input; () if none do.

    Where none do, inputs on which cells tie are left out: another choice among these is right.
    """
    every = [one for one in observations if quantity in one.gradients]
    for places in (every, [one for one in every if not one.ties]):
        known = {key: m for one in places for key, m in one.mutants(quantity).items()}
        for count in range(1, _MOST + 1):
            for chosen in itertools.combinations(known.values(), count):
                if compatible(chosen) and all(one.explained(quantity, chosen) for one in places):
                    return chosen
    return ()


def plain_mistake(
    layer: UserLayer,
    name: str,
    gradient: Array,
    inputs: CallInputs,
    dy: Array,
    batch: int | None,
    right: Callable[[Array, Array], bool],
) -> tuple[str, str] | None:
    """Name a mistake that shows whatever the layer does.

    Parameters
    ----------
    layer : the layer
    name, gradient : "dx", or a parameter's; and what backward gave
    inputs, dy : what it was called with
    batch : which axis of x and y counts the images
    right : whether an array is the gradient for a delta

    Returns
    -------
    mistake : the catalogue's id and a sentence, or None
    """
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
    """Return a gradient made of the images' own; None where an image does not stand alone."""
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
