"""Pooling over windows of any size, stride and padding; padding is never stored."""

from __future__ import annotations

from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    either_nan,
    larger,
    load,
    select,
    smaller,
    splat,
    store,
)


def maxpool(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = the largest cell of each window; the first one, where there are several.

    Operands: x, plane, pitch; y, plane, pitch; C, H, W; P, Q; R, S; strides; padding above and to
    the left; the winners (0 to R S - 1), one map after the other, or -1.
    """
    x, plane, pitch, y, y_plane, y_pitch = k[0], k[1], k[2], k[3], k[4], k[5]
    channels, height, width, rows, columns = k[6], k[7], k[8], k[11], k[12]
    winners = k[17]
    for channel in range(channels):
        for p in range(k[9]):
            top = p * k[13] - k[15]
            for q in range(k[10]):
                left = q * k[14] - k[16]
                r0, r1 = larger(0, -top), smaller(rows, height - top)
                s0, s1 = larger(0, -left), smaller(columns, width - left)
                start = x + channel * plane + top * pitch + left * LANES
                best = load(a, start + r0 * pitch + s0 * LANES)
                winner = splat(r0 * columns + s0)
                for r in range(r0, r1):
                    for n in range(s0, s1):
                        v = load(a, start + r * pitch + n * LANES)
                        more = (v > best) | (either_nan(v, v) & ~either_nan(best, best))
                        best = select(more, v, best)
                        winner = select(more, splat(r * columns + n), winner)
                store(a, y + channel * y_plane + p * y_pitch + q * LANES, best)
                if winners >= 0:
                    store(a, winners, winner)
                    winners += LANES


def maxpool_dx(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dx = for every cell, the deltas of the windows that it won.

    Operands as for ``maxpool``, with dx for x and dy for y.
    """
    x, plane, pitch, y, y_plane, y_pitch = k[0], k[1], k[2], k[3], k[4], k[5]
    channels, height, width, rows, columns = k[6], k[7], k[8], k[11], k[12]
    winners, zero = k[17], splat(0.0)
    for channel in range(channels):
        for h in range(height):
            for w in range(width):
                store(a, x + channel * plane + h * pitch + w * LANES, zero)
        for p in range(k[9]):
            top = p * k[13] - k[15]
            for q in range(k[10]):
                left = q * k[14] - k[16]
                delta = load(a, y + channel * y_plane + p * y_pitch + q * LANES)
                winner = load(a, winners)
                winners += LANES
                start = x + channel * plane + top * pitch + left * LANES
                for r in range(larger(0, -top), smaller(rows, height - top)):
                    for n in range(larger(0, -left), smaller(columns, width - left)):
                        won = winner == splat(r * columns + n)
                        place = start + r * pitch + n * LANES
                        store(a, place, load(a, place) + select(won, delta, zero))


def avgpool(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = the mean of each window; padding counts as zeros. Operands as for ``maxpool``."""
    x, plane, pitch, y, y_plane, y_pitch = k[0], k[1], k[2], k[3], k[4], k[5]
    channels, height, width, rows, columns = k[6], k[7], k[8], k[11], k[12]
    share = splat(1 / (rows * columns))
    for channel in range(channels):
        for p in range(k[9]):
            top = p * k[13] - k[15]
            for q in range(k[10]):
                left = q * k[14] - k[16]
                start = x + channel * plane + top * pitch + left * LANES
                total = splat(0.0)
                for r in range(larger(0, -top), smaller(rows, height - top)):
                    line = splat(0.0)
                    for n in range(larger(0, -left), smaller(columns, width - left)):
                        line = line + load(a, start + r * pitch + n * LANES)
                    total = total + line
                store(a, y + channel * y_plane + p * y_pitch + q * LANES, total * share)


def avgpool_dx(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dx = for every cell, an equal share of the deltas of its windows.

    Operands as for ``maxpool``, with dx for x and dy for y.
    """
    x, plane, pitch, y, y_plane, y_pitch = k[0], k[1], k[2], k[3], k[4], k[5]
    channels, height, width, rows, columns = k[6], k[7], k[8], k[11], k[12]
    share, zero = splat(1 / (rows * columns)), splat(0.0)
    for channel in range(channels):
        for h in range(height):
            for w in range(width):
                store(a, x + channel * plane + h * pitch + w * LANES, zero)
        for p in range(k[9]):
            top = p * k[13] - k[15]
            for q in range(k[10]):
                left = q * k[14] - k[16]
                delta = load(a, y + channel * y_plane + p * y_pitch + q * LANES) * share
                start = x + channel * plane + top * pitch + left * LANES
                for r in range(larger(0, -top), smaller(rows, height - top)):
                    for n in range(larger(0, -left), smaller(columns, width - left)):
                        place = start + r * pitch + n * LANES
                        store(a, place, load(a, place) + delta)


KERNELS = (maxpool, maxpool_dx, avgpool, avgpool_dx)
HELPERS = ()
