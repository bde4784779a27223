"""The one place where image files are opened: which formats, and how large an image may be.

Pillow reads some forty formats. Some of their readers start other programs (EPS starts
Ghostscript), and some check no size before they reserve memory. Only the formats in ``FORMATS`` are
tried, whose readers do nothing but decode pixels. Its content says
what a file is, not its name.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fullback.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "AVIF", "TIFF", "PPM", "TGA")
"""The formats that are read, in Pillow's words; PPM stands for PBM, PGM, PPM and PFM."""

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".pgm"),
    *(".ppm", ".tga"),
)
"""How the names of image files end."""

MOST_PIXELS = 50_000_000
_MOST_SIDE = 65_535
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHERS = (
    *((b"ftyp" + brand, "HEIC") for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
    (b"%!PS", "EPS"),
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"jP  ", "JPEG 2000"),
    (b"<svg", "SVG"),
)
_DECODED_TWICE = ("WEBP", "AVIF")  # whose decoders hold the image several times
_TILE = (322, 323)  # the TIFF tags of a tile's columns and rows
_BITS = 258  # the TIFF tag of the bits of each channel


def is_image_name(text: str) -> bool:
    """Whether a text ends as the names of image files do."""
    return text.strip().lower().endswith(IMAGE_SUFFIXES)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show none of Pillow's warnings about damaged metadata; those of too many pixels are errors.

    It is for all threads, and only one of them may enter it at a time.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextlib.contextmanager
def open_image(
    file: str | os.PathLike[str] | io.BytesIO,
    path: str,
    *,
    most_pixels: int | None = None,
    silenced: bool = False,
) -> Iterator[Image.Image]:
    """Open an image whose format and size are allowed; its pixels are not decoded yet.

    Pillow's warnings about damaged metadata are not shown.

    Parameters
    ----------
    file : a path, or the content
    path : what errors call it
    most_pixels : rows times columns; 50 million by default
    silenced : whether ``quiet`` was entered, for this and other threads

    Raises
    ------
    DataError
        It is not an image of these formats, too large, or damaged; also where that is found out
        inside of the ``with`` block.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # By a path, Pillow would map the file into memory: turned TIFF files come out scrambled
        # (Pillow 13), and a file that is cut short meanwhile ends the process.
        with (
            contextlib.nullcontext() if silenced else quiet(),
            _content(file) as content,
            Image.open(content, formats=FORMATS) as image,
        ):
            _check_size(path, image, most_pixels or MOST_PIXELS)
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{path}: {_what_it_is(file)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{path}: has too many pixels; make it smaller") from None
    except DataError:
        raise
    except Exception as error:  # on damaged files, Pillow's readers raise whatever happens
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image ({reason})") from error


def _content(file: str | os.PathLike[str] | io.BytesIO) -> AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(file) if isinstance(file, io.BytesIO) else Path(file).open("rb")


def _what_it_is(file: str | os.PathLike[str] | io.BytesIO) -> str:
    """Say what a file is that cannot be opened as an image."""
    with _content(file) as content:
        content.seek(0)
        start = content.read(16)
    if start[:4] in _TIFF:
        return (
            "is a TIFF file whose pixels cannot be read; save it as grey of 8 or 16 bits, as grey "
            "floating-point numbers, or as RGB of 8 bits"
        )
    other = next((f" but {name}" for sign, name in _OTHERS if sign in start), "")
    return f"is not an image of a known format ({', '.join(FORMATS)}){other}; convert it to PNG"


def _check_size(path: str, image: Image.Image, most_pixels: int) -> None:
    """Refuse what is too large, by its header."""
    columns, rows = image.size
    if image.format in _DECODED_TWICE:
        most_pixels //= 2
    if columns * rows > most_pixels:
        raise DataError(
            f"{path}: has {columns} x {rows} pixels; expected at most {most_pixels:,} in all: "
            "make it smaller"
        )
    if max(columns, rows) > _MOST_SIDE:
        raise DataError(
            f"{path}: has {columns} x {rows} pixels; expected at most {_MOST_SIDE:,} in a row or "
            "column: cut it into smaller images"
        )
    if image.format == "TIFF":  # a tile is decoded as a whole, however small the image is
        width, height = (int(image.tag_v2.get(tag, 1)) for tag in _TILE)  # type: ignore[attr-defined]
        if width * height > most_pixels:
            raise DataError(
                f"{path}: has tiles of {width} x {height} pixels; expected at most "
                f"{most_pixels:,} in one: save it with smaller tiles"
            )


def bits_of(image: Image.Image) -> int:
    """Return the bits of each channel in the file of an image that was opened, 8 or 16 for most."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS, (1,))  # type: ignore[attr-defined]
        return int(max(bits)) if isinstance(bits, tuple) else int(bits)
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ()
    if image.format == "PPM" and isinstance(arguments, tuple):
        return 16 if isinstance(arguments[-1], int) and arguments[-1] > 255 else 8
    return 16 if ";16" in str(arguments) else 8
