"""What is in a data set: how many of each class, how bright, and what is suspicious."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import Dataset, Images, Labels

_AT_ONCE = 2**24  # numbers that are looked at together


@dataclass(frozen=True, eq=False)
class Part:
    """The training or the test images.

    Attributes
    ----------
    counts : images of each class, of shape (classes,)
    low, high : the smallest and the largest pixel
    mean : of all pixels
    blank : places of images whose pixels are all equal
    repeated : places of images that an image before them equals, to the bit
    contradicted : those of ``repeated`` whose label is another than the first one's
    """

    counts: NDArray[np.int64]
    low: float
    high: float
    mean: float
    blank: list[int]
    repeated: list[int]
    contradicted: list[int]


@dataclass(frozen=True, eq=False)
class Description:
    """What is in a data set.

    Attributes
    ----------
    train, test : the two parts
    shared : places of test images that are among the training images
    """

    train: Part
    test: Part
    shared: list[int]

    @property
    def suspicious(self) -> bool:
        """Whether anything in it is likely to be a mistake."""
        parts = (self.train, self.test)
        return bool(self.shared) or any(p.blank or p.repeated or 0 in p.counts for p in parts)


def describe(data: Dataset) -> Description:
    """Look at every image of a data set once."""
    train, seen = _part(data.x_train, data.y_train, data.classes)
    test, others = _part(data.x_test, data.y_test, data.classes)
    shared = [n for digest, n in others.items() if digest in seen]
    return Description(train, test, sorted(shared))


def _part(x: Images, y: Labels, classes: int) -> tuple[Part, dict[bytes, int]]:
    """Return a part's description, and the first place of every different image."""
    low, high, total = np.inf, -np.inf, 0.0
    blank: list[int] = []
    repeated: list[int] = []
    contradicted: list[int] = []
    seen: dict[bytes, int] = {}
    for start, images in _some(x):
        flat = images.reshape(len(images), -1)
        lows, highs = flat.min(axis=1), flat.max(axis=1)
        low, high = min(low, float(lows.min())), max(high, float(highs.max()))
        total += float(flat.sum(dtype=np.float64))
        blank += (start + np.flatnonzero(lows == highs)).tolist()
        for n, image in enumerate(flat, start):
            digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
            first = seen.setdefault(digest, n)
            if first != n:
                repeated.append(n)
                if y[first] != y[n]:
                    contradicted.append(n)
    counts = np.bincount(y, minlength=classes)
    return Part(counts, low, high, total / x.size, blank, repeated, contradicted), seen


def _some(x: Images) -> Iterator[tuple[int, Images]]:
    """Yield images by parts that fit into memory, each with its first place."""
    step = max(1, _AT_ONCE // x[0].size)
    for start in range(0, len(x), step):
        yield start, x[start : start + step]


def contact_sheet(
    data: Dataset,
    change: Callable[[Images, NDArray[np.int64]], Images] | None = None,
    *,
    across: int = 20,
) -> NDArray[np.uint8]:
    """Return a picture of some training images, a row a class, of shape (rows, columns, 3).

    ``change`` is what is done to images, given their places.
    """
    channels, rows, columns = data.image_shape
    low, high = float(data.x_train.min()), float(data.x_train.max())
    scale = 1.0 if data.x_train.dtype == np.uint8 else 255 / ((high - low) or 1.0)
    shift = 0.0 if data.x_train.dtype == np.uint8 else low
    classes = np.unique(data.y_train)
    sheet = np.full((len(classes), rows + 2, across, columns + 2, 3), 128, np.uint8)
    for line, label in enumerate(classes):
        places = np.flatnonzero(data.y_train == label)[:across]
        images = data.x_train[places] if change is None else change(data.x_train[places], places)
        for place, image in enumerate(images):
            pixels = (image.astype(np.float64) - shift) * scale
            pixels = pixels.clip(0, 255).astype(np.uint8)
            shown = pixels if channels == 3 else np.repeat(pixels[:1], 3, axis=0)
            sheet[line, 1:-1, place, 1:-1] = shown.transpose(1, 2, 0)
    return sheet.reshape(len(classes) * (rows + 2), across * (columns + 2), 3)
