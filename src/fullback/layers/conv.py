r"""Convolution.

Forward, with x padded (a cross-correlation, which is what every framework calls convolution)::

    y[n, k, p, q] = b[k] + sum over c, r, s of  w[k, c, r, s] x[n, c, p + r, q + s]

Backward. Each weight w[k, c, r, s] met every input cell it slid over, and each time its product
went to one output cell; so its gradient adds up, over all positions, that input times that cell's
delta. The delta slides over the input just as the filter did: **the filter gradient is the input
correlated with the delta**::

    dw[k, c, r, s] = sum over n, p, q of  dy[n, k, p, q] x[n, c, p + r, q + s]

Each input cell x[n, c, i, j] went to the outputs (i - r, j - s), through w[k, c, r, s]; so its
delta collects theirs through the same weights. The index runs backwards, which turns the filter by
180 degrees, and cells at the border have fewer partners, which is what zeros around the delta
express: **the next delta is the full convolution of the delta with the filters**::

    dx[n, c, i, j] = sum over k, r, s of  w[k, c, r, s] dy[n, k, i - r, j - s]

With a stride, p and q above become p * stride and q * stride: backwards, the delta is spread out
with zeros in between. With a dilation, r and s become r * dilation and s * dilation.

Source: Dumoulin and Visin, A guide to convolution arithmetic for deep learning (2016), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from fullback.errors import OptionError, ShapeError
from fullback.layers.base import Array, Layer, Parameters, Shape
from fullback.layers.window import (
    Padding,
    Pair,
    crop,
    pad,
    pads,
    pair,
    require_image,
    require_padding,
    require_pair,
    span,
    window_cells,
    window_counts,
    windows,
)
from fullback.options import MOST_UNITS, require_flag, require_whole, take_plain


@dataclass(frozen=True, repr=False)
class Conv2D(Layer):
    """Convolution of a (C, H, W) image with K filters of (C / groups, R, S) weights.

    Parameters
    ----------
    filters : K, the filters, and so the channels of the output
    kernel_size : R and S, one number or (rows, columns)
    stride : cells from one window to the next, one number or (down, across)
    padding : "same" (as many outputs as inputs, divided by the stride), "valid" (none), or the
        zeros on every side, one number or (above and below, left and right)
    dilation : cells from one weight to the next, one number or (down, across)
    groups : parts that the channels and the filters are divided into, each filter seeing the
        channels of its own part only; ``groups=C`` is a depthwise convolution
    bias : whether each filter has a bias

    Raises
    ------
    OptionError
        An option is out of range, or ``groups`` does not divide ``filters``.
    """

    filters: int
    kernel_size: Pair = 3
    stride: Pair = 1
    padding: Padding = "same"
    dilation: Pair = 1
    groups: int = 1
    bias: bool = True

    kind: ClassVar[str] = "conv"

    def __post_init__(self) -> None:
        take_plain(self)
        require_whole("Conv2D: filters", self.filters, 1, MOST_UNITS)
        require_pair("Conv2D: kernel_size", self.kernel_size, 1)
        require_pair("Conv2D: stride", self.stride, 1)
        require_padding("Conv2D: padding", self.padding)
        require_pair("Conv2D: dilation", self.dilation, 1)
        require_whole("Conv2D: groups", self.groups, 1, MOST_UNITS)
        require_flag("Conv2D: bias", self.bias)
        if self.filters % self.groups:
            raise OptionError(
                f"Conv2D: filters (={self.filters}) must be divisible by groups (={self.groups})"
            )

    def output_shape(self, input_shape: Shape) -> Shape:
        channels = require_image("Conv2D", input_shape)[0]
        if channels % self.groups:
            raise ShapeError(
                f"Conv2D: the input's channels (={channels}) must be divisible by groups "
                f"(={self.groups})"
            )
        counts = window_counts(
            "Conv2D", input_shape, self.padding, self.kernel_size, self.stride, self.dilation
        )
        return (self.filters, *counts)

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        weight = (self.filters, input_shape[0] // self.groups, *pair(self.kernel_size))
        return {"weight": weight, "bias": (self.filters,)} if self.bias else {"weight": weight}

    def initial_parameters(
        self, input_shape: Shape, rng: np.random.Generator, gain: float
    ) -> dict[str, Array]:
        """Draw weights of variance gain^2 / fan-in (He et al. 2015, section 2.2); biases are 0.

        The first filter starts as an average of its window, weights that sum to 1, with noise of
        half that deviation: what comes in is mostly not negative, so at least one channel then
        answers above 0, and a ReLU behind is never dead from the start, however few the filters.
        """
        shapes = self.parameter_shapes(input_shape)
        fan_in = int(np.prod(shapes["weight"][1:]))
        initial = {name: np.zeros(shape) for name, shape in shapes.items()}
        weight = rng.normal(0.0, gain / np.sqrt(fan_in), shapes["weight"])
        weight[0] = (weight[0] - weight[0].mean()) / 2 + 1 / fan_in
        initial["weight"] = weight
        return initial

    def multiply_adds(self, input_shape: Shape) -> int:
        filters, rows, columns = self.output_shape(input_shape)
        weights = np.prod(self.parameter_shapes(input_shape)["weight"][1:], dtype=int)
        return filters * rows * columns * int(weights)

    def workspace(self, input_shape: Shape) -> int:
        """Count the padded image, and the cells of a group's windows (C / groups P Q R S)."""
        windows = input_shape[0] // self.groups * prod(self.output_shape(input_shape)[1:])
        return window_cells(
            input_shape, windows, self.padding, self.kernel_size, self.stride, self.dilation
        )

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        around = pads(self.padding, x.shape[2:], self.kernel_size, self.stride, self.dilation)
        x = pad(x, around)
        parts = zip(self._parts(x, 1), self._parts(parameters["weight"], 0), strict=True)
        y = np.concatenate([correlate(x, w, self.stride, self.dilation) for x, w in parts], axis=1)
        if self.bias:
            y += parameters["bias"][:, None, None]
        return y, (x, around)

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        x, around = cache  # x with its padding
        w = parameters["weight"]
        spread_dy = spread(dy, self.stride, self._reach(x.shape[2:]))

        dw, dx = [], []
        for x_part, dy_part, w_part in zip(
            self._parts(x, 1), self._parts(spread_dy, 1), self._parts(w, 0), strict=True
        ):
            # dF: the input correlated with the delta
            dw.append(correlate_images(x_part, dy_part, self.dilation))
            # the next delta: the full convolution of the delta with the filters
            dx.append(full_convolution(dy_part, w_part, self.dilation))

        gradients = {"weight": np.concatenate(dw, axis=0)}
        if self.bias:
            gradients["bias"] = dy.sum(axis=(0, 2, 3))
        return crop(np.concatenate(dx, axis=1), around), gradients

    def _parts(self, array: Array, axis: int) -> list[Array]:
        return np.split(array, self.groups, axis)

    def _reach(self, padded: Shape) -> tuple[int, int]:
        """Positions that a filter can take in a padded input at stride 1."""
        rows, columns = (
            length - span(size, dilation) + 1
            for length, size, dilation in zip(
                padded, pair(self.kernel_size), pair(self.dilation), strict=True
            )
        )
        return rows, columns


