"""What a server's connections may take: how many there are, and how long they are waited for.

===================  ==========================================================================
connections          128, or a quarter of the files that the process may open. Beyond that the
                     oldest one without a whole request makes room
a request's head     10 seconds, from the connection or the answer before; and so has the first
                     part of its body
an answer            30 seconds in which nothing of it is read
===================  ==========================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
ANSWER_SECONDS = 30.0
MOST_CONNECTIONS = 128


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
    """The open connections of a server, the oldest first.

    Parameters
    ----------
    speaks : the class that speaks HTTP on one of them: ``H11Connection``, or another ``Connection``
    """

    def __init__(self, speaks: Callable[..., Any] | None = None) -> None:
        self.most = most_connections()
        self.open: dict[Connection, None] = {}
        self._speaks = speaks or H11Connection

    def add(self, connection: Connection) -> None:
        """Take a new connection; where there are too many, an idle one is closed, or the new one.

        First go those that have never sent a request, then those whose request has not arrived
        whole, then those between two requests; of each kind the oldest.
        """
        if len(self.open) >= self.most:
            silent = (each for each in self.open if each.cycle is None)
            slow = (each for each in self.open if each.busy and each.cycle.more_body)
            idle = (each for each in self.open if not each.busy)
            closed = next(silent, None) or next(slow, None) or next(idle, None) or connection
            self.open.pop(closed, None)
            closed.transport.abort()
            if closed is connection:
                return
        self.open[connection] = None

    def protocol(self, **options: Any) -> Any:
        """Return what speaks HTTP on a new connection; uvicorn calls it."""
        return self._speaks(self, **options)


if TYPE_CHECKING:
    _Speaks = H11Protocol  # or another of uvicorn's, which have the same methods
else:
    _Speaks = object


class Connection(_Speaks):
    """One connection, which is closed where the other side makes the server wait.

    It stands before one of uvicorn's protocols in the bases of a class.
    """

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
        """Run the clock while a request's head, or the first of its body, is waited for."""
        if self.busy and (self.cycle.body or not self.cycle.more_body):
            if self._head is not None:
                self._head.cancel()
            self._head = None
        elif self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


class H11Connection(Connection, H11Protocol):
    """A connection on which h11 speaks HTTP."""
