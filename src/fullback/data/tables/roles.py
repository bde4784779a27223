"""What the columns of a table are: labels, the names of rows, parts, pixels."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullback.data.tables.column_names import ID_NAMES, LABEL_NAMES, PART_NAMES, plain
from fullback.data.tables.delimited import Table
from fullback.data.tables.label_values import labels_by_values, numbers_by_values
from fullback.data.tables.table_layout import is_number
from fullback.errors import DataError, OptionError
from fullback.options import listed

_MISSING = ("", "?", "-", ".", "na", "n/a", "#n/a", "null", "none", "nan", "missing")


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are, by their numbers.

    Attributes
    ----------
    label : where the labels are: no column, one, or those of a one-hot code
    name : what rows are called by, an id or a file name
    part : whether a row is for training or for testing
    pixels : the rest
    notes : what was found by looking at names or values, a line each
    """

    label: tuple[int, ...]
    name: int | None
    part: int | None
    pixels: tuple[int, ...]
    notes: tuple[str, ...]


def find_roles(
    table: Table,
    label_column: str | int | None,
    pixels: int | None,
    *,
    labelled: bool = True,
    numbers: bool = False,
) -> Roles:
    """Say what each column of a table of images is.

    Parameters
    ----------
    table : the table
    label_column : the name of the label column, or its number from 0, from the end if negative;
        of ``numbers`` several, with commas between them
    pixels : how many pixels an image has, where that is known; else images are squares
    labelled : whether there has to be a label column
    numbers : whether labels are numbers to predict

    Raises
    ------
    DataError
        There is no label column, or several columns could be it.
    OptionError
        There is no column ``label_column``.
    """
    left = [n for n in range(table.width) if not is_empty(table, n)]
    if len(left) < 2 and labelled:
        raise DataError(
            f"{table.path}: holds no images, as it has {len(left)} columns; expected a row an "
            "image: its label and its pixels, with commas between them"
        )
    given = () if label_column is None else column_numbers(table, label_column, several=numbers)
    part = by_name(table, PART_NAMES, [n for n in left if n not in given])
    name = _row_name(table, [n for n in left if n not in (*given, part)], numbers=numbers)
    left = [n for n in left if n not in (part, name)]
    notes = [] if name is None else [f"column {table.named(name)} names the rows"]
    label, same = given, list[int]()
    if given:
        notes.append(f"labels are in column {', '.join(table.named(n) for n in given)}, as given")
    if not given:
        label, note = _label(table, left, pixels, labelled=labelled, numbers=numbers)
        notes += note
        same = same_labels(table, label, left)
    rest = tuple(n for n in left if n not in (*label, *same))
    sure = given or _called_labels(table, label)
    others = _not_pixels(table, rest, pixels) if sure else []
    if others:
        rest = tuple(n for n in rest if n not in others)
        named = listed([table.named(n) for n in others])
        notes.append(f"left out, as not named as the {len(rest)} pixels are: {named}")
    if bad := [n for n in rest if n in table.texts]:
        raise DataError(_stray_text(table, bad))
    return Roles(label, name, part, rest, tuple(notes))


_PARTS = (
    ("train", "training"),
    ("test", "testing", "privatetest"),
    ("val", "valid", "validation", "publictest"),
)


def parts_of(table: Table, column: int | None) -> list[NDArray[np.int64]]:
    """Return the rows for training, for testing and for validation; of the last two if there are.

    Raises
    ------
    DataError
        The column says something else, or no row is for training.
    """
    if column is None:
        return [np.arange(table.rows)]
    said = [text.casefold() for text in table.text(column)]
    where = f"{table.path}: column {table.named(column)}"
    known = [word for words in _PARTS for word in words]
    other = next((row for row, text in enumerate(said) if text not in known), None)
    if other is not None:
        raise DataError(
            f"{where} says {said[other][:40]!r} in row {other + 1}; expected train, test or val"
        )
    rows = [np.flatnonzero(np.isin(said, words)) for words in _PARTS]
    if not len(rows[0]):
        raise DataError(f"{where} says of no row that it is for training; expected train")
    if not len(rows[1]):
        rows = [rows[0], rows[2]]
    return [part for part in rows if len(part)]


