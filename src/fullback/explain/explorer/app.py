"""The server: the page's files, and what the page asks for.

==========================================  ======================================================
``GET /``, ``GET /page/NAME``               the page's own files, read once when the server starts
``POST /api/sessions``                      a new session, for a new tab; with a link, what it tells
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

import base64
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fullback.check.probe import probe
from fullback.errors import FullbackError, InputError, ShapeError
from fullback.explain.explorer import lab
from fullback.explain.explorer.fields import Fields
from fullback.explain.explorer.links import LONGEST_TEXT, restore
from fullback.explain.explorer.security import Door, Guard, refuse
from fullback.explain.explorer.session import Session, Sessions
from fullback.explain.explorer.start import MOST_LAYERS, Start
from fullback.explain.explorer.training import PACES, read_run
from fullback.explain.explorer.uploads import (
    MOST_IMAGE_BYTES,
    MOST_MODEL_BYTES,
    read_model,
    read_picture,
    read_pixels,
)

Answer: TypeAlias = dict[str, Any]
Work: TypeAlias = Callable[[Session, Fields], Any]

PAGE = Path(__file__).parent.parent / "page"

_MOST_JSON_BYTES = 2**20
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_MOST_SHOWN = 120  # images of the data set in one answer
_LOG = logging.getLogger("fullback.explore")


def create_app(start: Start, door: Door) -> Guard:
    """Return the server's application, behind its door."""
    sessions = Sessions(start)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(sessions.close)

    app = Starlette(
        routes=[*_page_routes(), *_api_routes(sessions)],
        exception_handlers={HTTPException: _refused, FullbackError: _failed, Exception: _broken},
        lifespan=life,
    )
    app.state.sessions = sessions
    return Guard(app, door)  # around all of it: also around answers to what went wrong


# The page's files -------------------------------------------------------------------------------


