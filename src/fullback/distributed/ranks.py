"""The processes that work together: what they tell each other, and what becomes of an error.

Nothing here waits without looking: while a rank waits for the others, it hears of an error on any
of them, and raises `RankError`. So no rank waits for one that has failed. One that was killed is
the launcher's business: ``mpiexec`` ends all others; and one that is silent for long, as a machine
that is cut off is, is given up.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.errors import OptionError, RankError

_NEEDED = ("Dup", "Get_rank", "Get_size", "Iallgatherv", "Iallreduce", "Ibcast", "Iscatterv")
_NOTE = 2048  # bytes in which an error is told: few enough to be sent at once
_SPINS = 300  # looks before a rank that waits begins to sleep between them
_SHORT, _LONG = 5e-5, 1e-3  # seconds that it sleeps
_MANY_SLEEPS = 2000  # short ones, before the long ones
_PATIENCE = 300.0  # seconds
_LARGE = 2**16  # floats, from which on a sum is helped along while this rank works


def patience() -> float:
    """Return for how many seconds a rank that trains waits for another one.

    Raises
    ------
    OptionError
        FULLBACK_MPI_TIMEOUT is set to something else than a number of seconds.
    """
    chosen = os.environ.get("FULLBACK_MPI_TIMEOUT", "")
    if not chosen:
        return _PATIENCE
    if re.fullmatch(r"[1-9]\d{0,8}", chosen):
        return float(chosen)
    raise OptionError(
        f"FULLBACK_MPI_TIMEOUT must be a whole number of seconds, got {chosen!r}; unset it for "
        f"{_PATIENCE:.0f}"
    )


class Ranks:
    """The ranks of an MPI communicator, as one of them sees them.

    All of them call the same methods in the same order, but for ``tell``.

    Parameters
    ----------
    comm : the communicator, as mpi4py has it; it is copied, and used for nothing else
    fast : whether gradients are added up in an order that depends on how many ranks there are

    Attributes
    ----------
    rank, size : which of how many this is
    expected : an error that all ranks raise by themselves

    Raises
    ------
    OptionError
        It is no communicator.
    """

    def __init__(self, comm: Any, *, fast: bool = False) -> None:
        if not all(hasattr(comm, name) for name in _NEEDED):
            raise OptionError(
                f"comm must be an MPI communicator like mpi4py's MPI.COMM_WORLD, got {comm!r:.80}"
            )
        self.rank, self.size, self.fast = int(comm.Get_rank()), int(comm.Get_size()), fast
        self.expected: BaseException | None = None
        self._patience = patience()
        self._lock = threading.Lock()  # MPI is called by one thread at a time
        self._comm, self._errors = comm.Dup(), comm.Dup()
        self._note = np.zeros(_NOTE, np.uint8)
        self._hearing = self._errors.Irecv(self._note)
        self._helped: list[Any] = []
        self._helper: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def leads(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    # What all tell each other -------------------------------------------------------------------

    def gather(self, own: NDArray[Any], every: NDArray[Any], sizes: Sequence[int]) -> None:
        """Fill ``every`` with what all ranks have, one after the other, of these sizes."""
        self._wait(self._start("Iallgatherv", own, [every, list(sizes)]), self._patience)

    def add(self, own: NDArray[np.float32], total: NDArray[np.float32]) -> Callable[[], None]:
        """Begin to fill ``total`` with the sum of what all ranks have; return what waits for it."""
        request = self._start("Iallreduce", own, total)
        if own.size >= _LARGE:
            self._help(request)

        def wait(_: Any = own) -> None:  # which must live until it is sent
            self._wait(request, self._patience)

        return wait

    def scatter(
        self, every: NDArray[np.uint8] | None, sizes: Sequence[int], own: NDArray[np.uint8]
    ) -> None:
        """Give each rank its part of what rank 0 has, of these sizes."""
        send = None if every is None else [every, list(sizes)]
        self._wait(self._start("Iscatterv", send, own, 0), self._patience)

    def broadcast(self, *arrays: NDArray[Any]) -> None:
        """Make arrays what they are on rank 0. They are contiguous."""
        for array in arrays:
            if array.size:
                data = array.reshape(-1).view(np.uint8)
                self._wait(self._start("Ibcast", data, 0))

    def every(self, value: Any) -> list[Any]:
        """Return what all ranks have, by rank. It is what JSON can hold."""
        own = _bytes(value)
        sizes = np.zeros(self.size, np.int64)
        count = np.array([len(own)], np.int64)
        self._wait(self._start("Iallgatherv", count, [sizes, [1] * self.size]))
        found = np.zeros(int(sizes.sum()), np.uint8)
        self._wait(self._start("Iallgatherv", own, [found, sizes.tolist()]))
        return [_value(part) for part in np.split(found, np.cumsum(sizes)[:-1])]

    def first(self, value: Any) -> Any:
        """Return what rank 0 has. It is what JSON can hold."""
        data = _bytes(value)
        size = np.array([len(data)], np.int64)
        self._wait(self._start("Ibcast", size, 0))
        data = data if self.leads else np.zeros(int(size[0]), np.uint8)
        self._wait(self._start("Ibcast", data, 0))
        return _value(data)

    def any(self, value: bool) -> bool:
        """Whether something is so on any rank."""
        found = np.zeros(self.size, np.int64)
        own = np.array([value], np.int64)
        self._wait(self._start("Iallgatherv", own, [found, [1] * self.size]))
        return bool(found.any())

    # Errors -------------------------------------------------------------------------------------

    def tell(self, error: BaseException) -> None:
        """Tell all other ranks of an error on this one. They raise it where they next wait."""
        text = str(error) or type(error).__name__
        kind = type(error).__name__
        if isinstance(error, KeyboardInterrupt):
            text = "it was interrupted"
        elif not isinstance(error, OSError | ValueError | ArithmeticError | MemoryError):
            text = f"{kind}: {text}"
        data = _bytes({"rank": self.rank, "text": text})
        while len(data) >= _NOTE:
            text = f"{text[: len(text) // 2]} ..."
            data = _bytes({"rank": self.rank, "text": text})
        note = np.zeros(_NOTE, np.uint8)
        note[: len(data)] = data
        requests = [
            self._start("Isend", note, other, on=self._errors)
            for other in range(self.size)
            if other != self.rank
        ]
        deadline = time.monotonic() + 2.0
        while requests and time.monotonic() < deadline:  # who has left does not take it
            requests = [request for request in requests if not self._done(request)]
            time.sleep(_SHORT)
        self._closed.set()

    def close(self) -> None:
        """Wait until all ranks are here, and give the communicators back."""
        self._wait(self._start("Ibarrier"))
        self._closed.set()
        if self._helper is not None:
            self._helper.join()
        self._hearing.Cancel()
        self._hearing.Wait()
        self._comm.Free()
        self._errors.Free()

    # Waiting ------------------------------------------------------------------------------------

    def _start(self, name: str, *arguments: Any, on: Any = None) -> Any:
        with self._lock:
            return getattr(on or self._comm, name)(*arguments)

    def _done(self, request: Any) -> bool:
        with self._lock:
            return bool(request.Test())

    def _wait(self, request: Any, patience: float = np.inf) -> None:
        """Wait for a request.

        Raises
        ------
        RankError
            A rank has failed, or another one is silent for longer than this one's patience.
        """
        looks, end = 0, 0.0
        while not self._done(request):
            if self._done(self._hearing):
                heard = _value(self._note[: self._note.tolist().index(0)])
                raise RankError(f"rank {heard['rank']} failed: {heard['text']}", heard["rank"])
            looks += 1
            if looks == _SPINS:
                end = time.monotonic() + patience
            if looks < _SPINS:
                getattr(os, "sched_yield", lambda: time.sleep(0))()
                continue
            time.sleep(_SHORT if looks < _MANY_SLEEPS else _LONG)
            if time.monotonic() > end:
                raise RankError(
                    f"another rank has not answered for {patience:.0f} s: it has been stopped, or "
                    "its machine cannot be reached; FULLBACK_MPI_TIMEOUT is how many seconds are "
                    "waited"
                )

    def _help(self, request: Any) -> None:
        """Help a request along from another thread: many systems do nothing while nobody looks."""
        self._helped.append(request)
        if self._helper is None:
            self._helper = threading.Thread(target=self._look_on, daemon=True)
            self._helper.start()

    def _look_on(self) -> None:
        while not self._closed.wait(_SHORT):
            for request in list(self._helped):
                if self._done(request):
                    self._helped.remove(request)


def _bytes(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode(), np.uint8).copy()


def _value(data: NDArray[np.uint8]) -> Any:
    return json.loads(data.tobytes())
