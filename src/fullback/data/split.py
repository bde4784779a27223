"""Which images of a data set are kept for testing, and data sets of what a file held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fullback.data.dataset import Dataset, Images, Labels, check_pair, composed
from fullback.data.store import MEMORY, Store
from fullback.errors import DataError, InputError, OptionError, ShapeError
from fullback.options import require_number, require_whole


@dataclass(frozen=True)
class Split:
    """Which images of a data set without test images are kept for testing.

    Parameters
    ----------
    share : of each class, in (0, 1)
    seed : fixes which ones

    Raises
    ------
    OptionError
        A number is out of range.
    """

    share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        require_number("test_share", self.share, "(0, 1)")
        require_whole("split_seed", self.seed, 0)
        if self.seed >= 2**32:
            raise OptionError(f"split_seed must be less than 2**32, got {self.seed}")


def split(
    name: str,
    x: Images,
    y: Labels,
    class_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    how: Split | None = None,
    *,
    numbers: bool = False,
    read_with: Mapping[str, Any] = MappingProxyType({}),
    store: Store = MEMORY,
) -> Dataset:
    """Keep a fixed share of each class of x (N, C, H, W), y (N,) for testing.

    Of ``numbers`` there are no classes, and the share is taken of all images alike. Both parts are
    made in ``store``.
    """
    from sklearn.model_selection import train_test_split

    x, y = check_pair(x, y, numbers=numbers)
    how = Split() if how is None else how
    if not numbers:
        if class_names and len(class_names) > y.max():
            class_names, (y,) = composed(class_names, [y])
        _check_split(y, how)
    elif len(x) < 2:
        raise InputError("one image cannot be both trained on and tested on; add images")
    train, test = train_test_split(
        np.arange(len(y)),
        test_size=how.share,
        stratify=None if numbers else y,
        random_state=how.seed,
    )
    parts = [(store.chosen(x, places, name), y[places]) for places in (train, test)]
    return Dataset(
        name, *parts[0], *parts[1], class_names, notes, numbers=numbers, read_with=read_with
    )


def _check_split(y: Labels, how: Split) -> None:
    """Raise InputError unless both parts can hold an image of every class."""
    labels, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        raise InputError(
            f"class {labels[counts.argmin()]} has one image, which cannot be both trained on and "
            "tested on; add images, or give x_test and y_test as well"
        )
    _check_classes(labels)
    tested = math.ceil(how.share * len(y))
    if tested < len(labels) or len(y) - tested < len(labels):  # both hold an image of every class
        share = "a fifth" if how.share == 0.2 else f"{how.share:.3g} of them"
        raise InputError(
            f"{len(y)} images of {len(labels)} classes are too few to keep {share} for testing; "
            "give more, or give x_test and y_test as well"
        )


def _check_classes(y: Labels) -> None:
    """Raise InputError where all training images have one label."""
    if len(np.unique(y)) == 1:
        raise InputError(
            f"all training images have the label {y[0]}, and a classifier needs two classes or "
            "more; check where the labels come from"
        )


def from_file(
    path: Path,
    name: str,
    train: tuple[Images, Labels],
    test: tuple[Images, Labels] | None = None,
    val: tuple[Images, Labels] | None = None,
    *,
    class_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    read_with: Mapping[str, Any] = MappingProxyType({}),
    how: Split | None = None,
    numbers: bool = False,
    store: Store = MEMORY,
) -> Dataset:
    """Make the data set that `path` held; without `test`, `train` is split.

    The training images must be of two classes at least.

    What is wrong with the arrays is then wrong with the file: a DataError that names it.
    """
    if test is not None and how is not None:
        raise InputError(
            f"{path} has test images of its own; leave out the share that is kept for testing"
        )
    try:
        if test is None:
            more: dict[str, Any] = {"numbers": numbers, "read_with": read_with, "store": store}
            return split(name, *train, class_names, notes, how, **more)
        (x, y), (x_test, y_test), (x_val, y_val) = train, test, val or (None, None)
        arrays = (x, y, x_test, y_test, class_names, notes, x_val, y_val)
        data = Dataset(name, *arrays, numbers, read_with)
        if not numbers:
            _check_classes(data.y_train)
    except (ShapeError, InputError) as error:
        raise DataError(f"{path}: {error}") from error
    return data
