"""X, y and layers as people give them to an estimator, as a network takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import _check_sample_weight

from fullback.errors import OptionError, ShapeError
from fullback.layers import (
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    Normalize,
    ReLU,
)
from fullback.layers.text import parse_layers

Array: TypeAlias = NDArray[Any]


def shape_of(
    given: Sequence[int], features: int, image_shape: Sequence[int] | None
) -> tuple[int, int, int]:
    """Return the (channels, rows, columns) of images of so many features."""
    if len(given) > 2:
        channels, rows, columns = (1,) * (4 - len(given)) + tuple(given[1:])
        return channels, rows, columns
    if image_shape is not None:
        whole = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
        if len(whole) not in (2, 3) or not all(isinstance(n, int | np.integer) for n in whole):
            raise OptionError(
                "image_shape must be (rows, columns) or (channels, rows, columns), got "
                f"{image_shape!r}"
            )
        channels, rows, columns = (1,) * (3 - len(whole)) + whole
        if channels * rows * columns != features or min(whole) < 1:
            raise ShapeError(f"X has {features} features, which are no image of shape {whole}")
        return int(channels), int(rows), int(columns)
    side = isqrt(features)
    return (1, side, side) if side * side == features else (1, 1, features)


def whole_network(
    layers: str | Iterable[Layer] | None, shape: tuple[int, int, int], outputs: int
) -> list[Layer]:
    """Return a network's layers, with what goes without saying."""
    if layers is None:
        own = _default(shape)
    else:
        own = list(parse_layers(layers) if isinstance(layers, str) else layers)
    if not own or not isinstance(own[0], Normalize):
        own.insert(0, Normalize())
    if not any(isinstance(layer, Flatten | GlobalAvgPool2D) for layer in own):
        first = next((n for n, layer in enumerate(own) if isinstance(layer, Dense)), len(own))
        own.insert(first, Flatten())
    return [*own, Dense(outputs)]


def _default(shape: tuple[int, int, int]) -> list[Layer]:
    """Return two stages and 64 units; pooling leaves out axes that are too short."""
    own: list[Layer] = []
    _, rows, columns = shape
    for filters in (8, 16):
        window = (2 if rows > 3 else 1, 2 if columns > 3 else 1)
        own += [Conv2D(filters), ReLU()]
        if window != (1, 1):
            own.append(MaxPool2D(window if window != (2, 2) else 2))
        rows, columns = rows // window[0], columns // window[1]
    return [*own, Flatten(), Dense(64), ReLU()]


def checked_y(estimator: Any, y: ArrayLike, images: int, *, numbers: bool = False) -> Array:
    """Return labels (N,), or numbers (N,) or (N, outputs), one for every image.

    Raises
    ------
    ValueError
        There are none, or not as many, or they are not finite.
    """
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None"
        )
    if numbers:
        checked = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        if checked.ndim == 2 and checked.shape[1] == 1 and np.ndim(y) == 1:
            checked = checked[:, 0]
    else:
        checked = column_or_1d(y, warn=True)
        if checked.dtype.kind in "fc" and not np.isfinite(checked).all():
            raise ValueError("Input y contains NaN or infinity")
    check_consistent_length(checked, np.empty(images))
    return np.asarray(checked)


def checked_weights(sample_weight: ArrayLike | None, images: Array) -> Array | None:
    """Return weights of the images, of shape (N,)."""
    if sample_weight is None:
        return None
    return np.asarray(_check_sample_weight(sample_weight, images.reshape(len(images), -1)))
