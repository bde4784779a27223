"""Single images from files, brought to the shape that a network takes."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.errors import DataError, OptionError, ShapeError

if TYPE_CHECKING:
    from PIL import Image

Resize: TypeAlias = Literal["stretch", "pad", "crop"]
"""How an image of other proportions gets its size: stretched, with a black margin, or cut off."""

RESIZES: tuple[Resize, ...] = ("stretch", "pad", "crop")

_MODES = {1: "L", 3: "RGB"}
_MOST_PIXELS = 50_000_000


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image that was read, and what it was in its file.

    Attributes
    ----------
    pixels : uint8 array of shape (C, H, W)
    mode : its mode in the file, in Pillow's words: "L", "RGB", "RGBA", ...
    size : its (columns, rows) in the file
    """

    pixels: NDArray[Any]
    mode: str
    size: tuple[int, int]


def load_image(
    path: str | os.PathLike[str],
    shape: tuple[int, ...],
    *,
    invert: bool = False,
    resize: Resize = "stretch",
) -> ImageFile:
    """Read an image file for a network whose input has this shape.

    The image is turned as its EXIF entry says, laid on white where it is transparent, turned to
    grey (one channel) or RGB (three), and resized. Of an animation the first frame is read.

    Parameters
    ----------
    path : any file that Pillow reads
    shape : (C, H, W), with C 1 or 3
    invert : swap dark and light: networks that learned light digits on dark take ink on paper so
    resize : "stretch" the image to its size; "pad" it with black, so that it keeps its proportions;
        or "crop" what is too long

    Raises
    ------
    DataError
        The file is missing, no image, damaged, larger than 50 million pixels, or its pixels are
        floating-point numbers.
    ShapeError
        The network does not take images with one or three channels.
    """
    if not os.path.isfile(path):  # noqa: PTH113 -- Path.is_file can raise
        check_channels(shape)
        reason = "is no file" if os.path.exists(path) else "no such file"  # noqa: PTH110
        raise DataError(f"{path}: {reason}; expected an image: check the path")
    return read_image(path, str(path), shape, invert=invert, resize=resize)


def check_channels(shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless image files can be read for networks that take this shape.

    Raises
    ------
    ShapeError
    """
    if len(shape) != 3 or shape[0] not in _MODES:
        raise ShapeError(
            f"image files can be read for networks that take (1, H, W) or (3, H, W), not {shape}"
        )


def read_image(
    file: str | os.PathLike[str] | io.BytesIO,
    path: str,
    shape: tuple[int, ...],
    *,
    invert: bool = False,
    resize: Resize = "stretch",
) -> ImageFile:
    """Read an image as ``load_image`` does; ``path`` is what errors call it."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    check_channels(shape)
    channels, rows, columns = shape
    if resize not in RESIZES:
        raise OptionError(f"resize must be one of {', '.join(RESIZES)}, got {resize!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                check_image(path, image)
                mode, size = image.mode, image.size
                turned = _eight_bits(ImageOps.exif_transpose(image))
                if turned.has_transparency_data:
                    turned = turned.convert("RGBA")
                    white = Image.new("RGBA", turned.size, "white")
                    turned = Image.alpha_composite(white, turned)
                ready = turned.convert(_MODES[channels])
                if ready.size != (columns, rows):
                    wanted, method = (columns, rows), Image.Resampling.LANCZOS
                    if resize == "stretch":
                        ready = ready.resize(wanted, method)
                    else:
                        fit = ImageOps.pad if resize == "pad" else ImageOps.fit
                        ready = fit(ready, wanted, method)
    except UnidentifiedImageError:
        raise DataError(f"{path}: is no image that Pillow reads; convert it to PNG") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{path}: has too many pixels; make it smaller") from None
    except DataError:
        raise
    except Exception as error:  # on damaged files, Pillow's readers raise whatever happens
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image ({reason})") from error
    pixels = np.asarray(ready, dtype=np.uint8).reshape(rows, columns, channels)
    pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (C, H, W)
    return ImageFile(255 - pixels if invert else pixels, mode, size)


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the (rows, columns) or (channels, rows, columns) that images are to be brought to.

    Raises
    ------
    OptionError
        It is neither.
    """
    shape = tuple(image_shape)
    whole = all(isinstance(n, int | np.integer) and 0 < n < 2**16 for n in shape)
    if len(shape) not in (2, 3) or not whole or (len(shape) == 3 and shape[0] not in (1, 3)):
        raise OptionError(
            "image_shape must be (rows, columns) or (channels, rows, columns) with 1 or 3 "
            f"channels, got {image_shape!r}"
        )
    return shape


def is_coloured(image: Image.Image) -> bool:
    """Whether an image that was opened has colours, as far as its header tells."""
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "I", "I;16")


def check_image(path: str, image: Image.Image) -> None:
    """Refuse, before any pixel is read, what is too large or has no known range."""
    if image.width * image.height > _MOST_PIXELS:
        raise DataError(
            f"{path}: has {image.width} x {image.height} pixels; expected at most "
            f"{_MOST_PIXELS:,} in all: make it smaller"
        )
    if image.mode == "F":
        raise DataError(
            f"{path}: has floating-point pixels, and what is white among them is not known; "
            "convert it to 8 bits"
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit grey to 8 bits; Pillow's own conversion cuts it off at 255."""
    from PIL import Image

    if image.mode.startswith("I"):  # I;16, and I, as which 16-bit PGM files are read
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image
