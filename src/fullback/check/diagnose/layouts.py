"""A user's shapes, brought to the network's: other orders of axes, merged ones, ones of length 1.

An array may often be read in more than one way: (3, 3, 2, 4) as (rows, columns, channels, filters),
and (4, 3, 3, 3) as (filters, channels, rows, columns) or with the channels last. All likely ways
are kept, and the search takes the one that explains the numbers; a way that is less usual costs
more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.errors import ShapeError
from fullback.layers.base import Array, Shape

USUAL, UNUSUAL, FOREIGN = 0.02, 0.1, 0.2  # what a way to read costs

Order: TypeAlias = tuple[int, ...]

# Orders of (filters, channels, rows, columns), or (images, channels, rows, columns).
_ORDERS: list[Order] = [
    (0, 1, 2, 3),
    (0, 2, 3, 1),
    (2, 3, 1, 0),
    (1, 2, 3, 0),
    (1, 0, 2, 3),
    (2, 3, 0, 1),
]
_MERGED: list[Order] = [*_ORDERS, (0, 1, 3, 2), (3, 2, 1, 0), (0, 3, 2, 1), (1, 3, 2, 0)]
_CHANNELS_LAST = _ORDERS[1:4]


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read a submitted array: values of the network's shape, a phrase, and a cost.

    ``blur`` is how far off rounding may have left the values, as a norm. ``mistake`` is the
    catalogue's id where reading it so means a mistake, and ``description`` says which.
    """

    values: Array
    layout: str = ""
    cost: float = 0.0
    blur: float = 0.0
    mistake: str | None = None
    description: str = ""


@dataclass(frozen=True, eq=False)
class SubmittedArray:
    """A submitted array under the network's name, in every likely reading, the likeliest first."""

    name: str
    user_name: str
    readings: tuple[Reading, ...]
    dtype: np.dtype[Any]

    @property
    def values(self) -> Array:
        """The values in the likeliest reading."""
        return self.readings[0].values

    @property
    def reordered(self) -> bool:
        """Whether its layout is certainly another than the network's."""
        return self.readings[0].layout not in ("", "with axes of length 1 added or left out")


def read(
    name: str,
    user_name: str,
    array: Array,
    wanted: Shape,
    truth: Array,
    *,
    batch: bool,
    folded: Shape | None = None,
) -> SubmittedArray:
    """Find the ways to read a submitted array as one of the network's.

    Parameters
    ----------
    name, user_name : the network's name and the user's
    array : the array
    wanted, truth : the network's shape and the true values, by which the first reading is chosen
    batch : whether the first axis is the images
    folded : the (channels, rows, columns) that the last axis is made of, where it comes from
        Flatten and may be in another order

    Raises
    ------
    ShapeError
        It has another number of cells, or axes in no likely order.
    """
    values = array.astype(np.float64)
    found: list[Reading] = []
    for reading in _readings(values, wanted, "NCHW" if batch else "KCRS", folded):
        if not any(np.array_equal(reading.values, other.values) for other in found):
            found.append(reading)
    if not found:
        raise ShapeError(
            f"{user_name} has shape {array.shape}, which cannot be read as {name} of shape "
            f"{wanted}; give it in that order of axes"
        )
    # where two readings cost the same, the one that is more like the truth comes first
    found.sort(key=lambda reading: reading.cost - 0.5 * _likeness(reading.values, truth))
    return SubmittedArray(name, user_name, tuple(found), array.dtype)


def _readings(values: Array, wanted: Shape, axes: str, folded: Shape | None) -> Iterator[Reading]:
    if values.shape == wanted:
        yield Reading(values)
    elif _squeezed(values.shape) == _squeezed(wanted):
        yield Reading(values.reshape(wanted), "with axes of length 1 added or left out")
    if len(wanted) == 4:
        yield from _four(values, wanted, axes)
    elif len(wanted) == 2:
        if values.shape == wanted[::-1] and wanted[0] != wanted[1]:
            yield Reading(values.T, "transposed", USUAL)
        if folded is not None:
            yield from _folded(values, wanted, folded)
    elif values.size == int(np.prod(wanted)) and values.shape != wanted:
        yield Reading(values.reshape(wanted), "flattened", USUAL)
    if len(wanted) == 2 and values.size == int(np.prod(wanted)) and values.ndim == 1:
        yield Reading(values.reshape(wanted), "flattened", USUAL)
        yield Reading(values.reshape(wanted[::-1]).T, "flattened from its transpose", UNUSUAL)


def _four(values: Array, wanted: Shape, axes: str) -> Iterator[Reading]:
    """Yield the readings as four axes."""
    shape = _squeezed(values.shape)
    if values.shape == wanted or shape == _squeezed(wanted):
        orders = _CHANNELS_LAST  # anything else of the same shape would be a mistake
    elif len(shape) < len(_squeezed(wanted)):
        orders = _MERGED
    else:
        orders = _ORDERS
    some = False
    for order in orders:
        reading = _ordered(values, wanted, order, axes, USUAL)
        if reading is not None:
            some = True
            yield reading
    if not some and values.shape != wanted and shape != _squeezed(wanted):
        for order in itertools.permutations(range(4)):
            reading = _ordered(values, wanted, order, axes, UNUSUAL)
            if reading is not None:
                yield reading


def _ordered(
    values: Array, wanted: Shape, order: tuple[int, ...], axes: str, cost: float
) -> Reading | None:
    sizes = tuple(wanted[i] for i in order)
    if not _merges(sizes, values.shape):
        return None
    back = tuple(int(i) for i in np.argsort(order))
    name = f"in the order ({', '.join(axes[i] for i in order)})"
    merged = len(_squeezed(values.shape)) < len(_squeezed(sizes))
    ordered = np.ascontiguousarray(values.reshape(sizes).transpose(back))
    return Reading(ordered, name + ", flattened" * merged, cost)


def _folded(values: Array, wanted: Shape, folded: Shape) -> Iterator[Reading]:
    """Yield the readings whose last axis holds channels, rows and columns in another order."""
    whole = (wanted[0], *folded)
    for order in itertools.permutations(range(4)):
        if order.index(0) not in (0, 3):
            continue
        sizes = tuple(whole[i] for i in order)
        if not _merges(sizes, values.shape):
            continue
        back = tuple(int(i) for i in np.argsort(order))
        ordered = values.reshape(sizes).transpose(back).reshape(wanted)
        inner = [i for i in order if i]
        word = ", ".join(("channels", "rows", "columns")[i - 1] for i in inner)
        plain = inner == [1, 2, 3]
        cost = USUAL if plain else FOREIGN + (UNUSUAL if inner != [2, 3, 1] else 0)
        yield Reading(
            np.ascontiguousarray(ordered),
            ("transposed, " * (order[0] != 0)) + f"with its features in the order ({word})",
            cost,
        )


def _squeezed(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def _merges(sizes: Shape, shape: Shape) -> bool:
    """Whether neighbouring axes of ``sizes`` merge into ``shape``, but for those of length 1."""
    rest = list(_squeezed(sizes))
    for n in _squeezed(shape):
        product = 1
        while product < n and rest:
            product *= rest.pop(0)
        if product != n:
            return False
    return not rest


def _likeness(array: Array, truth: Array) -> float:
    with np.errstate(all="ignore"):
        product = float(abs((array * truth).sum()))
        sizes = length(array) * length(truth)
    return product / sizes if np.isfinite(sizes) and sizes > 0 and np.isfinite(product) else 0.0
