"""A log that clients cannot fill: 5 lines about failures a minute, each without a traceback."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

MOST_LINES = 5

_WINDOW = 60.0  # seconds in which so many lines are written


class OneLine(logging.Filter):
    """Writes a failure as one line, without a traceback, and only so many a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._begin, self._lines = -_WINDOW, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten a record; False where it is not to be written."""
        now, left_out = time.monotonic(), 0
        if now - self._begin > _WINDOW:  # a new minute begins
            left_out = max(0, self._lines - MOST_LINES)
            self._begin, self._lines = now, 0
        self._lines += 1
        if self._lines > MOST_LINES:
            return False
        text = ascii(" ".join(record.getMessage().split())[:300])[1:-1]
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f": {ascii(f'{type(error).__name__}: {error}'[:300])[1:-1]}"
        if left_out:
            text += f" ({left_out} lines before were left out)"
        record.msg, record.args = text, ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


ONE_LINE = OneLine()


def limit_log(log: logging.Logger) -> None:
    """Write what fails in this server's loop, in uvicorn and in ``log`` by ``OneLine``."""
    for name in (log.name, "uvicorn.error"):
        logging.getLogger(name).addFilter(ONE_LINE)

    def failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        log.error("%s", context.get("message"), exc_info=context.get("exception"))

    asyncio.get_running_loop().set_exception_handler(failed)
