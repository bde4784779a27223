"""Arrays that are mapped from files: where images lie there, and how the disk is told of them.

A processor that finds a page of a mapped file missing in memory waits for the disk; and the system
then reads a large piece around it, of which images from all over a file make no use. So whatever
reads such images asks for them before (``posix_fadvise``), many at a time.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ADVISES = sys.platform == "linux" and hasattr(os, "posix_fadvise")
_PIECE = 2**17  # bytes for which Linux reads ahead at a call


def mapped_file(array: object) -> np.memmap[Any, Any] | None:
    """Return the memory map that an array is a part of, as it was opened; None where in memory."""
    found: np.memmap[Any, Any] | None = None
    while array is not None:
        if isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None:
            found = array
        array = getattr(array, "base", None)
    return found


@dataclass(frozen=True, eq=False)
class Rows:
    """Where the images of an array lie in a file.

    Attributes
    ----------
    path : the file
    content : what is mapped of it
    start : the byte of the file that the mapping begins with
    first : the byte of the mapping that the first image begins with
    step, size : bytes from an image to the next one, and of an image
    """

    path: str
    content: NDArray[np.uint8]
    start: int
    first: int
    step: int
    size: int

    @classmethod
    def of(cls, images: NDArray[Any]) -> Rows | None:
        """Return where images lie; None for those in memory, or whose pixels lie far apart."""
        root = mapped_file(images)
        if root is None or not images.size or images.strides[0] <= 0:
            return None
        steps = [step * (n - 1) for n, step in zip(images.shape, images.strides, strict=True)][1:]
        low = sum(min(0, step) for step in steps)
        size = sum(map(abs, steps)) + images.itemsize
        if size > 2 * images[0].size * images.itemsize:
            return None
        content = np.frombuffer(root._mmap, np.uint8)  # type: ignore[attr-defined]
        first = images.ctypes.data - content.ctypes.data + low
        start = root.offset - root.offset % mmap.ALLOCATIONGRANULARITY
        return cls(os.fspath(root.filename or ""), content, start, first, images.strides[0], size)

    def pages(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a byte in every page of some images, by its place in the mapping."""
        inside = np.append(np.arange(0, self.size - 1, mmap.PAGESIZE), self.size - 1)
        every: NDArray[np.int64] = self.first + self.step * places[:, None] + inside
        return every.ravel()


@contextlib.contextmanager
def read_at_random(images: NDArray[Any]) -> Iterator[None]:
    """Have the system read no more than the page that is missing, where a file is mapped."""
    root = mapped_file(images) if ADVISES else None
    found: mmap.mmap | None = getattr(root, "_mmap", None)
    if found is not None:
        found.madvise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        if found is not None:
            found.madvise(mmap.MADV_NORMAL)


def gathered(images: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """Return ``images[places]``; of those in a file, the disk is asked for all at once."""
    rows = Rows.of(images)
    if rows is not None:
        with opened(rows.path) as file:
            if file is not None:
                advise(file, rows, places)
    return images[places]


@contextlib.contextmanager
def opened(path: str) -> Iterator[int | None]:
    """Open a file to be asked for; None where it cannot be: then it is touched alone."""
    file = None
    if ADVISES:
        with contextlib.suppress(OSError, ValueError):
            file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        if file is not None:
            os.close(file)


def advise(file: int, rows: Rows, places: NDArray[np.int64]) -> None:
    """Tell the system that images will be needed soon."""
    with contextlib.suppress(OSError):
        for first in (rows.start + rows.first + rows.step * places).tolist():
            for start in range(first, first + rows.size, _PIECE):
                size = min(_PIECE, first + rows.size - start)
                os.posix_fadvise(file, start, size, os.POSIX_FADV_WILLNEED)
