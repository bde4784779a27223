"""Ranks as threads of one process, over a communicator that has mpi4py's methods.

Most tests of distributed training need no MPI: `together` runs a function on every rank. What a
real MPI library does with it is in ``test_mpi.py``.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np


class Request:
    """Something that was begun; ``done`` says whether it has ended."""

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done

    def Test(self) -> bool:
        return self.done()

    def Wait(self) -> None:
        assert self.done()

    def Cancel(self) -> None:
        self.done = lambda: True


class Board:
    """Where the ranks of a communicator leave what they give."""

    def __init__(self, size: int) -> None:
        self.size, self.lock = size, threading.RLock()
        self.given: dict[Any, dict[int, Any]] = {}
        self.notes: dict[int, list[Any]] = {rank: [] for rank in range(size)}
        self.copies: dict[int, Board] = {}

    def copy(self, number: int) -> Board:
        with self.lock:
            return self.copies.setdefault(number, Board(self.size))


class Comm:
    """One rank's end of a communicator."""

    def __init__(self, board: Board, rank: int) -> None:
        self.board, self.rank = board, rank
        self.calls = self.dups = 0
        self.freed = False

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.board.size

    def Dup(self) -> Comm:
        self.dups += 1
        return Comm(self.board.copy(self.dups), self.rank)

    def Free(self) -> None:
        self.freed = True

    def _all(self, name: str, value: Any, take: Callable[[list[Any]], None]) -> Request:
        """Begin what all ranks do; ``take`` is called once, with what all have given."""
        assert not self.freed
        self.calls += 1
        key, ended = self.calls, []
        if isinstance(value, np.ndarray):  # as MPI does, this reads it where it lies
            value = weakref.ref(value)
        with self.board.lock:
            given = self.board.given.setdefault(key, {})
            given[self.rank] = (name, value)
            if len(given) == self.board.size:
                names = {each[0] for each in given.values()}
                assert len(names) == 1, f"the ranks do different things: {names}"
                for rank, each in given.items():
                    given[rank] = (name, _copy(each[1]))

        def done() -> bool:
            if not ended:
                with self.board.lock:  # the last one may be copying
                    if len(given) < self.board.size:
                        return False
                take([given[rank][1] for rank in range(self.board.size)])
                ended.append(True)
            return True

        return Request(done)

    def Iallgatherv(self, own: Any, target: Any) -> Request:
        every, sizes = target
        assert own.size == sizes[self.rank]
        assert every.size == sum(sizes)

        def take(values: list[Any]) -> None:
            every.reshape(-1)[:] = np.concatenate([value.ravel() for value in values])

        return self._all("gather", own, take)

    def Iallreduce(self, own: Any, total: Any) -> Request:
        def take(values: list[Any]) -> None:
            total[...] = np.sum(values, axis=0)

        return self._all("sum", own, take)

    def Ibcast(self, data: Any, root: int) -> Request:
        def take(values: list[Any]) -> None:
            data[...] = values[root]

        return self._all("broadcast", data, take)

    def Iscatterv(self, send: Any, own: Any, root: int) -> Request:
        def take(values: list[Any]) -> None:
            every, sizes = values[root]
            start = sum(sizes[: self.rank])
            own[...] = every[start : start + sizes[self.rank]]

        return self._all("scatter", send, take)

    def Ibarrier(self) -> Request:
        return self._all("barrier", None, lambda values: None)

    def Isend(self, note: Any, other: int) -> Request:
        with self.board.lock:
            self.board.notes[other].append(note.copy())
        return Request(lambda: True)

    def Irecv(self, note: Any) -> Request:
        ended: list[bool] = []

        def done() -> bool:
            if not ended and self.board.notes[self.rank]:
                note[...] = self.board.notes[self.rank].pop(0)
                ended.append(True)
            return bool(ended)

        return Request(done)


def _copy(given: Any) -> Any:
    """Return what is given, as it is when the last rank comes."""
    if not isinstance(given, weakref.ref):
        return given
    value = given()
    assert value is not None, "an array was given back before all ranks had come"
    return value.copy()


def together(size: int, work: Callable[[Comm], Any], *, seconds: float = 60) -> list[Any]:
    """Return what every rank's work returns, or the error that it raises."""
    board, found = Board(size), [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(Comm(board, rank))
        except BaseException as error:  # noqa: BLE001
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), "a rank waits for ever"
    return found
