"""What can be said of a wrong array without knowing what made it wrong."""

from __future__ import annotations

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.layers.base import Array


def describe(theirs: Array, right: Array, axes: str) -> list[str]:
    """Say how an array differs from the right one: scale, sign, support, order, place, rank.

    Parameters
    ----------
    theirs, right : ndarrays of one shape
    axes : what the axes are, in the plural, separated by spaces: "images channels rows columns"
    """
    size, wanted = length(theirs), length(right)
    if size == 0:
        return ["it is zero everywhere, and should not be"]
    if wanted == 0:
        return ["it should be zero everywhere"]
    ratio = size / wanted
    cosine = float((theirs * right).sum() / (size * wanted))
    said = [f"its norm is {ratio:.4g} times the right one's, and their cosine is {cosine:.4f}"]
    if abs(cosine) > 1 - 1e-6:
        sign = ", with the other sign" if cosine < 0 else ""
        return [f"it is the right one times {np.sign(cosine) * ratio:.6g}{sign}"]
    names = axes.split()
    said += _places(theirs, right, names)
    said += _orders(theirs, right)
    extra = (theirs != 0) & (right == 0)
    missing = (theirs == 0) & (right != 0)
    for cells, how in (
        (extra, "not zero where it should be"),
        (missing, "zero where it should not be"),
    ):
        if cells.any():
            said.append(f"it is {how}, in {int(cells.sum())} of {cells.size} cells")
    if (theirs >= 0).all() and (right < 0).any():
        said.append("it has no negative cells, and should have some")
    if set(np.unique(theirs[:1000])) <= {0.0, 1.0}:
        said.append("its cells are only 0 and 1")
    if theirs.ndim == 2 and min(theirs.shape) > 1:
        ranks = [int(np.linalg.matrix_rank(a)) for a in (theirs, right)]
        if ranks[0] != ranks[1]:
            said.append(f"its rank is {ranks[0]}, and should be {ranks[1]}")
    return said


def _places(theirs: Array, right: Array, names: list[str]) -> list[str]:
    """Say along which axis only some slices are wrong."""
    wrong = abs(theirs - right) > 1e-3 * abs(right).max()
    found = []
    for axis, name in enumerate(names[: theirs.ndim]):
        others = tuple(a for a in range(theirs.ndim) if a != axis)
        slices = wrong.any(axis=others)
        count = int(slices.sum())
        if 0 < count < len(slices):
            which = ", ".join(map(str, np.flatnonzero(slices)[:6])) + ", ..." * (count > 6)
            found.append(f"only {count} of {len(slices)} {name} are wrong: {which}")
    return found


def _orders(theirs: Array, right: Array) -> list[str]:
    """Say whether the values are the right ones in another order."""
    if theirs.size > 3 and np.allclose(
        np.sort(theirs.ravel()), np.sort(right.ravel()), rtol=1e-4, atol=1e-6 * abs(right).max()
    ):
        return ["it holds the right values in another order"]
    signs = float((np.sign(theirs) == np.sign(right)).mean())
    return ["every sign is right"] if signs == 1 else []
