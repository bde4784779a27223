"""Tables of one image a row: its label and its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import MAX_LABEL, Dataset
from fullback.data.options import ReadOptions
from fullback.data.split import from_file
from fullback.data.tables.delimited import Table
from fullback.data.tables.roles import Roles, find_roles, parts_of
from fullback.data.tables.table_layout import is_number
from fullback.errors import DataError
from fullback.pixels import ImageRecord, guessed_range


def load_pixel_table(table: Table, options: ReadOptions) -> Dataset:
    """Load images from a table of pixels; a fixed fifth of each class is kept for testing.

    Parameters
    ----------
    table : a row an image: its label and its pixels, a channel after the other, row by row. Whole
        pixels from 0 to 255 become uint8, others float32. The label column is recognised by its
        name, or by its values, see `find_roles`. A column split (set, subset, usage) of train, val
        and test says what a row is for
    options : without an image shape images are squares of one channel; of ``numbers`` to predict
        ``label_column`` may name several columns, with commas between them; for ``trained_on`` see
        `pixel_values`

    Raises
    ------
    DataError
        Not all is numbers, the label column is not known or says the same in each row, or the
        pixels are not those of such images.
    """
    path = table.path
    pixels = None if options.image_shape is None else math.prod(options.image_shape)
    roles = find_roles(table, options.label_column, pixels, numbers=options.numbers)
    shape = _shape_of(path, len(roles.pixels), options.image_shape)
    x = pixel_values(table, roles, options.trained_on).reshape(table.rows, *shape)
    y, names = labels_of(table, roles, numbers=options.numbers)
    parts = parts_of(table, roles.part)
    return from_file(
        path,
        stem(path),
        *([(x, y)] if len(parts) == 1 else [(x[rows], y[rows]) for rows in parts]),
        class_names=names,
        notes=roles.notes,
        how=options.how,
        numbers=options.numbers,
    )


def pixel_values(table: Table, roles: Roles, trained_on: ImageRecord | None = None) -> NDArray[Any]:
    """Return the pixels, of shape (N, pixels): uint8 where they are those of 8 bits, else float32.

    They are where they are whole, and the largest is one that is expected of 8 bits: not 1, or 16
    as in scikit-learn's digits. For a network that was trained it is known what they are.
    """
    x = table.matrix(roles.pixels)
    if x.dtype != np.uint8:
        return x
    high = float(x.max())
    eight_bits = guessed_range(0, high, whole=True) == (0.0, 255.0)
    if trained_on is not None and trained_on.low >= 0:  # else whole numbers are not its floats
        eight_bits = high > 1 and trained_on.high <= 1
    return x if eight_bits else x.astype(np.float32)


def stem(path: Path) -> str:
    """Return a file's name without what it ends with."""
    return Path(path.name.removesuffix(".gz")).stem


def labels_of(table: Table, roles: Roles, *, numbers: bool) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return each row's label and the classes' names, or the ``numbers`` to predict and no names.

    Raises
    ------
    DataError
        Labels are missing, or are not what is expected.
    """
    return (_numbers(table, roles), ()) if numbers else _classes(table, roles)


def _classes(table: Table, roles: Roles) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return each row's label, and the classes' names where the labels are not numbers from 0.

    Raises
    ------
    DataError
        All rows have the same label, one has none, or labels are fractions.
    """
    if len(roles.label) > 1:
        code = np.stack([table.column(n) for n in roles.label])
        return code.argmax(axis=0), ()
    column = roles.label[0]
    texts = table.text(column)
    values = sorted(set(texts), key=_order)
    where = f"{table.path}: the label column {table.named(column)}"
    if len(values) == 1:
        raise DataError(
            f"{where} has {values[0]!r} in all {table.rows:,} rows; expected at least two classes: "
            "name the label column with --label-column (label_column=)"
        )
    if "" in values:
        raise DataError(
            f"{where} has an empty field in row {texts.index('') + 1}; give that image a label, or "
            "leave it out"
        )
    if all(map(is_number, values)):
        numbers = np.array(texts, np.float64)
        if bad := [value for value in values if not float(value).is_integer()]:
            raise DataError(
                f"{where} has {bad[0]} in row {texts.index(bad[0]) + 1}; expected whole numbers or "
                "names as labels"
            )
        if numbers.min() >= 0 and numbers.max() <= MAX_LABEL:
            return numbers.astype(np.int64), ()
    known = {value: n for n, value in enumerate(values)}
    return np.array([known[text] for text in texts], np.int64), tuple(values)


def _numbers(table: Table, roles: Roles) -> NDArray[np.float64]:
    """Return each row's numbers to predict, of shape (N,) or (N, outputs).

    Raises
    ------
    DataError
        A field holds no number.
    """
    columns = []
    for n in roles.label:
        texts = table.text(n) if n in table.texts else []
        bad = next((row for row, text in enumerate(texts) if not is_number(text)), None)
        if bad is not None:
            raise DataError(
                f"{table.path}: the label column {table.named(n)} has {texts[bad][:40]!r} in row "
                f"{bad + 1}; expected a number to predict"
            )
        columns.append(np.asarray(texts or table.column(n), np.float64))
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _order(text: str) -> tuple[int, float, str]:
    return (0, float(text), "") if is_number(text) else (1, 0.0, text)


def _shape_of(path: Path, pixels: int, image_shape: Sequence[int] | None) -> tuple[int, ...]:
    if image_shape is None:
        side = math.isqrt(pixels)
        shape: tuple[int, ...] = (1, side, side)
    else:
        shape = (*(1,) * (3 - len(image_shape)), *image_shape)
    if math.prod(shape) != pixels or not pixels:
        third = math.isqrt(pixels // 3)
        colours = f", as 3x{third}x{third}" if pixels and 3 * third * third == pixels else ""
        raise DataError(
            f"{path}: has {pixels} pixels a line beside its label, which are not "
            f"{' x '.join(map(str, shape))}; give the image's shape with --image-size "
            f"(image_shape=){colours}"
        )
    return shape
