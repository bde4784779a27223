"""A prediction that is asked for: from the request to the answer.

It is an ASGI application of its own, without Starlette's router and request around it, which would
cost as much as the rest of the server's work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fullback.errors import FullbackError, InputError, NotEnoughMemoryError, OptionError
from fullback.layers.base import Array
from fullback.predicting import brightness_words
from fullback.serve.blocks import Blocks, BusyError
from fullback.serve.metrics import Metrics
from fullback.serve.models import Served
from fullback.serve.reading import (
    MOST_FILE_BYTES,
    MOST_FORM_BYTES,
    MOST_JSON_BYTES,
    read_files,
    read_json,
    split_form,
)
from fullback.server.asgi import Receive, Scope, Send
from fullback.server.bodies import Bodies

LOG = logging.getLogger("fullback.serve")

MOST_DECODING_BYTES = 64 * 2**20  # of image files that wait or are read

_JSON = "application/json"
_FORM = "multipart/form-data"
_RETRY = {"Retry-After": "1"}
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Predict:
    """Answers requests for predictions.

    Parameters
    ----------
    models : by their names
    blocks : what computes
    metrics : what counts
    """

    def __init__(self, models: dict[str, Served], blocks: Blocks, metrics: Metrics) -> None:
        self._models, self._blocks, self._metrics = models, blocks, metrics
        self._bodies = Bodies()
        # One thread: so many pixels at a time are decoded, and not more.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="fullback-decode")
        self.decoding = 0

    def close(self) -> None:
        """End the thread that reads image files."""
        self._decoder.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it."""
        begun = time.perf_counter()
        name = ""
        headers: dict[str, str] = {}
        try:
            model = self._model(scope["path"])
            name = model.name
            status, content, images = 200, *await self._predict(model, scope, receive)
        except HTTPException as error:
            status, content = error.status_code, {"error": error.detail}
            headers, images = dict(error.headers or {}), 0
        except BusyError as error:
            status, content, headers, images = 503, {"error": str(error)}, _RETRY, 0
        except (MemoryError, NotEnoughMemoryError):
            content = {"error": "the server has not enough memory for this; try again"}
            status, headers, images = 503, _RETRY, 0
        except FullbackError as error:
            status, content, images = 400, {"error": str(error)}, 0
        except ClientDisconnect:
            self._metrics.refused(name, 499)
            return
        except Exception as error:
            LOG.exception("POST %s failed", scope["path"])
            kind = type(error).__name__
            content = {"error": f"something went wrong in the server ({kind})"}
            status, images = 500, 0
        if status == 200:
            self._metrics.done(name, images, time.perf_counter() - begun)
        else:
            self._metrics.refused(name, status)
        await respond(send, status, orjson.dumps(content), headers)

    def _model(self, path: str) -> Served:
        """Return the model that a path names, which is the only one where it names none."""
        models = self._models
        name = path.removeprefix("/predict").removeprefix("/")
        if name in models:
            return models[name]
        if not name and len(models) == 1:
            return next(iter(models.values()))
        known = ", ".join(f"/predict/{known}" for known in models)
        what = f"there is no model {name[:80]!r}" if name else "there are several models"
        raise HTTPException(404, f"{what}; ask for one of {known}")

    async def _predict(
        self, model: Served, scope: Scope, receive: Receive
    ) -> tuple[dict[str, Any], int]:
        invert = _invert(scope["query_string"])
        images = await self._images(model, scope, receive, invert=invert)
        images, note = model.network.read_images(images)
        computed = await self._blocks.answer(model, images)
        content: dict[str, Any] = {
            "model": model.name,
            "predictions": computed.predictions,
        }
        notes = [] if note is None else [note]
        if computed.inverted.any():
            notes.append(_inverted_note(model, computed.inverted, invert=invert))
        if notes:
            content["warnings"] = notes
        return content, len(images)

    async def _images(
        self, model: Served, scope: Scope, receive: Receive, *, invert: bool
    ) -> Array:
        given, encoding = "", b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                given = value.decode("latin-1")
            elif name == b"content-encoding":
                encoding = value.strip().lower()
        kind = given.partition(";")[0].strip().lower()
        if encoding not in (b"", b"identity"):
            raise HTTPException(415, "bodies must not be compressed: leave Content-Encoding out")
        if kind == _JSON:
            body = await self._bodies.read(scope, receive, MOST_JSON_BYTES)
            return read_json(body, model, invert=invert)
        a_file = kind.startswith("image/") or kind == "application/octet-stream"
        if not a_file and kind != _FORM:
            raise HTTPException(
                415,
                f"a request's Content-Type must be {_JSON}, image/..., application/octet-stream or "
                f"{_FORM}, got {kind[:80]!r}",
            )
        if not model.takes_files:
            shape = " x ".join(map(str, model.network.input_shape))
            raise HTTPException(
                415, f"{model.name} takes {shape} numbers, and no image files; send {_JSON}"
            )
        if a_file:
            files = [("the image", await self._bodies.read(scope, receive, MOST_FILE_BYTES))]
        else:
            files = split_form(await self._bodies.read(scope, receive, MOST_FORM_BYTES), given)
        return await self._decode(files, model, invert=invert)

    async def _decode(
        self, files: list[tuple[str, bytes]], model: Served, *, invert: bool
    ) -> Array:
        size = sum(len(content) for _, content in files)
        if self.decoding + size > MOST_DECODING_BYTES:
            raise BusyError("too many image files are waiting to be read; try again in a moment")
        self.decoding += size
        try:
            read = await asyncio.get_running_loop().run_in_executor(
                self._decoder, lambda: read_files(files, model, invert=invert)
            )
        finally:
            self.decoding -= size
        if len({pixels.dtype for pixels in read}) > 1:  # as 16-bit greys, which are floats
            raise InputError(
                "the image files have pixels of 8 bits and of others; send them one at a time"
            )
        return np.stack(read)


async def respond(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    """Send an answer in JSON."""
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    fields += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _invert(query: bytes) -> bool:
    """Read the query, whose only field is ``invert``.

    Raises
    ------
    OptionError
        It has others.
    """
    if not query:
        return False
    invert = False
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name != "invert" or value not in _FLAGS:
            raise OptionError(
                f"the query may hold invert=true or invert=false, got {f'{name}={value}'[:80]!r}"
            )
        invert = _FLAGS[value]
    return invert


def _inverted_note(model: Served, inverted: Array, *, invert: bool) -> str:
    """Say which images seem to have dark and light swapped."""
    record = model.network.trained_on
    assert record is not None  # noqa: S101 -- else no image looks inverted
    trained, here = brightness_words(record)
    count, first = int(inverted.sum()), int(inverted.argmax())
    what = (
        f"image {first} is {here}" if count == 1 else f"{count} images are {here}, from {first} on"
    )
    advice = "leave invert out" if invert else "try invert=true, which swaps dark and light"
    return f"{what}, but the model was trained on images that are {trained}; {advice}"
