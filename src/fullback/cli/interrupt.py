"""Ctrl-C as long as there is nothing to save or to take away: the process ends at once.

A ``KeyboardInterrupt`` would not do while modules are imported: where it meets Python's own import
machinery it is printed and lost, and in the body of a class another error takes its place.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from fullback.memory import is_limited

INTERRUPTED = 130  # the exit code


@contextlib.contextmanager
def exit_on_ctrl_c() -> Iterator[None]:
    """Within this context Ctrl-C ends the process; where it is ignored, it stays ignored."""
    if is_limited():
        # OpenBLAS, which NumPy loads, interrupts the process where it has no memory for its threads
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)
    try:
        yield
    finally:
        raise_on_ctrl_c()


def raise_on_ctrl_c() -> None:
    """From here on Ctrl-C raises ``KeyboardInterrupt``, so that work can be brought to an end."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- a handler's signature
    try:
        os.write(2, b"error: interrupted\n")
    finally:
        os._exit(INTERRUPTED)
