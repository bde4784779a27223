"""What the numbers of image arrays mean: which axis is which, and what black and white are.

Layout
------
Networks take images as (N, channels, rows, columns). Arrays come in other layouts, and
``channels_first`` is the one rule by which they are read, wherever they come from.

Scale
-----
uint8 images are pixels from 0 to 255. Float images may have any scale: 0 to 1, 0 to 255, -1 to 1,
or values that were standardised. A network that was trained on floats from 0 to 255 needs the
pixels of an image file on that scale, so it keeps an ``ImageRecord`` of the images that it was
trained on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.errors import FullbackWarning, InputError, OptionError, ShapeError
from fullback.mapped import gathered

_AT_ONCE = 2**24  # values that are looked at together
_OVERSHOOT = 0.1  # of the range 0 to 1: resizing by splines goes beyond the range of the pixels
_SAMPLE = 1024  # images by which a data set's scale is found out
_SAMPLE_BYTES = 2**27  # of such images, where there are more than
_FEW = 16
_APART = 3.0  # times the range of the training images, beyond which values have another scale
_BELOW = 0.25  # of the range of training images without negative values, where resizing leads
_NEAR = 0.05  # to 0 and 1, of images that go from black to white
_WIDE = 8.0  # a network's largest value from which on images up to 1 have another scale


# Layout -----------------------------------------------------------------------------------------


def channels_first(x: NDArray[Any], what: str = "x") -> NDArray[Any]:
    """Bring images to (N, C, H, W).

    (N, H, W) gets one channel. Of four axes, the last one is taken for the channels where it is 1
    or 3 and the second one is neither, or where it is 2 or 4 and the images would then be square.
    All others are taken to be (N, C, H, W) already. A warning says so where that is a guess: where
    both are 1 or 3 and the images are not square, or where images of (N, H, W, C) would be square.

    Parameters
    ----------
    x : of shape (N, H, W), (N, C, H, W) or (N, H, W, C)
    what : what the warning calls it

    Returns
    -------
    ndarray of shape (N, C, H, W); an array with another number of axes comes back as it is

    Warns
    -----
    FullbackWarning
        The layout is a guess.
    """
    if x.ndim == 3:
        return x[:, np.newaxis]
    if x.ndim != 4:
        return x
    if channels_are_last(x.shape, what):
        x = np.moveaxis(x, 3, 1)
        return x if isinstance(x, np.memmap) else np.ascontiguousarray(x)
    return x


def channels_are_last(shape: Sequence[int], what: str = "x") -> bool:
    """Tell whether images of this shape, of four axes, are taken to be (N, H, W, C).

    See ``channels_first``, which also says when this is a guess.
    """
    first, rows, columns = shape[1:]
    if columns in (1, 3) and first not in (1, 3):
        return True
    square = first == rows != columns  # as (N, H, W, C)
    if columns in (2, 4) and square and first > 4:
        return True
    if (square and first > 4) or (columns in (1, 3) and rows != columns):
        warnings.warn(
            f"{what} has shape {tuple(shape)}, taken for (N, channels, rows, columns): images of "
            f"{first} channels of {rows} x {columns}; if the channels are the last axis, give "
            f"np.moveaxis({what}, 3, 1)",
            FullbackWarning,
            stacklevel=4,
        )
    return False


# Checks -----------------------------------------------------------------------------------------


def as_images(x: ArrayLike, image_shape: tuple[int, ...]) -> NDArray[Any]:
    """Return x as an array of images of a network's input shape, uint8 or float, without a copy.

    Parameters
    ----------
    x : of shape (N, *image_shape), or of shape (N, H, W) where images have one channel
    image_shape : of one image, (C, H, W) or (features,)

    Raises
    ------
    ShapeError, InputError
        Shapes that do not fit, no images, or numbers that are neither uint8 nor float.
    """
    try:
        images = np.asarray(x)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"x cannot be read as an array ({error})") from None
    if images.ndim > 1 and (1, *images.shape[1:]) == image_shape:
        images = images.reshape(len(images), *image_shape)  # (N, H, W), one channel
    if images.shape[1:] != image_shape:
        wanted = ", ".join(map(str, ("N", *image_shape)))
        hint = "; x[None] makes a batch of one image" * (images.shape == image_shape)
        if images.ndim == 4 and (images.shape[3], *images.shape[1:3]) == image_shape:
            hint = "; np.moveaxis(x, 3, 1) brings the channels to the front"
        raise ShapeError(f"x must have shape ({wanted}), got {images.shape}{hint}")
    if not len(images):
        raise InputError("x holds no images")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(
            f"images must be uint8 (0 to 255) or float (used as it is), got {images.dtype}; "
            f"convert them with {_conversion(images.dtype)}"
        )
    return images


def _conversion(dtype: np.dtype[Any]) -> str:
    """Say how images of a dtype that networks do not take become floats."""
    if dtype.kind == "b":
        return "x.astype('float32')"
    if dtype.kind in "iu":
        white = "255" if dtype.itemsize > 2 else f"{np.iinfo(dtype).max} or 255"
        return f"x.astype('float32') / white, where white is {white}"
    return "x.astype('float32'), if they are numbers"


def finite_range(
    images: NDArray[Any], first: int = 0, stop: int | None = None
) -> tuple[float, float]:
    """Return the smallest and the largest value of float images of shape (N, ...).

    The images may be on the disk, and not fit into memory. Those from ``first`` to ``stop`` are
    looked at; of none, the range is from infinity to minus infinity.

    Raises
    ------
    InputError
        Values are not finite; the message says of which image.
    """
    step = max(1, _AT_ONCE // max(images[0].size, 1))
    axes = tuple(range(1, images.ndim))
    low, high = np.inf, -np.inf
    wrong: list[int] = []
    stop = len(images) if stop is None else stop
    for start in range(first, stop, step):
        part = images[start : min(start + step, stop)]
        with np.errstate(invalid="ignore"):
            least, most = float(part.min()), float(part.max())  # NaN where there is one
        if not math.isfinite(least) or not math.isfinite(most):
            wrong += (start + np.flatnonzero(~np.isfinite(part).all(axis=axes))).tolist()
        low, high = min(low, least), max(high, most)
    if wrong:
        raise InputError(
            f"image {wrong[0]} holds NaN or infinity "
            f"({len(wrong)} of {len(images)} images do); remove or correct them"
        )
    return low, high


# Scale ------------------------------------------------------------------------------------------

Ends: TypeAlias = tuple[float, float] | tuple[None, None]
"""The values of black and white, where they are known."""


@dataclass(frozen=True)
class ImageRecord:
    """What is known of the images that a network was trained on, in the scale that it takes.

    Attributes
    ----------
    low, high : the smallest and the largest value
    mean : of all values
    border : mean of the outermost pixels, the background of most images; of all values where the
        network takes no images
    black, white : the values of an image file's black and white, 0 and 255 in its bytes; None where
        this is not known
    """

    low: float
    high: float
    mean: float
    border: float
    black: float | None
    white: float | None

    def __post_init__(self) -> None:
        numbers = (self.low, self.high, self.mean, self.border)
        known = () if self.black is None and self.white is None else (self.black, self.white)
        for number in (*numbers, *known):
            if not isinstance(number, int | float) or not np.isfinite(number):
                raise OptionError(f"an image record holds finite numbers, got {number!r}")
        if self.low > self.high or (known and self.black == self.white):
            raise OptionError(f"{self} is not a record of images: its range is empty")

    @property
    def takes_pixels(self) -> bool:
        """Whether it is known what black and white are."""
        return self.black is not None

    @property
    def is_default(self) -> bool:
        """Whether pixels are brought to 0..1, as they are for a network that was never trained."""
        return (self.black, self.white) == (0.0, 1.0)

    def from_bytes(self, pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Bring uint8 pixels of any shape to the network's scale, as floats.

        Raises
        ------
        InputError
            The scale is not known.
        """
        return self.from_shares(pixels.astype(dtype) / dtype.type(255))

    def from_shares(self, shares: NDArray[Any]) -> NDArray[Any]:
        """Bring floats, 0 for black and 1 for white, to the network's scale.

        Raises
        ------
        InputError
            The scale is not known.
        """
        if self.black is None or self.white is None:
            raise InputError(
                f"the network was trained on floats from {self.low:g} to {self.high:g}, and which "
                "of them are black and white is not known, so it cannot take image files or uint8 "
                "images; give floats made as in training, or train with pixel_range=(black, white)"
            )
        number = shares.dtype.type
        scaled: NDArray[Any] = shares * number(self.white - self.black) + number(self.black)
        return scaled

    def scale_note(self, low: float, high: float) -> str | None:
        """Say so where float images from ``low`` to ``high`` plainly have another scale."""
        span = (self.high - self.low) or 1.0
        other = high > self.high + _APART * span or low < self.low - _APART * span
        if self.low >= 0:  # as 0..1 in place of 0..255
            other |= self.high > _WIDE and 0 <= low < high <= 1
            # Standardised values in place of pixels.
            other |= low < -_BELOW * span or (self.high > _WIDE and low < 0 and high <= _WIDE)
        if self.low < -_BELOW * span / 2:  # 0..1 in place of -1..1, or of standardised values
            other |= 0 <= low < _NEAR and 1 - _NEAR < high <= 1
        if not other:
            return None
        return (
            f"the images go from {low:g} to {high:g}, but the network was trained on images "
            f"from {self.low:g} to {self.high:g}; bring them to the same scale"
        )

    def bytes_note(self, pixels: NDArray[Any]) -> str | None:
        """Say so where uint8 pixels go far beyond the part of the scale that was trained on.

        Images of 16 bits may use a hundredth of it, and look black beside those of 8 bits.
        """
        if self.black is None or self.white is None:
            return None
        far = _APART * ((self.high - self.low) or 1.0)
        ends = sorted((self.black, self.white))
        if ends[0] < self.low - far or ends[1] > self.high + far:
            values = np.array([pixels.min(), pixels.max()], np.float64) / 255
            low, high = sorted(self.from_shares(values).tolist())
            return self.scale_note(low, high)
        return None


