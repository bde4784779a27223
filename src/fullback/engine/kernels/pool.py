"""Pooling over windows of any size, stride and padding; padding is never stored.

Operands: ``shape`` is that of x, ``counts`` are rows and columns of y, ``size`` those of a window,
``before`` the padding above and to the left. Winners are 0 to R S - 1, one map after the other.
"""

from __future__ import annotations

from fullback.engine.kernels.maps import row_at
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
    plus,
    select,
    smaller,
    splat,
    store,
)

_WINDOWS = "shape:shape counts:pair size:pair stride:pair before:pair"


def window(
    windows: tuple[Shape, Pair, Pair, Pair], view: View, channel: int, p: int, q: int
) -> tuple[int, int, int, int, int]:
    """Return where a window begins, and its first row on the map, their end, and columns alike.

    A window may begin in the padding, which is not stored: before or behind the cells of a row.
    ``windows`` is the map's shape, the windows' size and stride, and the padding before them.
    """
    shape, size, stride, before = windows
    top, left = p * stride.rows - before.rows, q * stride.columns - before.columns
    start = row_at(view, channel, top) + left * LANES
    r0, r1 = larger(0, -top), smaller(size.rows, shape.height - top)
    s0, s1 = larger(0, -left), smaller(size.columns, shape.width - left)
    return start, r0, r1, s0, s1


def clear(a: Memory, x: View, shape: Shape) -> None:
    """Write zeros to a map."""
    channels, height, width = shape
    for channel in range(channels):
        for h in range(height):
            for w in range(width):
                store(a, row_at(x, channel, h) + w * LANES, splat(0.0))


def share_of(size: Pair) -> Vector:
    """Return the part that a cell has in the mean of its window."""
    return splat(1 / (size.rows * size.columns))


@kernel(reads="x:map", writes="y:map", numbers=f"{_WINDOWS} winners")
def maxpool(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = the largest cell of each window; the first one, where there are several."""
    x, columns, winners = k.x, k.size.columns, k.winners
    y, windows = k.y, (k.shape, k.size, k.stride, k.before)
    for channel in range(k.shape.channels):
        for p in range(k.counts.rows):
            for q in range(k.counts.columns):
                start, r0, r1, s0, s1 = window(windows, x, channel, p, q)
                best = load(a, start + r0 * x.pitch + s0 * LANES)
                winner = splat(r0 * columns + s0)
                for r in range(r0, r1):
                    for n in range(s0, s1):
                        v = load(a, start + r * x.pitch + n * LANES)
                        more = (v > best) | (either_nan(v, v) & ~either_nan(best, best))
                        best = select(more, v, best)
                        winner = select(more, splat(r * columns + n), winner)
                store(a, row_at(y, channel, p) + q * LANES, best)
                if winners >= 0:
                    store(a, winners, winner)
                    winners += LANES


@kernel(reads="dy:map", writes="dx:map", numbers=f"{_WINDOWS} winners")
def maxpool_dx(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dx = for every cell, the deltas of the windows that it won."""
    dx, columns, winners = k.dx, k.size.columns, k.winners
    dy, windows = k.dy, (k.shape, k.size, k.stride, k.before)
    clear(a, dx, k.shape)
    for channel in range(k.shape.channels):
        for p in range(k.counts.rows):
            for q in range(k.counts.columns):
                start, r0, r1, s0, s1 = window(windows, dx, channel, p, q)
                delta = load(a, row_at(dy, channel, p) + q * LANES)
                winner = load(a, winners)
                winners += LANES
                for r in range(r0, r1):
                    for n in range(s0, s1):
                        won = winner == splat(r * columns + n)
                        place = start + r * dx.pitch + n * LANES
                        store(a, place, load(a, place) + select(won, delta, splat(0.0)))


@kernel(reads="x:map", writes="y:map", numbers=_WINDOWS)
def avgpool(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = the mean of each window; padding counts as zeros."""
    x, y, share = k.x, k.y, share_of(k.size)
    windows = (k.shape, k.size, k.stride, k.before)
    for channel in range(k.shape.channels):
        for p in range(k.counts.rows):
            for q in range(k.counts.columns):
                start, r0, r1, s0, s1 = window(windows, x, channel, p, q)
                total = splat(0.0)
                for r in range(r0, r1):
                    line = splat(0.0)
                    for n in range(s0, s1):
                        line = plus(line, load(a, start + r * x.pitch + n * LANES))
                    total = plus(total, line)
                store(a, row_at(y, channel, p) + q * LANES, total * share)


@kernel(reads="dy:map", writes="dx:map", numbers=_WINDOWS)
def avgpool_dx(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dx = for every cell, an equal share of the deltas of its windows."""
    dx, dy, share = k.dx, k.dy, share_of(k.size)
    windows = (k.shape, k.size, k.stride, k.before)
    clear(a, dx, k.shape)
    for channel in range(k.shape.channels):
        for p in range(k.counts.rows):
            for q in range(k.counts.columns):
                start, r0, r1, s0, s1 = window(windows, dx, channel, p, q)
                delta = load(a, row_at(dy, channel, p) + q * LANES) * share
                for r in range(r0, r1):
                    for n in range(s0, s1):
                        place = start + r * dx.pitch + n * LANES
                        store(a, place, load(a, place) + delta)


KERNELS = (maxpool, maxpool_dx, avgpool, avgpool_dx)
HELPERS = (window, clear, share_of)
