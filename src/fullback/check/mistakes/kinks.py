"""Layers that choose among cells: rectifiers, and max pooling.

Where a ReLU's input is 0, or so close to it that rounding decides, or a window's largest cells are
as close to each other, a right program may decide either way: such a unit is *undecided*, a
*kink*. Most programs decide exact ties by one rule everywhere. Finite differences keep to the
choice that was made at a point, and look whether a step leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fullback.layers.base import Array
from fullback.layers.window import crop, pad, pair, windows

_CLOSE = 4.0  # deviations of the noise within which a kink may be decided either way


class Bounds(NamedTuple):
    """A delta that lies between two arrays, whichever way the undecided units are decided."""

    low: Array
    high: Array


@dataclass(frozen=True)
class Kinks:
    """How a kind of layer chooses. A ``cache`` is what its forward pass keeps.

    Attributes
    ----------
    same : whether two forward passes chose the same cells, from their caches
    continued : runs forward with the choice of another pass, from layer, x and that pass's cache
    undecided : marks the units that rounding or an exact tie decides, from the layer, its inputs
        (the exact one first, then noisy ones) and its cache
    tied : the cache, and what else a pass has computed, in which these units are exact ties
    choices : the caches of the other decisions, one for each group of units that a program
        computes alike, from layer, x, cache, undecided units, and the cells of x that no delta
        passes below, or None: what makes no difference further down is left out
    bounds : carries bounds of the delta back, from layer, cache, undecided units or None, and
        bounds
    """

    same: Callable[[Any, Any], bool]
    continued: Callable[[Any, Array, Any], Array]
    undecided: Callable[[Any, list[Array], Any], Array]
    tied: Callable[[Any, Any, Array], tuple[Any, dict[str, Array]]]
    choices: Callable[[Any, Array, Any, Array, Array | None], Iterator[Any]]
    bounds: Callable[[Any, Any, Array | None, Bounds], Bounds]


# ReLU and LeakyReLU: the cache is the input -------------------------------------------------------


def _near_zero(layer: Any, xs: list[Array], cache: Any) -> Array:
    spread = np.max([abs(x - xs[0]) for x in xs], axis=0)
    near: Array = abs(xs[0]) <= _CLOSE * spread
    return near


def slope_below(layer: Any) -> float:
    """Return a rectifier's slope where its input is not positive."""
    return float(getattr(layer, "slope", 0.0))


def _other_sides(
    layer: Any, x: Array, cache: Any, undecided: Array, closed: Array | None
) -> Iterator[Any]:
    """Yield the input with equal numbers of a channel on the other side of 0, one after another."""
    places = np.nonzero(undecided)
    values = x[places]
    keys = np.stack([places[1].astype(np.float64), values])
    _, group = np.unique(keys, axis=1, return_inverse=True)
    for number in range(int(group.max(initial=-1)) + 1):
        moved, here = cache.copy(), group.ravel() == number
        moved[tuple(p[here] for p in places)] = np.where(values[here] > 0, -1e-300, 1e-300)
        yield moved


def _rectified(layer: Any, cache: Any, undecided: Array | None, delta: Bounds) -> Bounds:
    slope = slope_below(layer)
    low, high = (np.where(cache > 0, d, slope * d) for d in delta)
    if undecided is None:
        return Bounds(np.minimum(low, high), np.maximum(low, high))
    both = [delta.low, delta.high, slope * delta.low, slope * delta.high]
    least, most = np.minimum.reduce(both), np.maximum.reduce(both)
    return Bounds(np.where(undecided, least, low), np.where(undecided, most, high))


RECTIFIER = Kinks(
    same=lambda cache, other: np.array_equal(cache > 0, other > 0),
    continued=lambda layer, x, cache: np.where(cache > 0, x, slope_below(layer) * x),
    undecided=_near_zero,
    tied=lambda layer, cache, undecided: (np.where(undecided, 0.0, cache), {}),
    choices=_other_sides,
    bounds=_rectified,
)


# MaxPool2D: the cache begins with each window's winner, and ends with the padding -----------------


