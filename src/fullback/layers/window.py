"""Where the windows of a convolution or a pooling lie: sizes, strides and padding.

Along one axis, an input of ``length`` cells is padded to ``length + before + after``. A window of
``size`` cells, ``dilation`` apart, spans ``(size - 1) * dilation + 1`` of them, and starts at every
``stride``-th: there are ``(length + before + after - span) // stride + 1`` windows.
"""

from __future__ import annotations

from math import prod
from typing import Literal, TypeAlias

import numpy as np

from fullback.errors import OptionError, ShapeError
from fullback.layers.base import Array, Shape
from fullback.options import short

Pair: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = Literal["same", "valid"] | Pair


MOST_CELLS_ALONG = 2**20
"""The largest size, stride, padding or dilation."""

_MOST_PADDED = 2**20  # cells of a padded image that is mostly padding
_MOST_TIMES = 4  # a padded image above that may have so many times the cells of the image


def pair(value: Pair) -> tuple[int, int]:
    """Rows and columns of an option that may be given as one number for both."""
    return (value, value) if isinstance(value, int) else value


def require_pair(option: str, value: object, minimum: int) -> None:
    """Raise OptionError unless ``value`` is a whole number or a pair of them, in range."""
    numbers = value if isinstance(value, tuple) else (value, value)
    if len(numbers) != 2 or not all(
        isinstance(n, int) and not isinstance(n, bool) and n >= minimum for n in numbers
    ):
        raise OptionError(
            f"{option} must be a whole number of at least {minimum}, or a "
            f"pair (rows, columns) of them, got {short(value)}"
        )
    if max(numbers) > MOST_CELLS_ALONG:
        raise OptionError(f"{option} must be at most {MOST_CELLS_ALONG:,}, got {short(value)}")


def require_padding(option: str, value: object) -> None:
    """Raise OptionError unless ``value`` is a padding."""
    if isinstance(value, str):
        if value not in ("same", "valid"):
            raise OptionError(
                f"{option} must be 'same', 'valid', a whole number or a "
                f"pair (rows, columns), got {short(value)}"
            )
    else:
        require_pair(option, value, 0)


def require_image(name: str, input_shape: Shape) -> tuple[int, int, int]:
    """Return (C, H, W), or raise ShapeError where the input is not an image."""
    if len(input_shape) != 3:
        raise ShapeError(
            f"{name} takes images of shape (channels, rows, columns), but its input has shape "
            f"{input_shape}; put it before Flatten"
        )
    return input_shape


def span(size: int, dilation: int) -> int:
    """Cells that a dilated window reaches over."""
    return (size - 1) * dilation + 1


def pads(
    padding: Padding, length: Shape, size: Pair, stride: Pair, dilation: Pair = 1
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the zeros to add: ((above, below), (left, right)).

    ``"same"`` gives ``ceil(length / stride)`` windows; where the zeros cannot be shared out
    evenly the odd one goes below and to the right, as in ONNX's SAME_UPPER, TensorFlow, and (for
    stride 1) PyTorch.
    """
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        rows, columns = pair(padding)
        return (rows, rows), (columns, columns)
    shares = []
    for n, m, step, spread in zip(length, pair(size), pair(stride), pair(dilation), strict=True):
        windows = -(-n // step)
        total = max((windows - 1) * step + span(m, spread) - n, 0)
        shares.append((total // 2, total - total // 2))
    return shares[0], shares[1]


def window_cells(
    image: Shape, windows: int, padding: Padding, size: Pair, stride: Pair, dilation: Pair = 1
) -> int:
    """Count the cells of a padded image (C, H, W), and of so many windows of one channel."""
    channels, *length = image
    around = pads(padding, tuple(length), size, stride, dilation)
    padded = (n + sum(p) for n, p in zip(length, around, strict=True))
    return channels * prod(padded) + windows * prod(pair(size))


def window_counts(
    name: str, image: Shape, padding: Padding, size: Pair, stride: Pair, dilation: Pair = 1
) -> tuple[int, int]:
    """Return (P, Q), the windows down and across an image of shape (C, H, W).

    Raises
    ------
    ShapeError
        Not even one fits, or the image is small and its padding enormous.
    """
    channels, *length = image
    counts = []
    around = pads(padding, tuple(length), size, stride, dilation)
    for n, (before, after), m, step, spread in zip(
        length, around, pair(size), pair(stride), pair(dilation), strict=True
    ):
        counts.append((n + before + after - span(m, spread)) // step + 1)
    padded = [n + sum(p) for n, p in zip(length, around, strict=True)]
    cells = channels * padded[0] * padded[1]
    if cells > max(_MOST_PADDED, _MOST_TIMES * channels * length[0] * length[1]):
        raise ShapeError(
            f"{name}: a map of {length[0]}x{length[1]} cells with its padding is "
            f"{padded[0]}x{padded[1]}, which is too large; use less padding or a smaller window"
        )
    if min(counts) < 1:
        wanted = "x".join(str(span(m, d)) for m, d in zip(pair(size), pair(dilation), strict=True))
        given = "x".join(map(str, padded))
        raise ShapeError(
            f"{name}: a window over {wanted} cells does not fit into {given} (padding included); "
            "use a smaller window, more padding or fewer pooling layers"
        )
    return counts[0], counts[1]


def pad(
    x: Array, around: tuple[tuple[int, int], tuple[int, int]], value: float = 0.0
) -> Array:  # (N, C, above + H + below, left + W + right)
    """Add cells of ``value`` around every map."""
    if around == ((0, 0), (0, 0)):
        return x
    return np.pad(x, ((0, 0), (0, 0), *around), constant_values=value)


def crop(x: Array, around: tuple[tuple[int, int], tuple[int, int]]) -> Array:
    """Take away what ``pad`` added."""
    (above, below), (left, right) = around
    return x[:, :, above : x.shape[2] - below, left : x.shape[3] - right]


def windows(x: Array, size: Pair, stride: Pair = 1, dilation: Pair = 1) -> Array:
    """Return a view of every window of every map, of shape (N, C, P, Q, R, S).

    ``windows(x, ...)[n, c, p, q, r, s]`` is ``x[n, c, p * stride + r * dilation, q * stride +
    s * dilation]``.
    """
    (rows, columns), (down, across), (below, right) = pair(size), pair(stride), pair(dilation)
    every = np.lib.stride_tricks.sliding_window_view(
        x, (span(rows, below), span(columns, right)), axis=(2, 3)
    )
    return every[:, :, ::down, ::across, ::below, ::right]
