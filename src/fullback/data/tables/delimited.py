"""Text files of rows and columns: CSV, its relatives, and either of them packed with gzip."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import math
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from fullback.data.files import MAX_BYTES, open_data
from fullback.data.tables.table_layout import TableLayout, find_layout, with_point
from fullback.errors import DataError

SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".data")
"""How the names of such files end; ``.gz`` may follow."""

_LONGEST_LINE = 2**24  # characters: a line is one image
_SAMPLE = 100  # lines by which delimiter, header and columns of text are recognised
AT_ONCE = 2**21  # numbers that are parsed together
_MOST_TEXTS = 16  # columns of text
_MOST_NAMED = 64  # columns that are kept to the last digit because of their names
_NUMBERED = re.compile(r".*\d.*", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Table:
    """What a text file of rows and columns held.

    Attributes
    ----------
    path : the file
    names : the columns' names; () where there is no header
    rows, width : how many rows and columns there are
    texts : of each column that is not of numbers alone, the number of every row's text, of shape
        (rows,), and the texts
    """

    path: Path
    names: tuple[str, ...]
    rows: int
    width: int
    texts: dict[int, tuple[NDArray[np.int64], tuple[str, ...]]]
    _exact: dict[int, NDArray[np.float64]]
    _rest: NDArray[Any]  # (rows, columns that are in neither): uint8 where they fit, else float32
    _place: dict[int, int]  # of each column in _rest

    def column(self, number: int) -> NDArray[Any]:
        """Return a column of numbers, of shape (rows,)."""
        if number in self._exact:
            return self._exact[number]
        column: NDArray[Any] = self._rest[:, self._place[number]]
        return column

    def text(self, number: int) -> list[str]:
        """Return a column's texts, one a row; of numbers, as short as they can be written."""
        if number in self.texts:
            codes, texts = self.texts[number]
            return [texts[code] for code in codes]
        return [as_text(value) for value in self.column(number).tolist()]

    def matrix(self, columns: Sequence[int]) -> NDArray[Any]:
        """Return columns of numbers, of shape (rows, len(columns)).

        Whole numbers from 0 to 255 are uint8, others float32.
        """
        whole = self._rest.dtype == np.uint8 and all(
            are_bytes(self._exact[number]) for number in columns if number in self._exact
        )
        x = np.empty((self.rows, len(columns)), np.uint8 if whole else np.float32)
        for start in range(0, self.rows, 4096):  # rows at a time: both matrices lie row by row
            stop = start + 4096
            inside = [n for n, number in enumerate(columns) if number in self._place]
            x[start:stop, inside] = self._rest[start:stop][
                :, [self._place[columns[n]] for n in inside]
            ]
            for n, number in enumerate(columns):
                if number in self._exact:
                    x[start:stop, n] = self._exact[number][start:stop]
        return x

    def named(self, number: int) -> str:
        """Return what to call a column: its name, or its place counted from 0."""
        return repr(self.names[number]) if self.names else f"number {number}"


def as_text(value: float) -> str:
    """Write a number: 3.0 as 3."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def are_bytes(column: NDArray[Any]) -> bool:
    """Whether all numbers are whole and from 0 to 255."""
    with np.errstate(invalid="ignore"):
        return bool((column.astype(np.uint8) == column).all())


def is_table(path: Path) -> bool:
    """Whether a file's name ends as that of a CSV file, or of one of its relatives."""
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def read_table(path: Path, exact: int | str | None = None) -> Table:
    """Read a text file of rows and columns.

    The delimiter (comma, semicolon, tab, vertical bar, or white space), a header and columns of
    text are recognised by the first lines. Fields may be quoted, numbers of files with another
    delimiter may have a decimal comma, and empty lines are passed over.

    Parameters
    ----------
    path : the file; it may be packed with gzip
    exact : the name or the number of a column that is kept as float64; so are the outer ones, and
        those whose names are not numbered

    Raises
    ------
    DataError
        It cannot be read, is not text, its rows are not as long as each other, or its numbers need
        more than 4 GiB.
    """
    with _lines(path) as lines:
        layout = find_layout(path, list(itertools.islice(lines, _SAMPLE)))
    texts = set(layout.texts)
    while True:
        try:
            return _parse(path, layout, sorted(texts), exact)
        except _TextError as error:  # behind the first lines
            texts.add(error.column)
            if len(texts) > _MOST_TEXTS:
                raise DataError(
                    f"{path}: has text in more than {_MOST_TEXTS} columns, such as {error.text!r} "
                    f"in column {error.column}; expected a line an image, of numbers and its label"
                ) from None


class _TextError(Exception):
    """A column of numbers has a text in it."""

    def __init__(self, column: int, text: str) -> None:
        super().__init__(column, text)
        self.column, self.text = column, text


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """Open a text file and yield its lines, but empty ones."""
    with open_data(path, "a CSV file") as raw:
        magic = raw.read(4)
        raw.seek(0)
        packed = magic[:2] == b"\x1f\x8b"
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            start = file.read(4) if packed else magic
            file.seek(0)
            wide = start[:2] in (b"\xff\xfe", b"\xfe\xff")
            text = io.TextIOWrapper(file, "utf-16" if wide else "utf-8-sig")
            yield _nonempty(path, text)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: is not text in UTF-8 ({error.reason}); save it as CSV UTF-8"
            ) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path}: is not an intact gzip file ({error}); copy it again"
            ) from None


