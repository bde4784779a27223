"""The reference for one input of a layer of a known kind: what forward and backward should give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fullback.check.layer.kinds import Layout, arranged, restored
from fullback.check.layer.naming import Observation
from fullback.check.mistakes import LayerPass, LossPass, Target
from fullback.layers import Dropout, Layer, LeakyReLU, MaxPool2D, ReLU, SoftmaxCrossEntropy
from fullback.layers.base import Array
from fullback.layers.window import pad, pair, windows

SAME, SAME_SINGLE = 1e-6, 1e-3
"""Of the largest entry: what is a rounding, whatever it comes from; for float64, and for float32."""


def off_by(value: Array, expected: Array) -> float:
    """Return the largest difference, relative to the largest expected entry."""
    if value.shape != expected.shape:
        return float("inf")
    size = float(np.abs(expected).max(initial=0.0)) or 1.0
    return float(np.abs(value - expected).max(initial=0.0)) / size


@dataclass(frozen=True, eq=False)
class Reference:
    """A layer on one input.

    Attributes
    ----------
    layer : the layer
    axes : those of x and y
    layout : where the user's arrays have these
    x, y, cache, parameters : input, output, what backward needs, and parameters by our names
    names : our names of the user's parameters
    cell_bias : a bias for every output cell, beside those that the layer has
    """

    layer: Layer
    axes: str
    layout: Layout
    x: Array
    y: Array
    cache: Any
    parameters: Mapping[str, Array]
    names: Mapping[str, str]

    def agrees(self, y: Array) -> tuple[Reference | None, str]:
        """Return the reference for a user's output, or None and in which way it differs.

        Dropout's reference takes its mask from the output.
        """
        same = SAME if y.dtype == np.float64 else SAME_SINGLE
        try:
            submitted = restored(y, self.axes, self.layout.y)
        except ValueError:
            submitted = y
        if submitted.shape != self.y.shape:
            expected = arranged(self.y, self.axes, self.layout.y).shape
            return None, f"forward returns {y.shape}, where {self.layer} gives {expected}"
        if isinstance(self.layer, Dropout):
            mask = submitted / np.where(self.x == 0, 1, self.x)
            stays = mask[np.abs(mask) > same]
            if not stays.size or np.ptp(stays) > same * abs(stays[0]) or stays[0] <= 0:
                return None, "forward does not multiply the input by a mask of 0 and one other value"
            mask = np.where(np.abs(mask) > same, stays[0], 0.0)
            rate = 1 - 1 / stays[0] if stays[0] > 1 else float((mask == 0).mean())
            return replace(self, layer=Dropout(min(rate, 0.99)), y=submitted, cache=mask), ""
        off = off_by(submitted, self.y)
        if off <= same:
            return self, ""
        return None, f"forward differs from {self.layer}'s output by {off:.1e} of its largest"

    def gradients(self, dy: Array) -> dict[str, Array]:
        """Return the right gradients, by the user's names and in the user's layout."""
        delta = restored(dy.astype(np.float64), self.axes, self.layout.y)
        dx, found = self.layer.backward(delta, self.cache, self.parameters)
        if self.layout.bias_axes == "kpq":
            found = {**found, "bias": delta[0]}
        result = {"dx": arranged(dx, self.axes, self.layout.x)}
        for user, name in self.names.items():
            result[f"d{user}"] = arrange_parameter(found[name], name, self.layout)
        return result

    def delta(self, rng: np.random.Generator, y: Array, *, ties: bool) -> Array:
        """Draw a delta; where cells tie, one in which no window of max pooling meets another."""
        dy = rng.normal(size=self.y.shape)
        if ties and isinstance(self.layer, MaxPool2D):
            down, across = (
                -(-size // step)
                for size, step in zip(pair(self.layer.size), pair(self.layer.step), strict=True)
            )
            alone = np.zeros_like(dy)
            alone[:, :, ::down, ::across] = dy[:, :, ::down, ::across]
            dy = alone
        return arranged(dy, self.axes, self.layout.y).astype(y.dtype)

    def settled(self, gradient: Array, dy: Array) -> Array:
        """Return the right dx, with the user's choice among cells that tie where it is possible."""
        right = self.gradients(dy)["dx"]
        delta = restored(dy, self.axes, self.layout.y)
        given, expected = (restored(a, self.axes, self.layout.x) for a in (gradient, right))
        if isinstance(self.layer, ReLU | LeakyReLU):
            slope = getattr(self.layer, "slope", 0.0) * delta
            between = (given - slope) * (given - delta) <= 0
            expected = np.where((self.x == 0) & between, given, expected)
        elif isinstance(self.layer, MaxPool2D):
            expected = self._shared(given, expected, delta)
        return arranged(expected, self.axes, self.layout.x)

    def _shared(self, given: Array, expected: Array, delta: Array) -> Array:
        """Let a window's delta go to its largest cells in any shares; no two windows may meet."""
        around = self.cache[-1]
        places = np.arange(self.x[0, 0].size, dtype=np.float64).reshape(self.x.shape[2:])
        places = np.broadcast_to(places, self.x.shape)
        size, step = self.layer.size, self.layer.step  # type: ignore[attr-defined]
        cells, at = (
            windows(pad(a, around, -np.inf), size, step).reshape(*self.y.shape, -1)
            for a in (self.x, places)
        )
        result = expected.copy()
        for n, c, p, q in zip(*np.nonzero(delta), strict=True):
            tied = at[n, c, p, q][cells[n, c, p, q] == cells[n, c, p, q].max()].astype(int)
            shares = given[n, c].flat[tied] / delta[n, c, p, q]
            if shares.min() >= -SAME and abs(shares.sum() - 1) <= SAME:
                result[n, c].flat[tied] = given[n, c].flat[tied]
        return result

    def observation(self, dy: Array, found: Mapping[str, Array]) -> Observation:
        """Return what was computed, in the reference's layout; what has another shape left out."""
        outputs = {"input": self.x, "layer": self.y}
        layer = LayerPass(
            "layer", self.layer, self.x, self.y, self.cache, dict(self.parameters), outputs, "input"
        )
        targets: dict[str, Target] = {"dx": "delta"}
        gradients = {}
        for name, array in found.items():
            own = self.names.get(name[1:], "")
            if name != "dx":
                targets[name] = "weight" if own == "weight" else "bias"
            try:
                if name == "dx":
                    gradients[name] = restored(array, self.axes, self.layout.x)
                elif self.layout.bias_axes == "k" or own == "weight":
                    gradients[name] = restore_parameter(array, own, self.layout)
            except (ValueError, KeyError):
                continue
        return Observation(layer, restored(dy, self.axes, self.layout.y), gradients, targets)


