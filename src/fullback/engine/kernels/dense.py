"""Fully connected layers, forward and backward.

The next delta is the same sum as the output, with the weights read the other way round. The
gradient of the weights is a sum over all images of the batch, whichever block they are in; it is
computed once a batch, from the inputs turned back into rows and the deltas, which every block
leaves in shared memory; blocks that are not dealt out here (``loop.py``) take no part.
"""

from __future__ import annotations

from fullback.engine.context import BLOCK_STEP, BLOCKS, FIRST_BLOCK
from fullback.engine.cpu import HIGH, WHOLE
from fullback.engine.kernels.images import lanes_used
from fullback.engine.kernels.maps import row_at
from fullback.engine.operands import NONE, kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Tile,
    biases,
    load,
    load_tile,
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

UNITS = min(8, WHOLE)  # of a tile
VECTORS = WHOLE // HIGH  # and inputs, sixteen a vector
ROWS = 16  # of W that ``dense_dx`` reads side by side


@kernel(reads="x:map", writes="y:map", numbers="shape:shape")
def copy(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = x, where the two lie differently in memory."""
    channels, height, width = k.shape
    for channel in range(channels):
        for h in range(height):
            x, y = row_at(k.x, channel, h), row_at(k.y, channel, h)
            for n in range(0, width * LANES, LANES):
                store(a, y + n, load(a, x + n))


@kernel(reads="x w", writes="y", numbers="w_step x_step b units features relu")
def dense(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = b + W x, and ReLU of it where that follows; or dx = W^T dy.

    The steps are those in ``w`` to the next output (``w_step``) and the next input (``x_step``).
    """
    units, unit = k.units, 0
    while unit < units:
        if unit + UNITS <= units:
            answer_units(zeros(UNITS, 1), a, s, k, unit)
            unit += UNITS
        else:
            answer_units(zeros(1, 1), a, s, k, unit)
            unit += 1


def answer_units(tile: Tile, a: Memory, s: Memory, k: Operands, unit: int) -> None:
    """Write what a tile's units answer, the first of which has a number."""
    x, y, w, w_step, x_step = k.x, k.y + unit * LANES, k.w + unit * k.w_step, k.w_step, k.x_step
    tile = biases(tile, s, k.b + unit if k.b >= 0 else NONE)
    for n in range(k.features):
        tile = outer(tile, s, w, w_step, a, x + n * LANES, LANES)
        w += x_step
    store_tile(a, y, LANES, LANES, rectify_tile(tile) if k.relu else tile)


@kernel(reads="dy w", writes="dx", numbers="units features")
def dense_dx(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dx = W^T dy, as ``dense`` has it, some rows of W at a time, each read from end to end.

    ``dense`` goes down the columns of W. Where rows are long, every step is to another page of
    memory, and, where their length is a power of two, to the same few places of the cache.
    """
    units, features, unit = k.units, k.features, 0
    while unit < units:
        stop, n = smaller(unit + ROWS, units), 0
        while n < features:
            dx = k.dx + n * LANES
            if n + WHOLE <= features:
                tile = load_tile(WHOLE, 1, a, dx, LANES, LANES) if unit else zeros(WHOLE, 1)
                store_tile(a, dx, LANES, LANES, collected(tile, a, s, k, n, unit, stop))
                n += WHOLE
            else:
                one = load_tile(1, 1, a, dx, LANES, LANES) if unit else zeros(1, 1)
                store_tile(a, dx, LANES, LANES, collected(one, a, s, k, n, unit, stop))
                n += 1
        unit = stop


def collected(tile: Tile, a: Memory, s: Memory, k: Operands, n: int, unit: int, stop: int) -> Tile:
    """Return what a tile's inputs, from number n on, collect from the deltas of some units."""
    w = k.w + unit * k.features + n
    for u in range(unit, stop):
        tile = outer(tile, s, w, 1, a, k.dy + u * LANES, LANES)
        w += k.features
    return tile


@kernel(reads="x", writes="rows", numbers="length")
def rows(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Turn a block's features back into rows, one an image, in shared memory.

    ``length`` is that of a row: the features, counted up to a multiple of 16.
    """
    x, length, to = k.x, k.length, k.rows + i * LANES * k.length
    for n in range(0, length, LANES):
        transpose(a, x + n * LANES, LANES, s, to + n, length)


@kernel(reads="dy", writes="deltas", numbers="units")
def keep(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Copy a block's deltas to shared memory."""
    dy, size = k.dy, k.units * LANES
    to = k.deltas + i * size
    for n in range(0, size, LANES):
        store(s, to + n, load(a, dy + n))


@kernel(reads="x dy", writes="dw", numbers="length pitch units", for_workers=True)
def dense_dw(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dw = the sum over all images of delta times input.

    ``x`` are the inputs in rows of a length, ``dy`` the deltas of all images, ``pitch`` the length
    of a row of dw.
    """
    vectors = k.pitch // LANES
    unit, stop = k.units * i // j, k.units * (i + 1) // j
    while unit < stop:
        high = HIGH if unit + HIGH <= stop else 1
        n = 0
        while n < vectors:
            wide = VECTORS if vectors >= VECTORS else 1
            n = smaller(n, vectors - wide)  # the last ones may begin among the ones before
            if high == HIGH and wide == VECTORS:
                sum_images(zeros(HIGH, VECTORS), s, c, k, unit, n)
            elif wide == VECTORS:
                sum_images(zeros(1, VECTORS), s, c, k, unit, n)
            elif high == HIGH:
                sum_images(zeros(HIGH, 1), s, c, k, unit, n)
            else:
                sum_images(zeros(1, 1), s, c, k, unit, n)
            n += wide
        unit += high


def sum_images(tile: Tile, s: Memory, c: Integers, k: Operands, unit: int, n: int) -> None:
    """Write the gradients of some units' weights, from vector n of a row on, over all images."""
    length, pitch, units, block = k.length, k.pitch, k.units, c[FIRST_BLOCK]
    while block < c[BLOCKS]:
        x, dy = k.x + block * LANES * length + n * LANES, k.dy + (block * units + unit) * LANES
        for image in range(lanes_used(c, block)):
            tile = outer(tile, s, dy + image, LANES, s, x, LANES)
            x += length
        block += c[BLOCK_STEP]
    store_tile(s, k.dw + unit * pitch + n * LANES, pitch, LANES, tile)


@kernel(reads="dy", writes="db", numbers="units", for_workers=True)
def dense_db(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """db = the sum of all images' deltas."""
    units = k.units
    for unit in range(units * i // j, units * (i + 1) // j):
        total, block = splat(0.0), c[FIRST_BLOCK]
        while block < c[BLOCKS]:
            total = total + load(s, k.dy + (block * units + unit) * LANES)
            block += c[BLOCK_STEP]
        s[k.db + unit] = sum_lanes(total)


KERNELS = (copy, dense, dense_dx, rows, keep, dense_dw, dense_db)
HELPERS = (answer_units, collected, sum_images)
