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
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

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
_NO_NUMBERS = (b"t", b"f", b"n")  # true, false and null, which would be taken for numbers
_DEEPEST = 8  # lists in lists, of which an error tells how long they are
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
    ((form, numbers),) = given.items()
    if body.count(b'"') != 2 or any(letter in body for letter in _NO_NUMBERS):
        raise InputError(f"{form} holds something else than numbers; {_ADVICE}")
    flat, images = _flat(numbers, model.network.input_shape)
    array = _pixels(flat) if form == "pixels" else _values(flat)
    if invert:
        array = 255 - array if form == "pixels" else _ends_of(model) - array
    return array.reshape(images, *model.network.input_shape)


def _ends_of(model: Served) -> float:
    """Return the sum of black and white in ``values``, from which they are inverted.

    Raises
    ------
    InputError
        It is not known which they are.
    """
    record = model.network.trained_on
    if record is None:
        return 1.0  # which is white; black is 0
    if record.black is None or record.white is None:
        raise InputError(
            "invert cannot be done: which values are black and white is not known of this model"
        )
    return record.black + record.white


def _flat(numbers: Any, shape: Shape) -> tuple[list[Any], int]:
    """Return the numbers of one image or several in one list, and how many images they are.

    NumPy does this more slowly, and lets other threads in between.

    Raises
    ------
    ShapeError, InputError
        They are not nested as images of this shape are, or too many. Channels may be left out where
        there is one.
    """
    shapes = [shape, shape[1:]] if len(shape) == 3 and shape[0] == 1 else [shape]
    for one in shapes:
        for images in ([numbers], numbers):
            flat = _unnested(images, one)
            if flat is None or isinstance(flat[0], list):
                continue
            if len(images) > MOST_IMAGES:
                raise InputError(
                    f"{len(images):,} images are too many for one request; send at most "
                    f"{MOST_IMAGES} at a time"
                )
            return flat, len(images)
    wanted = " or ".join(_times(one) for one in shapes)
    raise ShapeError(
        f"an image is {wanted} numbers, as lists in lists, and several are a list of such; got "
        f"{_times(_lengths(numbers)) or 'no list'}"
    )


def _unnested(images: Any, shape: Shape) -> list[Any] | None:
    """Return the numbers of images in one list; None where one has another shape."""
    if not isinstance(images, list) or not images:
        return None
    flat: list[Any] = images
    for size in shape:
        if not all(type(part) is list and len(part) == size for part in flat):
            return None
        flat = list(chain.from_iterable(flat))
    return flat


def _lengths(numbers: Any) -> list[int]:
    """Return the lengths of lists in lists, by the first of each."""
    found: list[int] = []
    while isinstance(numbers, list) and len(found) < _DEEPEST:
        found.append(len(numbers))
        numbers = numbers[0] if numbers else None
    return found


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _values(flat: list[Any]) -> Array:
    try:
        array = np.array(flat, np.float64)
    except (TypeError, ValueError):  # a list or an object in the place of a number
        raise InputError(f"values holds something else than numbers; {_ADVICE}") from None
    largest = float(np.abs(array).max())
    if largest > LARGEST:
        raise InputError(f"values must be from {-LARGEST:g} to {LARGEST:g}, got {largest:g}")
    return array


def _pixels(flat: list[Any]) -> Array:
    try:
        return np.frombuffer(bytes(flat), np.uint8)
    except (TypeError, ValueError):  # another kind of number, or another range
        pass
    wrong = [
        value
        for value in flat
        if not isinstance(value, int | float) or not 0 <= value <= 255 or value != int(value)
    ]
    if wrong:
        raise InputError(
            f"pixels must be whole numbers from 0 to 255, got {str(wrong[0])[:40]}; {_ADVICE}"
        )
    return np.array(flat, np.uint8)


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


class _Parts:
    """The parts of a form, as they are found in it."""

    def __init__(self) -> None:
        self.files: list[tuple[str, bytes]] = []
        self.whole = False
        self._name, self._field, self._value = "", b"", b""
        self._content: list[bytes] = []

    def callbacks(self) -> Any:
        """Return what a parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.files) >= MOST_FILES:
            raise InputError(f"the form has too many files; send at most {MOST_FILES} at a time")
        self._name, self._field, self._value, self._content = "", b"", b"", []

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"filename", b"").decode(errors="replace")
        self._field, self._value = b"", b""

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def _end(self) -> None:
        self.files.append((_called(self._name, len(self.files)), b"".join(self._content)))

    def _finish(self) -> None:
        self.whole = True


def split_form(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """Return the files of a form: what each is called, and its content.

    Raises
    ------
    InputError
        It is not a form, or damaged, or has no files or too many.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InputError(f"the form cannot be read ({error})") from None
    if not parts.whole or not boundary:
        raise InputError("the form cannot be read: it has no end; is its boundary right?")
    if not parts.files:
        raise InputError("the form has no files; send each image as a file: curl -F image=@a.png")
    return parts.files


def _called(name: str, place: int) -> str:
    plain = "".join(c for c in name[:100] if c.isprintable())
    return f"image {place} ({plain})" if plain else f"image {place}"
