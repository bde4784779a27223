"""Folders of .npy arrays, which stay on the disk: data sets larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import Dataset, Split, from_file
from fullback.data.npz import FORMS
from fullback.errors import DataError
from fullback.pixels import channels_first


def is_array_folder(folder: Path) -> bool:
    """Whether a folder holds .npy files under the names of a data set."""
    return any(all((folder / f"{name}.npy").is_file() for name in form) for form in FORMS)


def load_array_folder(folder: Path, how: Split | None = None) -> Dataset:
    """Load x_train.npy, y_train.npy, x_test.npy and y_test.npy as memory maps.

    Images are read from the disk when they are trained on. With x.npy and y.npy alone, a share of
    each class is kept for testing (``how``), and to pick it the images are read into memory.

    Raises
    ------
    DataError
        A file is missing, damaged or not of plain numbers, or the arrays do not make a `Dataset`.
    """
    form = next(form for form in FORMS if all((folder / f"{name}.npy").is_file() for name in form))
    arrays = [map_array(folder / f"{name}.npy") for name in form]
    images = [channels_first(x) for x in arrays[::2]]
    return from_file(
        folder, folder.resolve().name, *zip(images, arrays[1::2], strict=True), how=how
    )


def map_array(path: Path) -> NDArray[Any]:
    """Open an .npy file as a memory map.

    Raises
    ------
    DataError
        It cannot be read, or is not of plain numbers.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: is not an intact .npy file of plain numbers ({error}); save it anew with "
            "np.save"
        ) from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: has dtype {array.dtype}; expected plain numbers")
    return array
