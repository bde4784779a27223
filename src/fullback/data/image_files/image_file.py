"""Single images from files, brought to the shape that a network takes."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.data.image_files.image_formats import bits_of, open_image
from fullback.errors import DataError, OptionError, ShapeError

if TYPE_CHECKING:
    from PIL import Image

    from fullback.pixels import ImageRecord

Resize: TypeAlias = Literal["stretch", "pad", "crop"]
"""How an image of other proportions gets its size: stretched, with a black margin, or cut off."""

Depth: TypeAlias = Literal["8-bit", "16-bit", "float"]
"""What the numbers in an image file are."""

RESIZES: tuple[Resize, ...] = ("stretch", "pad", "crop")

WHITE_16 = 65_535  # of an image with 16 bits
_MODES = {1: "L", 3: "RGB"}
_LARGE = 2**22  # pixels, from which on an image is decoded alone
_LARGE_ONE = threading.Lock()
_STRIP = 2**20  # pixels that are laid on white together
_PHOTOMETRIC = 262  # the TIFF tag that says whether 0 is white


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image that was read, and what it was in its file.

    Attributes
    ----------
    pixels : array of shape (C, H, W): uint8 from 0 to 255 of 8-bit files; float32 from 0 (black) to
        1 (white) of 16-bit greys; float32 as they are in the file of floating-point pixels
    mode : its mode in the file, in Pillow's words: "L", "RGB", "RGBA", "I;16", ...
    size : its (columns, rows) in the file
    depth : "8-bit", "16-bit" or "float"
    reduced : whether the file has colours of 16 bits, of which Pillow reads the upper 8
    """

    pixels: NDArray[Any]
    mode: str
    size: tuple[int, int]
    depth: Depth = "8-bit"
    reduced: bool = False

    def for_network(self, trained_on: ImageRecord | None) -> NDArray[Any]:
        """Return the pixels on the scale that a network takes.

        Parameters
        ----------
        trained_on : ``Network.trained_on`` of the network

        Returns
        -------
        array of shape (C, H, W): uint8 pixels as they are, as a network brings them to its scale
        itself; 16-bit greys between the network's black and white; floating-point pixels as they
        are in the file, whose scale must be that of the training images

        Raises
        ------
        InputError
            The image has 16 bits, and the network's black and white are not known.
        """
        if self.depth != "16-bit" or trained_on is None:
            return self.pixels
        return trained_on.from_shares(self.pixels)


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
    path : a PNG, JPEG, GIF, BMP, WebP, AVIF, TIFF, PGM/PPM or TGA file; its content says which,
        not its name
    shape : (C, H, W), with C 1 or 3
    invert : swap dark and light: networks that learned light digits on dark take ink on paper so
    resize : "stretch" the image to its size; "pad" it with black (with the smallest value, where
        pixels are floating-point numbers), so that it keeps its proportions; or "crop" what is too
        long

    Raises
    ------
    DataError
        The file is missing, no image of these formats, damaged, or larger than 50 million pixels
        or 65,535 rows or columns; its floating-point pixels hold NaN or infinity, or are to be
        inverted; its whole numbers of 32 bits go beyond 0 to 65,535.
    ShapeError
        The network does not take images with one or three channels.
    """
    if not os.path.isfile(path):  # noqa: PTH113 -- Path.is_file can raise
        check_channels(shape)
        reason = "is not a file" if os.path.exists(path) else "no such file"  # noqa: PTH110
        raise DataError(f"{path}: {reason}; expected an image: check the path")
    check_resize(resize)
    return read_image(path, str(path), shape, invert=invert, resize=resize)


def check_resize(resize: str) -> None:
    """Raise OptionError unless this is a way to resize images.

    Raises
    ------
    OptionError
    """
    if resize not in RESIZES:
        raise OptionError(f"resize must be one of {', '.join(RESIZES)}, got {resize!r}")


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
    most_pixels: int | None = None,
    silenced: bool = False,
) -> ImageFile:
    """Read an image as ``load_image`` does.

    Parameters
    ----------
    path : what errors call it
    most_pixels, silenced : as for ``open_image``
    """
    from PIL import ImageOps

    check_channels(shape)
    with (
        open_image(file, path, most_pixels=most_pixels, silenced=silenced) as image,
        _one_of_its_size(image),
    ):
        mode, size, depth = image.mode, image.size, depth_of(image)
        reduced = depth == "8-bit" and bits_of(image) > 8
        white_is_zero = depth == "16-bit" and _white_is_zero(image)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if depth == "8-bit":
            ready = _resized(_eight_bits(image, _MODES[shape[0]]), shape, resize)
            pixels = np.asarray(ready, np.uint8).reshape(*shape[1:], shape[0])
            pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (C, H, W)
            return ImageFile(255 - pixels if invert else pixels, mode, size, depth, reduced)
        if depth == "16-bit":
            ready = _resized(_sixteen_bits(path, image), shape, resize)
            grey = np.clip(np.asarray(ready, np.float32) / np.float32(WHITE_16), 0, 1)
            grey = 1 - grey if white_is_zero != invert else grey
        elif invert:
            raise DataError(
                f"{path}: has floating-point pixels, whose black and white are not known, so that "
                "they cannot be inverted; leave out invert, or convert it to 16 bits"
            )
        else:
            grey = _floats(path, image, shape, resize)
    pixels = np.repeat(grey.astype(np.float32)[np.newaxis], shape[0], axis=0)
    return ImageFile(pixels, mode, size, depth)


def _one_of_its_size(image: Image.Image) -> contextlib.AbstractContextManager[object]:
    """Let one large image be decoded at a time, whatever the number of threads."""
    large = image.width * image.height > _LARGE
    return _LARGE_ONE if large else contextlib.nullcontext()


def depth_of(image: Image.Image) -> Depth:
    """Tell what the pixels of an image that was opened are read as."""
    if image.mode == "F":
        return "float"
    return "16-bit" if image.mode.startswith("I") else "8-bit"


def is_coloured(image: Image.Image) -> bool:
    """Whether an image that was opened has colours, by its header."""
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "F") and not image.mode.startswith("I")


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


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Turn an image to "L" or "RGB", laid on white where it is transparent."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert(mode)
    ready = Image.new(mode, image.size)
    step = max(1, _STRIP // image.width)
    for top in range(0, image.height, step):  # by strips, as each takes several copies
        strip = image.crop((0, top, image.width, min(top + step, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        ready.paste(Image.alpha_composite(white, strip).convert(mode), (0, top))
    return ready


def _sixteen_bits(path: str, image: Image.Image) -> Image.Image:
    """Turn a grey image of 16 bits, or of 32 with values of 16, to floats from 0 to 65535."""
    from PIL import Image

    if image.mode == "I":
        low, high = image.getextrema()
        if low < 0 or high > WHITE_16:  # type: ignore[operator]
            raise DataError(
                f"{path}: holds whole numbers from {low} to {high}, of which black and white are "
                f"not known; expected 0 to {WHITE_16}: save it with 16 bits, or as floating-point "
                "numbers, which are read as they are"
            )
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return image.convert("F")
    values = np.asarray(image, np.float32)
    return Image.fromarray(np.where(values == transparent, np.float32(WHITE_16), values))


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF file has white as 0, which Pillow leaves so in 16 bits."""
    return image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]


def _floats(
    path: str, image: Image.Image, shape: tuple[int, ...], resize: Resize
) -> NDArray[np.float32]:
    """Return floating-point pixels of (rows, columns), within the range that they had."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        bad = values.size - int(np.isfinite(values).sum())
        raise DataError(
            f"{path}: has floating-point pixels of which {bad:,} are NaN or infinite; replace "
            "those values"
        )
    low, high = float(values.min()), float(values.max())
    ready = np.asarray(_resized(image, shape, resize, margin=low), np.float32)
    return ready.clip(low, high)


def _resized(
    image: Image.Image, shape: tuple[int, ...], resize: Resize, margin: float | None = None
) -> Image.Image:
    from PIL import Image, ImageOps

    wanted, method = (shape[2], shape[1]), Image.Resampling.LANCZOS
    if image.size == wanted:
        return image
    if resize == "stretch":
        return image.resize(wanted, method)
    if resize == "crop":
        return ImageOps.fit(image, wanted, method)
    return ImageOps.pad(image, wanted, method, color=margin)  # type: ignore[arg-type]