def _page_routes() -> list[Route]:
    files = {
        path.name: (path.read_bytes(), _TYPES[path.suffix])
        for path in PAGE.iterdir()
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
    async def new(request: Request) -> Response:
        fields = Fields(await _body(request, _MOST_JSON_BYTES))

        def open_session() -> Answer:
            session = sessions.new()
            return {"left_out": restore(session, fields), **session.state()}

        return _json(await run_in_threadpool(open_session))

    def route(path: str, method: str, work: Work) -> Route:
        async def answer(request: Request) -> Response:
            session = _session(sessions, request)
            fields = Fields(await _body(request, _MOST_JSON_BYTES))
            if method == "GET":
                fields = Fields.of(dict(_numbers(request)), "the query")
            made = await run_in_threadpool(work, session, fields)
            return made if isinstance(made, Response) else _json(made)

        return Route(f"/api/sessions/{{session}}{path}", answer, methods=[method])

    def upload(path: str, most: int, work: Callable[[Session, bytes, Request], Answer]) -> Route:
        async def answer(request: Request) -> Response:
            session = _session(sessions, request)
            body = await _body(request, most)
            return _json(await run_in_threadpool(work, session, body, request))

        return Route(f"/api/sessions/{{session}}{path}", answer, methods=["POST"])

    return [
        Route("/api/sessions", new, methods=["POST"]),
        route("", "GET", lambda session, fields: session.state()),
        route("/document", "GET", lambda session, fields: session.document()),
        route("/image", "POST", _image),
        route("/label", "POST", _label),
        route("/images", "GET", _images),
        route("/step", "POST", _step),
        route("/training", "POST", _train),
        route("/training", "GET", _training),
        route("/training/pause", "POST", _pause),
        route("/training/resume", "POST", _resume),
        route("/training/pace", "POST", _pace),
        route("/reset", "POST", _reset),
        route("/network", "POST", _network),
        route("/model", "GET", _save_model),
        route("/lab", "GET", _lab),
        route("/lab/pass", "POST", _lab_pass),
        route("/lab/checks", "POST", _lab_checks),
        route("/lab/curves", "POST", _lab_curves),
        upload("/upload", MOST_IMAGE_BYTES, _upload),
        upload("/model", MOST_MODEL_BYTES, _open_model),
    ]


async def _body(request: Request, most: int) -> bytes:
    """Read a request's body, but no more of it than is allowed."""
    parts, size = [], 0
    length = request.headers.get("content-length", "0")
    too_much = HTTPException(
        413, f"the file has more than {most // 2**20} MiB, which is all that this page takes"
    )
    if not length.isdigit() or int(length) > most:
        raise too_much
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_much
        parts.append(part)
    return b"".join(parts)


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
    status = error.status_code if isinstance(error, HTTPException) else 500
    return refuse(status, error.detail if isinstance(error, HTTPException) else str(error))


async def _failed(request: Request, error: Exception) -> Response:
    return refuse(400, str(error))


async def _broken(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refuse(500, f"something went wrong in the server ({type(error).__name__}: {error})")


# The image --------------------------------------------------------------------------------------


def _image(session: Session, fields: Fields) -> Answer:
    with session.lock:
        if fields.has("pixels"):
            text = fields.text("pixels", _MOST_JSON_BYTES)
            label = session.label if fields.flag("keep_label") else None
            session.show_image(read_pixels(text, session.net.input_shape), "drawing")
            session.set_label(label)
        else:
            part = fields.choice("part", ("test", "train"))
            session.pick(part, fields.whole("index", 0, 10**9))
        return session.document()


def _label(session: Session, fields: Fields) -> Answer:
    with session.lock:
        session.set_label(fields.whole("label", 0, 10**6) if fields.has("label") else None)
        return session.document()


def _upload(session: Session, body: bytes, request: Request) -> Answer:
    invert = request.query_params.get("invert") == "1"
    shape = session.net.input_shape
    pixels = read_picture(body, shape, session.start.read_image, invert=invert)
    with session.lock:
        if session.net.input_shape != shape:
            raise InputError("the network was changed in the meantime; upload the picture again")
        session.show_image(pixels, "upload")
        return session.document()


def _images(session: Session, fields: Fields) -> Answer:
    if not session.fits:
        raise ShapeError(session.misfit())
    x, y = session.part(fields.choice("part", ("test", "train"), "test"))
    first = fields.whole("first", 0, 10**9, 0)
    count = fields.whole("count", 1, _MOST_SHOWN, 60)
    chosen = np.arange(len(x))
    if fields.has("label"):
        chosen = np.flatnonzero(y == fields.whole("label", 0, 10**6))
    with session.lock:
        if fields.choice("which", ("all", "wrong"), "all") == "wrong":
            chosen = chosen[session.net.predict(x[chosen]) != y[chosen]] if len(chosen) else chosen
        shown = chosen[first : first + count]
        predicted = session.net.predict(x[shown]) if len(shown) else shown
    return {
        "total": len(chosen),
        "images": [
            {"index": int(n), "label": int(y[n]), "predicted": int(p), "pixels": _bytes(x[n])}
            for n, p in zip(shown, predicted, strict=True)
        ],
    }


def _bytes(image: Any) -> str:
    """Return an image's pixels, one byte each, as base64."""
    pixels = image if image.dtype == np.uint8 else (np.clip(image, 0, 1) * 255).astype(np.uint8)
    return base64.b64encode(pixels.tobytes()).decode("ascii")


# Training ---------------------------------------------------------------------------------------


def _step(session: Session, fields: Fields) -> Answer:
    freeze = tuple(fields.texts("freeze", 40, MOST_LAYERS))
    with session.lock:
        made = session.step(fields.number("rate", "(0, 100]", 0.05), freeze)
        return {**made, "document": session.document()}


def _train(session: Session, fields: Fields) -> Answer:
    run = read_run(fields)
    with session.lock:
        trainer = session.train(run)
        trainer.pace = fields.choice("pace", tuple(PACES), "full")
        trainer.start()
        return trainer.report()


def _training(session: Session, fields: Fields) -> Answer:
    """Return how far a run is, with the losses from a place on, and the document as it is now."""
    with session.lock:
        report = session.training_report() or {"running": False, "losses": [], "epochs": []}
        first = fields.whole("first", 0, 10**6, 0)
        answer = {**report, "losses": report["losses"][first:], "first": first}
        if fields.whole("document", 0, 1, 0):
            answer["document"] = session.document()
        return answer


def _pause(session: Session, fields: Fields) -> Answer:
    if session.trainer is not None:
        session.trainer.pause()  # without the lock, which the running piece holds
    return _training(session, fields)


def _resume(session: Session, fields: Fields) -> Answer:
    if session.trainer is None:
        raise InputError("there is no run to go on with; start one")
    session.trainer.start()
    return _training(session, fields)


def _pace(session: Session, fields: Fields) -> Answer:
    if session.trainer is not None:
        session.trainer.pace = fields.choice("pace", tuple(PACES))
    return {}


# Networks ---------------------------------------------------------------------------------------


def _reset(session: Session, fields: Fields) -> Answer:
    seed = fields.whole("seed", 0, 2**31, 0)
    with session.lock:
        session.reset(seed)
        return {"state": session.state(), "document": session.document()}


def _network(session: Session, fields: Fields) -> Answer:
    text, seed = fields.text("text", LONGEST_TEXT), fields.whole("seed", 0, 2**31, 0)
    with session.lock:
        session.build(text, seed)
        return {"state": session.state(), "document": session.document()}


def _open_model(session: Session, body: bytes, request: Request) -> Answer:
    session.require_idle()
    net = read_model(body, session.start.read_model)
    with session.lock:
        session.open(net, "your model")
        return {"state": session.state(), "document": session.document()}


def _save_model(session: Session, fields: Fields) -> Response:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="fullback-") as folder:
        path = Path(folder, "model.safetensors")
        with session.lock:
            session.start.write_model(session.net, path)
        body = path.read_bytes()
    return Response(body, media_type="application/octet-stream")


# The mistake lab --------------------------------------------------------------------------------


def _batch(session: Session) -> lab.Batch:
    """Return the image on the page with a few others."""
    with session.lock:
        net, label = session.net, session.shown_label
        first: Any = session.image
        x: Any
        if session.fits:
            data = session.data
            others = np.flatnonzero(data.y_train != label)[: lab.COMPANIONS]
            x, y = data.x_train[others], data.y_train[others]
        else:
            x, y = probe(net)
            x, y = x[: lab.COMPANIONS], y[: lab.COMPANIONS]
        if first.dtype != x.dtype:
            first, x = (a / 255 if a.dtype == np.uint8 else a for a in (first, x))
        return lab.Batch.of(net, np.concatenate([first[None], x]), np.array([label, *y]))


def _choice(fields: Fields) -> lab.Choice:
    layer = fields.text("layer", 60) if fields.has("layer") else None
    return lab.Choice(fields.text("mistake", 60), fields.text("said", 400), layer)


def _lab(session: Session, fields: Fields) -> Answer:
    return {"mistakes": lab.catalogue(_batch(session))}


def _lab_pass(session: Session, fields: Fields) -> Answer:
    return lab.compared(_batch(session), _choice(fields))


def _lab_checks(session: Session, fields: Fields) -> Response:
    batch, choice = _batch(session), _choice(fields)
    lab.require_possible(batch, choice)
    return _stream(lab.checks(batch, choice))


def _lab_curves(session: Session, fields: Fields) -> Response:
    choice, data = _choice(fields), session.data
    lab.require_possible(_batch(session), choice)
    if not session.fits:
        raise ShapeError(session.misfit())
    rate, seed = fields.number("rate", "(0, 100]", 0.05), fields.whole("seed", 0, 2**31, 0)
    train, test = (data.x_train, data.y_train), (data.x_test, data.y_test)
    return _stream(lab.curves(session.net, train, test, choice, rate, seed))


def _stream(rows: Iterator[Answer]) -> Response:
    """Answer with one JSON object a line, each as soon as it is there; errors are lines as well."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for row in iterate_in_threadpool(rows):
                yield json.dumps(row) + "\n"
        except FullbackError as error:
            yield json.dumps({"error": str(error)}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")
