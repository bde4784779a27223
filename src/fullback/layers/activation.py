"""Activations: one function for every cell.

``y = f(x)`` cell by cell, so the next delta is the delta times the slope at that cell,
``dx = dy f'(x)``:

=============  =========================  ===========================================
layer          y                          slope
=============  =========================  ===========================================
ReLU           max(x, 0)                  1 where x > 0, else 0 (0 at x = 0)
LeakyReLU(a)   x where x > 0, else a x    1 where x > 0, else a (a at x = 0)
Sigmoid        1 / (1 + exp(-x))          y (1 - y)
Tanh           tanh(x)                    1 - y^2
=============  =========================  ===========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fullback.layers.base import Array, Layer, Parameters, Shape
from fullback.options import require_number, take_plain


@dataclass(frozen=True, repr=False)
class ReLU(Layer):
    """``y = max(x, 0)``; a delta passes where x was positive."""

    kind: ClassVar[str] = "relu"
    gain: ClassVar[float | None] = 2.0**0.5  # He et al. 2015, equation 10
    rectifies: ClassVar[bool] = True

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        return np.maximum(x, 0), x

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        x = cache
        return np.where(x > 0, dy, 0), {}


@dataclass(frozen=True, repr=False)
class LeakyReLU(Layer):
    """``y = x`` where x is positive, else ``slope * x``.

    Parameters
    ----------
    slope : a, in [0, 1]

    Raises
    ------
    OptionError
        The slope is out of range.
    """

    slope: float = 0.01

    kind: ClassVar[str] = "leakyrelu"
    gain: ClassVar[float | None] = 2.0**0.5

    def __post_init__(self) -> None:
        take_plain(self)
        require_number("LeakyReLU: slope", self.slope, "[0, 1]")

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        return np.where(x > 0, x, self.slope * x), x

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        x = cache
        return np.where(x > 0, dy, self.slope * dy), {}


@dataclass(frozen=True, repr=False)
class Sigmoid(Layer):
    """``y = 1 / (1 + exp(-x))``, computed as ``(1 + tanh(x / 2)) / 2``, which cannot overflow."""

    kind: ClassVar[str] = "sigmoid"
    gain: ClassVar[float | None] = 1.0

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        y = (1 + np.tanh(x / 2)) / 2
        return y, y

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        y = cache
        return dy * y * (1 - y), {}


@dataclass(frozen=True, repr=False)
class Tanh(Layer):
    """``y = tanh(x)``."""

    kind: ClassVar[str] = "tanh"
    gain: ClassVar[float | None] = 1.0

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        y = np.tanh(x)
        return y, y

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        y = cache
        return dy * (1 - y * y), {}
