"""The images of a data set, read one by one into arrays that all have the same scale.

8-bit files become uint8. As soon as one file has 16 bits, all images of the data set become float32
from 0 (black) to 1 (white). Floating-point pixels have a scale of their own, which nothing is known
of, and stay as they are; they cannot be in one data set with others.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fullback.data.image_files.image_file import WHITE_16, Depth, ImageFile
from fullback.data.image_files.image_sizes import chosen_shape, opened
from fullback.data.image_files.many_images import Item, images_of
from fullback.data.options import ReadOptions
from fullback.data.progress import shown
from fullback.data.store import MEMORY, UNPACK, Rows, Store
from fullback.errors import DataError, FullbackWarning, InputError

_LISTED = 10  # of the images that cannot be read
_DARK = 1 / 8  # of the range of 16 bits, below which a network learns badly from what there is


class Part(NamedTuple):
    """The images for training, validation or testing.

    Attributes
    ----------
    name : what errors call it
    size : how many images it has, readable or not
    items : the images, which are read once, one by one
    """

    name: str
    size: int
    items: Iterable[Item]


@dataclass
class _Reading:
    """What was met while the images of all parts were read.

    Attributes
    ----------
    first : the first image of each depth
    highest : the largest value of 16-bit images, 0 to 1
    reduced : images with colours of 16 bits, which were read with 8
    unread : why images were left out
    """

    first: dict[Depth, str] = field(default_factory=dict)
    highest: float = 0.0
    reduced: int = 0
    unread: list[DataError] = field(default_factory=list)

    def meet(self, source: str, name: str, image: ImageFile) -> None:
        self.first.setdefault(image.depth, name)
        self.reduced += image.reduced
        if image.depth == "16-bit":
            self.highest = max(self.highest, float(image.pixels.max()))
        if "float" in self.first and len(self.first) > 1:
            other = next(depth for depth in self.first if depth != "float")
            raise DataError(
                f"{source}: {self.first['float']} has floating-point pixels, whose black and white "
                f"are not known, and {self.first[other]} has pixels of {other[:-4]} bits; bring "
                "all images to one kind"
            )


def read_parts(
    source: str,
    parts: Sequence[Part],
    sample: Iterable[Path | io.BytesIO],
    options: ReadOptions,
) -> tuple[list[tuple[NDArray[Any], NDArray[np.int64]]], tuple[str, ...]]:
    """Read the images of all parts of a data set, brought to one shape and one scale.

    Parameters
    ----------
    source : what errors call the data set
    parts : for training first
    sample : some of the training images, by which the shape is chosen as far as it is not given
    options : of them ``image_shape``, ``resize``, ``trained_on`` and ``progress``

    Returns
    -------
    pairs : images (N, C, H, W), uint8 or float32, and labels (N,), of each part
    notes : what was done, a line each

    Raises
    ------
    DataError
        A part has no image that can be read, images with floating-point pixels are mixed with
        others, the images need more than 4 GiB, or they have 16 bits and the network's black and
        white are not known.

    Warns
    -----
    FullbackWarning
        Of images that cannot be read, which are left out, and how many there are; of 16-bit images
        that use a small part of their range.
    """
    found = [opened(file) for file in sample]
    shape, notes = chosen_shape(found, options.image_shape, options.resize)
    if shape is None:
        raise DataError(f"{parts[0].name}: not one file in it can be read as an image")
    total = sum(part.size for part in parts)
    deep = any(image.deep for image in found if image is not None)
    check_room(source, total, shape, 4 if deep else 1, options.store)
    seen = _Reading()
    read = [_read(part, shape, source, seen, total, options) for part in parts]
    for error in seen.unread[:_LISTED]:
        warnings.warn(f"left out: {error}", FullbackWarning, stacklevel=6)
    if seen.unread:
        warnings.warn(
            f"{len(seen.unread):,} of {total:,} files in {source} cannot be read as images, and "
            "are left out",
            FullbackWarning,
            stacklevel=6,
        )
    for part, (rows, _) in zip(parts, read, strict=True):
        if not len(rows):
            raise DataError(f"{part.name}: not one file in it can be read as an image")
    if any(rows.dtype != np.uint8 for rows, _ in read):
        for rows, _ in read:
            rows.to_floats()
    pairs = [(rows.array(), y) for rows, y in read]
    if options.trained_on is not None and "16-bit" in seen.first:
        try:
            pairs = [(options.trained_on.from_shares(x), y) for x, y in pairs]
        except InputError as error:
            raise DataError(f"{source}: {error}") from None
        return pairs, (*notes, "16-bit images are brought to the scale of the training images")
    return pairs, (*notes, *_notes(seen))


def check_room(
    source: str, count: int, shape: Sequence[int], itemsize: int, store: Store | None = None
) -> None:
    """Raise DataError where so many images are too many for a store, or for predicting at once.

    Raises
    ------
    DataError
    """
    kind = "" if itemsize == 1 else " float32"
    hint = "--image-size (image_shape) brings them to a smaller size"
    (store or MEMORY).require_room(
        count * math.prod(shape) * itemsize,
        f"{source}: {count:,}{kind} images of {' x '.join(map(str, shape))}",
        hint if store is None else f"{hint}, or {UNPACK}",
    )


def _read(
    part: Part,
    shape: tuple[int, int, int],
    source: str,
    seen: _Reading,
    total: int,
    options: ReadOptions,
) -> tuple[Rows, NDArray[np.int64]]:
    """Read the images of one part; uint8 as long as no other depth is met."""
    x = options.store.rows(shape, np.dtype(np.uint8), part.size)
    y = array("q")
    text = f"{part.size:,} images"
    with contextlib.closing(images_of(part.items, shape, options.resize)) as read:
        for image, name, label in shown(read, text, part.size, progress=options.progress):
            if isinstance(image, DataError):
                seen.unread.append(image)
                continue
            if len(y) == part.size:
                raise DataError(f"{part.name}: has more than the {part.size:,} images that it says")
            seen.meet(source, name, image)
            if image.depth != "8-bit" and x.dtype == np.uint8:
                check_room(source, total, shape, 4, options.store)
                x.to_floats()
            pixels = image.pixels
            if image.depth == "8-bit" and x.dtype != np.uint8:
                pixels = pixels / np.float32(255)
            x.append(pixels[np.newaxis])
            y.append(label)
    return x, np.array(y, np.int64)


def _notes(seen: _Reading) -> tuple[str, ...]:
    """Say what the pixels of images that are not of 8 bits became."""
    notes = []
    if "float" in seen.first:
        notes.append("floating-point pixels are float32, with the values that the files have")
    if "16-bit" in seen.first:
        mixed = " and 8-bit images" if "8-bit" in seen.first else ""
        notes.append(f"16-bit images{mixed} are float32 from 0 (black) to 1 (white)")
        if seen.highest < _DARK:
            warnings.warn(
                f"the 16-bit images go up to {seen.highest:.4g} of their range of 0 to 1 "
                f"({seen.highest * WHITE_16:.0f} of {WHITE_16}); begin the network with "
                "normalize, which brings them to a scale that it learns from",
                FullbackWarning,
                stacklevel=7,
            )
    if seen.reduced:
        notes.append(f"{seen.reduced:,} colour images of 16 bits a channel are read with 8 bits")
    return tuple(notes)
