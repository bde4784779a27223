"""Which column of a table holds the labels, by its values, where no name says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.tables.delimited import Table
from fullback.errors import DataError
from fullback.options import listed

_MOST_CLASSES = 1000  # of labels that are recognised by their values
_MOST_COMMON = 0.9  # share of the commonest label, of labels that are recognised by their values
_RANGE = 0.9  # of the pixels' largest value, up to which labels differ from pixels


def labels_by_values(table: Table, left: Sequence[int]) -> tuple[tuple[int, ...], list[str]]:
    """Find the column that looks like labels: the first or the last, or else the only one."""
    ends = [n for n in (left[0], left[-1]) if n not in table.texts]
    inner = [n for n in left[1:-1] if n not in table.texts]
    largest = max((float(np.nanmax(table.column(n))) for n in inner), default=0.0)
    found = [n for n in dict.fromkeys(ends) if _looks_like_labels(table.column(n), largest)]
    if not found:
        found = [n for n in inner if _looks_like_labels(table.column(n), largest)]
    if len(found) == 1:
        column = table.column(found[0])
        place = {left[0]: "first", left[-1]: "last"}.get(found[0])
        where = f"the {place} column" if place else f"column {table.named(found[0])}"
        return (found[0],), [
            f"labels are in {where}, by its values: {len(np.unique(column))} whole numbers from "
            f"{column.min():g} to {column.max():g}"
        ]
    could = listed([table.named(n) for n in found])
    raise DataError(
        f"{table.path}: which of its {table.width} columns holds the labels is not clear "
        + (f"({could} could)" if found else "(none has few whole numbers, unlike the pixels)")
        + "; name it with --label-column NAME or NUMBER, from 0 (label_column=)"
    )


def numbers_by_values(table: Table, left: Sequence[int]) -> tuple[tuple[int, ...], list[str]]:
    """Find the numbers to predict: in the first or the last column, outside of all pixels' range.

    Fractions among whole numbers do as well.
    """
    inner = [n for n in left[1:-1] if n not in table.texts]
    low = min((float(np.nanmin(table.column(n))) for n in inner), default=0.0)
    high = max((float(np.nanmax(table.column(n))) for n in inner), default=0.0)
    whole = all(_is_whole(table.column(n)) for n in inner)
    found = []
    for n in dict.fromkeys((left[0], left[-1])):
        if n in table.texts:
            continue
        column = table.column(n)
        if column.min() < low or column.max() > high or (whole and not _is_whole(column)):
            found.append(n)
    if len(found) == 1:
        place = "first" if found[0] == left[0] else "last"
        column = table.column(found[0])
        return (found[0],), [
            f"the numbers to predict are in the {place} column, by its values: from "
            f"{column.min():g} to {column.max():g}"
        ]
    raise DataError(
        f"{table.path}: which of its {table.width} columns holds the numbers to predict is not "
        "clear; name it with --label-column NAME or NUMBER, from 0 (label_column=)"
    )


def _is_whole(column: NDArray[Any]) -> bool:
    return bool((column == np.trunc(column)).all())


def _looks_like_labels(column: NDArray[Any], largest: float) -> bool:
    """Whether a column has few whole values, none of them once, in another range than the pixels.

    A label that nearly all rows share could as well be a pixel of the background.
    """
    if not np.isfinite(column).all() or (column != np.trunc(column)).any():
        return False
    values, counts = np.unique(column, return_counts=True)
    if not 2 <= len(values) <= min(_MOST_CLASSES, len(column) // 2) or counts.min() < 2:
        return False
    sorted_by = int(np.count_nonzero(np.diff(column))) == len(values) - 1
    if sorted_by and len(column) >= 4 * len(values):
        return True
    other_range = not _RANGE * largest < values[-1] <= largest
    share = counts.max() / len(column)
    two = len(values) == 2 and counts.min() >= 0.01 * len(column)
    return other_range and (share <= _MOST_COMMON or two)
