"""The server: the page's files, and what the page asks for.

==========================================  ======================================================
``GET /``, ``GET /page/NAME``               the page's own files, read once when the server starts
``POST /api/sessions``                      a new session, for a new tab; with a link, what it says
``.../SESSION``                             its state
``.../SESSION/document``                    the image's forward and backward pass
``.../SESSION/image``, ``label``, ``upload``  another image or label; answers with the document
``.../SESSION/images``                      images of the data set, small, with predictions
``.../SESSION/step``                        one step of gradient descent on the image
``.../SESSION/training``                    a run: start, pause, go on, how far it is
``.../SESSION/reset``, ``network``, ``model``  new weights, another network, a model file
``.../SESSION/lab``, ``lab/pass``, ``lab/checks``, ``lab/curves``  the mistake lab
==========================================  ======================================================

A request that fails is answered with ``{"error": reason}``, and the page goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fullback.errors import FullbackError
from fullback.explorer import answers
from fullback.explorer.answers import Answer
from fullback.explorer.config import ServerConfig
from fullback.explorer.fields import Fields
from fullback.explorer.limits import LOG, RequestLimit
from fullback.explorer.links import restore
from fullback.explorer.security import AccessPolicy, Guard
from fullback.explorer.session import Session
from fullback.explorer.sessions import Sessions
from fullback.explorer.uploads import MOST_IMAGE_BYTES, MOST_MODEL_BYTES
from fullback.server.asgi import refuse
from fullback.server.bodies import Bodies
from fullback.server.log import limit_log

Work: TypeAlias = Callable[[Session, Fields], Any]

PAGES = tuple(Path(__file__).parents[1] / room / "web" for room in ("report", "explorer"))

_MOST_JSON_BYTES = 2**20
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def create_app(config: ServerConfig, access: AccessPolicy) -> Guard:
    """Return the server's application, behind its access policy."""
    sessions = Sessions(config)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        limit_log(LOG)
        yield
        await run_in_threadpool(sessions.close)

    app = Starlette(
        routes=[*_page_routes(), *_api_routes(sessions)],
        exception_handlers={
            HTTPException: _refused,
            FullbackError: _failed,
            MemoryError: _too_large,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
        lifespan=life,
    )
    app.state.sessions = sessions
    return Guard(
        RequestLimit(app), access
    )  # around all of it: also around answers to what went wrong


# The page's files -------------------------------------------------------------------------------


def _page_routes() -> list[Route]:
    files = {
        path.name: (path.read_bytes(), _TYPES[path.suffix])
        for folder in PAGES
        for path in folder.iterdir()
        if path.suffix in _TYPES
    }

    def file(name: str) -> Response:
        if name not in files:
            return refuse(404, "there is no such file")
        body, kind = files[name]
        return Response(body, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def index(request: Request) -> Response:
        return file("explore.html")

    async def named(request: Request) -> Response:
        return file(request.path_params["name"])

    return [Route("/", index), Route("/page/{name}", named)]


# Requests ---------------------------------------------------------------------------------------


def _api_routes(sessions: Sessions) -> list[Route]:
    bodies = Bodies()

    async def new(request: Request) -> Response:
        fields = Fields(await bodies.read(request.scope, request.receive, _MOST_JSON_BYTES))

        def open_session() -> Answer:
            session = sessions.new()
            return {"left_out": restore(session, fields), **session.state()}

        return _json(await run_in_threadpool(open_session))

    def route(path: str, method: str, work: Work) -> Route:
        async def answer(request: Request) -> Response:
            session = _session(sessions, request)
            fields = Fields(await bodies.read(request.scope, request.receive, _MOST_JSON_BYTES))
            if method == "GET":
                fields = Fields.of(dict(_numbers(request)), "the query")
            answered = await run_in_threadpool(work, session, fields)
            return answered if isinstance(answered, Response) else _json(answered)

        return Route(f"/api/sessions/{{session}}{path}", answer, methods=[method])

    def upload(path: str, most: int, work: Callable[[Session, bytes, Request], Answer]) -> Route:
        async def answer(request: Request) -> Response:
            session = _session(sessions, request)
            body = await bodies.read(request.scope, request.receive, most)
            return _json(await run_in_threadpool(work, session, body, request))

        return Route(f"/api/sessions/{{session}}{path}", answer, methods=["POST"])

    return [
        Route("/api/sessions", new, methods=["POST"]),
        route("", "GET", lambda session, fields: session.state()),
        route("/document", "GET", lambda session, fields: session.document()),
        route("/image", "POST", answers.choose_image),
        route("/label", "POST", answers.choose_label),
        route("/images", "GET", answers.list_images),
        route("/step", "POST", answers.step),
        route("/training", "POST", answers.train),
        route("/training", "GET", answers.training),
        route("/training/pause", "POST", answers.pause),
        route("/training/resume", "POST", answers.resume),
        route("/training/pace", "POST", answers.set_pace),
        route("/reset", "POST", answers.reset),
        route("/network", "POST", answers.build_network),
        route("/model", "GET", answers.save_model),
        route("/lab", "GET", answers.mistakes),
        route("/lab/pass", "POST", answers.mistaken_pass),
        route("/lab/checks", "POST", answers.check_mistake),
        route("/lab/curves", "POST", answers.train_mistaken),
        upload("/upload", MOST_IMAGE_BYTES, answers.upload_picture),
        upload("/model", MOST_MODEL_BYTES, answers.open_model),
    ]


def _session(sessions: Sessions, request: Request) -> Session:
    session = sessions.find(request.path_params["session"])
    if session is None:
        raise HTTPException(404, "the server does not know this tab any more; reload the page")
    return session


def _numbers(request: Request) -> Iterator[tuple[str, Any]]:
    """Yield the query's fields, whole numbers as numbers."""
    for name, value in request.query_params.items():
        yield name, int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value


def _json(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return refuse(500, str(error))
    return refuse(error.status_code, error.detail, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return refuse(400, str(error))


async def _too_large(request: Request, error: Exception) -> Response:
    return refuse(400, "there is not enough memory; use a smaller network, or smaller batches")


async def _gone(request: Request, error: Exception) -> Response:
    return refuse(400, "the request broke off")  # the reader has gone


async def _broken(request: Request, error: Exception) -> Response:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refuse(500, f"something went wrong in the server ({type(error).__name__}: {error})")
