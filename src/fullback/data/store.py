"""Where the arrays of a data set are made: in memory, or in files of a folder, from which they map.

A reader asks the store of its options for rows, appends images to them, and gets an array. Which
store it is makes no difference to what is in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fullback.data.files import MAX_BYTES, read_bounded
from fullback.data.progress import shown
from fullback.errors import DataError
from fullback.mapped import gathered, mapped_file
from fullback.memory import available_memory, gibibytes

_AT_ONCE = 2**25  # bytes that are copied together
_HEADER = 128  # bytes of the header of an .npy file, whatever its shape
_LITTLE = 2**26  # bytes, for which nothing is asked
_HOLE = 2**12  # bytes of an image, from which on it is worth a hole if it is black
_SPARE = 2**26  # bytes of a disk that are left to others
UNPACK = (
    "fullback data SOURCE --unpack FOLDER (fb.unpack_data) writes them once to files that are "
    "trained on from the disk"
)
"""What to do with images that do not fit into memory."""


class Rows(Protocol):
    """Images that come one after the other, of one shape.

    Attributes
    ----------
    dtype : of the images: uint8, or a kind of floats
    """

    dtype: np.dtype[Any]

    def __len__(self) -> int:
        """Return how many there are."""

    def append(self, images: NDArray[Any]) -> None:
        """Add images (n, C, H, W) of the rows' dtype."""

    def to_floats(self) -> None:
        """Turn uint8 from 0 to 255 into float32 from 0 to 1; floats stay."""

    def array(self) -> NDArray[Any]:
        """Return all images (N, C, H, W); none is added after that."""


class Store(Protocol):
    """Where arrays are made."""

    def require_room(self, size: int, what: str, hint: str = UNPACK, *, done: int = 0) -> None:
        """Raise DataError where there is no room for so many bytes.

        Parameters
        ----------
        size : bytes
        what : what needs them, the beginning of the message
        hint : what to do instead, for those in memory
        done : bytes of them that are there already
        """

    def rows(self, shape: Sequence[int], dtype: np.dtype[Any], most: int) -> Rows:
        """Return room for so many images of a shape (C, H, W), and for more."""

    def chosen(self, images: NDArray[Any], places: NDArray[np.int64], what: str) -> NDArray[Any]:
        """Return ``images[places]``; ``what`` is what messages call them."""

    def read(self, read: Callable[[int], bytes], size: int, start: bytes = b"") -> NDArray[Any]:
        """Return ``size`` bytes, ``start`` and what ``read`` gives; one more where there is more.

        Returns
        -------
        uint8 array of shape (bytes,)
        """


class Memory:
    """Arrays in memory, of at most 4 GiB each."""

    def require_room(self, size: int, what: str, hint: str = UNPACK, *, done: int = 0) -> None:
        """See Store."""
        if size > MAX_BYTES:
            raise DataError(f"{what} need more than {MAX_BYTES:,} bytes; {hint}")
        there = available_memory() if size - done > _LITTLE else None
        if there is not None and size - done > there:
            raise DataError(
                f"{what} need {gibibytes(size)} of memory, and {gibibytes(there)} are free; {hint}"
            )

    def rows(self, shape: Sequence[int], dtype: np.dtype[Any], most: int) -> Rows:
        """See Store."""
        return _MemoryRows(np.empty((most, *shape), dtype))

    def chosen(self, images: NDArray[Any], places: NDArray[np.int64], what: str) -> NDArray[Any]:
        """See Store."""
        if mapped_file(images) is not None:
            size = images.nbytes // len(images) * len(places)
            self.require_room(size, f"{what}: images of which some are kept for testing")
        return images[places]

    def read(self, read: Callable[[int], bytes], size: int, start: bytes = b"") -> NDArray[Any]:
        """See Store."""
        return np.frombuffer(read_bounded(read, size, start), np.uint8)


MEMORY = Memory()


