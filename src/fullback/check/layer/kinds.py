"""Layers whose kind is known: their reference, inputs on which no mistake hides, and layouts.

A user's convolution may take images as (N, H, W, C), and filters as (R, S, C, K). Layouts are
found by comparing its output with the reference's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fullback.errors import OptionError, ShapeError
from fullback.layers import AvgPool2D, BatchNorm2D, Conv2D, Dense, Layer, MaxPool2D, ReLU
from fullback.layers.base import Array, Shape
from fullback.layers.window import pair

Order: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where a user's arrays have the axes of the reference's.

    ``images``, ``weight`` : order of the reference's axes in the user's; ``row`` : the shape of a
    vector of K, with -1 for K; ``flat`` : whether one-cell maps (N, C, 1, 1) are rows (N, C).
    """

    images: tuple[int, ...] | None
    weight: tuple[int, ...] | None
    row: tuple[int, ...]
    flat: bool = False

    def image_out(self, x: Array) -> Array:
        """Return images, or a layer's outputs, in the user's layout."""
        if self.flat and x.ndim == 4:
            return np.ascontiguousarray(x[:, :, 0, 0])
        if self.images is None or x.ndim != len(self.images):
            return x
        return np.ascontiguousarray(x.transpose(self.images))

    def image_in(self, x: Array) -> Array:
        """Return a user's images, or outputs, in the reference's layout."""
        if self.flat and x.ndim == 2:
            return x[:, :, None, None]
        if self.images is None or x.ndim != len(self.images):
            return x
        return np.ascontiguousarray(x.transpose(np.argsort(self.images)))

    def parameter_out(self, p: Array) -> Array:
        """Return a parameter in the user's layout."""
        if p.ndim == 1:
            return p.reshape(self.row)
        return p if self.weight is None else np.ascontiguousarray(p.transpose(self.weight))

    def parameter_in(self, p: Array, shape: Shape) -> Array | None:
        """Return a parameter or its gradient in the reference's layout; None if it does not fit."""
        if len(shape) > 1 and self.weight is not None and p.ndim == len(self.weight):
            p = p.transpose(np.argsort(self.weight))
        elif len(shape) == 1 and p.size == shape[0]:
            p = p.reshape(shape)
        return p if p.shape == shape else None


_IMAGES: list[Order] = [(0, 1, 2, 3), (0, 2, 3, 1)]  # (N, C, H, W) and (N, H, W, C)
_FILTERS: list[Order] = [(0, 1, 2, 3), (2, 3, 1, 0), (0, 2, 3, 1), (2, 3, 0, 1)]
_ROWS: list[Order] = [(-1,), (1, -1), (-1, 1), (1, -1, 1, 1), (1, 1, 1, -1)]


def _layouts(
    images: Sequence[Order | None] = (None,),
    weights: Sequence[Order | None] = (None,),
    rows: Sequence[Order] = ((-1,),),
) -> tuple[Layout, ...]:
    return tuple(itertools.starmap(Layout, itertools.product(images, weights, rows)))


@dataclass(frozen=True)
class _Spec:
    """What is known of a kind.

    Attributes
    ----------
    reference : returns the layer, from its options
    options : their names
    layouts : those that are in use
    shapes : of inputs; () where the layer takes images, whose shapes follow from the options
    paddings : which ones may be meant where none is given
    """

    reference: Callable[..., Layer] | None
    options: frozenset[str] = frozenset()
    layouts: tuple[Layout, ...] = _layouts()
    shapes: tuple[Shape, ...] = ()
    paddings: tuple[str, ...] = ()


_WINDOWS = frozenset({"size", "stride", "padding"})
KINDS = {
    "conv2d": _Spec(
        lambda **own: Conv2D(3 * own.get("groups", 1), **own),
        frozenset({"kernel_size", "stride", "padding", "dilation", "groups"}),
        _layouts(_IMAGES, _FILTERS, _ROWS),
        paddings=("valid", "same"),
    ),
    "dense": _Spec(
        lambda: Dense(4),
        layouts=_layouts([(0, 1), (1, 0)], [(0, 1), (1, 0)], _ROWS[:3]),
        shapes=((5,), (7,)),
    ),
    "relu": _Spec(ReLU, shapes=((5,), (2, 3, 4))),
    "maxpool2d": _Spec(MaxPool2D, _WINDOWS, _layouts(_IMAGES), paddings=("valid",)),
    "avgpool2d": _Spec(AvgPool2D, _WINDOWS, _layouts(_IMAGES), paddings=("valid",)),
    "batchnorm": _Spec(
        BatchNorm2D,
        frozenset({"epsilon"}),
        (
            *_layouts(_IMAGES, rows=_ROWS),
            *(Layout(None, None, row, flat=True) for row in _ROWS[:2]),
        ),
    ),
    "softmax_cross_entropy": _Spec(None),
}
"""Every kind by its name."""