def _nonempty(path: Path, text: TextIO) -> Iterator[str]:
    size = 0
    while line := text.readline(_LONGEST_LINE):
        size += len(line)
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: has more than {MAX_BYTES:,} characters; save the images as x_train.npy "
                "and so on in a folder, from which they are trained on without being loaded"
            )
        if len(line) == _LONGEST_LINE:
            raise DataError(
                f"{path}: has a line of more than {_LONGEST_LINE:,} characters; expected a line an "
                "image"
            )
        if "\0" in line:
            raise DataError(f"{path}: is not text; expected a line an image")
        if not line.isspace():
            yield line


def _exact_columns(layout: TableLayout, exact: int | str | None) -> list[int]:
    """Return the columns that are kept as float64: those that may be other things than pixels."""
    width, names = layout.width, layout.names
    chosen = {0, 1, width - 2, width - 1} & set(range(width))
    chosen |= set(
        [n for n, name in enumerate(names) if not _NUMBERED.fullmatch(name)][:_MOST_NAMED]
    )
    if isinstance(exact, int) and -width <= exact < width:
        chosen.add(exact % width)
    chosen |= {n for n, name in enumerate(names) if name == exact}
    return sorted(chosen - layout.texts)


def _parse(path: Path, layout: TableLayout, texts: Sequence[int], exact: int | str | None) -> Table:
    """Read all rows, a block at a time, so that memory follows what is there."""
    width = layout.width
    codes: dict[int, dict[str, int]] = {number: {} for number in texts}
    precise = [number for number in _exact_columns(layout, exact) if number not in codes]
    apart = [*texts, *precise]
    rest = [number for number in range(width) if number not in set(apart)]
    blocks: list[NDArray[Any]] = []
    columns: list[NDArray[np.float64]] = []
    size = 0
    for block in _blocks(path, layout, codes):
        columns.append(block[:, apart])
        pixels = block[:, rest]
        whole = are_bytes(pixels)
        blocks.append(pixels.astype(np.uint8 if whole else np.float32))
        size += blocks[-1].nbytes + columns[-1].nbytes
        if size > MAX_BYTES:
            raise DataError(
                f"{path}: its numbers need more than {MAX_BYTES:,} bytes; save the images as "
                "x_train.npy and so on in a folder, from which they are trained on without being "
                "loaded"
            )
    if not blocks:
        raise DataError(f"{path}: holds no images; expected a line an image: label and pixels")
    known = np.concatenate(columns)
    return Table(
        path,
        layout.names,
        len(known),
        width,
        {
            number: (known[:, n].astype(np.int64), tuple(codes[number]))
            for n, number in enumerate(texts)
        },
        {number: known[:, n] for n, number in enumerate(precise, len(texts))},
        np.concatenate(blocks),
        {number: n for n, number in enumerate(rest)},
    )


def _blocks(
    path: Path, layout: TableLayout, codes: dict[int, dict[str, int]]
) -> Iterator[NDArray[np.float64]]:
    """Yield (rows, columns) of numbers; a text is its place among the texts of its column."""
    at_once = max(1, AT_ONCE // layout.width)

    def coded(known: dict[str, int]) -> Any:
        return lambda text: known.setdefault(text.strip(), len(known))

    options: dict[str, Any] = {
        "converters": {number: coded(known) for number, known in codes.items()},
        "delimiter": layout.delimiter,
        "comments": None,
        "quotechar": '"',
        "encoding": None,
        "ndmin": 2,
        "max_rows": at_once,
    }
    rows = 0
    with _lines(path) as lines:
        for _ in range(layout.skipped):
            next(lines)
        source = _with_points(lines, layout, set(codes)) if layout.decimal_comma else lines
        while True:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a file without data
                    block: NDArray[np.float64] = np.loadtxt(source, np.float64, **options)
            except UnicodeDecodeError:
                raise
            except ValueError as error:
                raise _explained(path, rows, error) from None
            if len(block):
                if block.shape[1] != layout.width:
                    raise DataError(
                        f"{path}: has {block.shape[1]} columns in row {rows + 1}; expected "
                        f"{layout.width}, as in its first line"
                    )
                yield block
            rows += len(block)
            if len(block) < at_once:
                return


def _with_points(lines: Iterator[str], layout: TableLayout, texts: set[int]) -> Iterator[str]:
    """Write decimal commas as points."""
    delimiter = layout.delimiter or " "
    for row in csv.reader(lines, delimiter=delimiter):
        fields = [f if n in texts else with_point(f) for n, f in enumerate(row)]
        yield delimiter.join('"' + f.replace('"', '""') + '"' for f in fields) + "\n"


def _explained(path: Path, rows: int, error: ValueError) -> Exception:
    """Return what to raise for an error of np.loadtxt in the block that begins at a row."""
    text = str(error)
    if match := re.fullmatch(
        r"could not convert string (?P<text>.*) to \w+ at row (?P<row>\d+), column (?P<column>\d+)"
        r"\.?",
        text,
        re.DOTALL,
    ):
        return _TextError(int(match["column"]) - 1, match["text"])
    if match := re.match(r"the number of columns changed from (\d+) to (\d+) at row (\d+)", text):
        row = rows + int(match[3])
        return DataError(
            f"{path}: has {match[2]} columns in row {row} but {match[1]} in those before it; "
            "expected as many in every row"
        )
    return DataError(f"{path}: is not a CSV file of numbers ({' '.join(text.split())[:200]})")
