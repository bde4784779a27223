"""Layers as a network: their names, the shapes of their outputs and arrays, and the limits of both.

All of it follows from the layers and the shape of one image, before there are any numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from fullback.errors import OptionError, ShapeError
from fullback.layers import Layer, Normalize
from fullback.layers.base import Shape
from fullback.options import short

_MOST_VALUES = 2**28  # parameters of a network, or values that one layer works on for an image
_MOST_ACTIVATIONS = 2**27  # values of all layers' outputs for one image


def require_input_shape(input_shape: Sequence[int]) -> Shape:
    """Return the shape of one image as a tuple of whole numbers, or raise ShapeError."""
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    whole = all(isinstance(n, int | np.integer) and n > 0 for n in shape)
    if not whole or len(shape) not in (1, 3):
        raise ShapeError(
            "input_shape must be (channels, rows, columns) or (features,), got "
            f"{short(input_shape)}"
        )
    return tuple(int(n) for n in shape)


def layer_names(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the name of every layer, its kind and number: ("conv1", "relu1", "pool1", ...).

    Raises
    ------
    OptionError
        There are no layers, one is not a layer, or Normalize is not the first.
    """
    if not layers:
        raise OptionError("a network needs at least one layer")
    counts: dict[str, int] = {}
    names = []
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise OptionError(f"layer {index} is not a layer like Conv2D(8) but {short(layer)}")
        if isinstance(layer, Normalize) and index:
            raise OptionError("Normalize must be the first layer: it is measured on the images")
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
        names.append(f"{layer.kind}{counts[layer.kind]}")
    return tuple(names)


def output_shapes(
    layers: Sequence[Layer], names: Sequence[str], input_shape: Shape
) -> tuple[Shape, ...]:
    """Return the output shape of every layer, for one image.

    Raises
    ------
    ShapeError
        A layer does not fit its input, the last one gives no row, or one is too large.
    """
    shapes: list[Shape] = []
    shape, total = input_shape, prod(input_shape)
    if total > _MOST_ACTIVATIONS:
        raise ShapeError(f"an input of shape {short(shape)} is too large for one image")
    for name, layer in zip(names, layers, strict=True):
        try:
            given, shape = shape, layer.output_shape(shape)
        except ShapeError as error:
            before = f" after {names[len(shapes) - 1]}" if shapes else ""
            raise ShapeError(f"{name}{before}: {error}") from None
        total += prod(shape)
        if total > _MOST_ACTIVATIONS:
            raise ShapeError(
                f"{name}: an output of shape {shape} is too large for one image, for which all "
                f"layers together may give {_MOST_ACTIVATIONS:,} values"
            )
        if layer.workspace(given) > _MOST_VALUES:
            raise ShapeError(
                f"{name}: the windows over an input of shape {given} hold more than "
                f"{_MOST_VALUES:,} cells, which is too large; use a smaller window, a larger "
                "stride or less padding"
            )
        shapes.append(shape)
    if len(shape) != 1:
        raise ShapeError(
            f"the last layer, {names[-1]}, gives {shape}, but the loss takes one row per image; "
            "end with Flatten() or GlobalAvgPool2D(), and Dense(classes)"
        )
    return tuple(shapes)


class Architecture(NamedTuple):
    """What follows from the layers and the shape of one image.

    Attributes
    ----------
    input_shape : shape of one image
    names, shapes : of every layer, its name and the shape of its output for one image
    parameters, statistics : the shapes of the network's arrays, by their full names
    """

    input_shape: Shape
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    parameters: dict[str, Shape]
    statistics: dict[str, Shape]


def architecture_of(layers: Sequence[Layer], input_shape: Sequence[int]) -> Architecture:
    """Return the names and shapes of a network of these layers, and the shapes of its arrays.

    Raises
    ------
    OptionError, ShapeError
        The layers do not make a network, or one of unreasonable size.
    """
    shape, names = require_input_shape(input_shape), layer_names(layers)
    shapes = output_shapes(layers, names, shape)
    parameters: dict[str, Shape] = {}
    statistics: dict[str, Shape] = {}
    for name, layer, before in zip(names, layers, (shape, *shapes), strict=False):
        for arrays, found in (
            (parameters, layer.parameter_shapes(before)),
            (statistics, layer.statistic_shapes(before)),
        ):
            arrays.update({f"{name}.{key}": value for key, value in found.items()})
    count = sum(prod(map(int, shape)) for shape in parameters.values())
    if count > _MOST_VALUES:
        raise ShapeError(f"the network would have {count:,} parameters; use smaller layers")
    return Architecture(shape, names, shapes, parameters, statistics)


def gain_after(layers: Sequence[Layer]) -> float:
    """Return the factor for a layer's initial weights, given the layers behind it.

    It is the gain of the activation that the output meets first, and 1 where that is another
    layer's weights. The output layer starts small: the first deltas that reach the filters are
    then small too, and grow as the layers above learn. At full size the first steps, which add up
    over all positions of an image, can push a filter so far that its ReLU never answers again.
    """
    for layer in layers:
        if layer.gain is not None:
            return layer.gain
        if layer.kind in ("conv", "dense"):
            return 1.0
    return 0.1
