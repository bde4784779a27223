"""What requests may take of the server: connections, time, bytes, work, and lines in the log.

===========================  =====================================================================
connections                  128, or a quarter of the files that the process may open. Beyond that
                             the oldest one without a request makes room
a request's head             10 seconds, from the connection or the answer before
a request's body             60 seconds
an answer                    30 seconds in which nothing of it is read
bodies that are being read   128 MiB, all together
requests being worked on     32, and 8 of one tab
lines about failures         5 a minute
===========================  =====================================================================

Whoever has no token gets no further than the head of a request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from fullback.explorer.security import App, Receive, Scope, Send, refuse

HEAD_SECONDS = 10.0
BODY_SECONDS = 60.0
ANSWER_SECONDS = 30.0
MOST_CONNECTIONS = 128
MOST_BYTES_IN_FLIGHT = 128 * 2**20
MOST_REQUESTS = 32
MOST_REQUESTS_OF_A_TAB = 8
MOST_LINES = 5

_WINDOW = 60.0  # seconds in which so many lines are written

LOG = logging.getLogger("fullback.explore")


# Connections --------------------------------------------------------------------------------------


def most_connections() -> int:
    """Return how many connections a server holds, so that files can still be opened."""
    try:
        import resource
    except ImportError:  # Windows
        return MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(4, min(MOST_CONNECTIONS, files // 4))


class Connections:
    """The open connections of a server, the oldest first."""

    def __init__(self) -> None:
        self.most = most_connections()
        self.open: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        """Take a new connection; where there are too many, an idle one is closed, or the new one.

        First go those that have never sent a request, of these the oldest.
        """
        if len(self.open) >= self.most:
            silent = (each for each in self.open if each.cycle is None)
            idle = (each for each in self.open if not each.busy)
            closed = next(silent, None) or next(idle, None) or connection
            self.open.pop(closed, None)
            closed.transport.abort()
            if closed is connection:
                return
        self.open[connection] = None

    def protocol(self, **options: Any) -> Connection:
        """Return what speaks HTTP on a new connection; uvicorn calls it."""
        return Connection(self, **options)


class Connection(H11Protocol):
    """HTTP on one connection, which is closed where the other side makes the server wait."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._all = connections
        self._head: asyncio.TimerHandle | None = None
        self._answer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        super().connection_made(transport)
        self._watch()
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._all.open.pop(self, None)
        for timer in (self._head, self._answer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Wait for the other side to take what was written, but not for ever."""
        super().pause_writing()
        self._answer = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        if self._answer is not None:
            self._answer.cancel()

    def _watch(self) -> None:
        """Run the clock for a request's head while none is being answered."""
        if self.busy:
            if self._head is not None:
                self._head.cancel()
            self._head = None
        elif self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


# Requests -----------------------------------------------------------------------------------------


class RequestLimit:
    """The middleware that refuses requests while too many others are being worked on."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._tabs: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith("/api"):
            await self.app(scope, receive, send)
            return
        tab = scope["path"].removeprefix("/api/sessions/").partition("/")[0]
        if self._tabs[tab] >= MOST_REQUESTS_OF_A_TAB:
            reason = "this tab has sent too many requests at once; wait for their answers"
            await refuse(429, reason)(scope, receive, send)
            return
        if self._tabs.total() >= MOST_REQUESTS:
            await refuse(503, "the server is busy; try again in a moment")(scope, receive, send)
            return
        self._tabs[tab] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._tabs[tab] -= 1
            if not self._tabs[tab]:
                del self._tabs[tab]


class Bodies:
    """Reads the bodies of requests, so many bytes at a time."""

    def __init__(self) -> None:
        self.in_flight = 0

    async def read(self, request: Request, most: int) -> bytes:
        """Return a request's body of at most so many bytes.

        Raises
        ------
        HTTPException
            It has more, comes too slowly, or others take all the room.
        """
        length = request.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > most:
            raise _too_much(most)
        parts: list[bytes] = []
        size = 0
        try:
            with anyio.fail_after(BODY_SECONDS):
                async for part in request.stream():
                    size += len(part)
                    self.in_flight += len(part)
                    parts.append(part)
                    if size > most:
                        raise _too_much(most)
                    if self.in_flight > MOST_BYTES_IN_FLIGHT:
                        raise _closing(503, "the server is busy with other files; try again")
            return b"".join(parts)
        except TimeoutError:
            raise _closing(
                408, f"the request took more than {BODY_SECONDS:g} seconds to arrive; try again"
            ) from None
        finally:
            self.in_flight -= size


def _too_much(most: int) -> HTTPException:
    return _closing(
        413, f"the file has more than {most // 2**20} MiB, which is all that this page takes"
    )


def _closing(status: int, reason: str) -> HTTPException:
    """Return an answer after which the rest of the request is not waited for."""
    return HTTPException(status, reason, headers={"Connection": "close"})


# The log ------------------------------------------------------------------------------------------


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


def limit_log() -> None:
    """Write what fails in this server's loop, in uvicorn and here by ``OneLine``."""
    for name in (LOG.name, "uvicorn.error"):
        logging.getLogger(name).addFilter(ONE_LINE)

    def failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        LOG.error("%s", context.get("message"), exc_info=context.get("exception"))

    asyncio.get_running_loop().set_exception_handler(failed)
