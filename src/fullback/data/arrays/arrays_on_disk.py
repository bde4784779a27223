"""Folders of .npy arrays, which stay on the disk: data sets larger than memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.arrays.array_header import HEADER_BYTES, read_array_header
from fullback.data.arrays.npz import FORMS, image_pairs
from fullback.data.dataset import Dataset
from fullback.data.files import MAX_BYTES, open_data
from fullback.data.split import Split, from_file
from fullback.data.store import MEMORY, Store
from fullback.data.unpacked import About
from fullback.errors import DataError


def is_array_folder(folder: Path) -> bool:
    """Whether a folder holds .npy files under the names of a data set."""
    return any(all((folder / f"{name}.npy").is_file() for name in form) for form in FORMS)


def load_array_folder(
    folder: Path, how: Split | None = None, *, numbers: bool = False, store: Store = MEMORY
) -> Dataset:
    """Load x_train.npy, y_train.npy, x_test.npy, y_test.npy, and perhaps x_val.npy, y_val.npy.

    They are memory maps: images are read from the disk when they are trained on. With x.npy and
    y.npy alone, a share of each class is kept for testing (``how``), and to pick it the images are
    read into ``store``. A file dataset.json, which ``unpack_data`` writes, says their classes.

    Raises
    ------
    DataError
        A file is missing, damaged or not of plain numbers, or the arrays do not make a `Dataset`.
    """
    form = next(form for form in FORMS if all((folder / f"{name}.npy").is_file() for name in form))
    arrays = {name: map_array(folder / f"{name}.npy") for name in form}
    pairs = image_pairs(arrays, str(folder))
    about = About.of(folder) or About(folder.resolve().name)
    if about.numbers and not numbers:
        raise DataError(
            f"{folder}: holds numbers to predict, and no classes; give --regression (numbers=True)"
        )
    return from_file(
        folder,
        about.name,
        *pairs,
        class_names=() if numbers else about.class_names,
        notes=about.notes,
        read_with=about.read_with,
        how=how,
        numbers=numbers,
        store=store,
    )


def map_array(path: Path) -> NDArray[Any]:
    """Open an .npy file as a memory map; in another byte order than this machine's it is read.

    Raises
    ------
    DataError
        It cannot be read, or is not of plain numbers.
    """
    with open_data(path, "an .npy file") as file:
        total = os.fstat(file.fileno()).st_size
        header = read_array_header(file.read(HEADER_BYTES), total, f"{path}:")
    array: NDArray[Any] = np.memmap(
        path, header.dtype, "r", header.offset, header.shape, header.order
    )
    if not header.dtype.isnative and header.size <= MAX_BYTES:
        return array.astype(header.dtype.newbyteorder("="))
    return array
