"""Where a mistake can be made: one layer in one batch, with all that a backward pass has at hand.

A ``World`` is one forward pass. The true one is float64; beside it there are a few *noisy* ones, in
which every sum carries an error of the size that their precision gives it, and an *absolute* one,
in which every factor is its absolute value, so that a sum in it is the sum of absolute values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fullback.layers import AvgPool2D, Conv2D, Layer, Loss, MaxPool2D
from fullback.layers.base import Array, Shape
from fullback.layers.window import pair


@dataclass(frozen=True, eq=False)
class Scene:
    """A layer in its place.

    Attributes
    ----------
    name, layer : the layer
    x, y : its input (N, *input_shape) and output (N, *output_shape)
    kept : what its forward pass kept
    parameters : its parameters and statistics, by their short names
    activations : every layer's output, and "input", by name
    before : what lies below, of which this layer's input is the output: "input", "pool1", ...
    rate, decay : learning rate of an early update and coefficient of an L2 term, where known
    memory : what mutants of this scene have computed once
    """

    name: str
    layer: Layer
    x: Array
    y: Array
    kept: Any
    parameters: dict[str, Array]
    activations: dict[str, Array]
    before: str
    rate: float = 0.0
    decay: float = 0.0
    memory: dict[str, Array] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """N."""
        return len(self.x)

    @property
    def stride(self) -> tuple[int, int]:
        """Cells from one window to the next."""
        if isinstance(self.layer, Conv2D):
            return pair(self.layer.stride)
        return self.layer.step if isinstance(self.layer, MaxPool2D | AvgPool2D) else (1, 1)

    @property
    def around(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros around the input: ((above, below), (left, right))."""
        around: tuple[tuple[int, int], tuple[int, int]] = self.kept[-1]
        return around

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the filter or window, R and S."""
        if isinstance(self.layer, Conv2D):
            return pair(self.layer.kernel_size)
        return pair(self.layer.size) if isinstance(self.layer, MaxPool2D | AvgPool2D) else (1, 1)

    @property
    def padded(self) -> Shape:
        """Rows and columns of the padded input."""
        rows, columns = (
            n + sum(ends) for n, ends in zip(self.x.shape[2:], self.around, strict=True)
        )
        return rows, columns

    def with_rates(self, rate: float, decay: float) -> Scene:
        """Return the same with other unknowns."""
        if (rate, decay) == (self.rate, self.decay):
            return self
        return replace(self, rate=rate, decay=decay)


@dataclass(frozen=True, eq=False)
class LossScene:
    """The loss in its place: logits (N, K), labels or targets, and the loss's own p, t and shares.

    For MeanSquaredError, p is the output itself and t the targets.
    """

    loss: Loss
    logits: Array
    targets: Array
    p: Array
    t: Array
    share: Array

    @property
    def images(self) -> int:
        """N."""
        return len(self.logits)


@dataclass(frozen=True, eq=False)
class World:
    """One forward pass: a scene for every layer, by name, and the loss's."""

    scenes: dict[str, Scene]
    loss: LossScene
    activations: dict[str, Array]


def hashed(values: Array, seed: int) -> Array:
    """Return a number in [-1, 1) for every value: equal values get equal numbers.

    So cells that hold exactly the same number, as on a flat background, stay tied under noise.
    """
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    mixed = bits + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    result: Array = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
    return result
