"""Mistakes in the forward pass of layers with windows: padding, stride, what pooling takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fullback.check.mistakes.base import Mistake
from fullback.check.mistakes.forward_ways import add
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.layers import AvgPool2D, Conv2D, GlobalAvgPool2D, MaxPool2D
from fullback.layers.base import Array
from fullback.layers.window import pad, windows


def _at(p: LayerPass, canvas: Array, **options: Any) -> Array:
    """Return the layer's output for an input that is padded already, with other options."""
    y: Array = replace(p.layer, padding="valid", **options).forward(canvas, p.parameters)[0]
    return y


def _padded(p: LayerPass, mode: Any) -> Any:
    if p.around == ((0, 0), (0, 0)):
        return None
    if mode in ("reflect", "wrap") and max(map(max, p.around)) >= min(p.x.shape[2:]):
        return None
    return _at(p, np.pad(p.x, ((0, 0), (0, 0), *p.around), mode=mode))


def _fill(p: LayerPass) -> float:
    """What stands in the padding."""
    return -np.inf if isinstance(p.layer, MaxPool2D) else 0.0


def _placed(p: LayerPass, around: Callable[[int, int], tuple[int, int]]) -> Any:
    other = tuple(around(*ends) for ends in p.around)
    if other == p.around:
        return None
    return _at(p, np.pad(p.x, ((0, 0), (0, 0), *other), constant_values=_fill(p)))


_PADDING = Mistake(
    "padding-misplaced",
    "The padding lies elsewhere, or is not zeros.",
    "as many zeros above as below, left as right; an odd one goes below and to the right",
    "around = ((0, 0), (0, 0), (above, below), (left, right))\nx_padded = np.pad(x, around)",
)
add(Conv2D, MaxPool2D, AvgPool2D, mistake=_PADDING, ways={
    "all of the padding lies below and to the right": lambda p: _placed(p, lambda a, b: (0, a + b)),
    "all of the padding lies above and to the left": lambda p: _placed(p, lambda a, b: (a + b, 0)),
    "the odd row and column of the padding lie above and to the left":
        lambda p: _placed(p, lambda a, b: (b, a)),
})  # fmt: skip
add(Conv2D, mistake=_PADDING, ways={
    "the edge was repeated, where zeros belong": lambda p: _padded(p, "edge"),
    "the edge was mirrored, where zeros belong": lambda p: _padded(p, "reflect"),
    "the image goes on at its other side, where zeros belong": lambda p: _padded(p, "wrap"),
})  # fmt: skip


def _strided(p: LayerPass, step: tuple[int, int], first: int = 0) -> Any:
    """Return the output with windows that lie elsewhere, as many as there are."""
    if max(p.stride) == 1:
        return None
    more = ((0, 0), (0, 0), (0, p.y.shape[2] + first), (0, p.y.shape[3] + first))
    canvas = np.pad(pad(p.x, p.around, _fill(p)), more, constant_values=_fill(p))
    y = _at(p, canvas[:, :, first:, first:], stride=step)
    return y[:, :, : p.y.shape[2], : p.y.shape[3]]


add(Conv2D, MaxPool2D, AvgPool2D, mistake=Mistake(
    "stride-misplaced",
    "The windows lie elsewhere than the stride puts them.",
    "window (p, q) begins at row p stride, column q stride of the padded input",
    "i, j = p * stride, q * stride\ncells = x_padded[:, :, i:i + R, j:j + S]",
), ways={
    "the windows lie side by side, a cell apart, as if the stride were 1":
        lambda p: _strided(p, (1, 1)),
    "the windows begin one cell too late": lambda p: _strided(p, p.stride, 1),
})  # fmt: skip


def _cells(p: LayerPass) -> Array:
    """The windows' cells of a pooling layer without padding, (N, C, P, Q, R S)."""
    every = windows(pad(p.x, p.around), p.window, p.stride)
    return every.reshape(*every.shape[:4], -1)


_POOLING = Mistake(
    "pooling-other",
    "The pooling takes another number of each window.",
    "max: the largest cell of the window;  average: their sum divided by R S",
    "x[:, :, i:i + R, j:j + S].max(axis=(2, 3))  # or .mean",
)
add(MaxPool2D, AvgPool2D, mistake=_POOLING, ways={
    "it takes the average of each window": lambda p: _cells(p).mean(axis=-1),
    "it takes the largest cell of each window": lambda p: _cells(p).max(axis=-1),
    "it takes the smallest cell of each window": lambda p: _cells(p).min(axis=-1),
    "it adds up each window": lambda p: _cells(p).sum(axis=-1),
    "it takes the first cell of each window": lambda p: _cells(p)[..., 0],
    "it takes the cell of each window that is furthest from 0": lambda p: np.take_along_axis(
        _cells(p), abs(_cells(p)).argmax(axis=-1)[..., None], axis=-1)[..., 0],
})  # fmt: skip
add(GlobalAvgPool2D, mistake=_POOLING, ways={
    "it takes the largest cell of each map": lambda p: p.x.max(axis=(2, 3)).reshape(p.y.shape),
    "it adds up each map": lambda p: p.x.sum(axis=(2, 3)).reshape(p.y.shape),
})  # fmt: skip