def cells_of(layer: Any, x: Array, around: Any, fill: float = -np.inf) -> Array:
    """Return the cells (N, C, P, Q, R S) of the windows."""
    every = windows(pad(x, around, fill), layer.size, layer.step)
    return every.reshape(*every.shape[:4], -1)


def _of_winners(layer: Any, x: Array, cache: Any) -> Array:
    """Run forward with those cells that won."""
    winner, _, around = cache
    y: Array = np.take_along_axis(cells_of(layer, x, around, 0.0), winner[..., None], axis=-1)
    return y[..., 0]


def _rivals(layer: Any, xs: list[Array], cache: Any) -> Array:
    """Mark the cells of a window of which any may win, where there are several."""
    around = cache[-1]
    cells = cells_of(layer, xs[0], around)
    spread = np.max([abs(x - xs[0]) for x in xs], axis=0)
    noise = cells_of(layer, spread, around, 0.0).max(axis=-1, keepdims=True)
    rivals = cells >= cells.max(axis=-1, keepdims=True) - _CLOSE * noise
    several: Array = rivals & (rivals.sum(axis=-1, keepdims=True) > 1)
    return several


def _ties(layer: Any, cache: Any, undecided: Array) -> tuple[Any, dict[str, Array]]:
    winner, *rest = cache
    several: Any = undecided.any(axis=-1)
    winner = np.where(several, undecided.argmax(axis=-1), winner)
    alone = winner[..., None] == np.arange(undecided.shape[-1])
    ties = np.where(several[..., None], undecided, alone).astype(np.float64)
    return (winner, *rest), {"ties": np.moveaxis(ties, -1, 0)}  # (R S, N, C, P, Q)


def _other_winners(
    layer: Any, x: Array, cache: Any, undecided: Array, closed: Array | None
) -> Iterator[Any]:
    """Yield the windows of a channel that hold the same with another winner, place by place."""
    winner, *rest = cache
    several: Any = undecided.any(axis=-1)
    if closed is not None:
        passes = cells_of(layer, 1.0 - closed, rest[-1], 0.0) > 0
        several = (undecided & passes).any(axis=-1)
    where = np.nonzero(several)
    if not len(where[0]):
        return
    rivals = undecided[where]
    largest = cells_of(layer, x, rest[-1])[where].max(axis=-1)
    keys = np.stack([where[1].astype(np.float64), largest, winner[where].astype(np.float64)])
    _, group = np.unique(np.concatenate([keys, rivals.T]), axis=1, return_inverse=True)
    group = group.ravel()
    for number in range(int(group.max()) + 1):
        here = group == number
        at = tuple(p[here] for p in where)
        for place in np.flatnonzero(rivals[int(here.argmax())]):
            if place != winner[at][0]:
                moved = winner.copy()
                moved[at] = place
                yield (moved, *rest)


def _shared(layer: Any, cache: Any, undecided: Array | None, delta: Bounds) -> Bounds:
    """Give each rival anything between nothing and all of the delta, and a sole winner all."""
    winner, shape, around = cache
    if undecided is None:
        undecided = np.zeros((*winner.shape, 1), bool)
    several: Any = undecided.any(axis=-1)
    low, high = np.zeros(shape), np.zeros(shape)
    least, most = np.minimum(delta.low, 0), np.maximum(delta.high, 0)
    down, across = layer.step
    rows, wide = winner.shape[2:]
    for place, (r, s) in enumerate(np.ndindex(*pair(layer.size))):
        won = (winner == place) & ~several
        may = several & undecided[..., min(place, undecided.shape[-1] - 1)]
        for canvas, alone, shared in ((low, delta.low, least), (high, delta.high, most)):
            cells = canvas[:, :, r::down, s::across][:, :, :rows, :wide]
            cells += np.where(won, alone, 0.0) + np.where(may, shared, 0.0)
    return Bounds(crop(low, around), crop(high, around))


WINNER = Kinks(
    same=lambda cache, other: np.array_equal(cache[0], other[0]),
    continued=_of_winners,
    undecided=_rivals,
    tied=_ties,
    choices=_other_winners,
    bounds=_shared,
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
