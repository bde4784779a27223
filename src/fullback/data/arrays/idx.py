"""IDX files, the format of MNIST.

::

    bytes 0-1   0 0
    byte  2     the element type: 08 uint8, 09 int8, 0b int16, 0c int32, 0d float32, 0e float64
    byte  3     the number of dimensions
    then        each dimension as a big-endian unsigned 32-bit integer
    then        the elements, big-endian, in row-major order

The format is described at the foot of http://yann.lecun.com/exdb/mnist/. A file may be compressed
with gzip, whatever its name.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import Images, Labels, check_labels, check_numbers
from fullback.data.files import open_data
from fullback.data.store import MEMORY, UNPACK, Store
from fullback.errors import DataError, InputError
from fullback.pixels import channels_first

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_SPLIT = "split the file, or save the images as .npy"
_MAX_DIMENSIONS = 32  # of a NumPy array, before NumPy 2


def load_idx(path: str | os.PathLike[str], *, store: Store = MEMORY) -> NDArray[Any]:
    """Read one IDX file, plain or compressed with gzip.

    Parameters
    ----------
    path : path-like
        The file.
    store : Store
        Where the array is kept; by default in memory.

    Returns
    -------
    ndarray
        With the shape that the file states, in the machine's own byte order.

    Raises
    ------
    DataError
        If the file cannot be opened, is not IDX, is damaged, holds more or fewer bytes than its
        header says, or holds nothing or more than 4 GiB.
    """
    path = Path(path)
    with open_data(path, "an IDX file") as raw:
        try:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            read = gzip.GzipFile(fileobj=raw).read if compressed else raw.read
            dtype, shape = _read_header(read, path)
            size = math.prod(shape) * dtype.itemsize
            claim = f"{' x '.join(map(str, shape))} {dtype.name} = {size} bytes"
            hint = f"split the file, or {UNPACK}"
            store.require_room(size, f"{path}: its header says {claim}, which", hint)
            if dtype.itemsize > 1:  # in the other byte order: it is turned round in memory
                MEMORY.require_room(size, f"{path}: its header says {claim}, which", _SPLIT)
            data = store.read(read, size)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{path}: is cut short or damaged ({error}); expected an intact "
                f"{'gzip' if compressed else 'IDX'} file: download or copy it again"
            ) from error
    if len(data) != size:
        found = "goes on after that" if len(data) > size else f"ends after {len(data)} bytes"
        raise DataError(
            f"{path}: its header says {claim} of data but the file {found}; "
            "download or copy it again"
        )
    return data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_header(read: Callable[[int], bytes], path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = read(4)
    if not magic:
        raise DataError(f"{path}: is empty; expected an IDX file: download or copy it again")
    kind, ndim = magic[2:] if len(magic) == 4 else (0, 0)
    if magic[:2] != b"\0\0" or kind not in _TYPES or not 1 <= ndim <= _MAX_DIMENSIONS:
        raise DataError(
            f"{path}: starts with bytes {magic.hex(' ')}; expected IDX, which starts with 00 00, "
            f"a type ({', '.join(f'{t:02x}' for t in _TYPES)}) and the number of dimensions "
            f"(1 to {_MAX_DIMENSIONS}): give an IDX file"
        )
    lengths = read(4 * ndim)
    if len(lengths) < 4 * ndim:
        raise DataError(
            f"{path}: ends inside its header of {4 + 4 * ndim} bytes; download or copy it again"
        )
    shape = struct.unpack(f">{ndim}I", lengths)
    if 0 in shape:
        raise DataError(
            f"{path}: its header says shape {shape}, which holds nothing; "
            "expected at least one element: give a file with data"
        )
    return np.dtype(_TYPES[kind]), shape


def load_idx_pair(
    images: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    numbers: bool = False,
    store: Store = MEMORY,
) -> tuple[Images, Labels]:
    """Read an IDX file of images and the IDX file of their labels.

    Parameters
    ----------
    images : path-like
        A file of shape (N, H, W), or of 4 dimensions with 1 or 3 channels: (N, C, H, W), or
        (N, H, W, C) where only the last axis is 1 or 3.
    labels : path-like
        A file of shape (N,).
    numbers : bool, default=False
        Whether the labels are numbers to predict, (N,) or (N, outputs).
    store : Store
        Where the images are kept; by default in memory.

    Returns
    -------
    x : ndarray of shape (N, C, H, W)
        In the file's element type.
    y : ndarray of shape (N,), int64
        The labels; with ``numbers`` float64.

    Raises
    ------
    DataError
        If a file cannot be read (see `load_idx`), has another shape, holds labels that are not
        whole numbers from 0 to 65535 (with ``numbers``: not finite), or if there is not one label
        per image.
    """
    x, y = load_idx(images, store=store), load_idx(labels)
    if x.ndim not in (3, 4):
        raise DataError(
            f"{images}: has shape {x.shape}; expected images, (N, H, W) or (N, C, H, W): "
            "give the images file first and the labels file second"
        )
    stored = x.shape
    x = channels_first(x, str(images))
    if x.shape[1] not in (1, 3):
        raise DataError(
            f"{images}: has shape {stored}; expected 1 or 3 channels, as (N, C, H, W) or "
            "(N, H, W, C): save other images as .npz"
        )
    if y.ndim != 1 and not (numbers and y.ndim == 2):
        raise DataError(
            f"{labels}: has shape {y.shape}; expected labels, (N,): "
            "give the images file first and the labels file second"
        )
    if len(x) != len(y):
        raise DataError(
            f"{images}: has {len(x)} images but {labels} has {len(y)} labels; "
            "give two files that belong together"
        )
    try:
        return x, (check_numbers if numbers else check_labels)(y, str(labels))
    except InputError as error:
        raise DataError(str(error)) from error


def find_idx_files(folder: Path) -> dict[str, Path]:
    """List the IDX files of a folder by their canonical name, as ``train-images-idx3-ubyte``.

    A file may end in ``.gz``, and may be named with a dot: ``train-images.idx3-ubyte``. Where one
    canonical name has several files, the first in alphabetical order is taken.
    """
    found: dict[str, Path] = {}
    try:
        for path in sorted(folder.iterdir()):
            name = path.name.removesuffix(".gz").replace(".idx", "-idx")
            if "-idx" in name and name.endswith("-ubyte") and path.is_file():
                found.setdefault(name, path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{folder}: cannot be listed ({reason}); expected a folder with IDX files: "
            "check the path"
        ) from error
    return found
