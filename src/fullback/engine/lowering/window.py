"""How a convolution's windows lie, and what its next delta's convolution reaches."""

from __future__ import annotations

from dataclasses import dataclass

from fullback.engine.program import Ring
from fullback.layers import Conv2D
from fullback.layers.base import Shape
from fullback.layers.window import pads, pair, span


@dataclass(frozen=True)
class Window:
    """How a convolution's windows lie."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: Ring
    counts: tuple[int, int]

    @classmethod
    def of(cls, layer: Conv2D, length: Shape) -> Window:
        """Return the windows over maps of a length (rows, columns)."""
        own = pads(layer.padding, length, layer.kernel_size, layer.stride, layer.dilation)
        _, *counts = layer.output_shape((layer.groups, *length))
        return cls(
            pair(layer.kernel_size),
            pair(layer.stride),
            pair(layer.dilation),
            own,
            (counts[0], counts[1]),
        )

    @property
    def spans(self) -> tuple[int, int]:
        """Cells that a filter reaches over."""
        return span(self.size[0], self.dilation[0]), span(self.size[1], self.dilation[1])

    @property
    def steps(self) -> Shape:
        """R, S, strides, dilations: the order in which kernels take them."""
        return (*self.size, *self.stride, *self.dilation)

    def full_ring(self, length: Shape) -> Ring:
        """Return the zeros around the (spread) delta that the full convolution reaches."""
        ring = []
        for n, (before, _), reach, count, step in zip(
            length, self.pads, self.spans, self.counts, self.stride, strict=True
        ):
            last = (count - 1) * step
            ring.append((max(0, reach - 1 - before), max(0, n - 1 + before - last)))
        return ring[0], ring[1]
