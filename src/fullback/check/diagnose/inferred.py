"""The networks that the shapes of a program's weights and images allow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fullback.check.diagnose.layouts import CONV_ORDERS, squeezed
from fullback.check.diagnose.names import is_weight
from fullback.errors import OptionError, ShapeError
from fullback.layers import (
    AvgPool2D,
    BinaryCrossEntropy,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
)
from fullback.layers.base import Array, Shape
from fullback.layers.window import Padding
from fullback.network import Network

_HIDDEN: tuple[tuple[type[Layer] | None, type[Layer]], ...] = (
    *((one, pooling) for pooling in (MaxPool2D, AvgPool2D) for one in (ReLU, Sigmoid, Tanh)),
    (None, MaxPool2D),
)
"""Activations and pooling that programs have, the usual ones first."""


def networks(arrays: Mapping[str, Array], x: Array, y: Any) -> list[list[Network]]:
    """Return the networks that weights of these shapes can belong to.

    Those with ReLU and max pooling are the first group, those with others follow.

    They are convolutions, all padded alike, each perhaps with 2 x 2 pooling, and dense layers, with
    one kind of activation between them, and softmax with cross-entropy, or a sigmoid where there is
    one output.

    Parameters
    ----------
    arrays : the weights by name, in the order of the layers
    x, y : images and labels in the user's form

    Raises
    ------
    OptionError
        There is none.
    """
    weights = [a for name, a in arrays.items() if not _is_bias(name, a)]
    biases = [a.size for name, a in arrays.items() if _is_bias(name, a)]
    convs = [squeezed_filters(a.shape) for a in weights if a.ndim > 2]
    dense = [a.shape for a in weights if a.ndim == 2]
    groups: list[list[Network]] = []
    seen: set[str] = set()
    for hidden in _HIDDEN:
        found: list[Network] = []
        for shape in _image_shapes(x, y, dense):
            for layers in _architectures(convs, dense, biases, shape, hidden):
                try:
                    one = isinstance(layers[-1], Dense) and layers[-1].units == 1
                    loss = BinaryCrossEntropy() if one else SoftmaxCrossEntropy()
                    net = Network(layers, shape, loss=loss, dtype="float64")
                except (OptionError, ShapeError):
                    continue
                if repr(net) not in seen:
                    seen.add(repr(net))
                    found.append(net)
        groups += [found] if found else []
    if not groups:
        told = ", ".join(f"{name} {array.shape}".strip() for name, array in arrays.items())
        raise OptionError(
            f"no network of convolutions, 2 x 2 pooling and dense layers has weights like {told} "
            f"for images like {x.shape}; give net="
        )
    return groups


def _is_bias(name: str, array: Array) -> bool:
    return len(squeezed(array.shape)) < 2 and (array.ndim < 2 or not is_weight(name))


def squeezed_filters(shape: Shape) -> Shape:
    """Return a filter's shape with four axes: (K, R, S) has one channel."""
    return shape if len(shape) == 4 else (*shape[:1], 1, *shape[1:])


def _image_shapes(x: Array, y: Any, dense: Sequence[Shape]) -> Iterator[Shape]:
    """Yield the shapes that one of these images may have, the likelier ones first."""
    if x.ndim < 3:
        yield from dict.fromkeys((n,) for n in x.shape[::-1] if n in np.ravel(dense[:1]))
    count = np.shape(y)[0] if np.ndim(y) else 1
    shapes = [x.shape[1:]] if x.ndim > 1 and x.shape[0] == count else []
    shapes += [x.shape[:-1]] if x.ndim > 2 and x.shape[-1] == count else []
    for shape in shapes or [x.shape]:
        if len(shape) == 3:
            yield from dict.fromkeys([shape, (shape[2], *shape[:2])])
        elif len(shape) == 2:
            yield (1, *shape)
        elif len(shape) == 1:
            side = round(shape[0] ** 0.5)
            if side * side == shape[0]:
                yield (1, side, side)


def _architectures(
    convs: Sequence[Shape],
    dense: Sequence[Shape],
    biases: Sequence[int],
    shape: Shape,
    hidden: tuple[type[Layer] | None, type[Layer]],
) -> Iterator[list[Layer]]:
    activation, pooling = hidden
    if len(shape) == 1:
        if not convs and (units := _chain(dense, shape[0])) is not None:
            yield _dense_layers(units, biases, activation)
        return
    paddings: tuple[Padding, ...] = ("same", "valid")
    for order, padding in itertools.product(CONV_ORDERS, paddings):
        sizes = [dict(zip(order, conv, strict=True)) for conv in convs]
        channels = [shape[0], *(size["K"] for size in sizes)]
        if any(size["C"] != c for size, c in zip(sizes, channels, strict=False)):
            continue
        usual = [(True,) * len(convs)]
        for pooled in [*usual, *itertools.product((True, False), repeat=len(convs))]:
            layers: list[Layer] = []
            for size, pool in zip(sizes, pooled, strict=True):
                kernel = (size["R"], size["S"])
                layers.append(Conv2D(size["K"], kernel, padding=padding, bias=size["K"] in biases))
                layers += [activation()] if activation else []
                layers += [pooling()] if pool else []
            try:
                features = int(np.prod(_output(layers, shape)))
            except (OptionError, ShapeError):
                continue
            units = _chain(dense, features)
            if units is None:
                continue
            yield [*layers, Flatten(), *_dense_layers(units, biases, activation)]


def _dense_layers(
    units: Sequence[int], biases: Sequence[int], activation: type[Layer] | None
) -> list[Layer]:
    layers: list[Layer] = []
    for count in units:
        layers += [Dense(count, bias=count in biases), (activation or ReLU)()]
    return layers[:-1]


def _output(layers: Sequence[Layer], shape: Shape) -> Shape:
    for layer in layers:
        shape = layer.output_shape(shape)
    return shape


def _chain(dense: Sequence[Shape], features: int) -> list[int] | None:
    """Return the units of dense layers whose shapes follow one another, (in, out) or (out, in)."""
    if not dense:
        return None
    for turned in (False, True):
        units, rest = [], features
        for shape in dense:
            outputs, inputs = shape[::-1] if turned else shape
            if inputs != rest:
                break
            units.append(outputs)
            rest = outputs
        else:
            return units
    return None
