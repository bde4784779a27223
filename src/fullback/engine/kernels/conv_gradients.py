"""Gradients of convolutions, and what their deltas pass through.

Operands are named as in ``conv.py``. Of a gradient, every chunk of blocks has its own, ``dw_step``
and ``db_step`` apart.
"""

from __future__ import annotations

from fullback.engine.context import ROUND
from fullback.engine.cpu import HIGH, PAIRS, REGISTER, TAPS
from fullback.engine.kernels.conv import DEAD
from fullback.engine.kernels.images import lanes_used
from fullback.engine.kernels.maps import even_part, row_at
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Mask,
    Memory,
    Operands,
    Tile,
    Vector,
    at,
    first_lanes,
    load,
    pairs,
    select,
    slide_back,
    splat,
    store,
    store_lane_sums,
    sum_lanes,
    zeros,
)


def adds(c: Integers, block: int) -> bool:
    """Return whether a block adds to what an earlier one of its chunk has written."""
    later: bool = block >= c[ROUND]
    return later


def deltas_of(delta: Vector, winner: Vector) -> tuple[Vector, Vector, Vector, Vector]:
    """Return the deltas of the four cells of a window: its own for the winner, 0 for the others."""
    zero = splat(0.0)
    return (
        select(winner == zero, delta, zero),
        select(winner == splat(1.0), delta, zero),
        select(winner == splat(2.0), delta, zero),
        select(winner == splat(3.0), delta, zero),
    )


