"""X, y and layers as people give them to an estimator, as a network takes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from math import isqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import _check_sample_weight

from fullback.errors import FullbackWarning, OptionError, ShapeError
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
from fullback.options import require_number
from fullback.pixels import channels_are_last

Array: TypeAlias = NDArray[Any]
ImageShape: TypeAlias = tuple[int, int, int]  # channels, rows, columns


# Layout -----------------------------------------------------------------------------------------


def layout_of(
    given: Sequence[int], features: int, image_shape: Sequence[int] | None
) -> tuple[ImageShape, bool]:
    """Return (channels, rows, columns) of images, and whether X has the channels last.

    Parameters
    ----------
    given : X's shape
    features : numbers an image
    image_shape : the estimator's parameter, which decides where it is not None

    Raises
    ------
    OptionError, ShapeError
        image_shape is no shape, or not that of X.

    Warns
    -----
    FullbackWarning
        The layout is a guess, or image_shape looks like (rows, columns, channels).
    """
    wanted = None if image_shape is None else explicit_shape(image_shape)
    if len(given) == 2:
        if wanted is None:
            side = isqrt(features)
            return ((1, side, side) if side * side == features else (1, 1, features)), False
        if int(np.prod(wanted, dtype=object)) != features:
            raise ShapeError(f"X has {features} features, which are no image of shape {wanted}")
        return wanted, False
    if len(given) == 3:
        found = (1, int(given[1]), int(given[2]))
        last = False
    else:
        first, middle, end = (int(n) for n in given[1:])
        if wanted is None:
            last = channels_are_last(given, "X")
        else:
            last = wanted != (first, middle, end) and wanted == (end, first, middle)
        found = (end, first, middle) if last else (first, middle, end)
    if wanted not in (None, found):
        raise ShapeError(
            f"X holds images of shape {tuple(given[1:])}, but image_shape, (channels, rows, "
            f"columns), is {wanted}"
        )
    return found, last


def explicit_shape(image_shape: Sequence[int]) -> ImageShape:
    """Return the parameter image_shape as (channels, rows, columns).

    Raises
    ------
    OptionError
        It is not two or three positive whole numbers.

    Warns
    -----
    FullbackWarning
        It looks like (rows, columns, channels).
    """
    shape = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in shape)
    if len(shape) not in (2, 3) or not whole or min(shape) < 1:
        raise OptionError(
            "image_shape must be (rows, columns) or (channels, rows, columns), positive whole "
            f"numbers, got {image_shape!r}"
        )
    channels, rows, columns = ((1,) * (3 - len(shape))) + tuple(int(n) for n in shape)
    likely = columns == 3 or (columns in (1, 2, 4) and channels == rows)
    if likely and channels > 4:
        warnings.warn(
            f"image_shape is (channels, rows, columns), so {shape} is {channels} channels of "
            f"{rows} x {columns}; for {channels} x {rows} pixels give image_shape=({columns}, "
            f"{channels}, {rows}), whichever axis of X the channels are",
            FullbackWarning,
            stacklevel=2,
        )
    return channels, rows, columns


def in_layout(x: Array, shape: ImageShape, channels_last: bool) -> Array:
    """Bring images (N, rows, columns) or of four axes to the layout that those of fit had.

    Raises
    ------
    ShapeError
        They are of another shape in either layout.
    """
    channels, rows, columns = shape
    first, last = (channels, rows, columns), (rows, columns, channels)
    given = (1, *x.shape[1:]) if x.ndim == 3 else x.shape[1:]
    if given == (last if channels_last else first) or (x.ndim == 3 and given == first):
        return x
    if x.ndim == 4 and given == last:
        return np.moveaxis(x, 3, 1)
    if x.ndim == 4 and given == first:
        return np.moveaxis(x, 1, 3)
    raise ShapeError(f"X holds images of shape {x.shape[1:]}, fit had {shape}")


# Layers -----------------------------------------------------------------------------------------


def whole_network(
    layers: str | Iterable[Layer] | None, shape: ImageShape, outputs: int, what: str
) -> list[Layer]:
    """Return a network's layers, with those that were left out.

    Parameters
    ----------
    layers : the estimator's parameter
    shape : of an image
    outputs : that the network needs
    what : why it needs them, for the message: "y has 10 classes"

    Raises
    ------
    OptionError, ShapeError
        The layers cannot be read, or end with a Dense of another size.
    """
    if layers is None:
        chosen = _default(shape)
    elif isinstance(layers, str):
        chosen = parse_layers(layers)
    elif isinstance(layers, Iterable):
        chosen = list(layers)
    else:
        raise OptionError(f"layers must be text, a list of layers or None, got {layers!r}")
    if not chosen or not isinstance(chosen[0], Normalize):
        chosen.insert(0, Normalize())
    if not any(isinstance(layer, Flatten | GlobalAvgPool2D) for layer in chosen):
        first = next((n for n, layer in enumerate(chosen) if isinstance(layer, Dense)), len(chosen))
        chosen.insert(first, Flatten())
    last = chosen[-1]
    if not isinstance(last, Dense):
        return [*chosen, Dense(outputs)]
    if last.units != outputs:
        raise ShapeError(
            f"the layers end with {last}, which makes {last.units} the number of outputs, "
            f"but {what}, which takes {outputs}; leave that layer out, since the last one is "
            "added, or put an activation like relu behind it"
        )
    return chosen


def _default(shape: ImageShape) -> list[Layer]:
    """Return two stages and 64 units; pooling leaves out axes that are too short."""
    chosen: list[Layer] = []
    _, rows, columns = shape
    for filters in (8, 16):
        window = (2 if rows > 3 else 1, 2 if columns > 3 else 1)
        chosen += [Conv2D(filters), ReLU()]
        if window != (1, 1):
            chosen.append(MaxPool2D(window if window != (2, 2) else 2))
        rows, columns = rows // window[0], columns // window[1]
    return [*chosen, Flatten(), Dense(64), ReLU()]


# Targets and weights ----------------------------------------------------------------------------


def checked_y(estimator: Any, y: ArrayLike, images: int, *, numbers: bool = False) -> Array:
    """Return labels (N,), or numbers (N,) or (N, outputs), one for every image.

    Raises
    ------
    ValueError
        There are none, or not as many, or they are not finite, or labels of types without an order.
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
        assert_all_finite(checked, input_name="y")
        if checked.dtype == object and not all(isinstance(label, str) for label in checked):
            kinds = sorted({type(label).__name__ for label in checked})
            if len(kinds) > 1:
                raise ValueError(
                    f"y holds labels of several types, {', '.join(kinds)}; give all of one type"
                )
    check_consistent_length(checked, np.empty(images))
    return np.asarray(checked)


def checked_weights(sample_weight: ArrayLike | None, images: Array) -> Array | None:
    """Return weights of the images, of shape (N,)."""
    if sample_weight is None:
        return None
    return np.asarray(_check_sample_weight(sample_weight, images.reshape(len(images), -1)))


def check_class_weight(class_weight: Any) -> None:
    """Raise OptionError unless class weights are None, "balanced" or a dict of numbers."""
    if class_weight is None or (isinstance(class_weight, str) and class_weight == "balanced"):
        return
    if not isinstance(class_weight, Mapping):
        raise OptionError(f"class_weight must be a dict, 'balanced' or None, got {class_weight!r}")
    for label, weight in class_weight.items():
        require_number(f"class_weight[{label!r}]", weight, "[0, inf)")
