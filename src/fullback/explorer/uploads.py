"""Files that the page sends: pictures, and models.

Nothing is ever opened by a name that the page sends. What it sends goes, under a name of the
server's own, into a folder that no other user can read, for the time that it takes to read it.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from fullback.errors import FullbackError, InputError
from fullback.layers.base import Array, Shape
from fullback.network import Network, load
from fullback.predicting import read_image_for

T = TypeVar("T")

MOST_IMAGE_BYTES = 8 * 2**20
MOST_MODEL_BYTES = 64 * 2**20

_MOST_PIXELS = 16_000_000


def read_picture(body: bytes, net: Network, *, invert: bool) -> Array:
    """Return an uploaded picture as a network takes it, of shape (C, H, W).

    Only formats that start no programs are opened, and their size is checked first.

    Raises
    ------
    DataError, ShapeError
        It is not an image of these formats, damaged or too large, or the network takes no images.
    """

    def read(path: Path) -> Array:
        return read_image_for(net, path, str(path), invert=invert, most_pixels=_MOST_PIXELS).pixels

    return _from_file(body, "the picture", read)


def read_model(body: bytes) -> Network:
    """Return the network of an uploaded model file.

    Raises
    ------
    ModelFileError
        It is damaged, or not a model of fullback's.
    """
    return _from_file(body, "the file", load)


def _from_file(body: bytes, called: str, read: Callable[[Path], T]) -> T:
    with tempfile.TemporaryDirectory(prefix="fullback-") as folder:
        path = Path(folder, "upload")
        path.write_bytes(body)
        try:
            return read(path)
        except FullbackError as error:  # the message names the path, which is the server's own
            raise type(error)(str(error).replace(str(path), called)) from error


def read_pixels(text: str, shape: Shape) -> Array:
    """Return a drawing: base64 of one byte a pixel, in the order of (C, H, W).

    Raises
    ------
    InputError
        It is not base64, or has another number of pixels.
    """
    try:
        pixels = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (binascii.Error, ValueError):
        raise InputError("the drawing is not base64; reload the page") from None
    if pixels.size != int(np.prod(shape)):
        wanted = " x ".join(map(str, shape))
        raise InputError(
            f"the drawing has {pixels.size} pixels, but the network takes {wanted}; reload the page"
        )
    return pixels.reshape(shape)
