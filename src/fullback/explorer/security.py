"""Who may ask the server anything, and what the browser may do with its answers.

A foreign web page, open in the same browser, can send requests to a server on this
machine. What keeps it out, in the order of the checks:

=============  ===================================================================================
Host           a name of this server's own. A foreign name whose address was changed to 127.0.0.1
               in between (DNS rebinding) is refused
Origin         where the browser tells it, this server. So is Sec-Fetch-Site
token          a random word that the page has from its address, behind the #, which browsers do
               not send anywhere. Everything but the page's own files asks for it, in a header that
               forms and images cannot set
=============  ===================================================================================

The answers carry a Content-Security-Policy: scripts, styles and requests of this server alone.
"""

from __future__ import annotations

import contextlib
import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders

from fullback.server.address import LOOPBACK, is_address, is_loopback
from fullback.server.asgi import App, Message, Receive, Scope, Send, refuse

TOKEN_HEADER = "X-Fullback-Token"  # noqa: S105 -- its name

_HTTP = 80
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
)
_NOTEBOOKS = (
    "http://127.0.0.1:* http://localhost:* https://127.0.0.1:* https://localhost:* vscode-webview:"
)


@dataclass(frozen=True)
class AccessPolicy:
    """Who is let in.

    Attributes
    ----------
    token : what every request to ``/api`` must carry
    host, port : where the server listens
    framed : whether a notebook on this machine may show the page inside of itself
    """

    token: str
    host: str
    port: int
    framed: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    def knows(self, name: str) -> bool:
        """Whether a Host header names this server.

        An address cannot be rebound to another one, so that beyond loopback every address is as
        good as the one that was given.
        """
        if self.port == _HTTP and (":" not in name or name.endswith("]")):
            name = f"{name}:{_HTTP}"  # which browsers leave out
        host, _, port = name.rpartition(":")
        if not host or port != str(self.port):
            return False
        if host in LOOPBACK or host == self.host:
            return True
        return not self.loopback and is_address(host.strip("[]"))

    def refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return the status and the reason for which a request is refused, or None."""
        name = headers.get("host", "")
        if not self.knows(name):
            return 421, "this server does not go by that name; open the address that it printed"
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        if (origin is not None and origin != f"http://{name}") or (
            path.startswith("/api") and site not in ("same-origin", "none")
        ):
            return 403, "the request comes from another web page; open the address that was printed"
        given = headers.get(TOKEN_HEADER, "").encode()
        if path.startswith("/api") and not hmac.compare_digest(given, self.token.encode()):
            return 401, (
                "this page belongs to another run of fullback explore; open the address that the "
                "running one printed"
            )
        return None


class Guard:
    """The middleware that applies the access policy, and puts the policy on every answer."""

    def __init__(self, app: App, access: AccessPolicy) -> None:
        self.app, self.access = app, access
        ancestors = _NOTEBOOKS if access.framed else "'none'"
        self.policy = _POLICY.format(ancestors=ancestors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = self.policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                # A notebook asks whether its server is still there; see serve.frame_html.
                asked = self.access.framed and not scope["path"].startswith("/api")
                headers["Cross-Origin-Resource-Policy"] = "cross-origin" if asked else "same-origin"
                if not self.access.framed:
                    headers["X-Frame-Options"] = "DENY"
                    headers["Cross-Origin-Opener-Policy"] = "same-origin"
            await send(message)

        refused = self.access.refusal(scope["path"], Headers(scope=scope))
        answer: App = self.app if refused is None else refuse(*refused)
        with contextlib.suppress(Exception):  # the app has answered, and written it to the log
            await answer(scope, receive, guarded)