@kernel(reads="dy:map", writes="dx:map", numbers="winners shape:shape")
def unpool2x2(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Hand each window's delta to its winner, and 0 to the others, for windows of 2 x 2.

    ``shape`` is that of dy.
    """
    (channels, height, width), winners, pitch = k.shape, k.winners, k.dx.pitch
    for channel in range(channels):
        for p in range(height):
            at_x = row_at(k.dx, channel, 2 * p)
            at_y = row_at(k.dy, channel, p)
            for _ in range(width):
                v0, v1, v2, v3 = deltas_of(load(a, at_y), load(a, winners))
                store(a, at_x, v0)
                store(a, at_x + LANES, v1)
                store(a, at_x + pitch, v2)
                store(a, at_x + pitch + LANES, v3)
                at_x += 2 * LANES
                at_y += LANES
                winners += LANES


@kernel(
    reads="x:map dy:map",
    writes="dw",
    numbers="dw_step filters channels counts:pair size:pair stride:pair dilation:pair groups",
)
def conv_dw(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dw = x correlated with dy, for any size, stride, dilation and groups.

    The columns of a tile are the taps of a filter's row, or, where rows are short, channels.
    """
    filters, channels, rows, columns = k.filters, k.channels, k.size.rows, k.size.columns
    below, right, by_taps = k.dilation.rows * k.x.pitch, k.dilation.columns * LANES, columns > 2
    used, add = first_lanes(lanes_used(c, i)), adds(c, i)
    along, x_step, dw_step = channels, k.x.plane, rows * columns
    if by_taps:
        along, x_step, dw_step = columns, right, 1
    for group in range(k.groups):
        f = 0
        while f < filters:
            high = HIGH if f + HIGH <= filters else 1
            dy = row_at(k.dy, group * filters + f, 0)
            dw = k.dw + j * k.dw_step + (group * filters + f) * channels * rows * columns
            for channel in range(channels if by_taps else 1):
                for r in range(rows):
                    first = row_at(k.x, group * channels + channel, 0) + r * below
                    for n in range(1 if by_taps else columns):
                        x, to, left = (
                            first + n * right,
                            dw + (channel * rows + r) * columns + n,
                            along,
                        )
                        while left > 0:
                            wide = even_part(left, TAPS) if high == HIGH else 3 if left >= 3 else 1
                            meet_row(wide, high, a, k, x, x_step, dy, s, to, dw_step, used, add)
                            left -= wide
                            x += wide * x_step
                            to += wide * dw_step
            f += high


def meet_row(
    wide: int,
    high: int,
    a: Memory,
    k: Operands,
    x: int,
    x_step: int,
    dy: int,
    s: Memory,
    to: int,
    dw_step: int,
    used: Mask,
    add: bool,
) -> None:
    """Write the gradients of some filters' taps, or channels, at most 5."""
    if high < HIGH:
        if wide == 3:
            meets(zeros(1, 3), a, k, x, x_step, dy, s, to, dw_step, used, add)
        else:
            meets(zeros(1, 1), a, k, x, x_step, dy, s, to, dw_step, used, add)
    elif wide == 5:
        meets(zeros(HIGH, 5), a, k, x, x_step, dy, s, to, dw_step, used, add)
    elif wide == 4:
        meets(zeros(HIGH, 4), a, k, x, x_step, dy, s, to, dw_step, used, add)
    elif wide == 3:
        meets(zeros(HIGH, 3), a, k, x, x_step, dy, s, to, dw_step, used, add)
    else:
        meets(zeros(HIGH, 1), a, k, x, x_step, dy, s, to, dw_step, used, add)


def meets(
    tile: Tile,
    a: Memory,
    k: Operands,
    x: int,
    x_step: int,
    dy: int,
    s: Memory,
    to: int,
    dw_step: int,
    used: Mask,
    add: bool,
) -> None:
    """Write, for some filters and taps or channels, deltas times the cells that they met."""
    height, width, y_plane, y_pitch = k.counts.rows, k.counts.columns, k.dy.plane, k.dy.pitch
    down, across = k.stride.rows * k.x.pitch, k.stride.columns * LANES
    for _ in range(height):
        at_x, at_y = x, dy
        for _ in range(width):
            tile = pairs(tile, a, at_y, y_plane, a, at_x, x_step)
            at_x += across
            at_y += LANES
        x += down
        dy += y_pitch
    step = k.channels * k.size.rows * k.size.columns
    store_lane_sums(s, to, step, dw_step, tile, used, add)


@kernel(
    reads="x:map dy:map",
    writes="dw",
    numbers="dw_step filters channels counts:pair groups",
    by_register=True,
)
def conv3x3_dw(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """``conv_dw`` for 3 x 3 filters that move by one cell: all nine weights in one pass."""
    filters, channels = k.filters, k.channels
    used, add = lanes_used(c, i), adds(c, i)
    for group in range(k.groups):
        f = 0
        while f < filters:
            n = group * filters + f
            dy = row_at(k.dy, n, 0)
            for channel in range(channels):
                x = row_at(k.x, group * channels + channel, 0)
                to = k.dw + j * k.dw_step + (n * channels + channel) * 9
                for lane in range(0, LANES, REGISTER):
                    part, own, later = at(a, lane), first_lanes(used - lane), add or lane > 0
                    if f + PAIRS <= filters:
                        meet_nine(zeros(PAIRS, 3), part, k, x, dy, s, to, own, later)
                    else:
                        meet_nine(zeros(1, 3), part, k, x, dy, s, to, own, later)
            f += PAIRS if f + PAIRS <= filters else 1


def meet_nine(
    tile: Tile, a: Memory, k: Operands, x: int, dy: int, s: Memory, to: int, used: Mask, add: bool
) -> None:
    """Write the gradients of the 3 x 3 weights of some filters, for one channel."""
    height, width, pitch = k.counts.rows, k.counts.columns, k.x.pitch
    y_plane, y_pitch, step = k.dy.plane, k.dy.pitch, k.channels * 9
    top, middle, bottom = tile, tile, tile
    for _ in range(height):
        at_x, at_y = x, dy
        for _ in range(width):
            top = pairs(top, a, at_y, y_plane, a, at_x, LANES)
            middle = pairs(middle, a, at_y, y_plane, a, at_x + pitch, LANES)
            bottom = pairs(bottom, a, at_y, y_plane, a, at_x + 2 * pitch, LANES)
            at_x += LANES
            at_y += LANES
        x += pitch
        dy += y_pitch
    store_lane_sums(s, to, step, 1, top, used, add)
    store_lane_sums(s, to + 3, step, 1, middle, used, add)
    store_lane_sums(s, to + 6, step, 1, bottom, used, add)


@kernel(
    reads="x:map dy:map",
    writes="dw db",
    numbers="dw_step db_step filters channels counts:pair winners",
    by_register=True,
)
def conv3x3_pool_dw(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dw and db of ``conv3x3_pool``, straight from the pooled delta and the winners.

    ``counts`` are rows and columns of the pooled map.
    """
    used, add, cells = lanes_used(c, i), adds(c, i), k.counts.rows * k.counts.columns
    for f in range(k.filters):
        dy, winners = row_at(k.dy, f, 0), k.winners + f * cells * LANES
        for lane in range(0, LANES, REGISTER):
            part, own, later = at(a, lane), first_lanes(used - lane), add or lane > 0
            for channel in range(k.channels):
                to = k.dw + j * k.dw_step + (f * k.channels + channel) * 9
                meet_winners(part, k, row_at(k.x, channel, 0), dy, winners, s, to, own, later)
            if k.db >= 0:
                place = k.db + j * k.db_step + f
                total = sum_won(part, k, dy, winners)
                s[place] = s[place] + total if later else total


def meet_winners(
    a: Memory, k: Operands, x: int, dy: int, won: int, s: Memory, to: int, used: Mask, add: bool
) -> None:
    """Write the gradients of a filter's 3 x 3 weights for one channel."""
    tile = zeros(1, 9)
    for _ in range(k.counts.rows):
        at_x, at_y = x, dy
        for _ in range(k.counts.columns):
            v = deltas_of(load(a, at_y), load(a, won))
            tile = slide_back(tile, v, a, at_x, k.x.pitch)
            at_x += 2 * LANES
            at_y += LANES
            won += LANES
        x += 2 * k.x.pitch
        dy += k.dy.pitch
    store_lane_sums(s, to, 0, 1, tile, used, add)


def sum_won(a: Memory, k: Operands, dy: int, won: int) -> float:
    """Return the sum of the deltas that ReLU lets through."""
    total = splat(0.0)
    for _ in range(k.counts.rows):
        for q in range(k.counts.columns):
            through = load(a, won) < splat(DEAD)
            total = total + select(through, load(a, dy + q * LANES), splat(0.0))
            won += LANES
        dy += k.dy.pitch
    return sum_lanes(total)


@kernel(reads="dy:map", writes="db", numbers="db_step shape:shape")
def conv_db(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """db = the sum of dy over all positions."""
    (filters, height, width), db, add = k.shape, k.db + j * k.db_step, adds(c, i)
    for f in range(filters):
        total = splat(0.0)
        for p in range(height):
            line = splat(0.0)
            at_y = row_at(k.dy, f, p)
            for q in range(width):
                line = line + load(a, at_y + q * LANES)
            total = total + line
        s[db + f] = s[db + f] + sum_lanes(total) if add else sum_lanes(total)


KERNELS = (unpool2x2, conv_dw, conv3x3_dw, conv3x3_pool_dw, conv_db)
HELPERS = (adds, deltas_of, meet_row, meets, meet_nine, meet_winners, sum_won)
