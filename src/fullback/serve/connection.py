"""HTTP on one connection by httptools, several times as fast as h11, and as guarded.

httptools has no limits of its own. Here a request's head has one, and so has all of a request, with
whatever a chunked body carries beside its data; and so have requests that are sent without waiting
for the answers before them.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fullback.server.connections import Connection, Connections

MOST_HEAD_BYTES = 2**16
MOST_REQUEST_BYTES = 40 * 2**20
MOST_PIPELINED = 16


class FastConnection(Connection, HttpToolsProtocol):  # type: ignore[misc]  # h11's, for type checks
    """A connection on which httptools speaks HTTP."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(connections, **options)
        self._in_head = True
        self._bytes = 0  # of the request that is being read
        self._too_many = False

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        self._bytes += len(data)
        if self._bytes > (MOST_HEAD_BYTES if self._in_head else MOST_REQUEST_BYTES) + 2**18:
            self.transport.abort()  # what was read at once before it was counted is allowed for
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._in_head, self._bytes = True, 0

    def on_headers_complete(self) -> None:
        """Begin the answer, unless too many are waiting for theirs already."""
        self._in_head = False
        if len(self.pipeline) >= MOST_PIPELINED:
            self._too_many = True
            raise ValueError("too many requests")  # which ends the parser
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; where answers are due, no other may take their place."""
        if self._too_many or self.busy:
            self.transport.abort()
        else:
            super().send_400_response(msg)
