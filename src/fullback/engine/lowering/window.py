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
        padding = pads(layer.padding, length, layer.kernel_size, layer.stride, layer.dilation)
        _, *counts = layer.output_shape((layer.groups, *length))
        return cls(
            pair(layer.kernel_size),
            pair(layer.stride),
            pair(layer.dilation),
            padding,
            (counts[0], counts[1]),
        )

    @property
    def spans(self) -> tuple[int, int]:
        """Cells that a filter reaches over."""
        return span(self.size[0], self.dilation[0]), span(self.size[1], self.dilation[1])

    @property
    def between_strides(self) -> tuple[int, int]:
        """Rows and columns of a delta that is spread out as its windows were."""
        rows, columns = (
            (count - 1) * step + 1 for count, step in zip(self.counts, self.stride, strict=True)
        )
        return rows, columns

    @property
    def before_full(self) -> tuple[int, int]:
        """Rows and columns from a delta's first cell to where the full convolution begins."""
        rows, columns = (
            before - reach + 1 for (before, _), reach in zip(self.pads, self.spans, strict=True)
        )
        return rows, columns

    def full_ring(self, length: Shape) -> Ring:
        """Return the zeros around the (spread) delta that the full convolution reaches."""
        ring = []
        for n, (before, _), reach, count, step in zip(
            length, self.pads, self.spans, self.counts, self.stride, strict=True
        ):
            last = (count - 1) * step
            ring.append((max(0, reach - 1 - before), max(0, n - 1 + before - last)))
        return ring[0], ring[1]