def column_numbers(table: Table, column: str | int, *, several: bool = False) -> tuple[int, ...]:
    """Return the number of a column that is given by its name or number, or of several."""
    if several and isinstance(column, str) and column not in table.names:
        numbers = tuple(_column_number(table, part.strip()) for part in column.split(","))
        if len(set(numbers)) < len(numbers):
            raise OptionError(f"{table.path}: {column!r} names a column twice")
        return numbers
    return (_column_number(table, column),)


def _column_number(table: Table, column: str | int) -> int:
    names = [plain(name) for name in table.names]
    if isinstance(column, str):
        for known, wanted in ((list(table.names), column), (names, plain(column))):
            if known.count(wanted) > 1:
                raise OptionError(
                    f"{table.path}: has {known.count(wanted)} columns {column!r}; give the label "
                    "column by its number, from 0"
                )
            if wanted in known:
                return known.index(wanted)
    try:
        number = int(column)
    except ValueError:
        found = listed([*map(repr, table.names)], 8)
        raise OptionError(
            f"{table.path}: has no column {column!r}; it has "
            + (f"the columns {found}" if names else "no header: give the column's number, from 0")
        ) from None
    if not -table.width <= number < table.width:
        raise OptionError(
            f"{table.path}: has no column {number}; it has the columns 0 to {table.width - 1}"
        )
    return number % table.width


def is_empty(table: Table, number: int) -> bool:
    """Whether a column is what stands behind a delimiter at the end of each line."""
    return number in table.texts and table.texts[number][1] == ("",)


def by_name(table: Table, wanted: Sequence[str], columns: Sequence[int]) -> int | None:
    """Return the column of the first of some names that there is."""
    names = {plain(table.names[n]): n for n in reversed(columns)} if table.names else {}
    return next((names[name] for name in wanted if name in names), None)


def _row_name(table: Table, columns: Sequence[int], *, numbers: bool) -> int | None:
    """Return the column that names the rows, by its own name or because it counts them."""
    named = by_name(table, ID_NAMES, columns)
    if named is not None and differs(table, named):
        return named
    if columns and columns[0] == 0 and table.rows > 2:
        if 0 in table.texts:
            return 0 if len(table.texts[0][1]) == table.rows else None
        column = table.column(0)  # shuffled rows count as well
        if (np.diff(column if numbers else np.sort(column)) == 1).all():
            return 0
    return None


def _lacks_numbers(table: Table, number: int) -> bool:
    """Whether a column is of numbers, but for marks where a value is missing."""
    texts = [text for text in table.texts[number][1] if not is_number(text)]
    return all(text.casefold() in _MISSING for text in texts)


def differs(table: Table, number: int) -> bool:
    """Whether a column has another value in most rows, as labels do not."""
    if number in table.texts:
        return 2 * len(table.texts[number][1]) > table.rows
    return 2 * len(np.unique(table.column(number))) > table.rows


def _label(
    table: Table, left: Sequence[int], pixels: int | None, *, labelled: bool, numbers: bool
) -> tuple[tuple[int, ...], list[str]]:
    """Find the label column by its name or its values, and say how."""
    named = _called_labels(table, left)
    if not named and (odd := _named_otherwise(table, left)) is not None:
        named = [odd]
    texts = [n for n in left if n in table.texts and not _lacks_numbers(table, n)]
    if not named and len(texts) == 1 and not numbers:
        named = texts
    if named:
        return (named[0],), [f"labels are in column {table.named(named[0])}"]
    if _fits(len(left), pixels):
        if labelled:
            raise DataError(_unlabelled(table, left, pixels))
        return (), []
    if numbers:
        return numbers_by_values(table, left)
    if code := _one_hot(table, left, pixels):
        return tuple(code), [f"labels are in the last {len(code)} columns, of which one a row is 1"]
    if not labelled and len(left) - 1 != pixels:
        return (), []
    return labels_by_values(table, left)


