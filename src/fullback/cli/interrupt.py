"""Ctrl-C as long as there is nothing to save or to take away: the process ends at once.

A ``KeyboardInterrupt`` would not do while modules are imported: where it meets Python's own import
machinery it is printed and lost, and in the body of a class another error takes its place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from fullback.memory import is_limited

INTERRUPTED = 130  # the exit code
NO_MEMORY = (
    "there is not enough memory; use a smaller network, batch or data set, or raise the limit "
    "(ulimit -v, ulimit -u)"
)


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


def can_start_threads() -> bool:
    """Whether the system gives this process another thread, with the memory that it needs.

    Where it does not, OpenBLAS sends its own process a SIGINT while NumPy is imported: a signal
    that no user sent, and that must not be reported as Ctrl-C.
    """
    try:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
    except (RuntimeError, MemoryError):
        return False
    return True


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- a handler's signature
    code = INTERRUPTED
    try:
        if can_start_threads():
            os.write(2, b"error: interrupted\n")
        else:
            code = 1
            os.write(2, f"error: {NO_MEMORY}\n".encode())
    finally:
        os._exit(code)
