"""CSV files of one image a line: its label and its pixels."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import Dataset, Split, from_file
from fullback.data.files import MAX_BYTES, open_data
from fullback.data.images import check_image_shape
from fullback.errors import DataError

_MOST_LINE = 2**20  # bytes: a line is one image


def load_csv(
    path: Path, image_shape: Sequence[int] | None = None, how: Split | None = None
) -> Dataset:
    """Load images from a CSV file; a fixed fifth of each class is kept for testing.

    Parameters
    ----------
    path : path
        A line an image: its label and its pixels, a channel after the other, row by row. A first
        line that is not of numbers names the columns, of which one may be "label"; without it the
        label comes first. Whole pixels from 0 to 255 become uint8, others float32.
    image_shape : (rows, columns) or (channels, rows, columns)
        By default a square of one channel.
    how : which images are kept for testing

    Raises
    ------
    DataError
        It cannot be read or has more than 4 GiB, its lines are not as long as each other or not of
        numbers, or the pixels are not those of such images.
    """
    with open_data(path, "a CSV file") as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise DataError(
                f"{path}: has more than {MAX_BYTES:,} bytes; save the images as x_train.npy and "
                "so on in a folder, from which they are trained on without being loaded"
            )
        first = file.readline(_MOST_LINE).decode("utf-8-sig", "replace").strip()
        names = [name.strip().strip("\"'").lower() for name in first.split(",")]
        header = not all(map(_is_number, names))
        label = names.index("label") if header and "label" in names else 0
        file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a file without data
                values = np.loadtxt(file, np.float32, delimiter=",", skiprows=int(header), ndmin=2)
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}: is no CSV file of numbers ({error}); expected a line an image: its label "
                "and its pixels"
            ) from None
    if len(values) == 0 or values.shape[1] < 2:
        raise DataError(f"{path}: holds no images; expected a line an image: label and pixels")
    y: NDArray[Any] = values[:, label]
    x: NDArray[Any] = np.delete(values, label, axis=1)
    wanted = None if image_shape is None else check_image_shape(image_shape)
    shape = _shape_of(path, x.shape[1], wanted)
    if ((x >= 0) & (x <= 255) & (x == np.floor(x))).all() and x.max() > 1:
        x = x.astype(np.uint8)
    return from_file(path, path.stem, (x.reshape(len(x), *shape), y), how=how)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _shape_of(path: Path, pixels: int, image_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if image_shape is None:
        side = math.isqrt(pixels)
        shape: tuple[int, ...] = (1, side, side)
    else:
        shape = (1,) * (3 - len(image_shape)) + image_shape
    if math.prod(shape) != pixels:
        raise DataError(
            f"{path}: has {pixels} pixels a line, which are not {' x '.join(map(str, shape))}; "
            "give the image's shape"
        )
    return shape
