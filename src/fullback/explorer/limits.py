"""What requests may take of the server beside connections, bodies and lines in the log.

=================================  =========================
requests being worked on           32, and 8 of one tab
=================================  =========================

Whoever has no token gets no further than the head of a request.
"""

from __future__ import annotations

import logging
from collections import Counter

from fullback.server.asgi import App, Receive, Scope, Send, refuse

MOST_REQUESTS = 32
MOST_REQUESTS_OF_A_TAB = 8

LOG = logging.getLogger("fullback.explore")


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
