"""Convolution, the forward pass; gradients are in ``conv_gradients.py``.

The next delta is a convolution too, of the delta with the turned filters, so it has no kernel of
its own: ``pack`` turns the filters, and the delta lies in a map with zeros around. With a stride it
is several, each of some of the taps, that answer for every second (third, ...) cell.

A tile holds FILTERS filters; what is left over is taken one by one. Helpers get a tile of zeros,
whose shape says how many filters and places they work on. Packed weights lie as the tile reads
them: the weights of its filters for one tap side by side, tap after tap, channel after channel.

Operands: ``x`` begins at the first cell that a filter sees; ``filters`` and ``channels`` are those
of a group; ``counts`` are rows and columns of the output, P and Q, ``size`` those of a filter, R
and S. ``w`` are packed weights; ``b`` is NONE without biases.
"""

from __future__ import annotations

from fullback.engine.cpu import FILTERS, REGISTER
from fullback.engine.kernels.maps import even_part, row_at
from fullback.engine.operands import NONE, View, kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Tile,
    Vector,
    at,
    biases,
    cells,
    either_nan,
    outer,
    rectify,
    rectify_tile,
    rows_of,
    select,
    slide,
    smaller,
    splat,
    store,
    store_squares,
    store_tile,
    zeros,
)

NAN = float("nan")
DEAD = 4  # in place of the winner: ReLU let no cell of the window through


