"""Layers that are computed together.

A ReLU joins the convolution, the dense layer or the batch normalisation before it, and a 2 x 2 max
pooling the 3 x 3 convolution and ReLU before it, or the batch normalisation and ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fullback.engine.lowering.window import Window
from fullback.engine.program import NO_RING, Ring
from fullback.layers import (
    BatchNorm2D,
    Conv2D,
    Dense,
    Layer,
    MaxPool2D,
    ReLU,
)
from fullback.layers.base import Shape
from fullback.layers.window import pads, pair
from fullback.model import Model


@dataclass(frozen=True)
class Step:
    """Layers that are computed together."""

    layers: tuple[Layer, ...]
    names: tuple[str, ...]
    input_shape: Shape
    output_shape: Shape

    @property
    def layer(self) -> Any:
        """The layer that the step is named after."""
        return self.layers[0]

    @property
    def name(self) -> str:
        """Its name."""
        return self.names[0]

    @property
    def relu(self) -> bool:
        """Whether a ReLU joined the first layer."""
        return len(self.layers) > 1

    @property
    def then_relu(self) -> str:
        """What a sentence about the first layer adds where a ReLU joined it."""
        return f"; then {self.names[1]} cuts off what is negative" if self.relu else ""

    @property
    def rectifies(self) -> bool:
        """Whether the output is that of a ReLU."""
        return self.layers[-1].rectifies

    @property
    def pooled(self) -> bool:
        """Whether a max pooling joined, too."""
        return len(self.layers) > 2

    @cached_property
    def window(self) -> Window:
        """How a convolution's windows lie."""
        return Window.of(self.layer, self.input_shape[1:])

    @property
    def delta_ring(self) -> Ring:
        """The zeros around a convolution's delta that the next delta's convolution reaches."""
        return self.window.full_ring(self.input_shape[1:])

    @property
    def in_place(self) -> bool:
        """Whether the output may lie where the input lay: an activation's, which goes back by y."""
        return self.layer.gain is not None

    @property
    def keeps_output(self) -> bool:
        """Whether the backward pass reads the output."""
        return self.in_place or (self.relu and not self.pooled)


def steps(net: Model, *, pools: bool = True) -> list[Step]:
    """Group a network's layers; without ``pools``, the output of every ReLU is a map."""
    shapes = (net.input_shape, *net.shapes)
    found: list[Step] = []
    n = 0
    while n < len(net.layers):
        joined = _joined(net.layers[n:], shapes[n:])
        stop = n + (joined if pools else min(joined, 2))
        found.append(Step(net.layers[n:stop], net.names[n:stop], shapes[n], shapes[stop]))
        n = stop
    return found


def _joined(layers: Sequence[Layer], shapes: Sequence[Shape]) -> int:
    """Return how many of the next layers make one step."""
    first = layers[0]
    if not isinstance(first, Conv2D | Dense | BatchNorm2D):
        return 1
    if len(layers) < 2 or type(layers[1]) is not ReLU:
        return 1
    window = layers[2] if len(layers) > 2 else None
    if type(window) is not MaxPool2D:
        return 2
    halves = pair(window.size) == window.step == (2, 2)
    bare = pads(window.padding, shapes[2][1:], window.size, window.step) == NO_RING
    if isinstance(first, Conv2D):
        joins = is_3x3(first, shapes[1]) and first.groups == 1
    else:
        joins = isinstance(first, BatchNorm2D) and not any(n % 2 for n in shapes[2][1:])
    return 3 if joins and halves and bare else 2


def is_3x3(layer: Conv2D, output_shape: Shape) -> bool:
    """Return whether a convolution is one of the kind with kernels of its own."""
    return (
        pair(layer.kernel_size) == (3, 3)
        and pair(layer.stride) == pair(layer.dilation) == (1, 1)
        and min(output_shape[1:]) > 1
    )
