"""Ctrl-C between two batches, not within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class DelayedInterrupt:
    """A context in which the first Ctrl-C only sets ``requested``; a second one interrupts.

    Outside the main thread, and where Ctrl-C is ignored, it changes nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous = signal.getsignal(signal.SIGINT)
        self._active = (
            threading.current_thread() is threading.main_thread()
            and self._previous == signal.default_int_handler
        )

    def __enter__(self) -> DelayedInterrupt:
        if self._active:
            signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *error: object) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
