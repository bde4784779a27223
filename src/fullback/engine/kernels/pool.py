"""Pooling over windows of any size, stride and padding; padding is never stored.

Operands: ``shape`` is that of x, ``counts`` are rows and columns of y, ``size`` those of a window,
``before`` the padding above and to the left. Winners are 0 to R S - 1, one map after the other.
"""

from __future__ import annotations

from fullback.engine.operands import Pair, Shape, View, kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Vector,
    either_nan,
    larger,
    load,
    select,
    smaller,
    splat,
    store,
)

_WINDOWS = "shape:shape counts:pair size:pair stride:pair before:pair"


def on_map(start: int, size: int, length: int) -> tuple[int, int]:
    """Return the first place of a window that lies on the map, along an axis, and their end."""
    return larger(0, -start), smaller(size, length - start)


def clear(a: Memory, x: View, shape: Shape) -> None:
    """Write zeros to a map."""
    channels, height, width = shape
    for channel in range(channels):
        for h in range(height):
            for w in range(width):
                store(a, x.place + channel * x.plane + h * x.pitch + w * LANES, splat(0.0))


def share_of(size: Pair) -> Vector:
    """Return the part that a cell has in the mean of its window."""
    return splat(1 / (size.rows * size.columns))


@kernel(reads="x:map", writes="y:map", numbers=f"{_WINDOWS} winners")
def maxpool(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = the largest cell of each window; the first one, where there are several."""
    (channels, height, width), pitch, columns = k.shape, k.x.pitch, k.size.columns
    winners = k.winners
    for channel in range(channels):
        for p in range(k.counts.rows):
            top = p * k.stride.rows - k.before.rows
            r0, r1 = on_map(top, k.size.rows, height)
            for q in range(k.counts.columns):
                left = q * k.stride.columns - k.before.columns
                s0, s1 = on_map(left, columns, width)
                start = k.x.place + channel * k.x.plane + top * pitch + left * LANES
                best = load(a, start + r0 * pitch + s0 * LANES)
                winner = splat(r0 * columns + s0)
                for r in range(r0, r1):
                    for n in range(s0, s1):
                        v = load(a, start + r * pitch + n * LANES)
                        more = (v > best) | (either_nan(v, v) & ~either_nan(best, best))
                        best = select(more, v, best)
                        winner = select(more, splat(r * columns + n), winner)
                store(a, k.y.place + channel * k.y.plane + p * k.y.pitch + q * LANES, best)
                if winners >= 0:
                    store(a, winners, winner)
                    winners += LANES


@kernel(reads="dy:map", writes="dx:map", numbers=f"{_WINDOWS} winners")
def maxpool_dx(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dx = for every cell, the deltas of the windows that it won."""
    (channels, height, width), pitch, columns = k.shape, k.dx.pitch, k.size.columns
    winners = k.winners
    clear(a, k.dx, k.shape)
    for channel in range(channels):
        for p in range(k.counts.rows):
            top = p * k.stride.rows - k.before.rows
            r0, r1 = on_map(top, k.size.rows, height)
            for q in range(k.counts.columns):
                left = q * k.stride.columns - k.before.columns
                s0, s1 = on_map(left, columns, width)
                start = k.dx.place + channel * k.dx.plane + top * pitch + left * LANES
                delta = load(a, k.dy.place + channel * k.dy.plane + p * k.dy.pitch + q * LANES)
                winner = load(a, winners)
                winners += LANES
                for r in range(r0, r1):
                    for n in range(s0, s1):
                        won = winner == splat(r * columns + n)
                        place = start + r * pitch + n * LANES
                        store(a, place, load(a, place) + select(won, delta, splat(0.0)))


@kernel(reads="x:map", writes="y:map", numbers=_WINDOWS)
def avgpool(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = the mean of each window; padding counts as zeros."""
    (channels, height, width), pitch, share = k.shape, k.x.pitch, share_of(k.size)
    for channel in range(channels):
        for p in range(k.counts.rows):
            top = p * k.stride.rows - k.before.rows
            r0, r1 = on_map(top, k.size.rows, height)
            for q in range(k.counts.columns):
                left = q * k.stride.columns - k.before.columns
                s0, s1 = on_map(left, k.size.columns, width)
                start = k.x.place + channel * k.x.plane + top * pitch + left * LANES
                total = splat(0.0)
                for r in range(r0, r1):
                    line = splat(0.0)
                    for n in range(s0, s1):
                        line = line + load(a, start + r * pitch + n * LANES)
                    total = total + line
                y = k.y.place + channel * k.y.plane + p * k.y.pitch + q * LANES
                store(a, y, total * share)


@kernel(reads="dy:map", writes="dx:map", numbers=_WINDOWS)
def avgpool_dx(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dx = for every cell, an equal share of the deltas of its windows."""
    (channels, height, width), pitch, share = k.shape, k.dx.pitch, share_of(k.size)
    clear(a, k.dx, k.shape)
    for channel in range(channels):
        for p in range(k.counts.rows):
            top = p * k.stride.rows - k.before.rows
            r0, r1 = on_map(top, k.size.rows, height)
            for q in range(k.counts.columns):
                left = q * k.stride.columns - k.before.columns
                s0, s1 = on_map(left, k.size.columns, width)
                start = k.dx.place + channel * k.dx.plane + top * pitch + left * LANES
                dy = k.dy.place + channel * k.dy.plane + p * k.dy.pitch + q * LANES
                delta = load(a, dy) * share
                for r in range(r0, r1):
                    for n in range(s0, s1):
                        place = start + r * pitch + n * LANES
                        store(a, place, load(a, place) + delta)


KERNELS = (maxpool, maxpool_dx, avgpool, avgpool_dx)
HELPERS = (on_map, clear, share_of)