@dataclass(frozen=True, eq=False)
class LossReference:
    """Softmax and cross-entropy on one batch of logits."""

    layout: Layout
    loss_pass: LossPass
    value: float

    @classmethod
    def of(cls, layout: Layout, x: Array, labels: Array) -> LossReference:
        """Run forward."""
        loss = SoftmaxCrossEntropy()
        value, (p, t, share) = loss.forward(x, labels)
        return cls(layout, LossPass(loss, x, labels, p, t, share), value)

    def agrees(self, y: Array) -> tuple[LossReference | None, str]:
        """Return the reference for a user's loss: of the batch's mean, or of its sum."""
        total, images = float(y.sum()), self.loss_pass.images
        if abs(total - self.value) <= SAME * abs(self.value):
            return self, ""
        if abs(total - self.value * images) <= SAME * abs(total):
            share = np.ones_like(self.loss_pass.share)
            return replace(self, loss_pass=replace(self.loss_pass, share=share)), ""
        words = f"forward gives {total:.6g}, but {self.loss_pass.loss} is {self.value:.6g} here"
        return None, words

    def gradients(self, dy: Array) -> dict[str, Array]:
        """Return the right dx."""
        p = self.loss_pass
        return {"dx": arranged((p.p - p.t) * p.share[:, None], "nc", self.layout.x)}

    def delta(self, rng: np.random.Generator, y: Array, *, ties: bool) -> Array:
        """Return dL/dL."""
        return np.ones_like(y)

    def settled(self, gradient: Array, dy: Array) -> Array:
        """Return the right dx."""
        return self.gradients(dy)["dx"]

    def observation(self, dy: Array, found: Mapping[str, Array]) -> Observation:
        """Return what was computed."""
        gradients = {"dx": restored(found["dx"], "nc", self.layout.x)} if "dx" in found else {}
        return Observation(self.loss_pass, dy, gradients, {"dx": "delta"})


def arrange_parameter(array: Array, name: str, layout: Layout) -> Array:
    """Return a parameter, "weight" or "bias", in the user's layout."""
    if name == "bias":
        return arranged(array, layout.bias_axes, layout.bias)
    array = array[:, :, ::-1, ::-1] if layout.turned else array
    return arranged(array, layout.weight_axes, layout.weight)


def restore_parameter(array: Array, name: str, layout: Layout) -> Array:
    """Return a user's parameter, or its gradient, in the reference's layout."""
    if name == "bias":
        return restored(array, layout.bias_axes, layout.bias)
    array = restored(array, layout.weight_axes, layout.weight)
    return array[:, :, ::-1, ::-1] if layout.turned else array
