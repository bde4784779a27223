"""How a convolution's windows lie, and which of them reach a cell, for the next delta.

Along one axis, tap t of window p lies on cell ``p * stride + t * dilation - before``, with the
padding before. So the cells fall into as many *phases* as the stride is long: with stride 2, the
even ones meet some taps of a filter and the odd ones the others. In each phase the next delta is a
convolution of the delta with those taps, and no zero is multiplied that a stride has left.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from fullback.engine.program import Ring
from fullback.layers import Conv2D
from fullback.layers.base import Shape
from fullback.layers.window import pads, pair


@dataclass(frozen=True)
class StridePhase:
    """Along one axis, every cell of an input that lies a stride from the next, and its taps.

    Attributes
    ----------
    cell, count : the first of these cells, and how many they are
    tap, taps, tap_step : the first of the taps that meet them, how many, and how far apart
    start, dilation : where in the delta the full convolution with these taps begins, for the first
        cell, counted from the delta's first cell; and how far apart the deltas are
    """

    cell: int
    count: int
    tap: int
    taps: int
    tap_step: int
    start: int
    dilation: int

    @property
    def last_tap(self) -> int:
        """The tap that the turned filter begins with."""
        return self.tap + (self.taps - 1) * self.tap_step

    @property
    def stop(self) -> int:
        """Where in the delta the convolution ends, behind the last delta that it reaches."""
        return self.start + (self.taps - 1) * self.dilation + self.count


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

    def phases(self, length: Shape) -> tuple[list[StridePhase], list[StridePhase]]:
        """Return the phases of rows and of columns of maps of a length."""
        rows, columns = (
            [
                _phase(first, cells, size, stride, dilation, before)
                for first in range(min(stride, cells))
            ]
            for cells, size, stride, dilation, (before, _) in zip(
                length, self.size, self.stride, self.dilation, self.pads, strict=True
            )
        )
        return rows, columns

    def full_ring(self, length: Shape) -> Ring:
        """Return the zeros around the delta that the full convolutions of all phases reach."""
        rows, columns = (
            (
                max([0, *(-phase.start for phase in phases if phase.taps)]),
                max([0, *(phase.stop - count for phase in phases if phase.taps)]),
            )
            for count, phases in zip(self.counts, self.phases(length), strict=True)
        )
        return rows, columns


def _phase(
    first: int, cells: int, size: int, stride: int, dilation: int, before: int
) -> StridePhase:
    """Return the phase of the cells from a first one on, along one axis."""
    step = stride // gcd(stride, dilation)  # from one tap that meets them to the next
    place = first + before  # with the padding
    tap = next((t for t in range(min(step, size)) if (place - t * dilation) % stride == 0), size)
    taps = len(range(tap, size, step))
    apart = step * dilation // stride
    start = (place - tap * dilation) // stride - (taps - 1) * apart if taps else 0
    count = len(range(first, cells, stride))
    return StridePhase(first, count, tap, taps, step, start, apart)