def sample_size(images: NDArray[Any], most: int) -> int:
    """Return how many images are looked at for all: so many, and fewer of very large ones."""
    return min(most, max(_FEW, _SAMPLE_BYTES // max(1, images[:1].nbytes)))


def record_of(
    images: NDArray[Any],
    places: NDArray[np.int64],
    pixel_range: tuple[float, float] | None = None,
    known: ImageRecord | None = None,
) -> ImageRecord:
    """Return the record of training images, by a sample of them.

    Parameters
    ----------
    images : checked images, uint8 or float, of shape (N, C, H, W) or (N, features)
    places : which of them are trained on
    pixel_range : values of black and white, where they are known; else they are guessed
    known : the record of a network that was trained before; its black and white stay

    Raises
    ------
    OptionError
        ``pixel_range`` are not two different finite numbers, or the images are uint8, whose range
        is known.

    Warns
    -----
    FullbackWarning
        The range is a guess that is not plain.
    """
    some = np.asarray(gathered(images, places[:: -(-len(places) // sample_size(images, _SAMPLE))]))
    if some.dtype == np.uint8:
        if pixel_range is not None:
            raise OptionError("pixel_range is for float images; uint8 images go from 0 to 255")
        ends: Ends = (0.0, 1.0)
        scale = 255.0
    else:
        scale = 1.0
        low, high = float(some.min()), float(some.max())
        guess = None
        if pixel_range is None and (known is None or not known.takes_pixels):
            guess = guessed_range(low, high, whole=bool((some == np.floor(some)).all()))
        ends = _black_and_white(pixel_range, guess, known)
        if guess is not None and guess != (0.0, 1.0):
            warnings.warn(
                f"the images are floats up to {high:g}, taken for pixels whose black is "
                f"{guess[0]:g} and whose white is {guess[1]:g}: image files and uint8 images will "
                "be brought to that scale; pixel_range=(black, white) says it",
                FullbackWarning,
                stacklevel=3,
            )
    mean = float(some.mean(dtype=np.float64)) / scale
    border = mean
    if some.ndim == 4:
        edges = (some[:, :, 0], some[:, :, -1], some[:, :, :, 0], some[:, :, :, -1])
        sums = sum(float(edge.sum(dtype=np.float64)) for edge in edges)
        border = sums / sum(edge.size for edge in edges) / scale
    low, high = float(some.min()) / scale, float(some.max()) / scale
    if known is not None:
        low, high = min(low, known.low), max(high, known.high)
    return ImageRecord(low, high, mean, border, *ends)


def guessed_range(low: float, high: float, *, whole: bool) -> tuple[float, float] | None:
    """Guess the values of black and white of float images from ``low`` to ``high``.

    Only ranges that people use are guessed: 0 to 1, 0 to 255, 0 to 16 (scikit-learn's digits), and
    -1 to 1. Anything else, as standardised values, is None.

    Parameters
    ----------
    low, high : the smallest and the largest value
    whole : whether all values are whole numbers
    """
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if -1 <= low < -0.9 and 0.9 < high <= 1:
        return -1.0, 1.0
    if low >= -_OVERSHOOT and 0.5 < high <= 1 + _OVERSHOOT:
        return 0.0, 1.0
    if low < 0:
        return None
    if whole and 8 < high <= 16:
        return 0.0, 16.0
    if (whole and 32 < high <= 255) or 128 < high <= 255:
        return 0.0, 255.0
    return None


def _black_and_white(
    given: tuple[float, float] | None,
    guess: tuple[float, float] | None,
    known: ImageRecord | None,
) -> Ends:
    """Return black and white: those that are given, else those that are known, else the guess."""
    if given is not None:
        try:
            black, white = (float(value) for value in given)
        except (TypeError, ValueError):
            raise OptionError(
                f"pixel_range must be (black, white), two numbers, got {given!r}"
            ) from None
        if not np.isfinite([black, white]).all() or black == white:
            raise OptionError(f"pixel_range must be two different finite numbers, got {given!r}")
        return black, white
    if known is not None and known.black is not None and known.white is not None:
        return known.black, known.white
    return guess or (None, None)
