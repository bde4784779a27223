"""Ctrl-C between two batches, not within one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from fullback.distributed.ranks import Ranks


class DelayedInterrupt:
    """A context in which the first Ctrl-C only sets ``requested``; a second one interrupts.

    Where there are several ranks, SIGTERM does the same, which is how their launcher ends them, and
    ``asked`` is what they agree on.

    Outside the main thread, and where Ctrl-C is ignored, it changes nothing.
    """

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.requested, self._ranks = False, ranks
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> DelayedInterrupt:
        if threading.current_thread() is threading.main_thread():
            both = (signal.SIGINT,) if self._ranks is None else (signal.SIGINT, signal.SIGTERM)
            previous = {number: signal.getsignal(number) for number in both}
            usual = (signal.default_int_handler, signal.SIG_DFL)
            self._previous = {
                number: handler
                for (number, handler), default in zip(previous.items(), usual, strict=False)
                if handler == default
            }
            for number in self._previous:
                signal.signal(number, self._request)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether this rank or any other one was interrupted; all ranks ask together."""
        return self.requested if self._ranks is None else self._ranks.any(self.requested)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
