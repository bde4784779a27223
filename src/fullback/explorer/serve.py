"""The explorer in a process or a notebook: its address, its beginning and end."""

from __future__ import annotations

import html
import json
import re
import secrets
from typing import Any

from fullback.errors import OptionError
from fullback.explorer.app import create_app
from fullback.explorer.config import ServerConfig
from fullback.explorer.security import AccessPolicy
from fullback.explorer.session import Session
from fullback.server.address import listen, url
from fullback.server.background import BackgroundServer
from fullback.server.connections import Connections

PORT = 8017
"""The port where none is given: the same one every day, so that links can be kept."""


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
        listener = listen(host, [PORT, 0] if port is None else [port])
        self.port: int = listener.getsockname()[1]
        self.height = height
        self.access = AccessPolicy(token or secrets.token_urlsafe(18), host, self.port, framed)
        app = create_app(config, self.access)
        self._server = BackgroundServer(
            app, listener, Connections(), name="fullback-explorer", stop_seconds=2
        )

    @property
    def address(self) -> str:
        """What to open."""
        return f"{url(self.access.host, self.port)}#token={self.access.token}"

    def start(self) -> Explorer:
        """Serve in a thread, and return when the page can be opened."""
        self._server.start()
        return self

    def wait(self) -> None:
        """Wait until the server ends, or for Ctrl-C."""
        self._server.wait()

    def close(self) -> None:
        """End the server, and every training run."""
        self._server.close()

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