def correlate(x: Array, w: Array, stride: Pair = 1, dilation: Pair = 1) -> Array:
    """Slide every filter over every image: (N, C, H, W) and (K, C, R, S) give (N, K, P, Q)."""
    seen = windows(x, w.shape[2:], stride, dilation)  # (N, C, P, Q, R, S)
    # tensordot copies the windows, which is fast where their last axis is the longer one
    if seen.shape[3] > seen.shape[5]:
        y = np.tensordot(w, seen, axes=((1, 2, 3), (1, 4, 5)))  # (K, N, P, Q)
        return np.ascontiguousarray(y.swapaxes(0, 1))
    y = np.tensordot(seen, w, axes=((1, 4, 5), (1, 2, 3)))  # (N, P, Q, K)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


def correlate_images(x: Array, dy: Array, dilation: Pair) -> Array:
    """Slide the delta over the input: (N, C, H, W) and (N, K, P, Q) give (K, C, R, S).

    Here the images are what is summed over, as the channels are in ``correlate``.
    """
    return correlate(x.swapaxes(0, 1), dy.swapaxes(0, 1), stride=dilation).swapaxes(0, 1)


def full_convolution(dy: Array, w: Array, dilation: Pair) -> Array:
    """Convolve the delta, with zeros around, with the filters: (N, K, P, Q) gives (N, C, H, W).

    A convolution is a correlation with the filter turned by 180 degrees. "Full" means every
    position in which filter and delta share at least one cell. The sum runs over the filters, so
    filters and channels change places.
    """
    rows, columns = (
        span(size, step) - 1 for size, step in zip(w.shape[2:], pair(dilation), strict=True)
    )
    turned = w[:, :, ::-1, ::-1].swapaxes(0, 1)  # (C, K, R, S)
    return correlate(pad(dy, ((rows, rows), (columns, columns))), turned, dilation=dilation)


def spread(dy: Array, stride: Pair, length: tuple[int, int]) -> Array:
    """Put the delta where its windows were: every stride-th cell of (N, K, *length), else 0.

    At the end lie the rows and columns that the stride left over, which no window reached.
    """
    down, across = pair(stride)
    if down == across == 1:
        return dy
    spread_dy = np.zeros((*dy.shape[:2], *length), dy.dtype)
    spread_dy[:, :, ::down, ::across] = dy
    return spread_dy
