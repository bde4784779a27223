"""Images in and answers out: rows of pixels become lanes, and lanes rows.

Lanes that a batch leaves empty repeat its last image; the loss gives them no share.
"""

from __future__ import annotations

from fullback.engine.context import COUNT, FIRST, IMAGE_STEP, IMAGES, KIND, ORDER, OUTPUT, ROWS
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Vector,
    floats,
    fma,
    integers,
    larger,
    load,
    pixels,
    row,
    smaller,
    splat,
    store,
    store_tile,
)


def lanes_used(c: Integers, block: int) -> int:
    """Return how many lanes of a block hold images."""
    return smaller(c[COUNT] - block * LANES, LANES)


def image_number(c: Integers, block: int, n: int) -> int:
    """Return which of the images is in lane n of a block."""
    place = c[FIRST] + smaller(block * LANES + n, c[COUNT] - 1)
    number: int = integers(c[ORDER])[place] if c[ORDER] else place
    return number


def byte_share(v: Vector) -> Vector:
    """Return v / 255, rounded as a division is."""
    q = v * splat(1 / 255)
    return fma(fma(q, splat(-255.0), v), splat(1 / 255), q)


@kernel(writes="y:map", numbers="shape:shape room")
def gather(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Read a block's images; bytes are divided by 255. There is room for sixteen vectors."""
    (y, plane, pitch), (channels, height, width), room = k.y, k.shape, k.room
    kind, rows, size = c[KIND], row(c, ROWS), channels * height * width
    bytes_each = (1 if kind == 0 else 4 * kind) * c[IMAGE_STEP]
    for n in range(LANES):
        rows[n] = c[IMAGES] + image_number(c, i, n) * bytes_each
    channel, h, w = 0, 0, 0  # of the next pixel that is written
    done = 0
    while done < size:
        start = larger(
            smaller(done, size - LANES), 0
        )  # the last sixteen may begin among the ones before
        if kind == 0:
            store_tile(a, room, 0, LANES, pixels(rows, start, 0))
        elif kind == 1:
            store_tile(a, room, 0, LANES, pixels(rows, start, 1))
        else:
            store_tile(a, room, 0, LANES, pixels(rows, start, 2))
        stop = smaller(start + LANES, size)
        while done < stop:
            v = load(a, room + (done - start) * LANES)
            if kind == 0:
                v = byte_share(v)
            store(a, y + channel * plane + h * pitch + w * LANES, v)
            done += 1
            w += 1
            if w == width:
                w = 0
                h += 1
                if h == height:
                    h = 0
                    channel += 1


@kernel(reads="x", numbers="units")
def output(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Write a block's answers to their rows."""
    x, units = k.x, k.units
    for unit in range(units):
        for n in range(lanes_used(c, i)):
            answer = a[x + unit * LANES + n]
            floats(c[OUTPUT])[(c[FIRST] + i * LANES + n) * units + unit] = answer


KERNELS = (gather, output)
HELPERS = (lanes_used, image_number, byte_share)
