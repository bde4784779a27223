"""The server of predictions: its socket, its beginning and its end."""

from __future__ import annotations

from typing import Any

from fullback.serve.app import create_app
from fullback.serve.connection import FastConnection
from fullback.serve.models import Served
from fullback.server.address import listen, url
from fullback.server.background import BackgroundServer
from fullback.server.connections import Connections

STOP_SECONDS = 8  # containers are killed 10 seconds after they were told to stop


class Service:
    """A server that predicts, in a thread of its own.

    Parameters
    ----------
    models : by their names
    host : where to listen; only this machine reaches "127.0.0.1"
    port : which port; 0 for any that is free

    Raises
    ------
    OptionError
        The server cannot listen there.
    """

    def __init__(self, models: dict[str, Served], *, host: str, port: int) -> None:
        listener = listen(host, [port])
        self.models, self.host = models, host
        self.port: int = listener.getsockname()[1]
        connections = Connections(FastConnection)
        self._server = BackgroundServer(
            create_app(models, host, connections),
            listener,
            connections,
            name="fullback-serve",
            stop_seconds=STOP_SECONDS,
        )

    @property
    def address(self) -> str:
        """Where requests go."""
        return url(self.host, self.port)

    def wait(self) -> None:
        """Wait until the server ends, or for Ctrl-C."""
        self._server.wait()

    def __enter__(self) -> Service:
        self._server.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.close()
