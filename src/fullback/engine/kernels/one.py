"""One image: lanes along filters, channels and units, so that a single image fills them.

Maps lie as ``[row][column][channel]``, channels counted up to a multiple of 16; what is in the
lanes beyond is never looked at. The image itself stays in planes, as it came. A map's ``plane`` is
the step from channel to channel; ``x_step`` and ``y_step`` are those from a cell to the next one of
its row. Weights are packed with their outputs in lanes.

Every number is computed from the same numbers in the same order as in a block of sixteen images, so
that an image has the same answer here and there, bit for bit.
"""

from __future__ import annotations

from fullback.engine.context import FIGURES, FIRST, IMAGE_STEP, IMAGES, KIND, OUTPUT
from fullback.engine.cpu import WHOLE
from fullback.engine.kernels.functions import exp
from fullback.engine.kernels.images import byte_share
from fullback.engine.kernels.maps import row_at
from fullback.engine.kernels.pool import share_of
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Tile,
    Vector,
    broadcast,
    doubles,
    either_nan,
    floats,
    fma,
    lane,
    larger,
    load,
    load_bytes,
    load_tile,
    outer,
    over,
    plus,
    rectify,
    rectify_tile,
    select,
    smaller,
    splat,
    store,
    store_part,
    store_tile,
    transpose,
)

UNITS = min(8, WHOLE)  # of sixteen outputs, of a dense layer's tile
HALF = UNITS // 2


def whole_vectors(count: int) -> int:
    """Return a number counted up to a multiple of 16."""
    return (count + LANES - 1) // LANES * LANES


@kernel(reads="w", writes="packed", numbers="groups rows columns", for_workers=True)
def pack_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Turn the matrices of weights of every group round; rows are filled up to whole vectors."""
    rows, columns = k.rows, k.columns
    deep = whole_vectors(rows)
    squares = (columns + LANES - 1) // LANES
    for group in range(k.groups):
        w, packed = k.w + group * rows * columns, k.packed + group * columns * deep
        for square in range(squares * i // j, squares * (i + 1) // j):
            column = square * LANES
            for row in range(0, rows, LANES):
                from_, to = w + row * columns + column, packed + column * deep + row
                if row + LANES <= rows and column + LANES <= columns:
                    transpose(s, from_, columns, s, to, deep)
                else:
                    for n in range(smaller(LANES, columns - column)):
                        for m in range(LANES):
                            there = row + m < rows
                            s[to + n * deep + m] = s[from_ + m * columns + n] if there else 0.0


# Images and answers ------------------------------------------------------------------------------


@kernel(writes="y:map", numbers="shape:shape mean scale by_feature")
def image_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Read an image; bytes are divided by 255. Then subtract a mean, and multiply by a scale.

    These are in shared memory, of every channel or of every feature, or NONE.
    """
    (channels, height, width), bytes_ = k.shape, c[KIND] == 0
    from_ = c[FIRST] * c[IMAGE_STEP]
    for channel in range(channels):
        for h in range(height):
            y = row_at(k.y, channel, h)
            for n in range(0, width, LANES):
                if bytes_:
                    v = byte_share(load_bytes(c[IMAGES], from_ + n))
                else:
                    v = load(floats(c[IMAGES]), from_ + n)
                if k.mean >= 0 and k.by_feature:
                    v = (v - load(s, k.mean + n)) * load(s, k.scale + n)
                elif k.mean >= 0:
                    v = (v - splat(s[k.mean + channel])) * splat(s[k.scale + channel])
                store_part(a, y + n, v, width - n)
            from_ += width


@kernel(reads="x:map", writes="y:map", numbers="shape:shape x_step y_step")
def turn_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = x, where channels and cells lie in another order."""
    channels, height, width = k.shape
    for channel in range(channels):
        for h in range(height):
            x, y = row_at(k.x, channel, h), row_at(k.y, channel, h)
            for _ in range(width):
                a[y] = a[x]
                x += k.x_step
                y += k.y_step


@kernel(reads="x", writes="x", numbers="classes")
def softmax_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Logits become probabilities, in place."""
    x, classes = k.x, k.classes
    largest = broadcast(a, x)
    for n in range(1, classes):
        v = broadcast(a, x + n)
        largest = select(v > largest, v, largest)
    for n in range(0, classes, LANES):
        store(a, x + n, exp(load(a, x + n) - largest))
    total = splat(0.0)
    for n in range(classes):
        total = plus(total, broadcast(a, x + n))
    for n in range(0, classes, LANES):
        store(a, x + n, over(load(a, x + n), total))


