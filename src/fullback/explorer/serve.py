"""The server in a process or a notebook: its socket, its address, its beginning and end."""

from __future__ import annotations

import html
import json
import re
import secrets
import socket
import threading
from typing import Any

import uvicorn

from fullback.errors import OptionError
from fullback.explorer.app import create_app
from fullback.explorer.config import ServerConfig
from fullback.explorer.limits import Connections
from fullback.explorer.security import AccessPolicy, is_loopback
from fullback.explorer.session import Session

PORT = 8017
"""The port where none is given: the same one every day, so that links can be kept."""

_START_SECONDS = 20.0


class Explorer:
    """A server that waits for its page to be opened.

    Parameters
    ----------
    config : what is explored
    host : where to listen; only this machine reaches "127.0.0.1"
    port : which port; None for 8017, or a free one where that is taken
    framed : whether a notebook on this machine may show the page inside of itself
    height : of the page in a notebook, in pixels
    token : the word that the address holds, 8 to 200 letters, digits, - and _; None for a random
        one. With a token of one's own, links stay good when the server is started again

    Attributes
    ----------
    address : what to open in a browser. It holds a random word: whoever has it may look and train

    Raises
    ------
    OptionError
        The server cannot listen there.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        framed: bool = False,
        height: int = 900,
        token: str | None = None,
    ) -> None:
        self._config = config
        if token is not None and not re.fullmatch(r"[\w-]{8,200}", token, re.ASCII):
            raise OptionError("a token must be 8 to 200 letters, digits, - or _")
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.height = height
        self.access = AccessPolicy(token or secrets.token_urlsafe(18), host, self.port, framed)
        connections: Any = Connections()
        options = uvicorn.Config(
            create_app(config, self.access),
            http=connections.protocol,
            ws="none",
            backlog=max(4, connections.most // 4),  # as many may come before one is closed
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            lifespan="on",
        )
        self._server = uvicorn.Server(options)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """What to open."""
        host = self.access.host
        if host in ("0.0.0.0", "::"):  # noqa: S104 -- compared, not listened to
            host = _own_address()
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/#token={self.access.token}"

    def start(self) -> Explorer:
        """Serve in a thread, and return when the page can be opened."""
        if self._thread is not None:
            return self
        self._thread = threading.Thread(target=self._serve, name="fullback-explorer", daemon=True)
        self._thread.start()
        pause, waited = threading.Event(), 0.0
        while not self._server.started and self._thread.is_alive() and waited < _START_SECONDS:
            pause.wait(0.01)
            waited += 0.01
        if not self._server.started:
            raise OptionError("the explorer's server did not start; see what it wrote")
        return self

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def wait(self) -> None:
        """Wait until the server ends, or for Ctrl-C."""
        try:
            while self._thread is not None and self._thread.is_alive():
                self._thread.join(0.5)
        except KeyboardInterrupt:
            return

    def close(self) -> None:
        """End the server, and every training run."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_START_SECONDS)
        self._socket.close()

    def __enter__(self) -> Explorer:
        return self.start()

    def __exit__(self, *error: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Explorer at {self.address}"

    def _repr_html_(self) -> str:
        return frame_html(self.address, self.height, Session(self._config).trace()._repr_html_())


def frame_html(address: str, height: int, still: str) -> str:
    """Return the explorer as a frame, and what a page shows where its server is gone.

    That is in an exported or reopened notebook. The script finds out; where scripts do not run,
    both are shown.

    Parameters
    ----------
    address : of the explorer
    height : of the frame, in pixels
    still : HTML of the pass that the explorer began with
    """
    link, name = html.escape(address, quote=True), f"fullback-{secrets.token_hex(6)}"
    return (
        f'<div id="{name}"><iframe src="{link}" width="100%" height="{height}" '
        'style="border:1px solid #8888;border-radius:8px" title="fullback explorer"></iframe>'
        f'<p><a href="{link}" target="_blank" rel="noopener">in a tab of its own</a></p></div>'
        f'<details id="{name}-still"><summary>The explorer needs its running kernel: run the cell '
        "again to touch the page. This is the pass that it began with.</summary>"
        f"{still}</details>"
        f"<script>fetch({json.dumps(address.partition('#')[0])}, {{mode: 'no-cors'}})"
        f".catch(() => {{document.getElementById('{name}')?.remove();"
        f"document.getElementById('{name}-still')?.setAttribute('open', '');}});</script>"
    )


def _listen(host: str, port: int | None) -> socket.socket:
    if not host.strip():
        raise OptionError("the host to listen at is empty; give 127.0.0.1, or leave it out")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = [PORT, 0] if port is None else [port]
    for place in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, place))
        except OSError as error:
            listener.close()
            if place != ports[-1]:
                continue
            where = "address" if is_loopback(host) else "address of this machine"
            raise OptionError(
                f"cannot listen at {host}, port {place} ({error.strerror or error}); give another "
                f"--port, or another {where}"
            ) from None
        return listener
    raise AssertionError("there is always a last port")


def _own_address() -> str:
    """Return the address by which others reach this machine; without a network, 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses the way there, and sends nothing
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
