"""What a request sends, made to images that a network takes.

===========================  =====================================================================
``application/json``         ``{"pixels": ...}``, whole numbers from 0 to 255, as in an image file;
                             or ``{"values": ...}``, numbers on the scale of the training images
``image/...``                an image file; so is ``application/octet-stream``
``multipart/form-data``      image files, each a field of any name
===========================  =====================================================================
"""

from __future__ import annotations

import io
import re
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import orjson
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from fullback.errors import InputError, ShapeError
from fullback.layers.base import Array, Shape
from fullback.predicting import read_image_for
from fullback.serve.models import Served

MOST_JSON_BYTES = 4 * 2**20
MOST_FILE_BYTES = 8 * 2**20
MOST_FORM_BYTES = 16 * 2**20
MOST_IMAGES = 256
MOST_FILES = 32
MOST_PIXELS = 16_000_000
LARGEST = 1e9
"""The largest number in ``values``, and, below 0, the smallest."""

_FORMS = ("pixels", "values")
_NO_NUMBERS = (b"true", b"false", b"null", b'"')  # which NumPy would take for numbers
_KEYS = re.compile(rb'^\s*\{\s*"(pixels|values)"\s*:')
_ADVICE = (
    'send {"pixels": ...} with whole numbers from 0 to 255, or {"values": ...} with numbers on the '
    "scale of the training images"
)


# JSON -------------------------------------------------------------------------------------------


def read_json(body: bytes, model: Served, *, invert: bool) -> Array:
    """Return the images of a JSON body, of shape (N, *input_shape), uint8 or float64.

    Raises
    ------
    InputError, ShapeError
        It is not JSON, not in this form, or not numbers of the network's shape.
    """
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the request is not JSON ({error}); {_ADVICE}") from None
    if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in _FORMS:
        raise InputError(f"the request is not an object with one of these two; {_ADVICE}")
    if any(word in body[_start(body) :] for word in _NO_NUMBERS):
        raise InputError(f"the request holds something else than numbers; {_ADVICE}")
    ((form, numbers),) = given.items()
    try:
        array: Array = np.array(numbers)
    except (ValueError, OverflowError):  # lists of different lengths, or a number that is too long
        raise InputError(f"{form} is not an array: its lists have different lengths") from None
    if array.dtype.kind not in "iuf":
        raise InputError(f"{form} holds something else than numbers; {_ADVICE}")
    array = _many(array, model.network.input_shape)
    if form == "pixels":
        pixels = _as_pixels(array)
        return 255 - pixels if invert else pixels
    if invert:
        raise InputError("invert goes with image files and pixels; turn values round yourself")
    values = array.astype(np.float64)
    largest = float(np.abs(values).max())
    if not largest <= LARGEST:
        raise InputError(f"values must be from {-LARGEST:g} to {LARGEST:g}, got {largest:g}")
    return values


def _start(body: bytes) -> int:
    """Return where the numbers begin: behind the key, which is a text."""
    found = _KEYS.match(body)
    return found.end() if found else 0


def _as_pixels(array: Array) -> Array:
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):
        wrong = low if low < 0 else high
        raise InputError(f"pixels must be whole numbers from 0 to 255, got {wrong:g}; {_ADVICE}")
    pixels: Array = array.astype(np.uint8)
    if array.dtype.kind == "f" and (pixels != array).any():
        wrong = array[pixels != array][0]
        raise InputError(f"pixels must be whole numbers from 0 to 255, got {wrong:g}; {_ADVICE}")
    return pixels


def _many(array: Array, shape: Shape) -> Array:
    """Return one image or several as (N, *shape); channels may be left out where there is one."""
    shapes = [shape, shape[1:]] if len(shape) == 3 and shape[0] == 1 else [shape]
    for one in shapes:
        if array.shape == one:
            return array.reshape(1, *shape)
    for one in shapes:
        if array.shape[1:] == one and len(array):
            if len(array) > MOST_IMAGES:
                raise InputError(
                    f"{len(array):,} images are too many for one request; send at most "
                    f"{MOST_IMAGES} at a time"
                )
            return array.reshape(len(array), *shape)
    wanted = " or ".join(str(one) for one in shapes)
    raise ShapeError(
        f"an image has the shape {wanted}, and several have it behind their number, got an array "
        f"of shape {array.shape}"
    )


# Files ------------------------------------------------------------------------------------------


def read_files(files: list[tuple[str, bytes]], model: Served, *, invert: bool) -> list[Array]:
    """Return the pixels of image files, each of shape (C, H, W), uint8 or float32.

    Parameters
    ----------
    files : what each is called in errors, and its content

    Raises
    ------
    DataError
        One is not an image of the formats that are read, damaged, or too large.
    """
    return [
        read_image_for(
            model.network, io.BytesIO(content), called, invert=invert, most_pixels=MOST_PIXELS
        ).pixels
        for called, content in files
    ]


async def split_form(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """Return the files of a form: what each is called, and its content.

    Raises
    ------
    InputError
        It is not a form, or has no files, or too many, or fields that are not files.
    """
    headers = Headers({"content-type": content_type})

    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(headers, once(), max_files=MOST_FILES, max_fields=0)
        form = await parser.parse()
    except (MultiPartException, MultipartParseError, KeyError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", None) or f"it is damaged: {error}"
        raise InputError(f"the form cannot be read ({reason})") from None
    files: list[tuple[str, bytes]] = []
    try:
        for name, part in form.multi_items():
            if isinstance(part, UploadFile):
                files.append((_called(part.filename or name, len(files)), await part.read()))
    finally:
        await form.close()
    if not files:
        raise InputError("the form has no files; send each image as a file: curl -F image=@a.png")
    return files


def _called(name: Any, place: int) -> str:
    plain = "".join(c for c in str(name)[:100] if c.isprintable())
    return f"image {place} ({plain})" if plain else f"image {place}"