def same_labels(table: Table, label: tuple[int, ...], left: Sequence[int]) -> list[int]:
    """Return other columns that are called as labels are, and say the same as the label column."""
    named = {*_called_labels(table, left)} - {*label}
    if len(label) != 1 or not named:
        return []
    for other in sorted(named):
        if not _says_the_same(table, label[0], other):
            raise DataError(
                f"{table.path}: {table.named(label[0])} and {table.named(other)} could both be "
                "the label column; name it with --label-column (label_column=)"
            )
    return sorted(named)


def _called_labels(table: Table, columns: Sequence[int]) -> list[int]:
    """Return the columns that are called as labels are, in the order of those names."""
    if not table.names:
        return []
    names = {n: plain(table.names[n]) for n in columns}
    found = [n for n in columns if names[n] in LABEL_NAMES]
    return sorted(found, key=lambda n: LABEL_NAMES.index(names[n]))


def _named_otherwise(table: Table, left: Sequence[int]) -> int | None:
    """Return the one column whose name is not made as those of all others are: pixel0, pixel1."""
    others = _others(table, left)
    return others[0] if len(others) == 1 and len(left) > 2 else None


def _not_pixels(table: Table, left: Sequence[int], pixels: int | None) -> list[int]:
    """Return columns beside those of an image's pixels, whose names are all made alike."""
    if _fits(len(left), pixels) and not any(n in table.texts for n in left):
        return []
    others = _others(table, left)
    return others if _fits(len(left) - len(others), pixels) else []


def _others(table: Table, left: Sequence[int]) -> list[int]:
    """Return the columns beside those with the commonest form of name, where that has a number.

    The form of pixel17 is pixel0.
    """
    if not table.names or not left:
        return []
    forms = {n: re.sub(r"\d+", "0", plain(table.names[n])) for n in left}
    common = Counter(forms.values()).most_common(1)[0][0]
    return [n for n in left if forms[n] != common] if "0" in common else []


def _says_the_same(table: Table, one: int, other: int) -> bool:
    """Whether each label of one column goes with one label of the other, as 0 does with cat."""
    pairs = set(zip(table.text(one), table.text(other), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _fits(columns: int, pixels: int | None) -> bool:
    return columns == pixels if pixels is not None else math.isqrt(columns) ** 2 == columns


def _unlabelled(table: Table, left: Sequence[int], pixels: int | None) -> str:
    side = math.isqrt(len(left))
    shape = f"{len(left)}" if pixels is not None else f"{side} x {side} = {len(left)}"
    return (
        f"{table.path}: has {shape} pixels a line and no label column; expected a line an image: "
        "its label and its pixels (name the column with --label-column if one of them holds "
        "labels; for images without labels use fullback predict)"
    )


def _one_hot(table: Table, left: Sequence[int], pixels: int | None) -> Sequence[int]:
    """Return the last columns where they are a one-hot code behind the pixels of an image."""
    count = math.isqrt(len(left)) ** 2 if pixels is None else pixels
    code = left[count:]
    if len(code) < 2 or any(n in table.texts for n in code):
        return ()
    values = np.stack([table.column(n) for n in code])
    return code if (values.sum(axis=0) == 1).all() and np.isin(values, (0, 1)).all() else ()


def _stray_text(table: Table, columns: Sequence[int]) -> str:
    """Say which text stands where pixels are expected."""
    column = columns[0]
    codes, texts = table.texts[column]
    place = next((n for n, code in enumerate(codes) if not is_number(texts[code])), 0)
    text = texts[codes[place]]
    said = repr(text[:40]) if text else "an empty field"
    return (
        f"{table.path}: has {said} in row {place + 1}, column {table.named(column)}, where a pixel "
        "is expected; put a number there, or name the label column with --label-column "
        "(label_column=)"
    )
