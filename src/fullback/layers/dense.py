"""Flatten, and the fully connected layer.

Forward and backward of the fully connected layer::

    y[n, k]  = b[k] + sum over c of  w[k, c] x[n, c]
    dw[k, c] = sum over n of  dy[n, k] x[n, c]           delta times input
    db[k]    = sum over n of  dy[n, k]
    dx[n, c] = sum over k of  w[k, c] dy[n, k]           the next delta

Convolution has the same three sums, with positions beside the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fullback.errors import ShapeError
from fullback.layers.base import Array, Layer, Parameters, Shape
from fullback.options import MOST_UNITS, require_flag, require_whole, take_plain


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """(C, H, W) becomes (C * H * W,), in row-major order: channel, row, column."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        return (int(np.prod(input_shape, dtype=object)),)  # without overflow

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        return x.reshape(len(x), -1), x.shape

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        return dy.reshape(cache), {}


@dataclass(frozen=True, repr=False)
class Dense(Layer):
    """Fully connected layer from C features to K units.

    Parameters
    ----------
    units : K, the outputs
    bias : whether each unit has a bias

    Raises
    ------
    OptionError
        An option is out of range.
    """

    units: int
    bias: bool = True

    kind: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        take_plain(self)
        require_whole("Dense: units", self.units, 1, MOST_UNITS)
        require_flag("Dense: bias", self.bias)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(
                f"Dense takes one row of features per image, but its input has shape "
                f"{input_shape}; put Flatten() (in the text form: flatten) before it"
            )
        return (self.units,)

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        weight = (self.units, *input_shape)
        return {"weight": weight, "bias": (self.units,)} if self.bias else {"weight": weight}

    def initial_parameters(
        self, input_shape: Shape, rng: np.random.Generator, gain: float
    ) -> dict[str, Array]:
        """Draw weights of variance gain^2 / fan-in (He et al. 2015, section 2.2); biases are 0."""
        shapes = self.parameter_shapes(input_shape)
        initial = {name: np.zeros(shape) for name, shape in shapes.items()}
        initial["weight"] = rng.normal(0.0, gain / np.sqrt(input_shape[0]), shapes["weight"])
        return initial

    def multiply_adds(self, input_shape: Shape) -> int:
        return self.units * input_shape[0]

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        y = x @ parameters["weight"].T  # (N, K)
        if self.bias:
            y += parameters["bias"]
        return y, x

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        x = cache
        gradients = {"weight": dy.T @ x}  # (K, C)
        if self.bias:
            gradients["bias"] = dy.sum(axis=0)
        return dy @ parameters["weight"], gradients
