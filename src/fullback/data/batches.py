"""Data sets from a program's own batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fullback.data.dataset import Dataset, as_array, without_column
from fullback.data.split import Split, split
from fullback.data.store import MEMORY, Rows, Store
from fullback.errors import DataError, InputError, ShapeError
from fullback.pixels import channels_first

_HINT = (
    "fb.unpack_data(batches, FOLDER) writes them to files that are trained on from the disk; or "
    "write them to x_train.npy and so on in a folder yourself"
)


def _arrays(number: int, x: Any, y: Any, *, numbers: bool) -> tuple[Any, Any]:
    """Return a batch's images and labels as arrays, one label an image."""
    images = as_array(x, f"x of batch {number}")
    labels = as_array(y, f"y of batch {number}")
    labels = labels if numbers else without_column(labels)
    good = labels.ndim == 1 or (numbers and labels.ndim == 2)
    if images.ndim not in (3, 4) or not good or len(labels) != len(images):
        raise ShapeError(
            f"batch {number} has images of shape {images.shape} and labels of shape "
            f"{labels.shape}; expected (N, C, H, W), (N, H, W) or (N, H, W, C), and (N,)"
            + " or (N, outputs)"
            * numbers
        )
    return images, labels


def load_batches(
    batches: Iterable[Any],
    how: Split | None = None,
    *,
    numbers: bool = False,
    store: Store = MEMORY,
) -> Dataset:
    """Collect batches (images, labels) into a data set.

    Parameters
    ----------
    batches : pairs of images, (N, C, H, W), (N, H, W) or (N, H, W, C), and labels (N,); anything
        that NumPy takes for an array. It is gone through once
    how : which images are kept for testing
    numbers : whether the labels are numbers to predict, (N,) or (N, outputs)
    store : where the images are kept

    Raises
    ------
    InputError, ShapeError
        A batch is not such a pair, or has another shape or dtype than the first one.
    DataError
        There are no batches, or they need more than 4 GiB.
    """
    images: Rows | None = None
    shape: tuple[int, ...] = ()
    labels: list[Any] = []
    size = 0
    for number, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InputError(f"batch {number} must be a pair (images, labels), got {type(batch)}")
        x, y = _arrays(number, *batch, numbers=numbers)
        native = x.dtype.newbyteorder("=")
        if images is None:
            images, shape = store.rows(x.shape[1:], native, 0), x.shape[1:]
        elif x.shape[1:] != shape or native != images.dtype:
            raise ShapeError(
                f"batch {number} has images of shape {x.shape[1:]} and {x.dtype}, the first one "
                f"of {shape} and {images.dtype}"
            )
        if labels and y.shape[1:] != labels[0].shape[1:]:
            raise ShapeError(
                f"batch {number} has labels of shape {y.shape}, the first one {labels[0].shape}"
            )
        store.require_room(size + x.nbytes, "the batches", _HINT, done=size)
        size += x.nbytes
        images.append(x)
        labels.append(np.array(y))  # a generator may use its array again
    if images is None:
        raise DataError("there are no batches; an iterator can be gone through once only")
    x, y = channels_first(images.array(), "the batches' images"), np.concatenate(labels)
    return split("batches", x, y, how=how, numbers=numbers, store=store)
