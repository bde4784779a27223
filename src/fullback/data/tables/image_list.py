"""CSV files of the names of image files and their labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fullback.data.dataset import Dataset
from fullback.data.image_files.image_formats import IMAGE_SUFFIXES, is_image_name
from fullback.data.image_files.image_parts import Part, read_parts
from fullback.data.image_files.image_sizes import sample
from fullback.data.options import ReadOptions
from fullback.data.split import from_file
from fullback.data.tables.column_names import (
    FILE_NAMES,
    LABEL_NAMES,
    PART_NAMES,
)
from fullback.data.tables.delimited import Table
from fullback.data.tables.pixel_table import labels_of, stem
from fullback.data.tables.roles import (
    Roles,
    by_name,
    column_numbers,
    differs,
    is_empty,
    parts_of,
    same_labels,
)
from fullback.errors import DataError
from fullback.options import listed

_MOST_NUMBERS = (
    48  # columns, beyond which they are pixels, and a file's name is what a row is called
)
_LOOKED_AT = 100  # names by which it is seen that they are files


@dataclass(frozen=True)
class ImageList:
    """A table of image files.

    Attributes
    ----------
    table : the table
    column : where the files' names are
    folder : what they are relative to
    """

    table: Table
    column: int
    folder: Path

    def files(self) -> list[Path]:
        """Return each row's file, whether it is there or not.

        A name without an ending is that of the one file that has an ending.

        Raises
        ------
        DataError
            A name leads out of the folder, or none of the files is there.
        """
        root = Path(os.path.realpath(self.folder))
        files = []
        for row, name in enumerate(self.table.text(self.column)):
            path = Path(os.path.realpath(_existing(root, name)))
            if not path.is_relative_to(root) or "\0" in name:
                raise DataError(
                    f"{self.table.path}: {name[:80]!r} in row {row + 1} leads out of "
                    f"{self.folder}; expected files in that folder: give another one with "
                    "--image-folder (image_folder=)"
                )
            files.append(path)
        if not any(map(os.path.isfile, files)):
            raise DataError(
                f"{self.table.path}: not one of its {len(files):,} files is in {self.folder}, such "
                f"as {self.table.text(self.column)[0][:80]!r}; give the folder of the images with "
                "--image-folder (image_folder=)"
            )
        return files


def _existing(root: Path, name: str) -> Path:
    """Return where a file is said to be."""
    for text in dict.fromkeys((name, name.replace("\\", "/"))):  # as Windows writes it
        for suffix in ("", *IMAGE_SUFFIXES) if not is_image_name(text) else ("",):
            path = root / (text + suffix)
            if "\0" not in text and os.path.isfile(path):  # noqa: PTH113 -- Path.is_file can raise
                return path
    return root / name.replace("\0", "")


def as_image_list(table: Table, image_folder: str | os.PathLike[str] | None) -> ImageList | None:
    """Return a table as one of image files, if it is; else None.

    It is where texts of a column end as image files do, or a column that is called file, path or
    the like is all there is beside few others.
    """
    if table.width - len(table.texts) > _MOST_NUMBERS:
        return None
    folder = table.path.parent if image_folder is None else Path(image_folder)
    for column in table.texts:
        names = table.text(column)[:_LOOKED_AT]
        if 2 * sum(map(is_image_name, names)) > len(names):
            return ImageList(table, column, folder)
    named = by_name(table, FILE_NAMES, list(table.texts))
    return None if named is None or not differs(table, named) else ImageList(table, named, folder)


def load_image_list(images: ImageList, options: ReadOptions) -> Dataset:
    """Load the image files that a table names.

    Parameters
    ----------
    images : the table. A column split (set, subset, usage) of train, val and test says what an
        image is for; without it a fixed fifth of each class is kept for testing
    options : as for `load_image_folder`; of ``numbers`` to predict several label columns may be
        given, and by default all columns of numbers are taken

    Raises
    ------
    DataError
        No files are there, one is outside of the folder, the label column is not known, or
        whatever `load_image_folder` raises.

    Warns
    -----
    FullbackWarning
        Of each file that cannot be read, which is left out, and how many there are.
    """
    table = images.table
    roles = list_roles(images, options.label_column, numbers=options.numbers)
    if not roles.label:
        raise DataError(
            f"{table.path}: has no label column beside its files; name it with --label-column "
            "(label_column=); for images without labels use fullback predict"
        )
    y, names = labels_of(table, roles, numbers=options.numbers)
    files = images.files()
    rows = parts_of(table, roles.part)
    parts = [
        Part(str(table.path), len(part), ((files[row], str(files[row]), int(row)) for row in part))
        for part in rows
    ]
    some = (files[row] for row in sample(rows[0].tolist()))
    pairs, notes = read_parts(str(table.path), parts, some, options)
    return from_file(
        table.path,
        stem(table.path),
        *((x, y[read]) for x, read in pairs),
        class_names=names,
        notes=(*roles.notes, *notes),
        how=options.how,
        store=options.store,
        numbers=options.numbers,
    )


def list_roles(
    images: ImageList, label_column: str | int | None, *, numbers: bool = False
) -> Roles:
    """Say what the columns of a table of image files are; without a label column it is ().

    Raises
    ------
    DataError
        Several columns could be the label column.
    OptionError
        There is no column ``label_column``.
    """
    table, file = images.table, images.column
    given = () if label_column is None else column_numbers(table, label_column, several=numbers)
    left = [n for n in range(table.width) if n not in (file, *given) and not is_empty(table, n)]
    part = by_name(table, PART_NAMES, left)
    left = [n for n in left if n != part]
    label = given or tuple(_labels_of(table, left, numbers=numbers))
    notes = [f"images are the files in column {table.named(file)}"]
    if label:
        word = "numbers to predict are" if numbers else "labels are"
        notes.append(f"{word} in column {', '.join(table.named(n) for n in label)}")
    return Roles(label, file, part, (), tuple(notes))


def _labels_of(table: Table, left: Sequence[int], *, numbers: bool) -> Sequence[int]:
    if numbers:
        return [n for n in left if n not in table.texts and not _counts_rows(table, n)]
    named = by_name(table, LABEL_NAMES, left)
    if named is not None:
        same_labels(table, (named,), left)  # raises where another one says something else
        return [named]
    few = [n for n in left if not differs(table, n)]
    if len(few) > 1:
        raise DataError(
            f"{table.path}: {listed([table.named(n) for n in few])} could each be the label "
            "column; name it with --label-column (label_column=)"
        )
    return few


def _counts_rows(table: Table, number: int) -> bool:
    return table.rows > 2 and bool((np.diff(table.column(number)) == 1).all())
