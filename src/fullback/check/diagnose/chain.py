"""The delta on its way down, as a program with certain mistakes computes it, in every pass.

A chain is a linked list from the loss: each link carries the delta through one layer, rightly or
as some mutants do it. What it computes in the noisy passes says how far off another program with
the same mistakes may be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fullback.check.diagnose.compare import between
from fullback.check.diagnose.ensemble import NOISY, Ensemble
from fullback.check.mistakes import Memo, Mutant, Target, first_delta, propagate, rules_of
from fullback.check.mistakes.kinks import RECTIFIER, WINNER, Bounds, cells_of, hashed, slope_below
from fullback.check.mistakes.rules import amplitude_of
from fullback.layers.base import Array


@dataclass(eq=False)
class Chain:
    """The delta of one layer's output, or of the input.

    Attributes
    ----------
    ensemble : the forward passes
    parent : the delta that this one is computed from; None at the loss, and where it was submitted
    through : the layer that lies between; "loss" for the first delta
    mutants : the mistakes in this step
    submitted : the delta itself, where a user submitted it
    rate : learning rate of an early update in this step; None where it is not known yet
    before : the chain that this one goes on from with a submitted delta
    memos : what gradients of this delta have in common, by the share that they are multiplied by
    """

    ensemble: Ensemble
    parent: Chain | None
    through: str
    mutants: tuple[Mutant, ...] = ()
    submitted: Array | None = None
    rate: float | None = None
    before: Chain | None = None
    memos: dict[float, Memo] = field(default_factory=dict, init=False)
    _at: dict[int, Array] = field(default_factory=dict, init=False)
    _right: Chain | None = field(default=None, init=False)

    @property
    def unresolved(self) -> bool:
        """Whether a learning rate on the way is not known yet."""
        here = self.rate is None and any(m.unknown == "rate" for m in self.mutants)
        return here or (self.parent is not None and self.parent.unresolved)

    def with_rate(self, rate: float) -> Chain:
        """Return the chain with that learning rate where it is not known."""
        if not self.unresolved:
            return self
        parent = self.parent.with_rate(rate) if self.parent is not None else None
        return replace(self, parent=parent, rate=rate if self.rate is None else self.rate)

    def without_mistakes(self) -> Chain:
        """Return the chain from the last submitted delta, or from the loss, all of it right."""
        if self._right is None:
            parent = self.parent.without_mistakes() if self.parent is not None else None
            conventions = tuple(m for m in self.mutants if m.mistake is None)
            if self.submitted is not None or (
                parent is self.parent and len(conventions) == len(self.mutants)
            ):
                return self
            self._right = Chain(self.ensemble, parent, self.through, conventions)
        return self._right

    @cached_property
    def path(self) -> tuple[Any, ...]:
        """What tells the chain from others of its ensemble."""
        if self.submitted is not None:
            return (self.through, id(self.submitted))
        steps = tuple((m.target, m.stage, *m.key) for m in self.mutants)
        above = () if self.parent is None else self.parent.path
        return (*above, (self.through, steps, self.rate))

    def links(self) -> list[Chain]:
        """Return the chain's deltas from this one upwards."""
        above = self.parent or self.before
        return [self, *(above.links() if above is not None else [])]

    def at(self, index: int) -> Array:
        """Return the delta in a pass of the ensemble, by its number there."""
        if self.submitted is not None:
            return self.submitted
        if index not in self._at:
            if index > NOISY and self.untouched(index):
                return self.at(0)
            delta = self._step(index)
            if 0 < index <= NOISY:
                noise = self._amplitude
                delta = delta + (0.0 if noise is None else noise * hashed(delta, index + 50))
            self._at[index] = delta
        return self._at[index]

    def forget(self) -> None:
        """Drop the delta, which is computed again where it is asked for."""
        self._at.clear()

    def untouched(self, index: int) -> bool:
        """Whether nothing above is decided otherwise in one of the ensemble's other passes."""
        if self.submitted is not None or self.parent is None:
            return True
        layers = self.ensemble.at(index).layers
        same = layers[self.through] is self.ensemble.exact.layers[self.through]
        return same and self.parent.untouched(index)

    def only_chooses(self) -> bool:
        """Whether no layer since the last submitted delta, or the loss, adds cells up."""
        if self.submitted is not None or self.parent is None:
            return True
        p = self.ensemble.exact.layers[self.through]
        return not rules_of(p.layer).adds(p) and self.parent.only_chooses()

    def shared_out(self, array: Array, tolerance: float) -> bool:
        """Whether every window of a max pooling just above has its delta in its cells, once.

        Where a rectifier lies between, some of that may be lost.
        """
        link, lossy = self, False
        while link.parent is not None and link.submitted is None:
            p, above = self.ensemble.exact.layers[link.through], link.parent.bounds
            kinks = rules_of(p.layer).kinks
            if kinks is WINNER and above.low is above.high and not rules_of(p.layer).adds(p):
                total = cells_of(p.layer, array, p.cache[-1], 0.0).sum(axis=-1)
                least = np.minimum(above.low, 0) if lossy else above.low
                most = np.maximum(above.high, 0) if lossy else above.high
                return between(total, Bounds(least, most), tolerance)
            if kinks is not RECTIFIER or not 0 <= slope_below(p.layer) <= 1:
                return True
            link, lossy = link.parent, True
        return True

    def _step(self, index: int) -> Array:
        forward = self.ensemble.at(index)
        if self.parent is None:
            return first_delta(forward.loss, self.mutants)
        p = forward.layers[self.through].with_rates(self.rate or 0.0, 0.0)
        shared = not index and all(m.mistake is None for m in self.parent.mutants)
        memo = self.parent.memos.setdefault(1.0, {}) if shared else None
        return propagate(p, "delta", self.parent.at(index), self.mutants, memo)

    @cached_property
    def bounds(self) -> Bounds:
        """What the delta lies between, whichever way the undecided units are decided."""
        exactly = Bounds(self.at(0), self.at(0))
        if self.submitted is not None or self.parent is None:
            return exactly
        above, p = self.parent.bounds, self.ensemble.exact.layers[self.through]
        units, kinks = self.ensemble.undecided.get(self.through), rules_of(p.layer).kinks
        if kinks and (units is not None or above.low is not above.high):
            return kinks.bounds(p.layer, p.cache, units, above)
        if above.low is above.high:
            return exactly
        return bounds_in(self.parent, self.through, "delta", self.mutants)

    @cached_property
    def _amplitude(self) -> Array | None:
        """How far rounding in this step leaves the delta off; None where it leaves it exact."""
        eps = self.ensemble.eps
        if self.parent is None:
            loss = self.ensemble.exact.loss
            size = first_delta(replace(loss, t=-loss.t), self.mutants)
            return 4 * eps * (abs(size) + abs(self.at(0)))
        p = self.ensemble.exact.layers[self.through]
        rules = rules_of(p.layer)
        if not (rules.adds(p) or self.mutants):
            return None
        size = size_of(self.ensemble, self.through, "delta", self.parent.at(0), self.mutants)
        return amplitude_of(size, self.at(0), rules.terms(p.layer, p.x, p.y).delta, eps)


