"""Distortions of training images, one of its own for every lane; formulas are in ``augment.py``.

The draws of an image are a function of its key alone, so its distortion is the same in whatever
lane, block and thread.
"""

from __future__ import annotations

from fullback.augment import (
    ANGLE,
    CROP_COLUMNS,
    CROP_ROWS,
    ERASED_COLUMN,
    ERASED_ROW,
    FIELD,
    FLIP_COLUMNS,
    FLIP_ROWS,
    SHEAR,
    SHIFT_COLUMNS,
    SHIFT_ROWS,
    SIZE,
)
from fullback.engine.context import (
    COUNT,
    DRAWS,
    FIRST,
    LANE_KEYS,
    MIXTURE,
    RATES,
    RATES_EACH,
    STEP,
)
from fullback.engine.kernels.functions import cosine, sine
from fullback.engine.kernels.images import lanes_used
from fullback.engine.kernels.maps import row_at
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Vector,
    broadcast,
    doubles,
    draw,
    first_lanes,
    fma,
    integers,
    lane,
    load,
    pick,
    row,
    select,
    smaller,
    splat,
    store,
    turned,
    whole,
)


def lane_keys(c: Integers, block: int) -> Integers:
    """Return the keys of a block's sixteen images."""
    keys = row(c, LANE_KEYS)
    for n in range(LANES):
        place = c[FIRST] + smaller(block * LANES + n, c[COUNT] - 1)
        keys[n] = integers(c[DRAWS])[place]
    return keys


def either_way(keys: Integers, number: int) -> Vector:
    """Return a draw from [-1, 1)."""
    return fma(splat(2.0), draw(keys, number), splat(-1.0))


def within(v: Vector, low: float, high: float) -> Vector:
    """Return the nearest number from low to high."""
    return select(v < splat(low), splat(low), select(v > splat(high), splat(high), v))


def weighted(a: Memory, x: int, step: int, s: Memory, weights: int) -> Vector:
    """Return the sum of four vectors by the spline's weights."""
    total = load(a, x) * broadcast(s, weights)
    total = fma(load(a, x + step), broadcast(s, weights + 1), total)
    total = fma(load(a, x + 2 * step), broadcast(s, weights + 2), total)
    return fma(load(a, x + 3 * step), broadcast(s, weights + 3), total)


def frame(a: Memory, x: int, pitch: int, height: int, width: int, fill: Vector) -> None:
    """Write the cells around a channel's map: one above and left, two below and right."""
    for h in range(-1, height + 2):
        for w in range(-1, width + 2):
            if h < 0 or h >= height or w < 0 or w >= width:
                store(a, x + h * pitch + w * LANES, fill)


