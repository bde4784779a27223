"""What the page asks for: each takes the session and what the request says, and answers."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from fullback.check.diagnose import probe
from fullback.errors import FullbackError, InputError
from fullback.explorer import lab
from fullback.explorer.checks import checks
from fullback.explorer.config import MOST_LAYERS
from fullback.explorer.curves import curves
from fullback.explorer.fields import Fields
from fullback.explorer.links import LONGEST_TEXT
from fullback.explorer.session import Session
from fullback.explorer.training import PACES, read_run
from fullback.explorer.uploads import read_model, read_picture, read_pixels
from fullback.export.safetensors import save
from fullback.layers.base import Array
from fullback.report.document import shown_range

Answer: TypeAlias = dict[str, Any]

_MOST_SHOWN = 120  # images of the data set in one answer
_MOST_PIXELS = 2**20  # characters of a drawing


# The image --------------------------------------------------------------------------------------


def choose_image(session: Session, fields: Fields) -> Answer:
    """Take a drawing, or an image of the data set; or swap dark and light in an upload."""
    with session.lock:
        if fields.has("pixels"):
            text = fields.text("pixels", _MOST_PIXELS)
            label = session.label if fields.flag("keep_label") else None
            session.show_image(read_pixels(text, session.net.input_shape), "drawing")
            session.set_label(label)
        elif fields.has("invert"):
            session.invert(inverted=fields.flag("invert"))
        elif fields.flag("wrong"):
            session.pick_wrong(fields.whole("after", -1, 10**9, -1))
        else:
            part = fields.choice("part", ("test", "train"))
            session.pick(part, fields.whole("index", 0, 10**9))
        return session.document()


def choose_label(session: Session, fields: Fields) -> Answer:
    """Take a label, or what the network predicts."""
    with session.lock:
        session.set_label(fields.whole("label", 0, 10**6) if fields.has("label") else None)
        return session.document()


def upload_picture(session: Session, body: bytes, request: Request) -> Answer:
    """Take a picture that was uploaded."""
    invert = request.query_params.get("invert") == "1"
    net = session.net
    pixels = read_picture(body, net, invert=invert)
    with session.lock:
        if session.net.input_shape != net.input_shape:
            raise InputError("the network was changed in the meantime; upload the picture again")
        session.show_image(pixels, "upload", inverted=invert)
        return session.document()


def list_images(session: Session, fields: Fields) -> Answer:
    """Return images of the data set, small, with what the network says to them."""
    session.require_fit()
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
            {
                "index": int(n),
                "label": int(y[n]),
                "predicted": int(p),
                "pixels": _bytes(session, x[n]),
            }
            for n, p in zip(shown, predicted, strict=True)
        ],
    }


def _bytes(session: Session, image: Array) -> str:
    """Return an image's pixels, one byte each, as base64."""
    pixels = image
    if image.dtype != np.uint8:
        black, white = shown_range(session.net, image)
        pixels = (np.clip((image - black) / (white - black), 0, 1) * 255).round().astype(np.uint8)
    return base64.b64encode(pixels.tobytes()).decode("ascii")


# Training ---------------------------------------------------------------------------------------


def step(session: Session, fields: Fields) -> Answer:
    """Make one step of gradient descent on the image."""
    freeze = tuple(fields.texts("freeze", 40, MOST_LAYERS))
    with session.lock:
        done = session.step(fields.number("rate", "(0, 100]", 0.05), freeze)
        return {**done, "document": session.document()}


def train(session: Session, fields: Fields) -> Answer:
    """Start a run."""
    run = read_run(fields)
    with session.lock:
        trainer = session.train(run)
        trainer.pace = fields.choice("pace", tuple(PACES), "full")
        trainer.start()
        return trainer.report()


def training(session: Session, fields: Fields) -> Answer:
    """Return how far a run is, with the losses from a place on, and the document as it is now."""
    with session.lock:
        report = session.training_report() or {"running": False, "losses": [], "epochs": []}
        first = fields.whole("first", 0, 10**6, 0)
        answer = {**report, "losses": report["losses"][first:], "first": first}
        if fields.whole("document", 0, 1, 0):
            answer["document"] = session.document()
        return answer


