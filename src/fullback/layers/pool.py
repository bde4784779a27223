r"""Pooling: each window of a map becomes one cell.

Max pooling, over the windows of x (padded with minus infinity)::

    y[n, c, p, q]  = max over r, s of  x[n, c, p * stride + r, q * stride + s]
    dx[n, c, i, j] = sum over the windows that (i, j) won of  dy[n, c, p, q]

Only the winner of a window made a difference, so only the winner gets its delta; the others get 0.
Ties go to the first maximum in row-major order. Where windows overlap, a cell can win several
times, and its deltas add up.

Average pooling, over the windows of x (padded with zeros, which count as cells)::

    y[n, c, p, q]  = sum over r, s of  x[n, c, p * stride + r, q * stride + s] / (R S)
    dx[n, c, i, j] = sum over the windows that hold (i, j) of  dy[n, c, p, q] / (R S)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from fullback.errors import OptionError
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
    window_cells,
    window_counts,
    windows,
)
from fullback.options import take_plain


@dataclass(frozen=True, repr=False)
class _Pool2D(Layer):
    """What max and average pooling share: the options and the window's cells."""

    size: Pair = 2
    stride: Pair | None = None
    padding: Padding = "valid"

    def __post_init__(self) -> None:
        take_plain(self)
        name = type(self).__name__
        require_pair(f"{name}: size", self.size, 1)
        if self.stride is not None:
            require_pair(f"{name}: stride", self.stride, 1)
        require_padding(f"{name}: padding", self.padding)
        if not isinstance(self.padding, str) and any(
            p >= n for p, n in zip(pair(self.padding), pair(self.size), strict=True)
        ):
            raise OptionError(
                f"{name}: padding (={self.padding}) must be smaller than size "
                f"(={self.size}), or a window would hold padding only"
            )

    @property
    def step(self) -> tuple[int, int]:
        """Cells from one window to the next, (down, across)."""
        return pair(self.size if self.stride is None else self.stride)

    def output_shape(self, input_shape: Shape) -> Shape:
        name = type(self).__name__
        channels = require_image(name, input_shape)[0]
        return (channels, *window_counts(name, input_shape, self.padding, self.size, self.step))

    def workspace(self, input_shape: Shape) -> int:
        """Count the padded image, and the cells of all windows (C P Q R S)."""
        windows = prod(self.output_shape(input_shape))
        return window_cells(input_shape, windows, self.padding, self.size, self.step)

    def _taps(self, dx: Array, counts: Shape) -> Iterator[tuple[int, Array]]:
        """For every place in a window, in row-major order: the cells of dx, one a window."""
        rows, columns = pair(self.size)
        down, across = self.step
        for tap in range(rows * columns):
            r, s = divmod(tap, columns)
            yield tap, dx[:, :, r::down, s::across][:, :, : counts[0], : counts[1]]


@dataclass(frozen=True, repr=False)
class MaxPool2D(_Pool2D):
    """The largest cell of every window of a (C, H, W) image.

    Parameters
    ----------
    size : R and S of the window, one number or (rows, columns)
    stride : cells from one window to the next; None for ``size``, so that windows do not overlap
    padding : as for Conv2D, but smaller than the window, so that every window holds an input cell

    Raises
    ------
    OptionError
        An option is out of range.
    """

    kind: ClassVar[str] = "pool"

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        around = pads(self.padding, x.shape[2:], self.size, self.step)
        x = pad(x, around, -np.inf)
        seen = windows(x, self.size, self.step)  # (N, C, P, Q, R, S)
        cells = seen.reshape(*seen.shape[:4], -1)  # (N, C, P, Q, R * S)
        winner = cells.argmax(axis=-1)  # the first one, where there are several
        y = np.take_along_axis(cells, winner[..., None], axis=-1)[..., 0]
        return y, (winner, x.shape, around)

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        winner, padded_shape, around = cache
        dx = np.zeros(padded_shape, dy.dtype)
        for tap, cells in self._taps(dx, dy.shape[2:]):
            cells += np.where(winner == tap, dy, 0)
        return crop(dx, around), {}


@dataclass(frozen=True, repr=False)
class AvgPool2D(_Pool2D):
    """The mean of every window of a (C, H, W) image, zeros of the padding counted.

    Parameters
    ----------
    size, stride, padding : as for MaxPool2D

    Raises
    ------
    OptionError
        An option is out of range.
    """

    kind: ClassVar[str] = "avgpool"

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        around = pads(self.padding, x.shape[2:], self.size, self.step)
        x = pad(x, around)
        return windows(x, self.size, self.step).mean(axis=(4, 5)), (x.shape, around)

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        padded_shape, around = cache
        rows, columns = pair(self.size)
        share = dy / (rows * columns)
        dx = np.zeros(padded_shape, dy.dtype)
        for _, cells in self._taps(dx, dy.shape[2:]):
            cells += share
        return crop(dx, around), {}


@dataclass(frozen=True, repr=False)
class GlobalAvgPool2D(Layer):
    """The mean of every whole map: (C, H, W) gives (C,).

    ``y[n, c] = sum over i, j of x[n, c, i, j] / (H W)``, and ``dx[n, c, i, j] = dy[n, c] / (H W)``.
    """

    kind: ClassVar[str] = "globalavgpool"

    def output_shape(self, input_shape: Shape) -> Shape:
        return (require_image("GlobalAvgPool2D", input_shape)[0],)

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        return x.mean(axis=(2, 3)), x.shape

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        _, _, rows, columns = cache
        dx = np.broadcast_to(dy[:, :, None, None] / (rows * columns), cache)
        return dx.copy(), {}  # a broadcast array cannot be written to