class _MemoryRows:
    def __init__(self, room: NDArray[Any]) -> None:
        self.room, self.count = room, 0
        self.dtype = room.dtype

    def __len__(self) -> int:
        return self.count

    def append(self, images: NDArray[Any]) -> None:
        stop = self.count + len(images)
        if stop > len(self.room):
            room = np.empty((max(stop, 3 * self.count // 2), *self.room.shape[1:]), self.dtype)
            room[: self.count] = self.room[: self.count]
            self.room = room
        self.room[self.count : stop] = images
        self.count = stop

    def to_floats(self) -> None:
        if self.dtype == np.uint8:
            self.room = _as_floats(self.room)
            self.dtype = self.room.dtype

    def array(self) -> NDArray[Any]:
        return self.room[: self.count]


class Files:
    """Arrays in .npy files of a folder, which are mapped: nothing stays in memory.

    Parameters
    ----------
    folder : where they are written
    progress : whether to show a bar where many are copied
    """

    def __init__(self, folder: Path, *, progress: bool = False) -> None:
        self.folder, self.progress = folder, progress
        self._files: list[BinaryIO] = []

    def open(self) -> BinaryIO:
        """Open a new file."""
        path = self.folder / f"{len(self._files) + 1}.npy"
        self._files.append(path.open("xb", buffering=2**16))
        return self._files[-1]

    def close(self) -> None:
        """Close all files, whole or not."""
        for file in self._files:
            with contextlib.suppress(OSError):  # of a full disk
                file.close()

    def require_room(self, size: int, what: str, hint: str = UNPACK, *, done: int = 0) -> None:
        """See Store."""
        there = max(0, shutil.disk_usage(self.folder).free - _SPARE)
        if size - done > there:
            raise DataError(
                f"{what} need {gibibytes(size - done)} in {self.folder.parent}, where "
                f"{gibibytes(there)} are free; give a folder on another disk, or smaller images"
            )

    def rows(self, shape: Sequence[int], dtype: np.dtype[Any], most: int) -> Rows:
        """See Store."""
        return FileRows(self, shape, dtype)

    def chosen(self, images: NDArray[Any], places: NDArray[np.int64], what: str) -> NDArray[Any]:
        """See Store. The images are read in the order of their file, so many at a time."""
        size = images[:1].nbytes
        self.require_room(size * len(places), f"{what}: images of which some are kept for testing")
        rows, starts = FileRows(self, images.shape[1:], images.dtype), parts(len(places), images)
        text = f"{len(places):,} images in their order"
        for start in shown(starts, text, len(starts), progress=self.progress):
            part = places[start : start + starts.step]
            order = np.argsort(part)
            block = np.empty((len(part), *images.shape[1:]), images.dtype)
            block[order] = gathered(images, part[order])
            rows.append(block)
        return rows.array()

    def read(self, read: Callable[[int], bytes], size: int, start: bytes = b"") -> NDArray[Any]:
        """See Store."""
        self.require_room(size, "the arrays of the file")
        rows, done = FileRows(self, (), np.dtype(np.uint8)), len(start)
        rows.append(np.frombuffer(start, np.uint8))
        while done <= size and (piece := read(min(2**20, size + 1 - done))):
            rows.append(np.frombuffer(piece, np.uint8))
            done += len(piece)
        return rows.array()

    def settle(self, array: NDArray[Any], path: Path) -> bool:
        """Give the file of an array another name; False where an array is not a whole file."""
        file = mapped_file(array)
        if file is None or file.filename is None or Path(file.filename).parent != self.folder:
            return False
        if array.nbytes != file.nbytes or not array.flags.c_contiguous or file.dtype.kind == "V":
            return False
        with Path(file.filename).open("r+b") as content:
            content.write(_npy_header(array.shape, array.dtype))
            content.flush()
            os.fsync(content.fileno())
        Path(file.filename).rename(path)
        return True


class FileRows:
    """Rows of an .npy file, written one after the other; images that are black are left as holes.

    Raises
    ------
    OSError
        The disk is full, or cannot be written to.
    """

    def __init__(self, files: Files, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.files, self.shape = files, tuple(shape)
        self.count = 0
        self._begin(dtype)

    def _begin(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype.newbyteorder("=")
        self.file = self.files.open()
        self.path = Path(self.file.name)
        self.file.seek(_HEADER)

    def __len__(self) -> int:
        return self.count

    def append(self, images: NDArray[Any]) -> None:
        """See Rows."""
        content = np.ascontiguousarray(images, self.dtype)
        for part in content if content[:1].nbytes >= _HOLE else (content,):
            if part.any():
                self.file.write(part.reshape(-1).view(np.uint8).data)
            else:
                self.file.seek(part.nbytes, os.SEEK_CUR)
        self.count += len(images)

    def to_floats(self) -> None:
        """See Rows."""
        if self.dtype != np.uint8:
            return
        bytes_, path = self.array(), self.path
        self.files.require_room(4 * bytes_.nbytes, f"{len(bytes_):,} images of floats")
        self._begin(np.dtype(np.float32))
        self.count = 0
        starts = parts(len(bytes_), bytes_)
        for start in starts:
            self.append(_as_floats(bytes_[start : start + starts.step]))
        del bytes_
        path.unlink()

    def array(self) -> NDArray[Any]:
        """See Rows."""
        shape = (self.count, *self.shape)
        with self.file as file:
            file.truncate(file.tell())
            file.seek(0)
            file.write(_npy_header(shape, self.dtype))
            file.flush()
            os.fsync(file.fileno())
        if 0 in shape:  # which cannot be mapped
            return np.empty(shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", _HEADER, shape)


def parts(count: int, images: NDArray[Any]) -> range:
    """Return where the parts begin in which so many images like these are copied."""
    return range(0, count, max(1, _AT_ONCE // max(1, images[:1].nbytes)))


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the header of an .npy file, always as long."""
    text = f"{{'descr': {npy.dtype_to_descr(dtype)!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return (
        b"\x93NUMPY\x01\x00"
        + (_HEADER - 10).to_bytes(2, "little")
        + text.encode().ljust(_HEADER - 11)
        + b"\n"
    )


def _as_floats(images: NDArray[Any]) -> NDArray[np.float32]:
    floats: NDArray[np.float32] = images.astype(np.float32)
    floats /= 255
    return floats
