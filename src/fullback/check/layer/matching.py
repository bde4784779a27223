"""Which mistakes of the catalogue a layer of a known kind has: those that explain every input."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
    """

    reference: LayerPass | LossPass
    dy: Array
    gradients: Mapping[str, Array]
    targets: Mapping[str, Target]

    def mutants(self, quantity: str) -> dict[tuple[str, str], Mutant]:
        """Return the mistakes that a gradient can have here, by their keys."""
        target = self.targets[quantity]
        return {m.key: m for m in mutants_of(self.reference) if m.target == target}

    def computed(self, quantity: str, mutants: Sequence[Mutant]) -> Array:
        """Return a gradient as a backward pass with these mistakes computes it."""
        target = self.targets[quantity]
        if isinstance(self.reference, LossPass):
            return first_delta(self.reference, tuple(mutants))
        return propagate(self.reference, target, self.dy, mutants)


def find_mistakes(observations: Sequence[Observation], quantity: str) -> tuple[Mutant, ...]:
    """Return the fewest mistakes that give exactly the gradient on every input; () if none do."""
    places = [one for one in observations if quantity in one.gradients]
    every = {key: m for one in places for key, m in one.mutants(quantity).items()}
    for count in range(1, _MOST + 1):
        for chosen in itertools.combinations(every.values(), count):
            if compatible(chosen) and all(_explains(one, quantity, chosen) for one in places):
                return chosen
    return ()


def _explains(one: Observation, quantity: str, chosen: Sequence[Mutant]) -> bool:
    possible = one.mutants(quantity)
    mutants = [possible[mutant.key] for mutant in chosen if mutant.key in possible]
    if len(mutants) < len(chosen) and one.reference.images == 1:
        return True  # some mistakes need a batch: one image alone does not speak against them
    gradient = one.gradients[quantity]
    with np.errstate(all="ignore"):
        try:
            computed = one.computed(quantity, mutants)
        except ValueError:  # stages of two mutants that do not fit each other
            return False
        if computed.shape != gradient.shape:
            return False
        if any(mutant.unknown for mutant in mutants) and isinstance(one.reference, LayerPass):
            # a rate or a coefficient, in which the result is linear
            with_rates = replace(one, reference=one.reference.with_rates(1.0, 1.0))
            slope = with_rates.computed(quantity, mutants) - computed
            rate = float(((gradient - computed) * slope).sum() / (slope**2).sum())
            computed = computed + slope * rate
        off, *sizes = map(np.linalg.norm, (gradient - computed, computed, gradient))
        return bool(off <= _SAME * max(sizes))
