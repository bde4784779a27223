"""Which size and colours the images of a data set are brought to, where nothing else is asked for.

All images have one size: that size. More than half have one: that one. Else the median of their
longer sides, and the median of their proportions, or a square where the proportions differ much.
Where sizes differ, the longer side is at most 64.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fullback.data.image_files.image_file import Resize, depth_of, is_coloured
from fullback.data.image_files.image_formats import open_image
from fullback.errors import DataError, FullbackWarning

LOOKED_AT = 200  # images by which size and colours are chosen
_LONGEST = 64  # rows or columns, where sizes differ
_LARGE = 256  # rows or columns, from which on a note says that a size is kept
_MAJORITY = 0.5  # of the images, whose size is taken
_SIMILAR, _MOST = 1.25, 0.8  # proportions within this factor of their median, in so many images
_SHRUNK, _ENLARGED = 8.0, 2.0  # times, from which on a warning says so
_MANY = 0.2  # of the images, which shrink or grow so much
_ORIENTATION, _ON_ITS_SIDE = 0x0112, 5  # the EXIF entry, and from where it exchanges the axes


class Opened(NamedTuple):
    """What the header of an image says.

    Attributes
    ----------
    size : (rows, columns) of the image as it is shown
    coloured : whether it has colours
    deep : whether its pixels become floats, of 4 bytes
    """

    size: tuple[int, int]
    coloured: bool
    deep: bool


def sample(files: Sequence[Any]) -> Sequence[Any]:
    """Return the files by which size and colours are chosen."""
    return files[:: -(-len(files) // LOOKED_AT)]


def opened(file: Path | io.BytesIO) -> Opened | None:
    """Look at the header of an image; None where it cannot be read, which is reported later."""
    try:
        with open_image(file, "image") as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
            turned = turned and image.format != "TIFF"  # whose size Pillow has turned already
            columns, rows = image.size[::-1] if turned else image.size
            return Opened((rows, columns), is_coloured(image), depth_of(image) != "8-bit")
    except DataError:
        return None


def chosen_shape(
    images: Iterable[Opened | None], wanted: Sequence[int] | None, resize: Resize
) -> tuple[tuple[int, int, int] | None, tuple[str, ...]]:
    """Return the (channels, rows, columns) that images are brought to, and a line about it.

    The shape is None where not one of the images can be read.

    Warns
    -----
    FullbackWarning
        Nothing was asked for, and a fifth of the images are made much smaller, or much larger.
    """
    found = [image for image in images if image is not None]
    if not found:
        return None, ()
    sizes = Counter(image.size for image in found)
    channels = 3 if any(image.coloured for image in found) else 1
    if wanted is None:
        rows, columns = _chosen_size(sizes)
        _warn_of_scale(sizes, rows, columns)
    else:
        rows, columns = wanted[-2:]
        channels = wanted[0] if len(wanted) == 3 else channels
    if set(sizes) == {(rows, columns)}:
        keep = f"images keep their {rows} x {columns}; --image-size (image_shape) sets another size"
        large = wanted is None and max(rows, columns) > _LARGE
        return (channels, rows, columns), (keep,) if large else ()
    found_sizes = _range(sizes)
    words = {"stretch": "stretched", "pad": "padded with black", "crop": "cropped"}[resize]
    note = f"images of {found_sizes} are brought to {rows} x {columns}, {words}"
    if wanted is None:
        note += "; --image-size (image_shape) sets another size"
    return (channels, rows, columns), (note,)


def _chosen_size(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """Return the (rows, columns) that fit most of the images; ``sizes`` counts them."""
    commonest, count = sizes.most_common(1)[0]
    if len(sizes) == 1:
        return commonest
    if count > _MAJORITY * sizes.total():
        rows, columns = map(float, commonest)
    else:
        every = np.array(list(sizes.elements()), float)
        longer = float(np.median(every.max(axis=1)))
        proportions = every[:, 0] / every[:, 1]
        middle = float(np.median(proportions))
        near = np.maximum(proportions / middle, middle / proportions) <= _SIMILAR
        shape = middle if near.mean() >= _MOST else 1.0
        rows, columns = longer * min(1.0, shape), longer * min(1.0, 1 / shape)
    shrink = min(1.0, _LONGEST / max(rows, columns))
    return max(1, round(rows * shrink)), max(1, round(columns * shrink))


def _warn_of_scale(sizes: Counter[tuple[int, int]], rows: int, columns: int) -> None:
    """Warn where many images lose most of their pixels, or get pixels that were not there."""
    every = np.array(list(sizes.elements()), float)
    factor = np.sqrt(every.prod(axis=1) / (rows * columns))
    for share, what in (
        ((factor >= _SHRUNK).mean(), f"shrink to 1/{_SHRUNK:g} of their sides or less"),
        ((factor <= 1 / _ENLARGED).mean(), f"grow to {_ENLARGED:g} times their sides or more"),
    ):
        if share >= _MANY:
            warnings.warn(
                f"{share:.0%} of the images {what} at {rows} x {columns}, which was chosen for "
                f"images of {_range(sizes)}; --image-size (image_shape) sets another size",
                FullbackWarning,
                stacklevel=8,
            )


def _range(sizes: Counter[tuple[int, int]]) -> str:
    """Say which sizes there are."""
    if len(sizes) == 1:
        return "{} x {}".format(*next(iter(sizes)))
    small, large = (pick(sizes, key=lambda size: size[0] * size[1]) for pick in (min, max))
    return "{} sizes from {} x {} to {} x {}".format(len(sizes), *small, *large)
