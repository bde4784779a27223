"""The processes that work together: what they tell each other, and what becomes of an error.

Nothing here waits without looking: while a rank waits for the others, it hears of an error on any
of them, and raises `RankError`. So no rank waits for one that has failed. One that was killed is
the launcher's business: ``mpiexec`` ends all others; and one that is silent for long, as a machine
that is cut off is, is given up.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
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
_GRACE = 5.0  # more, for all but rank 0, which says what happened before the others end it
_JOIN = 5.0  # seconds for the thread that looks on, at the end
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


def require_communicator(comm: Any) -> None:
    """Raise OptionError where something is no MPI communicator as mpi4py has it."""
    if not all(hasattr(comm, name) for name in _NEEDED):
        raise OptionError(
            f"comm must be an MPI communicator like mpi4py's MPI.COMM_WORLD, got {comm!r:.80}"
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
    comm : the communicator that was given
    rank, size : which of how many this is
    expected : an error that all ranks raise by themselves

    Raises
    ------
    OptionError
        It is no communicator.
    """

    def __init__(self, comm: Any, *, fast: bool = False) -> None:
        require_communicator(comm)
        self.rank, self.size, self.fast = int(comm.Get_rank()), int(comm.Get_size()), fast
        self.comm = comm
        self.expected: BaseException | None = None
        self._patience = patience()
        self._lock = threading.Lock()  # MPI is called by one thread at a time
        self._comm, self._errors = comm.Dup(), comm.Dup()
        self._open: dict[int, Any] = {}  # what MPI reads and writes until a request has ended
        self._note = np.zeros(_NOTE, np.uint8)
        self._hearing = self._start("Irecv", self._note, on=self._errors)
        self._alive = 0.0  # when rank 0 last said that it lives
        self._helped: list[Any] = []
        self._closed, self._wake = False, threading.Event()
        self._helper = threading.Thread(target=self._look_on, daemon=True)
        own = sys.modules.get("mpi4py.MPI")
        if own is None or own.Query_thread() == own.THREAD_MULTIPLE:
            self._helper.start()

    @property
    def leads(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    # What all tell each other -------------------------------------------------------------------

    def gather(self, own: NDArray[Any], every: NDArray[Any], sizes: Sequence[int]) -> None:
        """Fill ``every`` with what all ranks have, one after the other, of these sizes."""
        self._wait(self._start("Iallgatherv", own, [every, list(sizes)]))

    def add(self, own: NDArray[np.float32], total: NDArray[np.float32]) -> Callable[[], None]:
        """Begin to fill ``total`` with the sum of what all ranks have; return what waits for it."""
        request = self._start("Iallreduce", own, total)
        if own.size >= _LARGE:
            self._helped.append(request)
            self._wake.set()
        return lambda: self._wait(request)

    def scatter(
        self, every: NDArray[np.uint8] | None, sizes: Sequence[int], own: NDArray[np.uint8]
    ) -> None:
        """Give each rank its part of what rank 0 has, of these sizes."""
        send = None if every is None else [every, list(sizes)]
        self._wait(self._start("Iscatterv", send, own, 0), for_first=True)

    def broadcast(self, *arrays: NDArray[Any]) -> None:
        """Make arrays what they are on rank 0. They are contiguous."""
        for array in arrays:
            if array.size:
                data = array.reshape(-1).view(np.uint8)
                self._wait(self._start("Ibcast", data, 0), for_first=True)

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
        self._wait(self._start("Ibcast", size, 0), for_first=True)
        data = data if self.leads else np.zeros(int(size[0]), np.uint8)
        self._wait(self._start("Ibcast", data, 0), for_first=True)
        return _value(data)

    def any(self, value: bool) -> bool:
        """Whether something is so on any rank."""
        found = np.zeros(self.size, np.int64)
        own = np.array([value], np.int64)
        self._wait(self._start("Iallgatherv", own, [found, [1] * self.size]))
        return bool(found.any())

    def meet(self) -> None:
        """Wait until all ranks are here."""
        self._wait(self._start("Ibarrier"))

    # Errors -------------------------------------------------------------------------------------

    def tell(self, error: BaseException) -> None:
        """Tell all other ranks of an error on this one. They raise it where they next wait.

        An error that another rank has told of is not told again. Either way, this is the end.
        """
        if isinstance(error, RankError):
            self._leave()
            return
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
        requests = self._send(data)
        deadline = time.monotonic() + 2.0
        while requests and time.monotonic() < deadline:  # who has left does not take it
            requests = [request for request in requests if not self._done(request)]
            time.sleep(_SHORT)
        self._leave()

    def close(self) -> None:
        """Wait until all ranks are here, and give the communicators back."""
        self.meet()
        self._stop()
        self._hearing.Cancel()  # what rank 0 may still have said of itself is not heard
        self._hearing.Wait()
        self._comm.Free()
        self._errors.Free()

    def _send(self, data: NDArray[np.uint8]) -> list[Any]:
        """Send a note to all other ranks."""
        note = np.zeros(_NOTE, np.uint8)
        note[: len(data)] = data
        others = [other for other in range(self.size) if other != self.rank]
        return [self._start("Isend", note, other, on=self._errors) for other in others]

    # Waiting ------------------------------------------------------------------------------------

    def _start(self, name: str, *arguments: Any, on: Any = None) -> Any:
        with self._lock:
            request = getattr(on or self._comm, name)(*arguments)
            self._open[id(request)] = request, arguments
            return request

    def _done(self, request: Any) -> bool:
        with self._lock:
            done = bool(request.Test())
            if done:
                self._open.pop(id(request), None)
            return done

    def _wait(self, request: Any, *, for_first: bool = False) -> None:
        """Wait for a request: for all ranks, or ``for_first`` alone, which may be busy for long.

        Raises
        ------
        RankError
            A rank has failed, or is silent for longer than this one's patience.
        """
        looks, start = 0, 0.0
        while not self._done(request):
            self._listen()
            looks += 1
            if looks < _SPINS:
                getattr(os, "sched_yield", lambda: time.sleep(0))()
                continue
            start = start or time.monotonic()
            time.sleep(_SHORT if looks < _MANY_SLEEPS else _LONG)
            since = max(start, self._alive) if for_first else start
            if time.monotonic() - since > self._patience + (0 if self.leads else _GRACE):
                who = "rank 0" if for_first else "another rank"
                self._leave(silent=True)
                raise RankError(
                    f"{who} has not answered for {self._patience:.0f} s: it has been stopped, or "
                    "its machine cannot be reached; FULLBACK_MPI_TIMEOUT is how many seconds are "
                    "waited"
                )

    def _listen(self) -> None:
        """Take note of what another rank has told, and raise its error."""
        if not self._done(self._hearing):
            return
        heard = _value(self._note[: self._note.tolist().index(0)])
        if heard is None:
            self._alive = time.monotonic()
            self._hearing = self._start("Irecv", self._note, on=self._errors)
            return
        self._leave()
        raise RankError(f"rank {heard['rank']} failed: {heard['text']}", heard["rank"])

    def _leave(self, *, silent: bool = False) -> None:
        """Leave what is not finished as it is until the process ends: MPI may still write to it.

        And have MPI end before Python gives the memory back; or, where a rank is ``silent`` for
        which MPI's end would wait, end all processes.
        """
        self._stop()
        _LEFT.append(self)
        if silent:
            atexit.register(getattr(self.comm, "Abort", int), 1)
        elif len(_LEFT) == 1:
            atexit.register(_end_mpi)

    def _stop(self) -> None:
        self._closed = True
        self._wake.set()
        if self._helper.is_alive():
            self._helper.join(_JOIN)

    def _look_on(self) -> None:
        """Help requests along: many systems do nothing while nobody looks. And say that one lives.

        This is done beside whatever else the rank does.
        """
        told, every = time.monotonic(), self._patience / 4
        while not self._closed:
            self._wake.wait(_SHORT if self._helped else every)
            self._wake.clear()
            for request in list(self._helped):
                if self._done(request):
                    self._helped.remove(request)
            if self.leads and time.monotonic() - told >= every and not self._closed:
                told = time.monotonic()
                self._helped += self._send(_bytes(None))


_LEFT: list[Ranks] = []


def _end_mpi() -> None:
    own = sys.modules.get("mpi4py.MPI")
    if own is not None and not own.Is_finalized():
        own.Finalize()


def _bytes(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode(), np.uint8).copy()


def _value(data: NDArray[np.uint8]) -> Any:
    return json.loads(data.tobytes())
