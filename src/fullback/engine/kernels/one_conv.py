"""Convolution of one image: a tile is places of a row by filters; see ``one.py``."""

from __future__ import annotations

from fullback.engine.cpu import WHOLE
from fullback.engine.kernels.maps import row_at
from fullback.engine.kernels.one import larger_of, whole_vectors
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Tile,
    fma,
    load,
    load_tile,
    outer,
    rectify,
    rectify_tile,
    smaller,
    store,
    store_part,
    store_tile,
)

WIDE = WHOLE == 16  # whether vectors of all lanes are registers
_NARROW = ((4, 1), (2, 1), (1, 1))
TILES = ((14, 1), (8, 1), (4, 1), (1, 1), (8, 2), (7, 2)) if WIDE else _NARROW[WHOLE < 4 :]
"""A convolution's tiles: places of a row, and vectors of filters. As an operand, a tile is the
number of its filters and places."""


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="w b filters channels counts:pair size:pair stride:pair dilation:pair groups relu "
    "x_step tile line",
)
def conv_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = b + x * w, and ReLU of it where that follows, and the largest of 2 x 2 of that.

    ``filters`` and ``channels`` are those of a group, ``counts`` the places before a pooling. With
    room for two rows, ``line``, a pooling follows, or, where there are groups, each has a part of
    the vectors of a cell.
    """
    deep, y_step = whole_vectors(k.filters), whole_vectors(k.filters * k.groups)
    pitch, size = k.counts.columns * deep, k.channels * k.size.rows * k.size.columns
    for group in range(k.groups):
        w, b = k.w + group * size * deep, k.b + group * k.filters
        for p in range(k.counts.rows):
            to, step = k.line + (p & 1) * pitch, deep
            if k.line < 0:
                to, step = row_at(k.y, 0, p) + group * k.filters, y_step
            x = row_at(k.x, group * k.channels, p * k.stride.rows)
            row_of_places(a, s, k, x, w, b, to, step)
            if k.line >= 0 and k.groups > 1:
                copy_line(a, k, to, row_at(k.y, 0, p) + group * k.filters, deep, y_step)
            elif k.line >= 0 and (p & 1) == 1:
                pool_line(a, k, row_at(k.y, 0, p >> 1), deep)


def row_of_places(
    a: Memory, s: Memory, k: Operands, x: int, w: int, b: int, to: int, step: int
) -> None:
    """Write what a group's filters answer along a row, which begins at ``to``.

    The last places, and the last filters, may begin among the ones before.
    """
    width, across, deep = k.counts.columns, k.stride.columns * k.x_step, whole_vectors(k.filters)
    places = k.tile & (LANES - 1)
    filters = k.tile - places
    f = 0
    while f < deep:
        f = smaller(f, deep - filters)
        q = 0
        while q < width:
            q = smaller(q, width - places)
            at_x, at_y, at_w, at_b = x + q * across, to + q * step + f, w + f, b + f
            if filters == LANES and places == 1:
                tile = load_tile(1, 1, s, at_b, 0, LANES)
                answer_places(tile, a, s, k, at_x, at_w, at_y, step)
            elif filters == LANES and places == 4:
                tile = load_tile(4, 1, s, at_b, 0, LANES)
                answer_places(tile, a, s, k, at_x, at_w, at_y, step)
            elif WIDE:
                if places == 14:
                    tile = load_tile(14, 1, s, at_b, 0, LANES)
                    answer_places(tile, a, s, k, at_x, at_w, at_y, step)
                elif places == 8 and filters == LANES:
                    tile = load_tile(8, 1, s, at_b, 0, LANES)
                    answer_places(tile, a, s, k, at_x, at_w, at_y, step)
                elif places == 8:
                    tile = load_tile(8, 2, s, at_b, 0, LANES)
                    answer_places(tile, a, s, k, at_x, at_w, at_y, step)
                else:
                    tile = load_tile(7, 2, s, at_b, 0, LANES)
                    answer_places(tile, a, s, k, at_x, at_w, at_y, step)
            else:
                tile = load_tile(2, 1, s, at_b, 0, LANES)
                answer_places(tile, a, s, k, at_x, at_w, at_y, step)
            q += places
        f += filters


def answer_places(
    tile: Tile, a: Memory, s: Memory, k: Operands, x: int, w: int, to: int, step: int
) -> None:
    """Add to a tile of biases, a row for every place, the products over channels and taps."""
    rows, columns, right = k.size.rows, k.size.columns, k.dilation.columns * k.x_step
    below = k.dilation.rows * k.x.pitch - columns * right
    behind = k.x.plane - rows * k.dilation.rows * k.x.pitch
    across, deep = k.stride.columns * k.x_step, whole_vectors(k.filters)
    row, column = 0, 0
    for _ in range(k.channels * rows * columns):
        tile = outer(tile, a, x, across, s, w, LANES)
        w += deep
        x += right
        column += 1
        if column == columns:
            x += below
            column = 0
            row += 1
            if row == rows:
                x += behind
                row = 0
    store_tile(a, to, step, LANES, rectify_tile(tile) if k.relu else tile)


def pool_line(a: Memory, k: Operands, y: int, deep: int) -> None:
    """Write the largest of each 2 x 2 cells of the two rows in the line."""
    below = k.counts.columns * deep
    for q in range(k.counts.columns >> 1):
        for n in range(0, deep, LANES):
            x = k.line + 2 * q * deep + n
            best = larger_of(load(a, x + deep), load(a, x))
            best = larger_of(load(a, x + below), best)
            best = larger_of(load(a, x + below + deep), best)
            store(a, y + q * deep + n, best)


def copy_line(a: Memory, k: Operands, x: int, y: int, deep: int, step: int) -> None:
    """Write what a group's filters answered along a row to their channels."""
    for q in range(k.counts.columns):
        for n in range(0, deep, LANES):
            v = load(a, x + q * deep + n)
            store_part(a, y + q * step + n, v, k.filters - n)


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="w b channels counts:pair size:pair stride:pair dilation:pair relu x_step y_step",
)
def depthwise_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = b + x * w where every channel has one filter, and ReLU of it where that follows."""
    deep, across = whole_vectors(k.channels), k.stride.columns * k.x_step
    below, right = k.dilation.rows * k.x.pitch, k.dilation.columns * k.x_step
    rows, columns, relu = k.size.rows, k.size.columns, k.relu
    for p in range(k.counts.rows):
        for n in range(0, deep, LANES):
            x, y = row_at(k.x, 0, p * k.stride.rows) + n, row_at(k.y, 0, p) + n
            for _ in range(k.counts.columns):
                v, w = load(s, k.b + n), k.w + n
                for r in range(rows):
                    at = x + r * below
                    for _ in range(columns):
                        v = fma(load(a, at), load(s, w), v)
                        at += right
                        w += deep
                store(a, y, rectify(v) if relu else v)
                x += across
                y += k.y_step


KERNELS = (conv_one, depthwise_one)
HELPERS = (row_of_places, answer_places, pool_line, copy_line)
