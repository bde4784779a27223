"""The server: what can be asked for.

============================  ======================================================================
``POST /predict/NAME``        predictions of a model; ``/predict`` is the only one's
``GET /models``               the models, and what each takes
``GET /health``               whether the server can predict
``GET /metrics``              counters, for Prometheus
``GET /openapi.json``         all of this, for machines
============================  ======================================================================

A request that fails is answered with ``{"error": reason}``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fullback.serve.blocks import Blocks
from fullback.serve.handler import LOG, Predict
from fullback.serve.metrics import CONTENT_TYPE, Metrics
from fullback.serve.models import Served
from fullback.serve.openapi import description
from fullback.server.address import LOOPBACK, is_loopback
from fullback.server.asgi import App, Receive, Scope, Send, refuse
from fullback.server.connections import Connections
from fullback.server.log import limit_log


class Front:
    """What requests come to first: it refuses names that are not the server's.

    On a server that only this machine reaches, a foreign web page in a browser here could otherwise
    ask under a name of its own whose address was changed to 127.0.0.1 (DNS rebinding), and read the
    answers. A server that others reach goes by names that it cannot know.
    """

    def __init__(self, predict: Predict, others: App, host: str) -> None:
        self._predict, self._others = predict, others
        self._names = {*LOOPBACK, host, f"[{host}]"} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._others(scope, receive, send)
        elif self._names is not None and not self._knows(scope):
            refused = refuse(421, "this server does not go by that name; ask 127.0.0.1")
            await refused(scope, receive, send)
        elif scope["method"] == "POST" and f"{scope['path']}/".startswith("/predict/"):
            await self._predict(scope, receive, send)
        else:
            await self._others(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        """Whether Host, and Origin where a browser tells it, are names of this machine."""
        host, origin = b"", None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value.partition(b"://")[2]
        return all(
            _name(given) in (self._names or ()) for given in (host, origin) if given is not None
        )


def _name(given: bytes) -> str:
    """Return a Host's name, without its port."""
    text = given.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


def create_app(models: dict[str, Served], host: str, connections: Connections) -> App:
    """Return the application that serves these models, listening at a host."""
    metrics = Metrics(models)
    blocks = Blocks(metrics)
    predict = Predict(models, blocks, metrics)
    metrics.gauge(
        "fullback_waiting_images", "Images that wait to be computed", lambda: blocks.waiting
    )
    metrics.gauge("fullback_connections", "Open connections", lambda: len(connections.open))
    openapi = orjson.dumps(description(models))
    listing = orjson.dumps({"models": [model.description() for model in models.values()]})

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        limit_log(LOG)
        blocks.start()
        yield
        await run_in_threadpool(blocks.close)
        predict.close()

    async def health(request: Request) -> Response:
        word = "ok" if blocks.alive else "failed"
        return _json(orjson.dumps({"status": word}), 200 if blocks.alive else 503)

    async def counters(request: Request) -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def listed(request: Request) -> Response:
        return _json(listing)

    async def described(request: Request) -> Response:
        return _json(openapi)

    def get(path: str, answer: object) -> Route:
        return Route(path, answer, methods=["GET"])  # type: ignore[arg-type]

    others = Starlette(
        routes=[
            get("/health", health),
            get("/metrics", counters),
            get("/models", listed),
            get("/openapi.json", described),
            # Those of other methods; Front hands over what is posted.
            Route("/predict", predict, methods=["POST"]),
            Route("/predict/{name}", predict, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refused},
        lifespan=life,
    )
    others.router.redirect_slashes = False
    return Front(predict, others, host)


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return refuse(500, str(error))
    reason = error.detail
    if error.status_code == 404:
        reason = "there is no such page; see /models and /openapi.json"
    elif error.status_code == 405:
        reason = f"{request.method} cannot be done here; see Allow"
    return refuse(error.status_code, reason, error.headers)
