"""How the lines of a table are read: delimiter, header, columns of text, by the first lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fullback.data.image_files.image_formats import is_image_name
from fullback.data.tables.column_names import is_usual_name, names_rows
from fullback.errors import DataError

_DELIMITERS = ("\t", ";", ",", "|")
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*")


@dataclass(frozen=True)
class TableLayout:
    """How the lines of a file are read.

    Attributes
    ----------
    skipped : lines before the first row
    names : of the columns
    delimiter : None is any white space
    decimal_comma : whether numbers are written as 0,5
    width : columns; an empty one behind the last delimiter is none
    texts : the columns of text
    """

    skipped: int
    names: tuple[str, ...]
    delimiter: str | None
    decimal_comma: bool
    width: int
    texts: frozenset[int]


def find_layout(path: Path, sample: list[str]) -> TableLayout:
    """Recognise delimiter, header and columns of text by the first lines.

    Raises
    ------
    DataError
        There are no lines, or fewer names than columns.
    """
    skipped, stated = 0, None
    if sample and (match := re.fullmatch(r"sep=(.)\s*", sample[0])):  # as Excel reads it
        skipped, stated = 1, match[1]
    lines = sample[skipped:]
    if not lines:
        raise DataError(
            f"{path}: holds no images; expected a line an image: its label and its pixels"
        )
    delimiter = stated or _delimiter(lines)
    rows = _split(lines, delimiter)
    width = len(rows[0])
    longest = max(len(row) for row in rows)
    if longest == width + 1 and all(len(row) == longest for row in rows[1:]):
        raise DataError(
            f"{path}: has {width} names in its first line but {longest} columns; "
            "expected a name a column"
        )
    comma = delimiter != "," and any(
        _DECIMAL_COMMA.fullmatch(field) for row in rows for field in row
    )
    if comma:
        rows = [[with_point(field) for field in row] for row in rows]
    header = _is_header(rows)
    names = tuple(name.strip() for name in rows[0]) if header else ()
    texts = {
        number
        for row in rows[int(header) :]
        for number, field in enumerate(row)
        if not is_number(field)
    } | {number for number, name in enumerate(names) if names_rows(name)}
    return TableLayout(skipped + header, names, delimiter, comma, width, frozenset(texts))


def _split(lines: Sequence[str], delimiter: str | None) -> list[list[str]]:
    if delimiter is None:
        return [line.split() for line in lines]
    try:
        return [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:  # a field of more than 128 KiB
        return [line.split(delimiter) for line in lines]


def _delimiter(lines: Sequence[str]) -> str | None:
    """Return what stands between the fields: in every line equally often."""
    widths = {mark: [len(row) for row in _split(lines, mark)] for mark in (*_DELIMITERS, None)}
    for mark, counts in widths.items():
        if min(counts) > 1 and len(set(counts[1:] or counts)) == 1:
            return mark
    return max(widths, key=lambda mark: widths[mark][0])


def is_number(text: str) -> bool:
    """Whether a field is a number as a file of numbers has it."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def with_point(field: str) -> str:
    """Return a field with a decimal comma as one with a point; others as they are."""
    return field.replace(",", ".") if _DECIMAL_COMMA.fullmatch(field) else field


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns.

    It does where its numbers count the columns; where half of its fields are texts above numbers;
    and where all are texts of which one is what columns are called, or stands above image files.
    One text alone, as a mark for a value that is missing, makes no header.
    """
    first, rest = rows[0], rows[1:]
    if any(is_image_name(field) for field in first):
        return False
    texts = [n for n, field in enumerate(first) if not is_number(field)]
    numbers = [int(field) for field in first if field.strip().isdecimal()]
    counted = numbers in [list(range(start, start + len(numbers))) for start in (0, 1)]
    if counted and len(numbers) > (3 if texts else 8) and len(numbers) >= len(first) - 4:
        return True
    below = {n: [row[n] for row in rest if len(row) > n] for n in texts}
    above = [n for n in texts if below[n] and all(map(is_number, below[n]))]
    if above and 2 * len(above) >= len(first):
        return True
    if len(texts) < len(first):
        return False
    files = any(sum(map(is_image_name, column)) * 2 > len(column) for column in below.values())
    return files or any(is_usual_name(field) for field in first)
