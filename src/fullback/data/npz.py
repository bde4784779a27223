"""NumPy's .npz archives: a zip file of .npy arrays.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. `numpy.load` is not
used, because it allocates what an array's header claims before it looks at the data.
"""

from __future__ import annotations

import io
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fullback.data.dataset import Dataset, Split, from_file
from fullback.data.files import MAX_BYTES, open_data, read_bounded
from fullback.errors import DataError
from fullback.pixels import channels_first

FORMS = (("x_train", "y_train", "x_test", "y_test"), ("x", "y"))
"""The names of a data set's arrays."""

_HEADER_BYTES = 2**16  # more than NumPy accepts as a header
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def load_npz(path: str | os.PathLike[str], how: Split | None = None) -> Dataset:
    """Load a data set from an .npz file.

    Parameters
    ----------
    path : path-like
        A file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``, as Keras writes
        them; or with ``x`` and ``y``, of which a fixed fifth of each class is kept for testing.
        Images are (N, H, W), (N, C, H, W), or (N, H, W, C) where the last axis is 1 or 3 and
        axis 1 is neither; labels are (N,) or (N, 1).
    how : Split, optional
        Which images are kept for testing, where the file has no test images.

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
    arrays = list(read_npz(path, *FORMS).values())
    images = [channels_first(x) for x in arrays[::2]]
    labels = [y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for y in arrays[1::2]]
    return from_file(path, path.stem, *zip(images, labels, strict=True), how=how)


def read_npz(path: str | os.PathLike[str], *forms: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read arrays of plain numbers from an .npz file, by name.

    Parameters
    ----------
    path : the file
    forms : names that belong together; read are those of the first form that the file has in full,
        and without any form everything

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
                    key: _read_array(archive, member, f"{path}: {key}")
                    for key, member in _find_members(archive, path, forms).items()
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
    archive: zipfile.ZipFile, path: Path, forms: tuple[tuple[str, ...], ...]
) -> dict[str, zipfile.ZipInfo]:
    """Find the arrays of the first form that is there, in its order; without any form, all."""
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    for keys in forms or (tuple(members),):
        if members.keys() >= set(keys):
            size = sum(members[key].file_size for key in keys)
            if size > MAX_BYTES:
                raise DataError(
                    f"{path}: unpacks to {size} bytes; expected at most {MAX_BYTES}: "
                    "save fewer images"
                )
            return {key: members[key] for key in keys}
    names = sorted(members)  # quoted below: an archive can hold any names, and thousands
    found = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
    expected = ", or ".join(", ".join(keys) for keys in forms)
    raise DataError(
        f"{path}: has the arrays {found or '(none)'}; expected {expected}: save it under those "
        "names with np.savez"
    )


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> NDArray[Any]:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{what} is compressed by method {info.compress_type}; expected none or deflate: "
            "save it with np.savez or np.savez_compressed"
        )
    with archive.open(info) as member:
        start = member.read(_HEADER_BYTES)
        header = io.BytesIO(start)  # NumPy would read as long a header as the file claims
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about headers from Python 2, or of odd syntax
                shape, fortran_order, dtype = _READ_HEADER[npy.read_magic(header)](header)
        except (
            KeyError,
            MemoryError,
            RecursionError,
            SyntaxError,
            TypeError,
            ValueError,
            tokenize.TokenError,
        ) as error:
            raise DataError(
                f"{what} is not an array in .npy form, version 1 or 2; save it with np.savez"
            ) from error
        if dtype.kind not in "biuf":
            raise DataError(
                f"{what} has dtype {dtype}; expected plain numbers: "
                "save it as np.asarray(..., dtype='uint8'), or 'float32', or 'int64'"
            )
        if not all(length > 0 for length in shape):
            raise DataError(f"{what} has shape {shape}; expected at least one number")
        size = math.prod(shape) * dtype.itemsize
        if header.tell() + size != info.file_size:
            raise DataError(
                f"{what} should have {size} bytes for its shape {shape} and dtype {dtype} but has "
                f"{info.file_size - header.tell()}; copy the file again, or save it anew"
            )
        data = read_bounded(member.read, size, start[header.tell() :])
    if len(data) != size:
        raise DataError(
            f"{what} ends after {len(data)} of {size} bytes; copy the file again, or save it anew"
        )
    flat = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
    return np.asarray(flat.reshape(shape, order="F" if fortran_order else "C"), order="C")
