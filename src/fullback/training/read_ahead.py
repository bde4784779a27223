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
import itertools
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.layers.base import Array
from fullback.mapped import ADVISES, Rows, advise, opened, read_at_random
from fullback.training.training_data import check_files

Own: TypeAlias = Callable[[int], NDArray[np.intp]]
"""Which places among so many, of whole batches, are of images that this process looks at."""

_AHEAD = 2**27  # bytes that are read before they are trained on, at most
_PART = 2**23  # bytes that are asked for together: what a disk has in its queue
_PROBED = 16  # one image in so many is touched where the file is in memory


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
        self._until_the_end = contextlib.ExitStack()

    def __enter__(self) -> ReadAhead:
        if self.rows is not None:
            self._until_the_end.enter_context(read_at_random(self.images))
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
        self._until_the_end.close()

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
        rows, cold = self.rows, True
        none = before = self.order[:0]
        with opened(rows.path) as file:
            for part in itertools.chain(self._parts(rows.size), [none]):
                check_files(self.images)
                waits = _disk_reads()
                if cold and file is not None:
                    advise(file, rows, part)
                _touch(rows, before[:: 1 if cold else _PROBED])
                cold = not ADVISES or _disk_reads() > waits
                before = part

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


def _touch(rows: Rows, places: NDArray[np.int64]) -> None:
    """Read a byte of every page, which waits for those that are not there yet.

    Like all that waits here it does so without Python's lock.
    """
    if len(places):
        np.take(rows.content, rows.pages(places), mode="clip")


def _disk_reads() -> int:
    """Return how often this thread had something read from the disk."""
    if not ADVISES:
        return 0
    import resource

    used: Any = resource.getrusage(resource.RUSAGE_THREAD)
    return int(used.ru_majflt + used.ru_inblock)
