"""Layers that choose among cells: rectifiers, and max pooling.

Where a ReLU's input is so close to 0, or a window's two largest cells so close to each other, that
rounding decides, a right program may decide either way: a *kink*. Finite differences keep to the
choice that was made at a point, and look whether a step leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullback.layers.base import Array
from fullback.layers.window import pad, windows

_CLOSE = 4.0  # deviations of the noise within which a kink may be decided either way


def _as_it_was(
    layer: Any, xs: list[Array], r: int, y: Array, cache: Any, delta: Array | None
) -> Any:
    return cache


@dataclass(frozen=True)
class Kinks:
    """How a kind of layer chooses. A ``cache`` is what its forward pass keeps.

    Attributes
    ----------
    same : whether two forward passes chose the same cells, from their caches
    continued : runs forward with the choice of another pass, from layer, x and that pass's cache
    undecided : from the layer and its inputs, the exact one and noisy ones, such inputs in which
        the noisy ones are moved so that it chooses otherwise, and how many units rounding decides
    chosen : from layer, inputs, the number r of an input, its output, its cache, and the submitted
        delta of the input or None: the cache, where r > 0 with what rounding decides decided
        otherwise
    """

    same: Callable[[Any, Any], bool]
    continued: Callable[[Any, Array, Any], Array]
    undecided: Callable[[Any, list[Array]], tuple[list[Array], int]]
    chosen: Callable[[Any, list[Array], int, Array, Any, Array | None], Any] = _as_it_was


# ReLU and LeakyReLU: the cache is the input -------------------------------------------------------


def _undecided_signs(layer: Any, xs: list[Array]) -> tuple[list[Array], int]:
    """Let noisy inputs fall on either side of 0 where rounding decides."""
    exact = xs[0]
    spread = np.max([abs(x - exact) for x in xs[1:]], axis=0)
    close = (abs(exact) <= _CLOSE * spread) & (spread > 0)
    if not close.any():
        return xs, 0
    tiny = np.maximum(abs(exact), spread / _CLOSE)
    sides = [np.where(exact > 0, -1.0, 1.0)]
    sides += [np.sign(hashed(exact, 100 + r)) for r in range(len(xs) - 2)]
    noisy = [np.where(close, side * tiny, x) for side, x in zip(sides, xs[1:], strict=True)]
    return [exact, *noisy], int(close.sum())


def _below(layer: Any, x: Array) -> Any:
    """What a rectifier makes of an input that is not positive."""
    return layer.slope * x if hasattr(layer, "slope") else 0.0


RECTIFIER = Kinks(
    same=lambda cache, other: np.array_equal(cache > 0, other > 0),
    continued=lambda layer, x, cache: np.where(cache > 0, x, _below(layer, x)),
    undecided=_undecided_signs,
)


# MaxPool2D: the cache begins with each window's winner, and ends with the padding -----------------


def _chosen_winners(
    layer: Any, xs: list[Array], r: int, y: Array, cache: Any, delta: Array | None
) -> Any:
    """Let the other of two nearly tied cells win: all of them in the first noisy pass.

    Windows of equal cells give equal sums, but not in every program to the last digit. So of
    several equal ones that cell wins which alone has a delta in the submitted array.
    """
    winner, shape, around = cache
    if delta is not None:
        cells = _cells(layer, xs[0], around)
        equal = cells == cells.max(axis=-1, keepdims=True)
        has = equal & (_cells(layer, delta, around) != 0)
        alone = (equal.sum(axis=-1) > 1) & (has.sum(axis=-1) == 1)
        winner = np.where(alone, has.argmax(axis=-1), winner)
    if r:
        close, second = _rivals(layer, xs)
        if r > 1:
            close = close & (hashed(y, 200 + r) > 0)
        winner = np.where(close, second, winner)
    return winner, shape, around


def _of_winners(layer: Any, x: Array, cache: Any) -> Array:
    """Run forward with those cells that won."""
    winner, _, around = cache
    y: Array = np.take_along_axis(_cells(layer, x, around, 0.0), winner[..., None], axis=-1)
    return y[..., 0]


def _cells(layer: Any, x: Array, around: Any, fill: float = -np.inf) -> Array:
    """Return the windows' cells (N, C, P, Q, R S)."""
    every = windows(pad(x, around, fill), layer.size, layer.step)
    return every.reshape(*every.shape[:4], -1)


def _rivals(layer: Any, xs: list[Array]) -> tuple[Array, Array]:
    """Return which windows rounding decides about, and each window's second-largest place."""
    _, (_, _, around) = layer.forward(xs[0][:1], {})
    cells = _cells(layer, xs[0], around)
    spread = np.max([abs(x - xs[0]) for x in xs[1:]], axis=0)
    noise = np.where(np.isfinite(cells), _cells(layer, spread, around), 0).max(axis=-1)
    best = cells.max(axis=-1, keepdims=True)
    others = np.where(cells == best, -np.inf, cells)
    second = others.max(axis=-1)
    close = (best[..., 0] - second <= _CLOSE * noise) & np.isfinite(second)
    return close, others.argmax(axis=-1)


WINNER = Kinks(
    same=lambda cache, other: np.array_equal(cache[0], other[0]),
    continued=_of_winners,
    undecided=lambda layer, xs: (xs, int(_rivals(layer, xs)[0].sum())),
    chosen=_chosen_winners,
)


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