def size_of(
    ensemble: Ensemble, name: str, target: Target, dy: Array, mutants: tuple[Mutant, ...]
) -> Array:
    """Return the sums of absolute values behind one result of a layer."""
    p, dy = ensemble.absolute.layers[name], abs(dy)
    size = rules_of(p.layer).sizes(p, target, dy, mutants)
    return abs(propagate(p, target, dy, mutants)) if size is None else size


def gradient_in(
    chain: Chain, name: str, target: Target, mutants: tuple[Mutant, ...], share: float, decay: float
) -> Callable[[int], Array]:
    """Return what computes a layer's own gradient from the chain's delta, pass by pass."""
    ensemble = chain.ensemble
    noise: list[Array] = []

    def compute(index: int) -> Array:
        if index > NOISY and chain.untouched(index):
            return compute(0)
        p = ensemble.at(index).layers[name].with_rates(0.0, decay)
        memo = None if index else chain.memos.setdefault(share, {})
        gradient = propagate(p, target, chain.at(index) * share, mutants, memo)
        if not index or index > NOISY:
            return gradient
        if not noise:
            linear = tuple(m for m in mutants if m.solve is None)  # a threshold cuts errors off
            size = size_of(ensemble, name, target, chain.at(0) * share, linear)
            terms = rules_of(p.layer).terms(p.layer, p.x, p.y).gradient
            scale = abs(decay) if any(m.unknown == "factor" for m in mutants) else 1.0
            noise.append(amplitude_of(scale * size, compute(0), terms, ensemble.eps))
        noisy: Array = gradient + noise[0] * hashed(gradient, index + 80)
        return noisy

    return compute


def bounds_in(
    chain: Chain, name: str, target: Target, mutants: tuple[Mutant, ...], share: float = 1.0
) -> Bounds:
    """Return what a layer's next delta or gradient lies between, from the bounds of its delta."""
    low, high = chain.bounds
    p = chain.ensemble.exact.layers[name]
    middle = propagate(p, target, (low + high) / 2 * share, mutants)
    radius = size_of(chain.ensemble, name, target, (high - low) / 2 * abs(share), mutants)
    return Bounds(middle - radius, middle + radius)