@kernel(
    reads="w",
    writes="packed",
    numbers="groups group_step filters filter_step channels channel_step taps:pair tap_step:pair",
    for_workers=True,
)
def pack(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Lay out weights for the convolution kernels, by groups of FILTERS filters.

    The steps are those from one group, filter, channel or tap to the next in ``w``.
    """
    filters, channels, (rows, columns), tap_step = k.filters, k.channels, k.taps, k.tap_step
    size = channels * rows * columns
    for n in range(k.groups * filters * i // j, k.groups * filters * (i + 1) // j):
        group, f = n // filters, n % filters
        whole = filters - filters % FILTERS
        first = f - f % FILTERS if f < whole else f
        wide = FILTERS if f < whole else 1
        to = k.packed + (group * filters + first) * size + f - first
        from_ = k.w + group * k.group_step + f * k.filter_step
        for channel in range(channels):
            for r in range(rows):
                at_row = from_ + channel * k.channel_step + r * tap_step.rows
                for column in range(columns):
                    s[to] = s[at_row + column * tap_step.columns]
                    to += wide


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="w b filters channels counts:pair size:pair stride:pair dilation:pair groups relu "
    "apart",
    by_register=True,
)
def conv2d(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = b + x * w, for any size, stride, dilation and groups, and ReLU of it where that follows.

    Weights are packed. In a row of y, answers are ``apart`` cells from each other.
    """
    filters, size = k.filters, k.channels * k.size.rows * k.size.columns
    across = k.stride.columns * LANES
    for group in range(k.groups):
        for p in range(k.counts.rows):
            f = 0
            while f < filters:
                high = FILTERS if f + FILTERS <= filters else 1
                n, left = group * filters + f, k.counts.columns
                x, y = row_at(k.x, group * k.channels, p * k.stride.rows), row_at(k.y, n, p)
                w, b = k.w + n * size, k.b + n if k.b >= 0 else NONE
                while left > 0:
                    wide = even_part(left, 5) if high == FILTERS else 4 if left >= 4 else 1
                    for lane in range(0, LANES, REGISTER):
                        answer_row(wide, high, at(a, lane), s, k, x, y, w, b)
                    left -= wide
                    x += wide * across
                    y += wide * k.apart * LANES
                f += high


def answer_row(
    wide: int, high: int, a: Memory, s: Memory, k: Operands, x: int, y: int, w: int, b: int
) -> None:
    """Write what some filters answer at some places of a row, at most 5."""
    if high < FILTERS:
        if wide == 4:
            answer(zeros(1, 4), a, s, k, x, y, w, b)
        else:
            answer(zeros(1, 1), a, s, k, x, y, w, b)
    elif wide == 5:
        answer(zeros(FILTERS, 5), a, s, k, x, y, w, b)
    elif wide == 4:
        answer(zeros(FILTERS, 4), a, s, k, x, y, w, b)
    elif wide == 3:
        answer(zeros(FILTERS, 3), a, s, k, x, y, w, b)
    else:
        answer(zeros(FILTERS, 1), a, s, k, x, y, w, b)


def answer(tile: Tile, a: Memory, s: Memory, k: Operands, x: int, y: int, w: int, b: int) -> None:
    """Write what a tile's filters answer at its places: products over channels and taps."""
    rows, columns, plane, channels = k.size.rows, k.size.columns, k.x.plane, k.channels
    below, right = k.dilation.rows * k.x.pitch, k.dilation.columns * LANES
    step = k.stride.columns * LANES
    if rows * columns == 1:  # one long loop over the channels
        columns, right, channels = channels, plane, 1
    tile = biases(tile, s, b)
    for _ in range(channels):
        for r in range(rows):
            for n in range(columns):
                tile = outer(tile, s, w, 1, a, x + r * below + n * right, step)
                w += rows_of(tile)
        x += plane
    store_tile(a, y, k.y.plane, k.apart * LANES, rectify_tile(tile) if k.relu else tile)


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="w b filters channels counts:pair groups relu",
    by_register=True,
)
def conv3x3(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """``conv2d`` for 3 x 3 filters that move by one cell over at least 2 x 2 places.

    A tile answers at 2 x 2 places, so that sixteen cells of x serve 36 products a filter. The last
    row and column may be computed twice.
    """
    filters, channels, height, width = k.filters, k.channels, k.counts.rows, k.counts.columns
    for group in range(k.groups):
        for p in range(0, height, 2):
            p = smaller(p, height - 2)
            f = 0
            while f < filters:
                n = group * filters + f
                w, b = k.w + n * channels * 9, k.b + n if k.b >= 0 else NONE
                x, y = row_at(k.x, group * channels, p), row_at(k.y, n, p)
                for q in range(0, width, 2):
                    q = smaller(q, width - 2)
                    for lane in range(0, LANES, REGISTER):
                        part = at(a, lane)
                        if f + FILTERS <= filters:
                            answer_squares(zeros(FILTERS, 4), part, s, k, x, y, q, w, b)
                        else:
                            answer_squares(zeros(1, 4), part, s, k, x, y, q, w, b)
                f += FILTERS if f + FILTERS <= filters else 1


def answer_squares(
    tile: Tile, a: Memory, s: Memory, k: Operands, x: int, y: int, q: int, w: int, b: int
) -> None:
    """Write what a tile's filters answer at 2 x 2 places, from column q of rows on."""
    tile = squares(tile, a, x + q * LANES, k.x, k.channels, s, w, b)
    tile = rectify_tile(tile) if k.relu else tile
    store_squares(a, y + q * LANES, k.y.plane, k.y.pitch, tile)


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


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="w b filters channels counts:pair winners",
    by_register=True,
)
def conv3x3_pool(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """``conv3x3``, ReLU and max pooling over 2 x 2 in one: a tile answers for one pooled cell.

    ``y`` and ``counts`` are of the pooled map. Winners are 0 to 3, or DEAD, one map after the
    other.
    """
    x, y, filters, channels = k.x, k.y, k.filters, k.channels
    height, width, winners = k.counts.rows, k.counts.columns, k.winners
    next_won = height * width * LANES if winners >= 0 else 0
    for p in range(height):
        f = 0
        while f < filters:
            w, b = k.w + f * channels * 9, k.b + f if k.b >= 0 else NONE
            for q in range(width):
                at_x, to = row_at(x, 0, 2 * p) + 2 * q * LANES, row_at(y, f, p) + q * LANES
                won = winners + f * next_won + (p * width + q) * LANES if winners >= 0 else NONE
                for lane in range(0, LANES, REGISTER):
                    part = at(a, lane)
                    if f + FILTERS <= filters:
                        tile = squares(zeros(FILTERS, 4), part, at_x, x, channels, s, w, b)
                        pool_square(cells(tile, 0), part, to, won)
                        if FILTERS > 1:
                            pool_square(cells(tile, 1), part, to + y.plane, won + next_won)
                        if FILTERS > 2:
                            pool_square(cells(tile, 2), part, to + 2 * y.plane, won + 2 * next_won)
                            pool_square(cells(tile, 3), part, to + 3 * y.plane, won + 3 * next_won)
                    else:
                        one = squares(zeros(1, 4), part, at_x, x, channels, s, w, b)
                        pool_square(cells(one, 0), part, to, won)
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


KERNELS = (pack, conv2d, conv3x3, conv3x3_pool)
HELPERS = (answer_row, answer, answer_squares, squares, pool_square)
