"""Convolution, forward and backward.

The next delta is a convolution too, of the delta with the turned filters, so it has no kernel of
its own: ``pack`` turns the filters, and the delta lies in a map with zeros around.

A tile holds FILTERS filters; what is left over is taken one by one. Helpers get a tile of zeros,
whose shape says how many filters and places they are to work on. Packed weights lie as the tile
reads them: the weights of its filters for one tap side by side, tap after tap, channel after
channel.

Operands: ``x`` begins at the first cell that a filter sees; ``filters`` and ``channels`` are those
of a group; ``counts`` are rows and columns of the output, P and Q, ``size`` those of a filter, R
and S; of gradients, every chunk of blocks has its own, ``dw_step`` and ``db_step`` apart.
"""

from __future__ import annotations

from fullback.engine.cpu import FILTERS
from fullback.engine.kernels.images import lanes_used
from fullback.engine.kernels.maps import row_at
from fullback.engine.operands import NONE, View, kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Mask,
    Memory,
    Operands,
    Tile,
    Vector,
    biases,
    cells,
    either_nan,
    first_lanes,
    load,
    outer,
    pairs,
    rectify,
    rectify_tile,
    rows_of,
    select,
    slide,
    slide_back,
    smaller,
    splat,
    store,
    store_lane_sums,
    store_squares,
    store_tile,
    sum_lanes,
    zeros,
)

NAN = float("nan")
DEAD = 4  # in place of the winner: ReLU let no cell of the window through


