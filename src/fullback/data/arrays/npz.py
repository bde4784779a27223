"""NumPy's .npz archives: a zip file of .npy arrays.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. `numpy.load` is not
used, because it allocates what an array's header claims before it looks at the data.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.arrays.array_header import HEADER_BYTES, read_array_header
from fullback.data.dataset import Dataset, without_column
from fullback.data.files import open_data
from fullback.data.split import Split, from_file
from fullback.data.store import MEMORY, UNPACK, Store
from fullback.errors import DataError
from fullback.options import listed
from fullback.pixels import channels_first

FORMS = (
    ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("x", "y"),
)
"""The names of a data set's arrays."""


def load_npz(
    path: str | os.PathLike[str],
    how: Split | None = None,
    *,
    numbers: bool = False,
    store: Store = MEMORY,
) -> Dataset:
    """Load a data set from an .npz file.

    Parameters
    ----------
    path : path-like
        A file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``, as Keras writes
        them, and perhaps ``x_val`` and ``y_val``; or with ``x`` and ``y``, of which a fixed fifth
        of each class is kept for testing. Images are (N, H, W), (N, C, H, W) or (N, H, W, C), see
        `fullback.pixels.channels_first`; labels are (N,) or (N, 1).
    how : Split, optional
        Which images are kept for testing, where the file has no test images.
    numbers : bool, default=False
        Whether the labels are numbers to predict, (N,) or (N, outputs), and no classes.
    store : Store
        Where the arrays are kept; by default in memory.

    Returns
    -------
    Dataset
        With images of shape (C, H, W), in the file's dtype.

    Raises
    ------
    DataError
        If the file cannot be opened, is not an intact .npz of plain numbers, unpacks to more than
        4 GiB, lacks an array, or if its arrays do not make a `Dataset`.
    """
    path = Path(path)
    pairs = image_pairs(read_npz(path, *FORMS, store=store), str(path))
    return from_file(path, path.stem, *pairs, how=how, numbers=numbers, store=store)


def image_pairs(
    arrays: Mapping[str, NDArray[Any]], what: str
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return images (N, C, H, W) and labels, of each part, of arrays in the order of a form."""
    pairs = []
    names = list(arrays)
    for x, y in zip(names[::2], names[1::2], strict=True):
        pairs.append((channels_first(arrays[x], f"{what}: {x}"), without_column(arrays[y])))
    return pairs


def read_npz(
    path: str | os.PathLike[str], *forms: tuple[str, ...], store: Store = MEMORY
) -> dict[str, NDArray[Any]]:
    """Read arrays of plain numbers from an .npz file, by name.

    Parameters
    ----------
    path : the file
    forms : names that belong together; read are those of the first form that the file has in full,
        and without any form everything
    store : where they are kept; in memory, only sources of data sets that can be unpacked differ

    Raises
    ------
    DataError
        If the file cannot be opened, is not an intact .npz of plain numbers, unpacks to more than
        4 GiB, or has none of the forms.
    """
    path = Path(path)
    with open_data(path, "an .npz file") as raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                return {
                    key: _read_array(archive, member, f"{path}: {key}", store)
                    for key, member in _find_members(archive, path, forms, store).items()
                }
        except DataError:
            raise
        except (  # what zipfile was seen to raise on damaged files
            EOFError,
            OSError,
            OverflowError,
            RuntimeError,
            ValueError,
            struct.error,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise DataError(
                f"{path}: is not an intact .npz file ({error}); "
                "copy it again, or save it anew with np.savez"
            ) from error


def _find_members(
    archive: zipfile.ZipFile, path: Path, forms: tuple[tuple[str, ...], ...], store: Store
) -> dict[str, zipfile.ZipInfo]:
    """Find the arrays of the first form that is there, in its order; without any form, all."""
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    for keys in forms or (tuple(members),):
        if members.keys() >= set(keys):
            size = sum(members[key].file_size for key in keys)
            hint = f"save fewer images, or {UNPACK}"
            store.require_room(size, f"{path}: its arrays of {size:,} bytes", hint)
            return {key: members[key] for key in keys}
    names = sorted(members)  # quoted below: an archive can hold any names, and thousands
    found = listed([*map(repr, names)], 8)
    expected = ", or ".join(", ".join(keys) for keys in forms)
    raise DataError(
        f"{path}: has the arrays {found or '(none)'}; expected {expected}: save it under those "
        "names with np.savez"
    )


def _read_array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str, store: Store
) -> NDArray[Any]:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{what} is compressed by method {info.compress_type}; expected none or deflate: "
            "save it with np.savez or np.savez_compressed"
        )
    with archive.open(info) as member:
        start = member.read(HEADER_BYTES)
        header = read_array_header(start, info.file_size, what)
        data = store.read(member.read, header.size, start[header.offset :])
    if len(data) != header.size:
        raise DataError(
            f"{what} ends after {len(data)} of {header.size} bytes; copy the file again, or save "
            "it anew"
        )
    if header.order == "F" or not header.dtype.isnative:  # which is changed in memory
        MEMORY.require_room(header.size, what, "save it in C order and this machine's byte order")
    flat = data.view(header.dtype)
    flat = flat.astype(header.dtype.newbyteorder("="), copy=False)
    return np.asarray(flat.reshape(header.shape, order=header.order), order="C")