_NAMES = {"kernel_size": "size", "pool_size": "size", "eps": "epsilon", "pad": "padding"}


@dataclass(frozen=True)
class Kind:
    """A kind of layer with its options."""

    name: str
    options: Mapping[str, Any]

    @classmethod
    def named(cls, name: str, options: Mapping[str, Any]) -> Kind:
        """Check a kind's name and options.

        Raises
        ------
        OptionError
            There is no such kind, or it has no such option.
        """
        if name not in KINDS:
            raise OptionError(f"kind must be one of {', '.join(KINDS)}, got {name!r}")
        known = KINDS[name].options
        checked = {}
        for key, value in options.items():
            word = key if key in known else _NAMES.get(key, key)
            if word not in known:
                takes = ", ".join(sorted(known)) or "no options"
                raise OptionError(f"kind={name!r} takes {takes}, got {key}={value!r}")
            checked[word] = tuple(value) if isinstance(value, list) else value
        return cls(name, checked)

    def references(self) -> Iterator[Layer]:
        """Return the layers that may be meant, where an option was not given."""
        spec = KINDS[self.name]
        if spec.reference is None:
            return
        if "padding" in self.options or not spec.paddings:
            yield spec.reference(**self.options)
        else:
            for padding in spec.paddings:
                yield spec.reference(padding=padding, **self.options)

    def layouts(self) -> Sequence[Layout]:
        """Return the layouts that are in use."""
        return KINDS[self.name].layouts

    def probes(self, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
        """Return inputs, in the reference's layout, with what each is."""
        if self.name == "softmax_cross_entropy":
            yield "4 rows of logits", rng.normal(size=(4, 5))
            yield "small logits", 1e-3 * rng.normal(size=(3, 5))
            yield "large logits", 10 * rng.normal(size=(3, 4))
            yield "equal logits", np.zeros((3, 4))
            yield "one row of logits", rng.normal(size=(1, 5))
            return
        shapes = KINDS[self.name].shapes
        if not shapes:
            channels = 2 * int(self.options.get("groups", 1))
            rows, columns = pair(self.options.get("kernel_size", self.options.get("size", 2)))
            down, across = pair(self.options.get("stride") or 1)
            shapes = (
                (channels, 3 * rows + 2 * down, 2 * columns + 2 * across),
                (channels, 2 * rows + 2 * down + 1, 3 * columns + 2 * across + 1),
            )
        for shape in shapes:
            yield f"3 inputs of {' x '.join(map(str, shape))}", _spread(rng, (3, *shape))
        shape = shapes[0]
        yield (
            "a zero background",
            np.where(rng.random((3, *shape)) < 0.7, 0.0, rng.choice([-1.0, 1.0, 2.0], (3, *shape))),
        )
        yield "large values", 100 * _spread(rng, (2, *shape))
        yield "small values", 0.01 * _spread(rng, (2, *shape))
        yield "one input", _spread(rng, (1, *shape))


def parameters_for(layer: Layer, x: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Draw the layer's parameters for an input, in the reference's layout."""
    shapes = layer.parameter_shapes(x.shape[1:])
    if isinstance(layer, BatchNorm2D):
        return {name: rng.uniform(0.5, 1.5, shape) for name, shape in shapes.items()}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def reference_output(layer: Layer, x: Array, parameters: Mapping[str, Array]) -> Array | None:
    """Return the reference's output; None where the input does not fit."""
    try:
        layer.output_shape(x.shape[1:])
    except ShapeError:
        return None
    y, _ = layer.forward(x, parameters, training=True)
    return y


def _spread(rng: np.random.Generator, shape: Shape) -> Array:
    """Cells of about -1.3 to 2.7, in each image apart from each other and from 0."""
    cells = int(np.prod(shape[1:]))
    places = rng.permuted(np.tile(np.arange(cells), (shape[0], 1)), axis=1) - cells // 3
    return ((places + 0.5 + rng.uniform(-0.25, 0.25, places.shape)) * 4 / cells).reshape(shape)