@kernel(reads="x", numbers="units")
def output_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Write an answer to its row; the run's figure becomes NaN where it is not finite."""
    row, wrong = c[FIRST] * k.units, splat(0.0)
    for n in range(k.units):
        wrong = fma(broadcast(a, k.x + n), splat(0.0), wrong)
        floats(c[OUTPUT])[row + n] = a[k.x + n]
    before = 0.0 if c[FIRST] == 0 else doubles(c[FIGURES])[0]
    doubles(c[FIGURES])[0] = before + lane(wrong, 0)


# Other layers ------------------------------------------------------------------------------------


@kernel(reads="x:map", writes="y", numbers="shape:shape x_step w b units relu")
def dense_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = b + W x, and ReLU of it where that follows; a map is taken channel after channel."""
    units, unit = whole_vectors(k.units), 0
    while unit < units:
        if unit + UNITS * LANES <= units:
            answer_units_one(load_tile(1, UNITS, s, k.b + unit, 0, LANES), a, s, k, unit)
            unit += UNITS * LANES
        elif unit + HALF * LANES <= units:
            answer_units_one(load_tile(1, HALF, s, k.b + unit, 0, LANES), a, s, k, unit)
            unit += HALF * LANES
        else:
            answer_units_one(load_tile(1, 1, s, k.b + unit, 0, LANES), a, s, k, unit)
            unit += LANES


def answer_units_one(tile: Tile, a: Memory, s: Memory, k: Operands, unit: int) -> None:
    """Add to a tile of biases the products over all features, for its units."""
    (channels, height, width), step, w = k.shape, k.x_step, k.w + unit
    deep, relu = whole_vectors(k.units), k.relu
    for channel in range(channels):
        for h in range(height):
            x = row_at(k.x, channel, h)
            for _ in range(width):
                tile = outer(tile, a, x, 0, s, w, LANES)
                x += step
                w += deep
    store_tile(a, k.y + unit, 0, LANES, rectify_tile(tile) if relu else tile)


def larger_of(v: Vector, best: Vector) -> Vector:
    """Return the larger of two vectors, and NaN where one is NaN."""
    return select((v > best) | either_nan(v, v), v, best)


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="shape:shape counts:pair size:pair stride:pair before:pair x_step y_step largest",
)
def pool_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = the largest cell of each window, or the mean, in which padding counts as zeros."""
    shape, size, share = k.shape, k.size, share_of(k.size)
    deep, step, pitch = whole_vectors(shape.channels), k.x_step, k.x.pitch
    for p in range(k.counts.rows):
        top = p * k.stride.rows - k.before.rows
        r0, r1 = larger(0, -top), smaller(size.rows, shape.height - top)
        for q in range(k.counts.columns):
            left = q * k.stride.columns - k.before.columns
            s0, s1 = larger(0, -left), smaller(size.columns, shape.width - left)
            for n in range(0, deep, LANES):
                x = row_at(k.x, 0, top) + left * step + n
                if k.largest:
                    best = load(a, x + r0 * pitch + s0 * step)
                    for r in range(r0, r1):
                        for m in range(s0, s1):
                            best = larger_of(load(a, x + r * pitch + m * step), best)
                else:
                    best = splat(0.0)
                    for r in range(r0, r1):
                        line = splat(0.0)
                        for m in range(s0, s1):
                            line = plus(line, load(a, x + r * pitch + m * step))
                        best = plus(best, line)
                    best = best * share
                store(a, row_at(k.y, 0, p) + q * k.y_step + n, best)


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="shape:shape x_step y_step statistics weight bias relu",
)
def batchnorm_one(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = weight z + bias, with z = (x - m) scale, and ReLU of it where that follows."""
    (channels, height, width), relu = k.shape, k.relu
    for n in range(0, channels, LANES):
        mean, scale = load(s, k.statistics + n), load(s, k.statistics + channels + n)
        weight, bias = load(s, k.weight + n), load(s, k.bias + n)
        for h in range(height):
            x, y = row_at(k.x, 0, h) + n, row_at(k.y, 0, h) + n
            for _ in range(width):
                v = fma(weight, (load(a, x) - mean) * scale, bias)
                store(a, y, rectify(v) if relu else v)
                x += k.x_step
                y += k.y_step


KERNELS = (
    pack_one,
    image_one,
    turn_one,
    softmax_one,
    output_one,
    dense_one,
    pool_one,
    batchnorm_one,
)
HELPERS = (whole_vectors, larger_of, answer_units_one)
