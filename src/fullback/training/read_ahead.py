"""Reading ahead: images on a disk are in memory by the time that they are trained on.

A shuffled epoch takes its images from all over a file, and a processor that finds one missing in
memory waits for the disk, one image after the other. So a thread goes through the epoch's order
some way ahead of training. It tells the system which pieces of the file come next
(``posix_fadvise``), many at a time, so that the disk has a queue to work on; and touches them, so
that they are mapped. Nothing is copied, and training reads its images where it always does: order
and results cannot depend on it. Where a thread is too slow, training waits as it would without.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.data.store import mapped_file
from fullback.layers.base import Array
from fullback.training.training_data import check_files

Own: TypeAlias = Callable[[int], NDArray[np.intp]]
"""Which places among so many, of whole batches, are of images that this process looks at."""

_AHEAD = 2**27  # bytes that are read before they are trained on, at most
_PART = 2**23  # bytes that are asked for together: what a disk has in its queue
_PROBED = 16  # one image in so many is touched where the file is in memory
_PIECE = 2**17  # bytes for which Linux reads ahead at a call
_ADVISES = sys.platform == "linux" and hasattr(os, "posix_fadvise")


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
    def of(cls, images: Array) -> Rows | None:
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


class ReadAhead(contextlib.AbstractContextManager["ReadAhead"]):
    """Reads the images of an epoch ahead of training, while it is entered.

    For images in memory it does nothing, and starts no thread.

    Parameters
    ----------
    images : of shape (N, ...)
    order : which images, batch after batch
    batch : images in a batch
    own : which of them this process looks at; None for all
    """

    def __init__(
        self, images: Array, order: NDArray[np.int64], batch: int, own: Own | None = None
    ) -> None:
        self.images, self.order, self.batch, self.own = images, order, batch, own
        self.rows = Rows.of(images)
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self._reached, self._closed = 0, False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ReadAhead:
        if self.rows is not None:
            self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)
            with contextlib.suppress(RuntimeError):  # the system has no more threads
                self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()

    def reached(self, place: int) -> None:
        """Take note of how far training is in the order.

        Raises
        ------
        DataError
            The file has become shorter.
        """
        if self._thread is None:
            return
        with self._changed:
            self._reached = place
            self._changed.notify()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 -- it is raised where training is
            self.error = error

    def _read(self) -> None:
        """Ask for a part, then touch the one before it, which is on its way since then.

        Where nothing had to be read, the file is in memory: then some images are touched, to see
        whether it still is.
        """
        assert self.rows is not None  # noqa: S101 -- else there is no thread
        rows, cold = self.rows, _ADVISES
        before = self.order[:0]
        with _opened(rows.path) as file:
            for part in self._parts(rows.size):
                check_files(self.images)
                waits = _disk_reads()
                if cold and file is not None:
                    _advise(file, rows, part)
                _touch(rows, before[:: 1 if cold or not _ADVISES else _PROBED])
                cold = _ADVISES and _disk_reads() > waits
                before = part
            check_files(self.images)
            _touch(rows, before[:: 1 if cold or not _ADVISES else _PROBED])

    def _parts(self, size: int) -> Iterator[NDArray[np.int64]]:
        """Yield the images that come next, in the order of the file, when it is time for them."""
        at_once = self.batch * max(1, _PART // (size * self.batch))
        ahead = max(_AHEAD // size, 2 * at_once)
        start = 0
        while start < len(self.order):
            with self._changed:
                while not self._closed and start >= self._reached + ahead:
                    self._changed.wait()
                if self._closed:
                    return
                start = max(start, self._reached // self.batch * self.batch)  # training is faster
            part = self.order[start : start + at_once]
            start += len(part)
            yield np.sort(part if self.own is None else part[self.own(len(part))])


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int | None]:
    """Open a file to be asked for; None where it cannot be: then it is touched alone."""
    file = None
    if _ADVISES:
        with contextlib.suppress(OSError, ValueError):
            file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        if file is not None:
            os.close(file)


def _advise(file: int, rows: Rows, places: NDArray[np.int64]) -> None:
    """Tell the system that images will be needed soon."""
    with contextlib.suppress(OSError):
        for first in (rows.start + rows.first + rows.step * places).tolist():
            for start in range(first, first + rows.size, _PIECE):
                size = min(_PIECE, first + rows.size - start)
                os.posix_fadvise(file, start, size, os.POSIX_FADV_WILLNEED)


def _touch(rows: Rows, places: NDArray[np.int64]) -> None:
    """Read a byte of every page, which waits for those that are not there yet.

    Like all that waits here it does so without Python's lock.
    """
    if len(places):
        np.take(rows.content, rows.pages(places), mode="clip")


def _disk_reads() -> int:
    """Return how often this thread had something read from the disk."""
    if not _ADVISES:
        return 0
    import resource

    used: Any = resource.getrusage(resource.RUSAGE_THREAD)
    return int(used.ru_majflt + used.ru_inblock)
