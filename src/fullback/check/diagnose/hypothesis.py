"""What a search assumes, what it explains, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fullback.check.diagnose.chain import Chain
from fullback.check.diagnose.compare import Fit, length
from fullback.check.diagnose.layouts import Reading
from fullback.check.mistakes import Mutant
from fullback.layers.base import Array

MISTAKE, CONVENTION, VARIANT, AGAIN = 1.0, 0.25, 0.3, 0.05
_UNDECIDED = 2.25  # arrays that undecided units explain in any way: more than two mistakes
_ONE_MORE = 0.01
_ABOVE = 0.005  # a delta that is wrong above a layer, where its gradients may be wrong themselves
UNEXPLAINED = 2.5
_LITTLE = 0.6  # less, where an array has so few numbers that two mistakes may explain any


@dataclass(frozen=True, eq=False)
class Assumed:
    """A mistake, or a convention, assumed at one place.

    ``number`` is the learning rate or coefficient that was found.
    """

    mutant: Mutant
    layer: str
    number: float | None = None


@dataclass(frozen=True, eq=False)
class Match:
    """How one of the submitted arrays was explained: by what, and how exactly."""

    name: str
    fit: Fit
    mistakes: tuple[Assumed, ...]  # in this gradient itself
    chain: Chain  # the delta that it was computed from, or that it is
    assumed: int  # mistakes assumed so far, this one's own among them
    values: int = 0  # numbers in the array


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A delta on its way down and what is assumed so far.

    Attributes
    ----------
    chain : the delta
    assumed : mistakes and conventions, from the loss down
    matches : the arrays that were explained
    open : names of the arrays that were not
    little : how many of these have one or two numbers
    new : mistakes since the last array that was explained
    share : what gradients are multiplied by at the end: 1, or 1 / N for deltas of the batch's sum
    shares : how undecided units are decided, by the number of the ensemble's other pass
    rate, decay : the learning rate and the coefficient that were found
    read : in which layout each array was read
    """

    chain: Chain
    assumed: tuple[Assumed, ...] = ()
    matches: tuple[Match, ...] = ()
    open: tuple[str, ...] = ()
    little: int = 0
    new: int = 0
    share: float = 1.0
    shares: dict[int, float] = field(default_factory=dict)
    rate: float | None = None
    decay: float | None = None
    read: Mapping[str, Reading] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """Less is better."""
        reading = sum(reading.cost for reading in self.read.values())
        unsure = sum(match.fit.bounded for match in self.matches)
        unsure_cost = _UNDECIDED * (unsure > 0) + _ONE_MORE * unsure
        return cost_of(self.assumed) + self.unexplained + reading + unsure_cost

    @property
    def unexplained(self) -> float:
        """What the arrays cost that were not explained."""
        return UNEXPLAINED * len(self.open) - _LITTLE * self.little

    @property
    def right(self) -> bool:
        """Whether no mistake is assumed, but conventions at most."""
        return all(one.mutant.mistake is None for one in self.assumed)

    @property
    def crowded(self) -> int:
        """How many mistakes share a layer with another one."""
        mistakes = [one.layer for one in self.assumed if one.mutant.mistake]
        return len(mistakes) - len(set(mistakes))

    def read_as(self, key: str, reading: Reading) -> Hypothesis:
        """Return the hypothesis with a way to read one of the submitted arrays."""
        return replace(self, read={**self.read, key: reading})


def cost_of(assumed: Sequence[Assumed]) -> float:
    """Return what these mistakes cost together."""
    cost, known = 0.0, dict[str | None, set[tuple[str, float | None]]]()
    places: set[tuple[str, str, float | None]] = set()
    for one in assumed:
        variants = known.setdefault(one.mutant.mistake, set())
        variant = (one.mutant.description, one.number)
        if (one.layer, *variant) in places:
            continue  # the weights and the biases of one layer
        places.add((one.layer, *variant))
        if one.mutant.target == "delta" and one.layer != "loss":
            cost += _ABOVE
        if one.mutant.mistake is None:
            cost += AGAIN if variant in variants else CONVENTION
        elif not variants:
            cost += MISTAKE
        else:
            cost += AGAIN if variant in variants else VARIANT
        variants.add(variant)
    return cost


def with_rate(
    h: Hypothesis, array: Array, observed: Callable[[Hypothesis], Array]
) -> Hypothesis | None:
    """Find the learning rate of an early update from the first array that shows it."""
    if not h.chain.unresolved:
        return h

    def at(rate: float) -> Array:
        result: Array = observed(replace(h, chain=h.chain.with_rate(rate)))
        return result

    rate, step = 0.0, 1e-2
    with np.errstate(all="ignore"):
        for attempt in range(6):
            here = at(rate)
            if attempt and length(array - here) > 0.1 * length(array):
                return None
            slope = (at(rate + step) - here) / step
            if here.shape != array.shape or not (slope**2).sum() > 0:
                return None
            change = float(((array - here) * slope).sum() / (slope**2).sum())
            rate += change
            if not np.isfinite(rate) or abs(rate) > 1e4:
                return None
            if abs(change) <= 1e-10 * abs(rate):
                break
    if rate <= 0 or (array.size < 2):
        return None
    assumed = tuple(
        replace(one, number=rate) if one.mutant.unknown == "rate" else one for one in h.assumed
    )
    return replace(h, chain=h.chain.with_rate(rate), assumed=assumed, rate=rate)