@kernel(
    reads="w",
    writes="packed",
    numbers="groups group_step filters filter_step channels channel_step taps tap_step",
    for_workers=True,
)
def pack(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Lay out weights for the convolution kernels, by groups of FILTERS filters.

    The steps are those from one group, filter, channel or tap to the next in ``w``.
    """
    filters, channels, taps_each = k.filters, k.channels, k.taps
    size = channels * taps_each
    for n in range(k.groups * filters * i // j, k.groups * filters * (i + 1) // j):
        group, f = n // filters, n % filters
        whole = filters - filters % FILTERS
        first = f - f % FILTERS if f < whole else f
        wide = FILTERS if f < whole else 1
        to = k.packed + (group * filters + first) * size + f - first
        from_ = k.w + group * k.group_step + f * k.filter_step
        for channel in range(channels):
            for tap in range(taps_each):
                s[to] = s[from_ + channel * k.channel_step + tap * k.tap_step]
                to += wide


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="w b filters channels counts:pair size:pair stride:pair dilation:pair groups relu",
)
def conv2d(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = b + x * w, for any size, stride, dilation and groups, and ReLU of it where that follows.

    Weights are packed.
    """
    filters, size, width = k.filters, k.channels * k.size.rows * k.size.columns, k.counts.columns
    across = k.stride.columns * LANES
    for group in range(k.groups):
        for p in range(k.counts.rows):
            f = 0
            while f < filters:
                high = FILTERS if f + FILTERS <= filters else 1
                n, q = group * filters + f, 0
                x, y = row_at(k.x, group * k.channels, p * k.stride.rows), row_at(k.y, n, p)
                w, b = k.w + n * size, k.b + n if k.b >= 0 else NONE
                while q < width:
                    wide = 7 if q + 7 <= width else 4 if high == FILTERS and q + 4 <= width else 1
                    if high == FILTERS and wide == 7:
                        answer(zeros(FILTERS, 7), a, s, k, x, y, w, b)
                    elif high == FILTERS and wide == 4:
                        answer(zeros(FILTERS, 4), a, s, k, x, y, w, b)
                    elif high == FILTERS:
                        answer(zeros(FILTERS, 1), a, s, k, x, y, w, b)
                    elif wide == 7:
                        answer(zeros(1, 7), a, s, k, x, y, w, b)
                    else:
                        answer(zeros(1, 1), a, s, k, x, y, w, b)
                    q += wide
                    x += wide * across
                    y += wide * LANES
                f += high


def answer(tile: Tile, a: Memory, s: Memory, k: Operands, x: int, y: int, w: int, b: int) -> None:
    """Write what a tile's filters answer at its places: products over channels and taps."""
    rows, columns, plane, channels = k.size.rows, k.size.columns, k.x.plane, k.channels
    below, right = k.dilation.rows * k.x.pitch, k.dilation.columns * LANES
    step = k.stride.columns * LANES
    tile = biases(tile, s, b)
    for _ in range(channels):
        for r in range(rows):
            for n in range(columns):
                tile = outer(tile, s, w, 1, a, x + r * below + n * right, step)
                w += rows_of(tile)
        x += plane
    store_tile(a, y, k.y.plane, LANES, rectify_tile(tile) if k.relu else tile)


@kernel(reads="x:map", writes="y:map", numbers="w b filters channels counts:pair relu")
def conv3x3(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """``conv2d`` for 3 x 3 filters that move by one cell over at least 2 x 2 places.

    A tile answers at 2 x 2 places, so that sixteen cells of x serve 36 products a filter. The last
    row and column may be computed twice.
    """
    x, pitch, y_pitch, filters, channels = k.x.place, k.x.pitch, k.y.pitch, k.filters, k.channels
    height, width = k.counts.rows, k.counts.columns
    for p in range(0, height, 2):
        p = smaller(p, height - 2)
        f = 0
        while f < filters:
            w, b = k.w + f * channels * 9, k.b + f if k.b >= 0 else NONE
            y = row_at(k.y, f, p)
            for q in range(0, width, 2):
                q = smaller(q, width - 2)
                at_x, at_y = x + p * pitch + q * LANES, y + q * LANES
                if f + FILTERS <= filters:
                    tile = squares(zeros(FILTERS, 4), a, at_x, k.x, channels, s, w, b)
                    tile = rectify_tile(tile) if k.relu else tile
                    store_squares(a, at_y, k.y.plane, y_pitch, tile)
                else:
                    one = squares(zeros(1, 4), a, at_x, k.x, channels, s, w, b)
                    one = rectify_tile(one) if k.relu else one
                    store_squares(a, at_y, k.y.plane, y_pitch, one)
            f += FILTERS if f + FILTERS <= filters else 1


def squares(
    tile: Tile, a: Memory, x: int, view: View, channels: int, s: Memory, w: int, b: int
) -> Tile:
    """Return what a tile's 3 x 3 filters answer at 2 x 2 places of a map, from place ``x``."""
    plane, pitch = view.plane, view.pitch
    tile = biases(tile, s, b)
    for _ in range(channels):
        tile = slide(tile, s, w, a, x, pitch)
        x += plane
        w += 9 * rows_of(tile)
    return tile


@kernel(reads="x:map", writes="y:map", numbers="w b filters channels counts:pair winners")
def conv3x3_pool(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """``conv3x3``, ReLU and max pooling over 2 x 2 in one: a tile answers for one pooled cell.

    ``y`` and ``counts`` are of the pooled map. Winners are 0 to 3, or DEAD, one map after the
    other.
    """
    x, pitch, y_plane, filters, channels = k.x.place, k.x.pitch, k.y.plane, k.filters, k.channels
    height, width, winners = k.counts.rows, k.counts.columns, k.winners
    next_won = height * width * LANES if winners >= 0 else 0
    for p in range(height):
        f = 0
        while f < filters:
            w, b = k.w + f * channels * 9, k.b + f if k.b >= 0 else NONE
            for q in range(width):
                at_x = x + 2 * p * pitch + 2 * q * LANES
                y = row_at(k.y, f, p) + q * LANES
                won = winners + f * next_won + (p * width + q) * LANES if winners >= 0 else NONE
                if f + FILTERS <= filters:
                    tile = squares(zeros(FILTERS, 4), a, at_x, k.x, channels, s, w, b)
                    pool_square(cells(tile, 0), a, y, won)
                    if FILTERS == 4:
                        pool_square(cells(tile, 1), a, y + y_plane, won + next_won)
                        pool_square(cells(tile, 2), a, y + 2 * y_plane, won + 2 * next_won)
                        pool_square(cells(tile, 3), a, y + 3 * y_plane, won + 3 * next_won)
                else:
                    one = squares(zeros(1, 4), a, at_x, k.x, channels, s, w, b)
                    pool_square(cells(one, 0), a, y, won)
            f += FILTERS if f + FILTERS <= filters else 1


def pool_square(square: tuple[Vector, ...], a: Memory, y: int, won: int) -> None:
    """Write the largest of four cells and 0, and which it was; NaN wins, and gets no delta."""
    v0, v1, v2, v3 = square
    best = rectify(v0)
    more = v1 > best
    best = select(more, v1, best)
    winner = select(v0 > splat(0.0), splat(0.0), splat(DEAD))
    winner = select(more, splat(1.0), winner)
    more = v2 > best
    best = select(more, v2, best)
    winner = select(more, splat(2.0), winner)
    more = v3 > best
    best = select(more, v3, best)
    winner = select(more, splat(3.0), winner)
    lost = either_nan(v0, v1) | either_nan(v2, v3)
    store(a, y, select(lost, splat(NAN), best))
    if won >= 0:
        store(a, won, select(lost, splat(DEAD), winner))


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
    """dw = x correlated with dy, for any size, stride, dilation and groups."""
    filters, channels, rows, columns = k.filters, k.channels, k.size.rows, k.size.columns
    below, right = k.dilation.rows * k.x.pitch, k.dilation.columns * LANES
    used, add = first_lanes(lanes_used(c, i)), i != j
    for group in range(k.groups):
        f = 0
        while f < filters:
            high = FILTERS if f + FILTERS <= filters else 1
            dy = row_at(k.dy, group * filters + f, 0)
            to = k.dw + j * k.dw_step + (group * filters + f) * channels * rows * columns
            for channel in range(channels):
                for r in range(rows):
                    x, n = row_at(k.x, group * channels + channel, 0) + r * below, 0
                    while n < columns:
                        wide = 3 if n + 3 <= columns else 1
                        if high == FILTERS and wide == 3:
                            meets(zeros(FILTERS, 3), a, k, x, dy, s, to, used, add)
                        elif high == FILTERS:
                            meets(zeros(FILTERS, 1), a, k, x, dy, s, to, used, add)
                        elif wide == 3:
                            meets(zeros(1, 3), a, k, x, dy, s, to, used, add)
                        else:
                            meets(zeros(1, 1), a, k, x, dy, s, to, used, add)
                        n += wide
                        x += wide * right
                        to += wide
            f += high


def meets(
    tile: Tile, a: Memory, k: Operands, x: int, dy: int, s: Memory, to: int, used: Mask, add: bool
) -> None:
    """Write, for some filters and taps, deltas times the cells that they met, over all places."""
    height, width, y_plane, y_pitch = k.counts.rows, k.counts.columns, k.dy.plane, k.dy.pitch
    down, across = k.stride.rows * k.x.pitch, k.stride.columns * LANES
    right = k.dilation.columns * LANES
    for _ in range(height):
        at_x, at_y = x, dy
        for _ in range(width):
            tile = pairs(tile, a, at_y, y_plane, a, at_x, right)
            at_x += across
            at_y += LANES
        x += down
        dy += y_pitch
    step = k.channels * k.size.rows * k.size.columns
    store_lane_sums(s, to, step, 1, tile, used, add)


@kernel(reads="x:map dy:map", writes="dw", numbers="dw_step filters channels counts:pair")
def conv3x3_dw(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """``conv_dw`` for 3 x 3 filters that move by one cell: all nine weights in one pass."""
    filters, channels = k.filters, k.channels
    used, add = first_lanes(lanes_used(c, i)), i != j
    f = 0
    while f < filters:
        dy = row_at(k.dy, f, 0)
        for channel in range(channels):
            x = row_at(k.x, channel, 0)
            to = k.dw + j * k.dw_step + (f * channels + channel) * 9
            if f + 2 <= filters:
                meet_nine(zeros(2, 3), a, k, x, dy, s, to, used, add)
            else:
                meet_nine(zeros(1, 3), a, k, x, dy, s, to, used, add)
        f += 2 if f + 2 <= filters else 1


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
)
def conv3x3_pool_dw(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dw and db of ``conv3x3_pool``, straight from the pooled delta and the winners.

    ``counts`` are rows and columns of the pooled map.
    """
    channels, height, width = k.channels, k.counts.rows, k.counts.columns
    pitch, used, add = k.x.pitch, first_lanes(lanes_used(c, i)), i != j
    for f in range(k.filters):
        for channel in range(channels):
            tile, total = zeros(1, 9), splat(0.0)
            won = k.winners + f * height * width * LANES
            for p in range(height):
                at_x = row_at(k.x, channel, 2 * p)
                at_y = row_at(k.dy, f, p)
                for _ in range(width):
                    v = deltas_of(load(a, at_y), load(a, won))
                    total = total + ((v[0] + v[1]) + (v[2] + v[3]))
                    tile = slide_back(tile, v, a, at_x, pitch)
                    at_x += 2 * LANES
                    at_y += LANES
                    won += LANES
            to = k.dw + j * k.dw_step + (f * channels + channel) * 9
            store_lane_sums(s, to, 0, 1, tile, used, add)
            if k.db >= 0 and channel == 0:
                place = k.db + j * k.db_step + f
                s[place] = s[place] + sum_lanes(total) if add else sum_lanes(total)


@kernel(reads="dy:map", writes="db", numbers="db_step shape:shape")
def conv_db(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """db = the sum of dy over all positions."""
    (filters, height, width), db = k.shape, k.db + j * k.db_step
    for f in range(filters):
        total = splat(0.0)
        for p in range(height):
            line = splat(0.0)
            at_y = row_at(k.dy, f, p)
            for q in range(width):
                line = line + load(a, at_y + q * LANES)
            total = total + line
        s[db + f] = s[db + f] + sum_lanes(total) if i != j else sum_lanes(total)


@kernel(reads="dy:map", writes="wide:map", numbers="shape:shape stride:pair")
def spread(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Put the delta where its windows were: zeros lie between, and stay as they are."""
    filters, height, width = k.shape
    across = k.stride.columns * LANES
    for f in range(filters):
        for p in range(height):
            to = row_at(k.wide, f, p * k.stride.rows)
            at_y = row_at(k.dy, f, p)
            for q in range(width):
                store(a, to + q * across, load(a, at_y + q * LANES))


KERNELS = (
    pack,
    conv2d,
    conv3x3,
    conv3x3_pool,
    unpool2x2,
    conv_dw,
    conv3x3_dw,
    conv3x3_pool_dw,
    conv_db,
    spread,
)
HELPERS = (answer, squares, pool_square, deltas_of, meets, meet_nine)
