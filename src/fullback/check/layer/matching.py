"""Which mistakes of the catalogue a layer of a known kind has: those that explain every input."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.check.mistakes import Mutant, compatible, gradient, mutants_of, next_delta
from fullback.check.mistakes.base import Target
from fullback.check.mistakes.layer_pass import LossScene, Scene
from fullback.check.mistakes.loss import first_delta
from fullback.layers.base import Array

_SAME = 1e-6  # relative: what is a rounding
_MOST = 2  # mistakes in one gradient


@dataclass(frozen=True, eq=False)
class Seen:
    """What a layer computed on one input, in the reference's layouts.

    Attributes
    ----------
    scene : the reference in its place
    dy : the delta that backward was given
    theirs : their gradients, by their names: "dx", "dw", ...
    targets : what each of these is
    """

    scene: Scene | LossScene
    dy: Array
    theirs: Mapping[str, Array]
    targets: Mapping[str, Target]

    def mutants(self, quantity: str) -> dict[tuple[str, str], Mutant]:
        """Return the mistakes that a gradient can have here, by their keys."""
        target = self.targets[quantity]
        return {m.key: m for m in mutants_of(self.scene) if m.target == target}

    def computed(self, quantity: str, mutants: Sequence[Mutant]) -> Array:
        """Return a gradient as a backward pass with these mistakes computes it."""
        target = self.targets[quantity]
        if isinstance(self.scene, LossScene):
            return first_delta(self.scene, tuple(mutants))
        if target == "delta":
            return next_delta(self.scene, self.dy, mutants)
        return gradient(self.scene, target, self.dy, mutants)


def find_mistakes(seen: Sequence[Seen], quantity: str) -> tuple[Mutant, ...]:
    """Return the fewest mistakes that give exactly their gradient on every input; () if none do."""
    places = [one for one in seen if quantity in one.theirs]
    every = {key: m for one in places for key, m in one.mutants(quantity).items()}
    for count in range(1, _MOST + 1):
        for chosen in itertools.combinations(every.values(), count):
            if compatible(chosen) and all(_explains(one, quantity, chosen) for one in places):
                return chosen
    return ()


def _explains(one: Seen, quantity: str, chosen: Sequence[Mutant]) -> bool:
    own = one.mutants(quantity)
    mutants = [own[mutant.key] for mutant in chosen if mutant.key in own]
    if len(mutants) < len(chosen) and one.scene.images == 1:
        return True  # some mistakes need a batch: one image alone does not speak against them
    theirs = one.theirs[quantity]
    with np.errstate(all="ignore"):
        try:
            made = one.computed(quantity, mutants)
        except ValueError:  # stages of two mutants that do not fit each other
            return False
        if made.shape != theirs.shape:
            return False
        if any(mutant.unknown for mutant in mutants) and isinstance(one.scene, Scene):
            # a rate or a coefficient, in which the result is linear
            slope = replace(one, scene=one.scene.with_rates(1.0, 1.0)).computed(quantity, mutants)
            slope = slope - made
            made = made + slope * float(((theirs - made) * slope).sum() / (slope**2).sum())
        return length(theirs - made) <= _SAME * max(length(made), length(theirs))