@kernel(
    reads="x:map",
    writes="y:map",
    numbers="shape:shape amounts knots:pair field line row_table column_table",
)
def distort(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Shift, turn, resize, shear, flip, crop and bend: y[h, w] = x[where it comes from].

    Around x there is room for its frame. In shared memory are the ``amounts`` and, for every row
    and every column, the knot and the four weights (``row_table``, ``column_table``). ``knots`` are
    rows and columns of those of the elastic field, 0 without one; ``field`` is room for its values,
    twice, ``line`` for a line of them, twice.
    """
    (x, x_plane, pitch), (y, y_plane, y_pitch) = k.x, k.y
    (channels, height, width), amounts = k.shape, k.amounts
    (knots_down, knots_across), field, line = k.knots, k.field, k.line
    keys = lane_keys(c, i)
    angle = broadcast(s, amounts + 2) * either_way(keys, ANGLE)
    zoom = splat(1.0) / fma(broadcast(s, amounts + 3), either_way(keys, SIZE), splat(1.0))
    shear = broadcast(s, amounts + 4) * either_way(keys, SHEAR)
    cells = splat(2.0) * broadcast(s, amounts + 5) + splat(1.0)
    down = broadcast(s, amounts) * either_way(keys, SHIFT_ROWS)
    down = down + whole(cells * draw(keys, CROP_ROWS)) - broadcast(s, amounts + 5)
    right = broadcast(s, amounts + 1) * either_way(keys, SHIFT_COLUMNS)
    right = right + whole(cells * draw(keys, CROP_COLUMNS)) - broadcast(s, amounts + 5)
    one = splat(1.0)
    flip_rows = select(draw(keys, FLIP_ROWS) < broadcast(s, amounts + 6), splat(-1.0), one)
    flip_columns = select(draw(keys, FLIP_COLUMNS) < broadcast(s, amounts + 7), splat(-1.0), one)
    fill, amount = broadcast(s, amounts + 8), broadcast(s, amounts + 9)
    sin, cos = sine(angle), cosine(angle)
    by_row_down = zoom * fma(sin, shear, cos) * flip_rows
    by_row_right = zoom * fma(cos, shear, splat(0.0) - sin) * flip_rows
    by_column_down, by_column_right = zoom * sin * flip_columns, zoom * cos * flip_columns
    for channel in range(channels):
        frame(a, x + channel * x_plane, pitch, height, width, fill)
    knots = knots_down * knots_across
    for n in range(2 * knots):
        store(a, field + n * LANES, amount * either_way(keys, FIELD + n))
    for h in range(height):
        centred = splat(0.5 * (2 * h - height + 1))
        row_down = fma(by_row_down, centred, down + splat(0.5 * (height - 1)))
        row_right = fma(by_row_right, centred, right + splat(0.5 * (width - 1)))
        if knots:
            at = k.row_table + 5 * h
            first = field + int(s[at]) * knots_across * LANES
            for n in range(knots_across):
                step, here = knots_across * LANES, first + n * LANES
                store(a, line + n * LANES, weighted(a, here, step, s, at + 1))
                here += knots * LANES
                place = line + (knots_across + n) * LANES
                store(a, place, weighted(a, here, step, s, at + 1))
        for w in range(width):
            centred = splat(0.5 * (2 * w - width + 1))
            rows, columns = (
                fma(by_column_down, centred, row_down),
                fma(by_column_right, centred, row_right),
            )
            if knots:
                at = k.column_table + 5 * w
                here = line + int(s[at]) * LANES
                rows = rows + weighted(a, here, LANES, s, at + 1)
                columns = columns + weighted(a, here + knots_across * LANES, LANES, s, at + 1)
            rows, columns = within(rows, -1.0, height), within(columns, -1.0, width)
            top, left = whole(rows), whole(columns)
            below, beside = rows - top, columns - left
            for channel in range(channels):
                at = x + channel * x_plane
                v = pick(a, at, top, left, pitch)
                v = fma(beside, pick(a, at + LANES, top, left, pitch) - v, v)
                u = pick(a, at + pitch, top, left, pitch)
                u = fma(beside, pick(a, at + pitch + LANES, top, left, pitch) - u, u)
                store(
                    a,
                    y + channel * y_plane + h * y_pitch + w * LANES,
                    fma(below, u - v, v),
                )


@kernel(reads="x:map", writes="x:map", numbers="shape:shape side fill")
def erase(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Fill a square of every image, in place. The fill is in shared memory."""
    (channels, height, width), keys, side = k.shape, lane_keys(c, i), splat(k.side)
    half = splat(k.side // 2)
    top = whole(splat(height) * draw(keys, ERASED_ROW)) - half
    left = whole(splat(width) * draw(keys, ERASED_COLUMN)) - half
    fill = broadcast(s, k.fill)
    for h in range(height):
        below = splat(h) - top
        in_rows = (below >= splat(0.0)) & (below < side)
        for w in range(width):
            beside = splat(w) - left
            inside = in_rows & (beside >= splat(0.0)) & (beside < side)
            for channel in range(channels):
                x = row_at(k.x, channel, h) + w * LANES
                store(a, x, select(inside, fill, load(a, x)))


@kernel(reads="x:map", writes="x:map", numbers="shape:shape")
def mix(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Add a share of the next lane's image to every one, in place."""
    own = splat(doubles(c[RATES])[RATES_EACH * c[STEP] + MIXTURE])
    (channels, height, width), used = k.shape, lanes_used(c, i)
    for channel in range(channels):
        for h in range(height):
            x = row_at(k.x, channel, h)
            for n in range(x, x + width * LANES, LANES):
                store(a, n, mixed(load(a, n), own, used))


def mixed(v: Vector, own: Vector, used: int) -> Vector:
    """Return a share of each lane's value and the rest of the next one's; of the last, the first's.

    ``used`` is how many lanes hold images.
    """
    other = select(first_lanes(used - 1), turned(v), splat(lane(v, 0)))
    return fma(own, v - other, other)


KERNELS = (distort, erase, mix)
HELPERS = (lane_keys, either_way, within, weighted, frame, mixed)
