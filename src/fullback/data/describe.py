"""What is in a data set: how many of each class, how bright, and what is suspicious."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import Dataset, Images, Labels
from fullback.data.fingerprints import Fingerprints, fingerprint_of
from fullback.data.progress import shown

AT_ONCE = 2**24  # numbers that are looked at together
_DARK = 1 / 8  # of the range of pixels: images that stay below it are dark
_ROWS = 10  # of a picture of images that have no classes
_TINY = 5  # rows and columns, below which little can be seen


@dataclass(frozen=True, eq=False)
class Part:
    """The training, the validation or the test images.

    Attributes
    ----------
    counts : images of each class, of shape (classes,); empty where the labels are numbers
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
    val : the images for validation, where the data set has its own
    shared : places of test images that are among the training images
    shared_val : places of validation images that are among the training images
    remarks : what is suspicious of the data set as a whole, a line each
    """

    train: Part
    test: Part
    shared: list[int]
    val: Part | None = None
    shared_val: list[int] = field(default_factory=list)
    remarks: tuple[str, ...] = ()

    @property
    def suspicious(self) -> bool:
        """Whether anything in it is likely to be a mistake."""
        parts = [part for part in (self.train, self.val, self.test) if part is not None]
        return bool(self.shared or self.shared_val or self.remarks) or any(
            part.blank or part.repeated or 0 in part.counts for part in parts
        )


def describe(data: Dataset, *, progress: bool = False) -> Description:
    """Look at every image of a data set once; ``progress`` shows a bar on a terminal."""
    train, own = _part(data.x_train, data.y_train, data, progress=progress)
    test, others = _part(data.x_test, data.y_test, data, progress=progress)
    known = Fingerprints(data.x_train, own)
    shared = known.shared(data.x_test, others)
    remarks = tuple(_remarks(data, train, test))
    if data.x_val is None or data.y_val is None:
        return Description(train, test, shared, remarks=remarks)
    val, kept = _part(data.x_val, data.y_val, data, progress=progress)
    return Description(train, test, shared, val, known.shared(data.x_val, kept), remarks)


def _remarks(data: Dataset, train: Part, test: Part) -> Iterator[str]:
    """Say what is suspicious of a data set as a whole."""
    if not data.numbers and np.count_nonzero(train.counts) == 1:
        yield "all training images are of one class: there is nothing to learn"
    same: dict[str, str] = {}
    for name in data.class_names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if key in same:
            yield f"the classes {same[key]!r} and {name!r} have nearly the same name"
        same.setdefault(key, name)
    _, rows, columns = data.image_shape
    if max(rows, columns) < _TINY:
        yield f"images of {rows} x {columns} are very small; --image-size makes files larger"
    low, high = min(train.low, test.low), max(train.high, test.high)
    white = 255 if data.x_train.dtype == np.uint8 else 1
    if 0 <= low < high < _DARK * white:
        yield (
            f"all images are dark, up to {high:.4g} where white is {white}; begin the network with "
            "normalize, which brings them to a scale that it learns from"
        )
    elif white == 1 and not (low >= -2 and high <= 2):
        yield (
            f"the pixels are floats from {low:.4g} to {high:.4g}; begin the network with "
            "normalize, which brings them to a scale that it learns from"
        )


def _part(
    x: Images, y: Labels, data: Dataset, *, progress: bool
) -> tuple[Part, NDArray[np.uint64]]:
    """Return a part's description, and the fingerprints of its images."""
    low, high, total = np.inf, -np.inf, 0.0
    blank: list[int] = []
    prints = np.empty(len(x), np.uint64)
    parts = -(-len(x) // _at_once(x))
    for start, images in shown(_some(x), f"{len(x):,} images", parts, progress=progress):
        flat = images.reshape(len(images), -1)
        lows, highs = flat.min(axis=1), flat.max(axis=1)
        low, high = min(low, float(lows.min())), max(high, float(highs.max()))
        total += float(flat.sum(dtype=np.float64))
        blank += (start + np.flatnonzero(lows == highs)).tolist()
        prints[start : start + len(images)] = [fingerprint_of(image) for image in flat]
    repeated, first = Fingerprints(x, prints).repeated()
    other = y[repeated] != y[first]
    contradicted = repeated[other.reshape(len(other), -1).any(axis=1)] if len(other) else repeated
    counts = np.zeros(0, int) if data.numbers else np.bincount(y, minlength=data.classes)
    lists = (blank, repeated.tolist(), contradicted.tolist())
    return Part(counts, low, high, total / x.size, *lists), prints


def _some(x: Images) -> Iterator[tuple[int, Images]]:
    """Yield images by parts that fit into memory, each with its first place."""
    step = _at_once(x)
    for start in range(0, len(x), step):
        yield start, x[start : start + step]


def _at_once(x: Images) -> int:
    return max(1, int(AT_ONCE // x[0].size))


def contact_sheet(
    data: Dataset,
    change: Callable[[Images, NDArray[np.int64]], Images] | None = None,
    *,
    across: int = 20,
) -> NDArray[np.uint8]:
    """Return a picture of some training images, a row a class, of shape (rows, columns, 3).

    Where the labels are numbers, ten rows go from the smallest to the largest.

    ``change`` is what is done to images, given their places.
    """
    channels, rows, columns = data.image_shape
    low, high = float(data.x_train.min()), float(data.x_train.max())
    scale = 1.0 if data.x_train.dtype == np.uint8 else 255 / ((high - low) or 1.0)
    shift = 0.0 if data.x_train.dtype == np.uint8 else low
    if data.numbers:
        order = np.argsort(data.y_train.reshape(len(data.y_train), -1)[:, 0], kind="stable")
        groups = np.array_split(order, min(len(order), _ROWS))
    else:
        groups = [np.flatnonzero(data.y_train == label) for label in np.unique(data.y_train)]
    sheet = np.full((len(groups), rows + 2, across, columns + 2, 3), 128, np.uint8)
    for line, places in enumerate(group[:across] for group in groups):
        images = data.x_train[places] if change is None else change(data.x_train[places], places)
        for place, image in enumerate(images):
            pixels = (image.astype(np.float64) - shift) * scale
            pixels = pixels.clip(0, 255).astype(np.uint8)
            shown = pixels if channels == 3 else np.repeat(pixels[:1], 3, axis=0)
            sheet[line, 1:-1, place, 1:-1] = shown.transpose(1, 2, 0)
    return sheet.reshape(len(groups) * (rows + 2), across * (columns + 2), 3)
