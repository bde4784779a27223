"""The reference for one input of a layer of a known kind: what forward and backward should give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.axes import arranged
from fullback.check.layer.kinds import SOFTMAX_MUTANTS, Layout, Softmax
from fullback.check.mistakes import (
    MISTAKES,
    LayerPass,
    LossPass,
    Mistake,
    Mutant,
    Target,
    first_delta,
    mutants_of,
    propagate,
)
from fullback.check.mistakes.base import run_stages
from fullback.check.mistakes.kinks import cells_of, slope_below
from fullback.check.mistakes.rules import OWN
from fullback.layers import Dropout, LeakyReLU, MaxPool2D, ReLU
from fullback.layers.base import Array
from fullback.layers.window import pair

SAME, SAME_SINGLE = 1e-6, 1e-3
"""Of the largest entry: what is a rounding, whatever it comes from; float64, and float32."""


def off_by(value: Array, expected: Array) -> float:
    """Return the largest difference, relative to the largest expected entry."""
    if value.shape != expected.shape:
        return float("inf")
    size = float(np.abs(expected).max(initial=0.0)) or 1.0
    return float(np.abs(value - expected).max(initial=0.0)) / size


@dataclass(frozen=True, eq=False)
class Reference:
    """A layer, or a loss, on one input.

    Attributes
    ----------
    p : what its forward pass left
    axes : those of x and y
    layout : where the user's arrays have these
    names : the roles, "weight" and "bias", of the user's parameters
    """

    p: LayerPass | LossPass
    axes: str
    layout: Layout
    names: Mapping[str, str]

    # Forward ----------------------------------------------------------------------------------

    def agrees(self, y: Array, same: float = 0.0) -> tuple[Reference | None, str]:
        """Return the reference for a user's output, or None and in which way it differs.

        ``same`` is how far off it may be, of the largest entry; 0 for what rounding explains.
        Dropout's takes its mask from the output; a loss may be the batch's mean or its sum.
        """
        p, same = self.p, same or (SAME if y.dtype == np.float64 else SAME_SINGLE)
        if isinstance(p, LossPass):
            mean, total = -float((p.share[:, None] * p.t * np.log(p.p)).sum()), float(y.sum())
            if abs(total - mean) <= same * abs(mean):
                return self, ""
            if abs(total - mean * p.images) <= same * abs(total):
                return replace(self, p=replace(p, share=np.ones_like(p.share))), ""
            return None, f"forward gives {total:.6g}, but {p.loss} is {mean:.6g} here"
        try:
            submitted = arranged(y, self.layout.y, self.axes)
        except ValueError:
            submitted = y
        if submitted.shape != p.y.shape:
            expected = arranged(p.y, self.axes, self.layout.y).shape
            return None, f"forward returns {y.shape}, where {p.layer} gives {expected}"
        if isinstance(p.layer, Dropout):
            mask = submitted / np.where(p.x == 0, 1, p.x)
            stays = mask[np.abs(mask) > same]
            if not stays.size or np.ptp(stays) > same * abs(stays[0]) or stays[0] <= 0:
                return (
                    None,
                    "forward does not multiply the input by a mask of 0 and one other value",
                )
            mask = np.where(np.abs(mask) > same, stays[0], 0.0)
            rate = min(1 - 1 / stays[0] if stays[0] > 1 else float((mask == 0).mean()), 0.99)
            return replace(self, p=replace(p, layer=Dropout(rate), y=submitted, cache=mask)), ""
        off = off_by(submitted, p.y)
        if off <= same:
            return self, ""
        return None, f"forward differs from {p.layer}'s output by {off:.1e} of its largest"

    def delta(self, rng: np.random.Generator, y: Array, *, ties: bool) -> Array:
        """Draw a delta; where cells tie, one in which no window of max pooling meets another."""
        if isinstance(self.p, LossPass):
            return np.ones_like(y)
        dy = rng.normal(size=self.p.y.shape)
        if ties and isinstance(self.p.layer, MaxPool2D):
            size, step = pair(self.p.layer.size), pair(self.p.layer.step)
            down, across = (-(-a // b) for a, b in zip(size, step, strict=True))
            alone = np.zeros_like(dy)
            alone[:, :, ::down, ::across] = dy[:, :, ::down, ::across]
            dy = alone
        return arranged(dy, self.axes, self.layout.y).astype(y.dtype)

    # Backward ---------------------------------------------------------------------------------

    def mutants(self, name: str) -> dict[tuple[str, str], Mutant]:
        """Return the mistakes that a gradient can have here, by their keys."""
        every = SOFTMAX_MUTANTS.of(self.p) if self._softmax else mutants_of(self.p)
        return {m.key: m for m in every if m.target == self._target(name)}

    def mistake(self, mutant: Mutant) -> Mistake:
        """Return the text of a mistake."""
        every = {m.id: m for m in SOFTMAX_MUTANTS.mistakes} if self._softmax else MISTAKES
        return every[mutant.mistake or ""]

    def computed(self, name: str, dy: Array, mutants: Sequence[Mutant] = ()) -> Array:
        """Return a gradient with these mistakes, in the layout of the reference."""
        if isinstance(self.p, LossPass):
            return first_delta(self.p, tuple(mutants))
        delta = arranged(dy.astype(np.float64), self.layout.y, self.axes)
        if self._softmax:
            result: Array = run_stages(OWN, self.p, delta, delta, mutants)
            return result
        if self._target(name) == "bias" and self.layout.bias_axes == "kpq":
            one: Array = delta[0]
            return one
        return propagate(self.p, self._target(name), delta, mutants)

    def right(self, name: str, dy: Array) -> Array:
        """Return the right gradient in the user's layout."""
        right = self.computed(name, dy)
        if name == "dx":
            return arranged(right, self.axes, self.layout.x)
        return arrange_parameter(right, self._target(name), self.layout)

    def in_reference_layout(self, name: str, gradient: Array) -> Array:
        """Return a gradient, which has the shape that it should, in the layout of the reference."""
        if name == "dx":
            return arranged(gradient, self.layout.x, self.axes)
        if self._target(name) == "bias":
            return arranged(gradient, self.layout.bias, self.layout.bias_axes)
        array = arranged(gradient, self.layout.weight, self.layout.weight_axes)
        return array[:, :, ::-1, ::-1] if self.layout.turned else array

    def settled(self, gradient: Array, dy: Array) -> Array:
        """Return the right dx, with the user's choice among cells that tie where it is possible."""
        right, p = self.right("dx", dy), self.p
        if not isinstance(p, LayerPass) or not isinstance(p.layer, ReLU | LeakyReLU | MaxPool2D):
            return right
        delta = arranged(dy, self.layout.y, self.axes)
        given, expected = (self.in_reference_layout("dx", array) for array in (gradient, right))
        if isinstance(p.layer, MaxPool2D):
            expected = _shared(p, given, expected, delta)
        else:
            slope = slope_below(p.layer) * delta
            between = (given - slope) * (given - delta) <= 0
            expected = np.where((p.x == 0) & between, given, expected)
        return arranged(expected, self.axes, self.layout.x)

    @property
    def _softmax(self) -> bool:
        return isinstance(self.p, LayerPass) and isinstance(self.p.layer, Softmax)

    def _target(self, name: str) -> Target:
        if name == "dx":
            return "delta"
        return "weight" if self.names[name[1:]] == "weight" else "bias"


def _shared(p: LayerPass, given: Array, expected: Array, delta: Array) -> Array:
    """Let a window's delta go to its largest cells in any shares; no two windows may meet."""
    places = np.arange(p.x[0, 0].size, dtype=np.float64).reshape(p.x.shape[2:])
    cells, at = (cells_of(p.layer, a, p.around) for a in (p.x, np.broadcast_to(places, p.x.shape)))
    result = expected.copy()
    for n, c, i, j in zip(*np.nonzero(delta), strict=True):
        tied = at[n, c, i, j][cells[n, c, i, j] == cells[n, c, i, j].max()].astype(int)
        shares = given[n, c].flat[tied] / delta[n, c, i, j]
        if shares.min() >= -SAME and abs(shares.sum() - 1) <= SAME:
            result[n, c].flat[tied] = given[n, c].flat[tied]
    return result


def arrange_parameter(array: Array, name: str, layout: Layout) -> Array:
    """Return a parameter, "weight" or "bias", in the user's layout."""
    if name == "bias":
        return arranged(array, layout.bias_axes, layout.bias)
    array = array[:, :, ::-1, ::-1] if layout.turned else array
    return arranged(array, layout.weight_axes, layout.weight)
