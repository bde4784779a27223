"""What can be said of a wrong array without knowing what made it wrong."""

from __future__ import annotations

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.layers.base import Array
from fullback.options import listed


def describe(array: Array, right: Array, *, parameter: bool = False) -> list[str]:
    """Say how an array differs from the right one: scale, sign, support, order, place, rank.

    Parameters
    ----------
    array, right : ndarrays of one shape
    parameter : whether they are gradients of a parameter, or else of a batch
    """
    size, wanted = length(array), length(right)
    if size == 0:
        return ["it is zero everywhere, and should not be"]
    if wanted == 0:
        return ["it should be zero everywhere"]
    ratio = size / wanted
    cosine = float((array * right).sum() / (size * wanted))
    words = [f"its norm is {ratio:.4g} times the right one's, and their cosine is {cosine:.4f}"]
    if abs(cosine) > 1 - 1e-6:
        sign = ", with the other sign" if cosine < 0 else ""
        return [f"it is the right one times {np.sign(cosine) * ratio:.6g}{sign}"]
    names = ["images", "features"] if not parameter else ["units", "features"]
    if array.ndim == 4:
        names = ["filters" if parameter else "images", "channels", "rows", "columns"]
    words += _places(array, right, names)
    words += _orders(array, right)
    extra = (array != 0) & (right == 0)
    missing = (array == 0) & (right != 0)
    for cells, how in (
        (extra, "not zero where it should be"),
        (missing, "zero where it should not be"),
    ):
        if cells.any():
            words.append(f"it is {how}, in {int(cells.sum())} of {cells.size} cells")
    if (array >= 0).all() and (right < 0).any():
        words.append("it has no negative cells, and should have some")
    if set(np.unique(array[:1000])) <= {0.0, 1.0}:
        words.append("its cells are only 0 and 1")
    if array.ndim == 2 and min(array.shape) > 1:
        ranks = [int(np.linalg.matrix_rank(a)) for a in (array, right)]
        if ranks[0] != ranks[1]:
            words.append(f"its rank is {ranks[0]}, and should be {ranks[1]}")
    return words


def off_by(error: float, size: float, what: str = "off the right values") -> str:
    """Say how far off an array is, as a share of the right one's ``size``."""
    return f"{percent(error / size)} {what}" if size else "not zero everywhere, as it should be"


def difference(
    array: Array, right: Array, what: str = "off the right values", *, parameter: bool = False
) -> str:
    """Say how far off an array is, and how it differs."""
    words, size = "; ".join(describe(array, right, parameter=parameter)), length(right)
    return f"{off_by(length(array - right), size, what)}: {words}" if size else words


def share(error: float, size: float) -> float:
    """Return the relative error; infinity where it should be 0 everywhere."""
    return error / size if size else float("inf")


def percent(relative: float) -> str:
    """Write a relative error."""
    return f"{100 * relative:.3g} %" if relative >= 1e-5 else f"{relative:.0e}"


def _places(array: Array, right: Array, names: list[str]) -> list[str]:
    """Say along which axis only some slices are wrong."""
    wrong = abs(array - right) > 1e-3 * abs(right).max()
    found = []
    for axis, name in enumerate(names[: array.ndim]):
        others = tuple(a for a in range(array.ndim) if a != axis)
        slices = wrong.any(axis=others)
        count = int(slices.sum())
        if 0 < count < len(slices):
            which = listed(np.flatnonzero(slices).tolist(), 6)
            found.append(f"only {count} of {len(slices)} {name} are wrong: {which}")
    return found


def _orders(array: Array, right: Array) -> list[str]:
    """Say whether the values are the right ones in another order."""
    if array.size > 3 and np.allclose(
        np.sort(array.ravel()), np.sort(right.ravel()), rtol=1e-4, atol=1e-6 * abs(right).max()
    ):
        return ["it holds the right values in another order"]
    signs = float((np.sign(array) == np.sign(right)).mean())
    return ["every sign is right"] if signs == 1 else []
