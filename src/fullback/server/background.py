"""A server in a thread of its own, with its beginning and its end."""

from __future__ import annotations

import socket
import threading
from typing import Any

import uvicorn

from fullback.errors import OptionError
from fullback.server.asgi import App
from fullback.server.connections import Connections

_START_SECONDS = 20.0


class BackgroundServer:
    """A server that answers from a thread, until it is closed.

    Parameters
    ----------
    app : what answers
    listener : the bound socket; it is closed with the server
    connections : what its connections may take
    name : of the thread
    stop_seconds : how long requests that were begun may take when the server is closed
    """

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        connections: Connections,
        *,
        name: str,
        stop_seconds: int,
    ) -> None:
        self._socket = listener
        self._stop_seconds = stop_seconds
        protocol: Any = connections.protocol
        options = uvicorn.Config(
            app,
            http=protocol,
            loop="asyncio",
            ws="none",
            backlog=max(4, connections.most // 4),  # as many may come before one is closed
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=3600,  # of which the connections have a shorter clock themselves
            timeout_graceful_shutdown=stop_seconds,
            lifespan="on",
        )
        self._server = uvicorn.Server(options)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        # Not Thread.join: where Ctrl-C comes meanwhile, Python takes the thread for ended.
        self._ended = threading.Event()

    def start(self) -> None:
        """Serve, and return when requests are answered.

        Raises
        ------
        OptionError
            The server did not start.
        """
        if self._thread.ident is not None:
            return
        self._thread.start()
        waited = 0.0
        while not self._server.started and waited < _START_SECONDS:
            if self._ended.wait(0.01):
                break
            waited += 0.01
        if not self._server.started:
            raise OptionError("the server did not start; see what it wrote")

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Wait until the server ends, or for Ctrl-C."""
        try:
            while not self._ended.wait(0.5):
                pass
        except KeyboardInterrupt:
            return

    def close(self) -> None:
        """Take no more requests, finish those that were begun, and end."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._ended.wait(_START_SECONDS + self._stop_seconds)
        self._socket.close()
