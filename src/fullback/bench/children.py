"""Processes that each hold one framework, so that no two share threads, and one runs at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fullback.errors import FullbackError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ChildError(FullbackError):
    """What was asked of a process failed there."""


@dataclass(frozen=True)
class Handle:
    """An object that lives in a child."""

    child: Child
    number: int

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object, and return what it returns."""
        return self.child.ask("call", self.number, method, arguments)[1]

    def seconds(self, method: str, *arguments: Any) -> float:
        """Call a method of the object, and return how long it took."""
        return float(self.child.ask("call", self.number, method, arguments)[0])


class Child:
    """A process that waits for orders; waiting, it takes no processor time."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end, threads), daemon=True)
        self._process.start()
        far_end.close()

    def make(self, kind: Callable[..., Any], *arguments: Any) -> Handle:
        """Make an object in the process, of a class that has a place in a module."""
        return Handle(self, self.ask("make", kind, arguments)[1])

    def clear(self) -> None:
        """Let go of all objects."""
        self.ask("clear")

    def ask(self, *order: Any) -> tuple[float, Any]:
        """Give an order, and return the seconds that it took and its result."""
        try:
            self._pipe.send(order)
            seconds, result, error = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise ChildError(f"its process ended with code {self._process.exitcode}") from None
        if error is not None:
            raise ChildError(error)
        return seconds, result

    def end(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()


class Children:
    """One child for every key, made when it is first needed; a context that ends them all."""

    def __init__(self) -> None:
        self._children: dict[Any, Child] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children.values():
            child.end()

    def get(self, key: Any, threads: int) -> Child:
        """Return the child for this key and this number of threads."""
        if (key, threads) not in self._children:
            self._children[key, threads] = Child(threads)
        return self._children[key, threads]

    def clear(self) -> None:
        """Let all children go of their objects, and forget those that have died."""
        for key, child in list(self._children.items()):
            try:
                child.clear()
            except ChildError:
                del self._children[key]


def _serve(pipe: Connection, threads: int) -> None:
    """Follow orders until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    _be_silent()
    objects: list[Any] = []
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        result, error, start = None, None, time.perf_counter()
        try:
            match order:
                case "make", kind, arguments:
                    result = len(objects)
                    objects.append(kind(*arguments))
                case "call", number, method, arguments:
                    result = getattr(objects[number], method)(*arguments)
                case _:
                    objects.clear()
        except Exception as caught:  # noqa: BLE001 -- a framework may raise anything
            error = " ".join(f"{type(caught).__name__}: {caught}".split())[:300]
        pipe.send((time.perf_counter() - start, result, error))


def _be_silent() -> None:
    """Send what frameworks write to nowhere: standard output may be for JSON alone."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())
