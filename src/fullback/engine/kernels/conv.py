"""Convolution, forward and backward.

The next delta is a convolution too, of the delta with the turned filters, so it has no kernel of
its own: ``pack`` turns the filters, and the delta lies in a map with zeros around.

A tile holds FILTERS filters; what is left over is taken one by one. Packed weights lie as the tile
reads them: the weights of its filters for one tap side by side, tap after tap, channel after
channel.
"""

from __future__ import annotations

from fullback.engine.cpu import FILTERS
from fullback.engine.kernels.images import lanes_used
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Tile,
    Vector,
    biases,
    cell,
    either_nan,
    first_lanes,
    load,
    outer,
    pairs,
    rectify,
    rectify_tile,
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


def pack(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Lay out weights for the convolution kernels, by groups of FILTERS filters.

    For all workers. Operands: packed, w; groups and the step from one to the next in w; filters a
    group and their step; channels a group and their step; taps and their step.
    """
    packed, w, groups, group_step, filters, filter_step, channels, channel_step, taps, tap_step = (
        k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8], k[9]
    )  # fmt: skip
    size = channels * taps
    for n in range(groups * filters * i // j, groups * filters * (i + 1) // j):
        group, f = n // filters, n % filters
        whole = filters - filters % FILTERS
        first = f - f % FILTERS if f < whole else f
        wide = FILTERS if f < whole else 1
        to = packed + (group * filters + first) * size + f - first
        from_ = w + group * group_step + f * filter_step
        for channel in range(channels):
            for tap in range(taps):
                s[to] = s[from_ + channel * channel_step + tap * tap_step]
                to += wide


def taps(tile: Tile, s: Memory, w: int, a: Memory, x: int, k: Integers, filters: int) -> Tile:
    """Add up a tile's products over channels and taps; operands as in ``conv2d``."""
    plane, pitch, channels, rows, columns = k[1], k[2], k[9], k[12], k[13]
    below, right, step = k[16] * pitch, k[17] * LANES, k[15] * LANES
    for _ in range(channels):
        for r in range(rows):
            for n in range(columns):
                tile = outer(tile, s, w, 1, a, x + r * below + n * right, step)
                w += filters
        x += plane
    return tile


def conv2d(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = b + x * w, for any size, stride, dilation and groups.

    Operands: x (the first cell that a filter sees), plane, pitch; y, plane, pitch; packed w; b,
    or -1; filters and channels of a group; P, Q; R, S; strides; dilations; groups; whether ReLU
    follows.
    """
    x, plane, pitch, y, y_plane, y_pitch, w, b = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]
    filters, channels, height, width, down = k[8], k[9], k[10], k[11], k[14]
    across, groups, relu = k[15] * LANES, k[18], k[19]
    size = channels * k[12] * k[13]
    for group in range(groups):
        for p in range(height):
            f = 0
            while f < filters:
                at_x = x + group * channels * plane + p * down * pitch
                at_y = y + (group * filters + f) * y_plane + p * y_pitch
                at_w = w + (group * filters + f) * size
                at_b = b + group * filters + f
                q = 0
                if f + FILTERS <= filters:
                    while q < width:
                        if q + 7 <= width:
                            tile = biases(FILTERS, 7, s, at_b) if b >= 0 else zeros(FILTERS, 7)
                            tile = taps(tile, s, at_w, a, at_x, k, FILTERS)
                            tile = rectify_tile(tile) if relu else tile
                            store_tile(a, at_y, y_plane, LANES, tile)
                            wide = 7
                        elif q + 4 <= width:
                            middle = biases(FILTERS, 4, s, at_b) if b >= 0 else zeros(FILTERS, 4)
                            middle = taps(middle, s, at_w, a, at_x, k, FILTERS)
                            middle = rectify_tile(middle) if relu else middle
                            store_tile(a, at_y, y_plane, LANES, middle)
                            wide = 4
                        else:
                            narrow = biases(FILTERS, 1, s, at_b) if b >= 0 else zeros(FILTERS, 1)
                            narrow = taps(narrow, s, at_w, a, at_x, k, FILTERS)
                            narrow = rectify_tile(narrow) if relu else narrow
                            store_tile(a, at_y, y_plane, LANES, narrow)
                            wide = 1
                        q += wide
                        at_x += wide * across
                        at_y += wide * LANES
                    f += FILTERS
                else:
                    while q < width:
                        if q + 7 <= width:
                            row = biases(1, 7, s, at_b) if b >= 0 else zeros(1, 7)
                            row = taps(row, s, at_w, a, at_x, k, 1)
                            row = rectify_tile(row) if relu else row
                            store_tile(a, at_y, y_plane, LANES, row)
                            wide = 7
                        else:
                            one = biases(1, 1, s, at_b) if b >= 0 else zeros(1, 1)
                            one = taps(one, s, at_w, a, at_x, k, 1)
                            one = rectify_tile(one) if relu else one
                            store_tile(a, at_y, y_plane, LANES, one)
                            wide = 1
                        q += wide
                        at_x += wide * across
                        at_y += wide * LANES
                    f += 1


def conv3x3(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """``conv2d`` for 3 x 3 filters that move by one cell over at least 2 x 2 places.

    A tile answers at 2 x 2 places, so that sixteen cells of x serve 36 products a filter. The last
    row and column may be computed twice. Operands as for ``conv2d``.
    """
    x, plane, pitch, y, y_plane, y_pitch, w, b = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]
    filters, channels, height, width, relu = k[8], k[9], k[10], k[11], k[19]
    for p in range(0, height, 2):
        p = smaller(p, height - 2)
        f = 0
        while f < filters:
            for q in range(0, width, 2):
                q = smaller(q, width - 2)
                at_x = x + p * pitch + q * LANES
                at_y = y + f * y_plane + p * y_pitch + q * LANES
                at_w = w + f * channels * 9
                if f + FILTERS <= filters:
                    tile = biases(FILTERS, 4, s, b + f) if b >= 0 else zeros(FILTERS, 4)
                    for _ in range(channels):
                        tile = slide(tile, s, at_w, a, at_x, pitch)
                        at_x += plane
                        at_w += 9 * FILTERS
                    tile = rectify_tile(tile) if relu else tile
                    store_squares(a, at_y, y_plane, y_pitch, tile)
                else:
                    one = biases(1, 4, s, b + f) if b >= 0 else zeros(1, 4)
                    for _ in range(channels):
                        one = slide(one, s, at_w, a, at_x, pitch)
                        at_x += plane
                        at_w += 9
                    one = rectify_tile(one) if relu else one
                    store_squares(a, at_y, y_plane, y_pitch, one)
            f += FILTERS if f + FILTERS <= filters else 1


def conv3x3_pool(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """``conv3x3``, ReLU and max pooling over 2 x 2 in one: a tile answers for one pooled cell.

    Operands: x (the first cell that a filter sees), plane, pitch; y (pooled), plane, pitch; packed
    w; b, or -1; filters, channels; rows and columns of y; the winners (0 to 3, or DEAD), one map
    after the other, or -1.
    """
    x, plane, pitch, y, y_plane, y_pitch, w, b = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]
    filters, channels, height, width, winners = k[8], k[9], k[10], k[11], k[12]
    map_size = height * width * LANES
    for p in range(height):
        f = 0
        while f < filters:
            at_won = winners + f * map_size + p * width * LANES
            for q in range(width):
                at_x = x + 2 * p * pitch + 2 * q * LANES
                at_y = y + f * y_plane + p * y_pitch + q * LANES
                at_w = w + f * channels * 9
                won = at_won + q * LANES if winners >= 0 else -1
                if f + FILTERS <= filters:
                    tile = biases(FILTERS, 4, s, b + f) if b >= 0 else zeros(FILTERS, 4)
                    for _ in range(channels):
                        tile = slide(tile, s, at_w, a, at_x, pitch)
                        at_x += plane
                        at_w += 9 * FILTERS
                    pool_square(
                        a,
                        at_y,
                        won,
                        cell(tile, 0, 0),
                        cell(tile, 0, 1),
                        cell(tile, 0, 2),
                        cell(tile, 0, 3),
                    )
                    if FILTERS == 4:
                        won += map_size if won >= 0 else 0
                        pool_square(
                            a,
                            at_y + y_plane,
                            won,
                            cell(tile, 1, 0),
                            cell(tile, 1, 1),
                            cell(tile, 1, 2),
                            cell(tile, 1, 3),
                        )
                        won += map_size if won >= 0 else 0
                        pool_square(
                            a,
                            at_y + 2 * y_plane,
                            won,
                            cell(tile, 2, 0),
                            cell(tile, 2, 1),
                            cell(tile, 2, 2),
                            cell(tile, 2, 3),
                        )
                        won += map_size if won >= 0 else 0
                        pool_square(
                            a,
                            at_y + 3 * y_plane,
                            won,
                            cell(tile, 3, 0),
                            cell(tile, 3, 1),
                            cell(tile, 3, 2),
                            cell(tile, 3, 3),
                        )
                else:
                    one = biases(1, 4, s, b + f) if b >= 0 else zeros(1, 4)
                    for _ in range(channels):
                        one = slide(one, s, at_w, a, at_x, pitch)
                        at_x += plane
                        at_w += 9
                    pool_square(
                        a,
                        at_y,
                        won,
                        cell(one, 0, 0),
                        cell(one, 0, 1),
                        cell(one, 0, 2),
                        cell(one, 0, 3),
                    )
            f += FILTERS if f + FILTERS <= filters else 1


def pool_square(
    a: Memory, y: int, won: int, v0: Vector, v1: Vector, v2: Vector, v3: Vector
) -> None:
    """Write the largest of four cells and 0, and which it was; NaN wins, and gets no delta."""
    best = rectify(v0)
    more = v1 > best
    best = select(more, v1, best)
    winner = select(v0 > splat(0.0), splat(0.0), splat(4.0))
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
        store(a, won, select(lost, splat(4.0), winner))


def unpool2x2(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Hand each window's delta to its winner, and 0 to the others, for windows of 2 x 2.

    Operands: dx, plane, pitch; dy, plane, pitch; winners, one map after the other; C, P, Q.
    """
    x, plane, pitch, y, y_plane, y_pitch, winners = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    zero = splat(0.0)
    for channel in range(k[7]):
        for p in range(k[8]):
            at_x = x + channel * plane + 2 * p * pitch
            at_y = y + channel * y_plane + p * y_pitch
            for _ in range(k[9]):
                delta, winner = load(a, at_y), load(a, winners)
                store(a, at_x, select(winner == zero, delta, zero))
                store(a, at_x + LANES, select(winner == splat(1.0), delta, zero))
                store(a, at_x + pitch, select(winner == splat(2.0), delta, zero))
                store(a, at_x + pitch + LANES, select(winner == splat(3.0), delta, zero))
                at_x += 2 * LANES
                at_y += LANES
                winners += LANES


def conv_dw(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dw = x correlated with dy, for any size, stride, dilation and groups.

    Operands: x (the first cell that a filter sees), plane, pitch; dy, plane, pitch; dw and the
    step from one chunk's to the next; filters and channels of a group; P, Q; R, S; strides;
    dilations; groups.
    """
    x, plane, pitch, dy, y_plane, y_pitch = k[0], k[1], k[2], k[3], k[4], k[5]
    dw, filters, channels, height, width = k[6] + j * k[7], k[8], k[9], k[10], k[11]
    rows, columns, down, across = k[12], k[13], k[14] * pitch, k[15] * LANES
    below, right, groups = k[16] * pitch, k[17] * LANES, k[18]
    taps_each, used, add = rows * columns, first_lanes(lanes_used(c, i)), i != j
    for group in range(groups):
        f = 0
        while f < filters:
            wide = FILTERS if f + FILTERS <= filters else 1
            for channel in range(channels):
                at_x = x + (group * channels + channel) * plane
                at_y = dy + (group * filters + f) * y_plane
                to = dw + ((group * filters + f) * channels + channel) * taps_each
                step = channels * taps_each
                for r in range(rows):
                    n = 0
                    while n < columns:
                        start = at_x + r * below + n * right
                        if wide == FILTERS and n + 3 <= columns:
                            tile = zeros(FILTERS, 3)
                            tile = meets(
                                tile,
                                a,
                                start,
                                down,
                                across,
                                right,
                                at_y,
                                y_plane,
                                y_pitch,
                                height,
                                width,
                            )
                            store_lane_sums(s, to, step, 1, tile, used, add)
                            run = 3
                        elif wide == FILTERS:
                            column = zeros(FILTERS, 1)
                            column = meets(
                                column,
                                a,
                                start,
                                down,
                                across,
                                right,
                                at_y,
                                y_plane,
                                y_pitch,
                                height,
                                width,
                            )
                            store_lane_sums(s, to, step, 1, column, used, add)
                            run = 1
                        elif n + 3 <= columns:
                            row = zeros(1, 3)
                            row = meets(
                                row,
                                a,
                                start,
                                down,
                                across,
                                right,
                                at_y,
                                y_plane,
                                y_pitch,
                                height,
                                width,
                            )
                            store_lane_sums(s, to, step, 1, row, used, add)
                            run = 3
                        else:
                            one = zeros(1, 1)
                            one = meets(
                                one,
                                a,
                                start,
                                down,
                                across,
                                right,
                                at_y,
                                y_plane,
                                y_pitch,
                                height,
                                width,
                            )
                            store_lane_sums(s, to, step, 1, one, used, add)
                            run = 1
                        n += run
                        to += run
            f += wide


def meets(
    tile: Tile,
    a: Memory,
    x: int,
    down: int,
    across: int,
    right: int,
    dy: int,
    y_plane: int,
    y_pitch: int,
    height: int,
    width: int,
) -> Tile:
    """Add up, over all positions, deltas of some filters times the cells that some taps met."""
    for _ in range(height):
        at_x, at_y = x, dy
        for _ in range(width):
            tile = pairs(tile, a, at_y, y_plane, a, at_x, right)
            at_x += across
            at_y += LANES
        x += down
        dy += y_pitch
    return tile


def conv3x3_dw(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """``conv_dw`` for 3 x 3 filters that move by one cell: all nine weights in one pass.

    Operands as for ``conv_dw``.
    """
    x, plane, pitch, dy, y_plane, y_pitch = k[0], k[1], k[2], k[3], k[4], k[5]
    dw, filters, channels, height, width = k[6] + j * k[7], k[8], k[9], k[10], k[11]
    used, add, step = first_lanes(lanes_used(c, i)), i != j, channels * 9
    f = 0
    while f < filters:
        for channel in range(channels):
            from_x, from_y = x + channel * plane, dy + f * y_plane
            to = dw + f * step + channel * 9
            if f + 2 <= filters:
                top, middle, bottom = zeros(2, 3), zeros(2, 3), zeros(2, 3)
                for _ in range(height):
                    at_x, at_y = from_x, from_y
                    for _ in range(width):
                        top = pairs(top, a, at_y, y_plane, a, at_x, LANES)
                        middle = pairs(middle, a, at_y, y_plane, a, at_x + pitch, LANES)
                        bottom = pairs(bottom, a, at_y, y_plane, a, at_x + 2 * pitch, LANES)
                        at_x += LANES
                        at_y += LANES
                    from_x += pitch
                    from_y += y_pitch
                store_lane_sums(s, to, step, 1, top, used, add)
                store_lane_sums(s, to + 3, step, 1, middle, used, add)
                store_lane_sums(s, to + 6, step, 1, bottom, used, add)
            else:
                above, beside, below = zeros(1, 3), zeros(1, 3), zeros(1, 3)
                for _ in range(height):
                    at_x, at_y = from_x, from_y
                    for _ in range(width):
                        above = pairs(above, a, at_y, 0, a, at_x, LANES)
                        beside = pairs(beside, a, at_y, 0, a, at_x + pitch, LANES)
                        below = pairs(below, a, at_y, 0, a, at_x + 2 * pitch, LANES)
                        at_x += LANES
                        at_y += LANES
                    from_x += pitch
                    from_y += y_pitch
                store_lane_sums(s, to, 0, 1, above, used, add)
                store_lane_sums(s, to + 3, 0, 1, beside, used, add)
                store_lane_sums(s, to + 6, 0, 1, below, used, add)
        f += 2 if f + 2 <= filters else 1


def conv3x3_pool_dw(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dw and db of ``conv3x3_pool``, straight from the pooled delta and the winners.

    Operands: x (the first cell that a filter sees), plane, pitch; dy, plane, pitch; dw and the
    step from one chunk's to the next; filters, channels; rows and columns of y; the winners; db,
    or -1, and the step from one chunk's to the next.
    """
    x, plane, pitch, dy, y_plane, y_pitch = k[0], k[1], k[2], k[3], k[4], k[5]
    dw, filters, channels, height, width = k[6] + j * k[7], k[8], k[9], k[10], k[11]
    winners, db, add = k[12], k[13], i != j
    used, zero = first_lanes(lanes_used(c, i)), splat(0.0)
    for f in range(filters):
        for channel in range(channels):
            tile, total = zeros(1, 9), zero
            won = winners + f * height * width * LANES
            for p in range(height):
                at_x = x + channel * plane + 2 * p * pitch
                at_y = dy + f * y_plane + p * y_pitch
                for _ in range(width):
                    delta, winner = load(a, at_y), load(a, won)
                    v0 = select(winner == zero, delta, zero)
                    v1 = select(winner == splat(1.0), delta, zero)
                    v2 = select(winner == splat(2.0), delta, zero)
                    v3 = select(winner == splat(3.0), delta, zero)
                    total = total + ((v0 + v1) + (v2 + v3))
                    tile = slide_back(tile, (v0, v1, v2, v3), a, at_x, pitch)
                    at_x += 2 * LANES
                    at_y += LANES
                    won += LANES
            store_lane_sums(s, dw + (f * channels + channel) * 9, 0, 1, tile, used, add)
            if db >= 0 and channel == 0:
                place = db + j * k[14] + f
                s[place] = s[place] + sum_lanes(total) if add else sum_lanes(total)


def conv_db(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """db = the sum of dy over all positions.

    Operands: dy, plane, pitch; K, P, Q; db and the step from one chunk's to the next.
    """
    dy, plane, pitch, filters, height, width = k[0], k[1], k[2], k[3], k[4], k[5]
    db = k[6] + j * k[7]
    for f in range(filters):
        total = splat(0.0)
        for p in range(height):
            line = splat(0.0)
            at_y = dy + f * plane + p * pitch
            for q in range(width):
                line = line + load(a, at_y + q * LANES)
            total = total + line
        s[db + f] = s[db + f] + sum_lanes(total) if i != j else sum_lanes(total)


def spread(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Put the delta where its windows were: zeros lie between, and stay as they are.

    Operands: to, plane, pitch; dy, plane, pitch; K, P, Q; strides.
    """
    to, plane, pitch, dy, y_plane, y_pitch = k[0], k[1], k[2], k[3], k[4], k[5]
    for f in range(k[6]):
        for p in range(k[7]):
            for q in range(k[8]):
                v = load(a, dy + f * y_plane + p * y_pitch + q * LANES)
                store(a, to + f * plane + p * k[9] * pitch + q * k[10] * LANES, v)


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
HELPERS = (taps, meets, pool_square)
