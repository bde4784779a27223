"""Fully connected layers, forward and backward.

The next delta is the same sum as the output, with the weights read the other way round. The
gradient of the weights is a sum over all images of the batch, whichever block they are in; it is
computed once a batch, from the inputs turned back into rows and the deltas, which every block
leaves in shared memory.
"""

from __future__ import annotations

from fullback.engine.context import BLOCKS
from fullback.engine.cpu import FILTERS, UNITS
from fullback.engine.kernels.images import lanes_used
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    biases,
    load,
    outer,
    rectify_tile,
    smaller,
    splat,
    store,
    store_tile,
    sum_lanes,
    transpose,
    zeros,
)


def copy(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = x, where the two lie differently in memory.

    Operands: x, plane, pitch; y, plane, pitch; C, H, W.
    """
    for channel in range(k[6]):
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            for n in range(0, k[8] * LANES, LANES):
                store(a, y + n, load(a, x + n))


def dense(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = b + W x, or dx = W^T dy.

    Operands: x, y; w, the step to the next output and to the next input in it; b, or -1; outputs,
    inputs; whether ReLU follows.
    """
    x, y, w, w_step, x_step, b, units, features, relu = (
        k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
    )  # fmt: skip
    unit = 0
    while unit < units:
        at_w = w + unit * w_step
        if unit + UNITS <= units:
            tile = biases(UNITS, 1, s, b + unit) if b >= 0 else zeros(UNITS, 1)
            for n in range(features):
                tile = outer(tile, s, at_w, w_step, a, x + n * LANES, LANES)
                at_w += x_step
            tile = rectify_tile(tile) if relu else tile
            store_tile(a, y + unit * LANES, LANES, LANES, tile)
            unit += UNITS
        else:
            one = biases(1, 1, s, b + unit) if b >= 0 else zeros(1, 1)
            for n in range(features):
                one = outer(one, s, at_w, w_step, a, x + n * LANES, LANES)
                at_w += x_step
            one = rectify_tile(one) if relu else one
            store_tile(a, y + unit * LANES, LANES, LANES, one)
            unit += 1


def rows(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Turn a block's features back into rows, one an image, in shared memory.

    Operands: x; rows, the length of one; features, counted up to a multiple of 16.
    """
    x, to, length = k[0], k[1] + i * LANES * k[2], k[2]
    for n in range(0, k[3], LANES):
        transpose(a, x + n * LANES, LANES, s, to + n, length)


def keep(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Copy a block's deltas to shared memory.

    Operands: dy; copies; K.
    """
    dy, to = k[0], k[1] + i * k[2] * LANES
    for n in range(0, k[2] * LANES, LANES):
        store(s, to + n, load(a, dy + n))


def dense_dw(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dw = the sum over all images of delta times input.

    For all workers. Operands: rows of inputs, the length of one; deltas; dw, the length of a row;
    K; vectors in a row.
    """
    x, length, dy, dw, pitch, units, vectors = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    unit, stop = units * i // j, units * (i + 1) // j
    while unit < stop:
        high = FILTERS if unit + FILTERS <= stop else 1
        n = 0
        while n < vectors:
            wide = 4 if vectors >= 4 else 1
            n = smaller(n, vectors - wide)  # the last four may begin among the ones before
            at_y, at_x = dy + unit * LANES, x + n * LANES
            to = dw + unit * pitch + n * LANES
            if high == FILTERS and wide == 4:
                tile = zeros(FILTERS, 4)
                for block in range(c[BLOCKS]):
                    for image in range(lanes_used(c, block)):
                        tile = outer(tile, s, at_y + image, LANES, s, at_x, LANES)
                        at_x += length
                    at_y += units * LANES
                store_tile(s, to, pitch, LANES, tile)
            elif wide == 4:
                line = zeros(1, 4)
                for block in range(c[BLOCKS]):
                    for image in range(lanes_used(c, block)):
                        line = outer(line, s, at_y + image, LANES, s, at_x, LANES)
                        at_x += length
                    at_y += units * LANES
                store_tile(s, to, pitch, LANES, line)
            elif high == FILTERS:
                column = zeros(FILTERS, 1)
                for block in range(c[BLOCKS]):
                    for image in range(lanes_used(c, block)):
                        column = outer(column, s, at_y + image, LANES, s, at_x, LANES)
                        at_x += length
                    at_y += units * LANES
                store_tile(s, to, pitch, LANES, column)
            else:
                one = zeros(1, 1)
                for block in range(c[BLOCKS]):
                    for image in range(lanes_used(c, block)):
                        one = outer(one, s, at_y + image, LANES, s, at_x, LANES)
                        at_x += length
                    at_y += units * LANES
                store_tile(s, to, pitch, LANES, one)
            n += wide
        unit += high


def dense_db(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """db = the sum of all images' deltas.

    For all workers. Operands: deltas; db; K.
    """
    dy, db, units = k[0], k[1], k[2]
    for unit in range(units * i // j, units * (i + 1) // j):
        total = splat(0.0)
        for block in range(c[BLOCKS]):
            total = total + load(s, dy + (block * units + unit) * LANES)
        s[db + unit] = sum_lanes(total)


KERNELS = (copy, dense, rows, keep, dense_dw, dense_db)
HELPERS = ()