def pause(session: Session, fields: Fields) -> Answer:
    """Pause the run."""
    if session.trainer is not None:
        session.trainer.pause()  # without the lock, which the running piece holds
    return training(session, fields)


def resume(session: Session, fields: Fields) -> Answer:
    """Go on with the run."""
    if session.trainer is None:
        raise InputError("there is no run to resume; start one")
    session.trainer.start()
    return training(session, fields)


def set_pace(session: Session, fields: Fields) -> Answer:
    """Set how fast the run goes."""
    if session.trainer is not None:
        session.trainer.pace = fields.choice("pace", tuple(PACES))
    return {}


# Networks ---------------------------------------------------------------------------------------


def reset(session: Session, fields: Fields) -> Answer:
    """Give the network new weights."""
    seed = fields.whole("seed", 0, 2**31, 0)
    with session.lock:
        session.reset(seed)
        return {"state": session.state(), "document": session.document()}


def build_network(session: Session, fields: Fields) -> Answer:
    """Take a network in text form."""
    text, seed = fields.text("text", LONGEST_TEXT), fields.whole("seed", 0, 2**31, 0)
    with session.lock:
        session.build(text, seed)
        return {"state": session.state(), "document": session.document()}


def open_model(session: Session, body: bytes, request: Request) -> Answer:
    """Take a model file."""
    session.require_idle()
    net = read_model(body)
    with session.lock:
        session.open(net, "your model")
        return {"state": session.state(), "document": session.document()}


def save_model(session: Session, fields: Fields) -> Response:
    """Return the network as a model file."""
    with TemporaryDirectory(prefix="fullback-") as folder:
        path = Path(folder, "model.safetensors")
        with session.lock:
            save(session.net, path)
        body = path.read_bytes()
    return Response(body, media_type="application/octet-stream")


# The mistake lab --------------------------------------------------------------------------------


def _batch(session: Session) -> lab.Batch:
    """Return the image on the page with a few others."""
    with session.lock:
        net, label = session.net, session.shown_label
        first = net.check_images(session.image[np.newaxis])
        if session.fits:
            data = session.data
            others = np.flatnonzero(data.y_train != label)[: lab.COMPANIONS]
            x, y = net.check_images(data.x_train[others]), data.y_train[others]
        else:
            x, y = probe(net)
            x, y = x[: lab.COMPANIONS], y[: lab.COMPANIONS]
        if first.dtype != x.dtype:  # check_images leaves bytes that stand for 0 to 1
            first, x = (a / 255 if a.dtype == np.uint8 else a for a in (first, x))
        return lab.Batch.of(net, np.concatenate([first, x]), np.array([label, *y]))


def _choice(fields: Fields) -> lab.Choice:
    layer = fields.text("layer", 60) if fields.has("layer") else None
    return lab.Choice(fields.text("mistake", 60), fields.text("description", 400), layer)


def mistakes(session: Session, fields: Fields) -> Answer:
    """Return the catalogue, with what this network can have."""
    return {"mistakes": lab.catalogue(_batch(session))}


def mistaken_pass(session: Session, fields: Fields) -> Answer:
    """Return what a mistake changes."""
    return lab.compared(_batch(session), _choice(fields))


def check_mistake(session: Session, fields: Fields) -> Response:
    """Make every check on a mistake, a line each."""
    batch, choice = _batch(session), _choice(fields)
    lab.require_possible(batch, choice)
    return _stream(checks(batch, choice))


def train_mistaken(session: Session, fields: Fields) -> Response:
    """Train with a mistake and without, a line a step."""
    choice, data = _choice(fields), session.data
    lab.require_possible(_batch(session), choice)
    session.require_fit()
    rate, seed = fields.number("rate", "(0, 100]", 0.05), fields.whole("seed", 0, 2**31, 0)
    train, test = (data.x_train, data.y_train), (data.x_test, data.y_test)
    return _stream(curves(session.net, train, test, choice, rate, seed))


def _stream(rows: Iterator[Answer]) -> Response:
    """Answer with one JSON object a line, each as soon as it is there; errors are lines as well."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for row in iterate_in_threadpool(rows):
                yield json.dumps(row) + "\n"
        except FullbackError as error:
            yield json.dumps({"error": str(error)}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")
