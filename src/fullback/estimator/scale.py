"""The scale of X: whether uint8 are pixels from 0 to 255, and what black and white are in floats.

An estimator takes numbers of any type, so uint8 numbers, as scikit-learn's digits from 0 to 16, may
be just numbers. Image files and cameras give uint8 pixels from 0 to 255, whatever scale the images
had that were trained on.
"""

from __future__ import annotations

import warnings

import numpy as np

from fullback.errors import FullbackWarning, InputError, OptionError
from fullback.estimator.reading import Array
from fullback.options import require_number
from fullback.pixels import ImageRecord, guessed_range

_DARKEST = 32  # uint8 images up to this are taken for numbers on a scale of their own


def bytes_are_pixels(x: Array, record: ImageRecord | None = None) -> bool:
    """Tell whether X are uint8 pixels from 0 to 255, and not just numbers.

    Without a record, as in ``fit``, those that go beyond 32 are. With the record of a network that
    was trained on floats, those are pixels that go beyond the floats' white, or which would be
    numbers above a black below 0; where black and white are not known, or are 0 and 255, they are
    numbers.

    Warns
    -----
    FullbackWarning
        They are pixels that have to be brought to the network's scale.
    """
    if x.dtype != np.uint8:
        return False
    if record is None:
        return int(x.max()) > _DARKEST
    black, white = record.black, record.white
    if black is None or white is None or (black, white) == (0, 255):
        return False
    if black >= 0 and int(x.max()) <= white <= _DARKEST:
        return False
    warnings.warn(
        f"X is uint8 up to {int(x.max())}, fit had floats from {record.low:g} to {record.high:g}: "
        f"X is taken for pixels from 0 to 255, and brought to {black:g} to {white:g}",
        FullbackWarning,
        stacklevel=2,
    )
    return True


def warn_of_shares(x: Array, record: ImageRecord | None) -> None:
    """Warn where X goes up to 1, and the images that were trained on were uint8."""
    low, high = float(x.min()), float(x.max())
    if record is not None and record.high * 255 > _DARKEST and 0 <= low < high <= 1:
        warnings.warn(
            f"X goes from {low:g} to {high:g}, fit had uint8 pixels up to {record.high * 255:g}, "
            "and X is read on that scale; if its white is 1, give 255 * X",
            FullbackWarning,
            stacklevel=2,
        )


def range_of(images: Array, pixel_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return black and white of training images: those that are given, or else those guessed."""
    if pixel_range is not None or images.dtype == np.uint8:
        return pixel_range
    whole = bool((images == np.floor(images)).all())
    return guessed_range(float(images.min()), float(images.max()), whole=whole)


def check_pixel_range(pixel_range: object) -> None:
    """Raise OptionError unless it is (black, white), two different finite numbers."""
    pair = pixel_range if isinstance(pixel_range, tuple | list) else ()
    for value in pair:
        require_number("a value of pixel_range", value, "(-inf, inf)")
    if len(pair) != 2 or pair[0] == pair[1]:
        raise OptionError(
            f"pixel_range must be (black, white), two different numbers, got {pixel_range!r}"
        )


def as_numbers(x: Array) -> Array:
    """Return X as float32.

    Raises
    ------
    InputError
        A number is too large for float32.
    """
    with np.errstate(over="ignore"):
        numbers = x.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise InputError(f"X reaches {np.abs(x).max():g}, and float32 ends at 3.4e38; scale X")
    return numbers
