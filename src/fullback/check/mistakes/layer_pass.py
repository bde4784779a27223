"""Where mistakes are made: one layer in one batch, with all that a backward pass has at hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fullback.layers import Loss
from fullback.layers.base import Array, Shape
from fullback.layers.window import pair


@dataclass(frozen=True, eq=False)
class LayerPass:
    """What a forward pass left of one layer.

    Attributes
    ----------
    name, layer : the layer
    x, y : its input (N, *input_shape) and output (N, *output_shape)
    cache : what its forward pass keeps for the backward pass
    parameters : its parameters and statistics, by their short names
    activations : every layer's output, and "input", by name
    before : what lies below, of which this layer's input is the output: "input", "pool1", ...
    rate, decay : learning rate of an early update and coefficient of an L2 term, where known
    computed : what mutants of this layer have computed once
    """

    name: str
    layer: Any
    x: Array
    y: Array
    cache: Any
    parameters: dict[str, Array]
    activations: dict[str, Array]
    before: str
    rate: float = 0.0
    decay: float = 0.0
    computed: dict[str, Array] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """N."""
        return len(self.x)

    @property
    def stride(self) -> tuple[int, int]:
        """Cells from one window to the next."""
        return pair(getattr(self.layer, "step", getattr(self.layer, "stride", 1)))

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the filter or window, R and S."""
        return pair(getattr(self.layer, "kernel_size", getattr(self.layer, "size", 1)))

    @property
    def around(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros around the input: ((above, below), (left, right))."""
        around: tuple[tuple[int, int], tuple[int, int]] = self.cache[-1]
        return around

    @property
    def padded(self) -> Shape:
        """Rows and columns of the padded input."""
        rows, columns = (
            n + sum(ends) for n, ends in zip(self.x.shape[2:], self.around, strict=True)
        )
        return rows, columns

    def with_rates(self, rate: float, decay: float) -> LayerPass:
        """Return the same with other unknowns."""
        if (rate, decay) == (self.rate, self.decay):
            return self
        return replace(self, rate=rate, decay=decay)


@dataclass(frozen=True, eq=False)
class LossPass:
    """What a forward pass left of the loss: logits (N, K), labels or targets, its p, t and shares.

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
class ForwardPass:
    """One forward pass: what it left of every layer, by name, and of the loss."""

    layers: dict[str, LayerPass]
    loss: LossPass
    activations: dict[str, Array]
