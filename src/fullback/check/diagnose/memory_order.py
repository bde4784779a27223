"""Right values in another memory order than the program's weights: a mistake of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from fullback.check.diagnose.layouts import Axes, Reading, likeness, readable, squeezed
from fullback.check.diagnose.report import Evidence, Finding
from fullback.check.mistakes.common import MEMORY_ORDER
from fullback.layers.base import Array

COST = 1.05  # a mistake, and a little more than one that says how it came about
_ALIKE = 0.98  # cosine with the truth from which on the order is what explains an array
_MOST = 2


def memory_orders(axes: Axes, order: str, array: Array, truth: Array) -> list[Reading]:
    """Return the readings of a weight's gradient as a right one that lies in another order.

    The values may lie in any order of their axes, row by row or column by column. What the
    catalogue names otherwise is left out: rows and columns exchanged, channels and filters.

    Parameters
    ----------
    axes, order : the axes and the order in which the program's weights lie
    array : the gradient
    truth : the right values, in the network's shape
    """
    if array.size != truth.size or min(array.shape, default=0) < 1 or array.ndim < 1:
        return []
    ranked = np.sort(abs(array), axis=None), np.sort(abs(truth), axis=None)
    if likeness(*ranked) < _ALIKE:
        return []
    usual = axes.read(order, array)
    least = max(_ALIKE, likeness(usual, truth) + 1e-6)
    named = _exchanged(axes, usual)
    found: list[tuple[float, Reading]] = []
    for other, fortran in _orders(axes):
        flat = array.ravel(order="F" if fortran else "C")
        values = axes.read(other, flat)
        alike = likeness(values, truth)
        if alike < least or any(np.array_equal(values, one) for one in [usual, *named]):
            continue
        if any(np.array_equal(values, reading.values) for _, reading in found):
            continue
        said = _description(axes, order, other, array, fortran=fortran)
        found.append((alike, Reading(values, "", COST, mistake=MEMORY_ORDER.id, description=said)))
    found.sort(key=lambda pair: -pair[0])
    return [reading for _, reading in found[:_MOST]]


def misplaced(axes: Axes, order: str, array: Array) -> list[Reading]:
    """Return the reading of a gradient whose shape is that of its weight in another order alone."""
    for other in readable(axes, array.shape):
        said = _description(axes, order, other, array, fortran=False)
        values = axes.read(other, array)
        return [Reading(values, "", COST, mistake=MEMORY_ORDER.id, description=said)]
    return []


def order_findings(read: Mapping[str, Reading]) -> list[Finding]:
    """Return a finding for every array that was read in another memory order by mistake.

    Parameters
    ----------
    read : by the gradient's name, "conv1.weight", the reading that explains it
    """
    return [
        Finding(
            MEMORY_ORDER.id,
            name.split(".")[0],
            "weight gradient",
            exact=True,
            evidence=Evidence(name, float("nan"), None, f"so read, {name} is right"),
            message=f"{MEMORY_ORDER.sentence} {name}: {reading.description}.",
            mend=MEMORY_ORDER.mend,
            hint=MEMORY_ORDER.hint,
            expect=f"{name} is right.",
        )
        for name, reading in read.items()
        if reading.mistake == MEMORY_ORDER.id
    ]


def _orders(axes: Axes) -> Iterator[tuple[str, bool]]:
    for fortran in (False, True):
        for letters in itertools.permutations(axes.letters):
            yield "".join(letters), fortran


def _exchanged(axes: Axes, usual: Array) -> list[Array]:
    """Return what the catalogue names otherwise, of the values in the usual reading."""
    found = []
    if axes.letters == "KCRS":
        if usual.shape[2] == usual.shape[3]:
            found.append(usual.swapaxes(2, 3))
        if usual.shape[0] == usual.shape[1]:
            found += [usual.swapaxes(0, 1), *(f.swapaxes(0, 1) for f in found)]
    elif usual.shape[0] == usual.shape[1]:
        found.append(usual.T)
    return found


def _description(axes: Axes, order: str, other: str, array: Array, *, fortran: bool) -> str:
    """Say how the values lie, and how they should."""
    column = " column by column (order='F')" if fortran and len(squeezed(array.shape)) > 1 else ""
    lie = f"its values lie in the order ({', '.join(_spoken(axes, other))}){column}"
    if other == order and fortran:
        return f"{lie}, where the weight's lie row by row"
    return f"{lie}, where the weight's lie in the order ({', '.join(_spoken(axes, order))})"


def _spoken(axes: Axes, order: str) -> list[str]:
    if axes.letters == "KCRS":
        return list(order)
    words = {"U": "units", "F": "features", "C": "channels", "H": "rows", "W": "columns"}
    return [words[letter] for letter in order]
