"""Normalisation.

Batch statistics are gathered in two steps. Every block writes each channel's mean and sum of
squared differences, of its own images, to shared memory; then, all workers being done, one of them
merges the blocks in their order (Chan, Golub and LeVeque 1983, equation 2.1). Likewise backward.

Operands: ``statistics`` is where in shared memory the mean m of every channel is, and behind these
the scale, 1 / sqrt(variance + eps); ``rows`` are two rows of a number for every channel, for every
block; ``shape`` is that of the map on which the layer works, or of the pooled one.
"""

from __future__ import annotations

from fullback.engine.context import BLOCKS, COUNT
from fullback.engine.kernels.images import lanes_used
from fullback.engine.kernels.maps import row_at
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    Vector,
    either_nan,
    first_lanes,
    fma,
    larger,
    load,
    rectify,
    select,
    splat,
    store,
    sum_lanes,
)


@kernel(reads="x:map", writes="rows", numbers="shape:shape")
def moments(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Each channel's mean and sum of squared differences from it, over a block."""
    channels, height, width = k.shape
    to, used, zero = k.rows + i * 2 * channels, first_lanes(lanes_used(c, i)), splat(0.0)
    for channel in range(channels):
        total = zero
        for h in range(height):
            line, place = zero, row_at(k.x, channel, h)
            for n in range(0, width * LANES, LANES):
                line = line + load(a, place + n)
            total = total + line
        mean = sum_lanes(select(used, total, zero)) / (height * width * lanes_used(c, i))
        middle, squares = splat(mean), zero
        for h in range(height):
            line, place = zero, row_at(k.x, channel, h)
            for n in range(0, width * LANES, LANES):
                v = load(a, place + n) - middle
                line = line + v * v
            squares = squares + line
        s[to + channel] = mean
        s[to + channels + channel] = sum_lanes(select(used, squares, zero))


@kernel(
    reads="rows",
    writes="statistics",
    numbers="channels cells mean variance settings",
    for_workers=True,
)
def merge_moments(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """The batch's mean m and 1 / sqrt(variance + eps), and the running statistics' next values.

    ``cells`` are those of an image's channel, ``mean`` and ``variance`` where the running ones are,
    ``settings`` where eps and momentum are.
    """
    channels, cells, mean_at = k.channels, k.cells, k.statistics
    epsilon, momentum = s[k.settings], s[k.settings + 1]
    for channel in range(channels * i // j, channels * (i + 1) // j):
        mean, squares, count = 0.0, 0.0, 0
        for block in range(c[BLOCKS]):
            own = lanes_used(c, block) * cells
            place = k.rows + block * 2 * channels + channel
            shift, total = s[place] - mean, count + own
            mean += shift * own / total
            squares += s[place + channels] + shift * shift * count * own / total
            count = total
        variance = squares / count
        s[mean_at + channel] = mean
        s[mean_at + channels + channel] = 1 / (variance + epsilon) ** 0.5
        unbiased = squares / larger(count - 1, 1)
        s[k.mean + channel] = (1 - momentum) * s[k.mean + channel] + momentum * mean
        s[k.variance + channel] = (1 - momentum) * s[k.variance + channel] + momentum * unbiased


@kernel(writes="statistics", numbers="channels mean variance settings", for_workers=True)
def running(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """The running mean m and 1 / sqrt(running variance + eps), in place of the batch's."""
    channels, to = k.channels, k.statistics
    for channel in range(channels * i // j, channels * (i + 1) // j):
        s[to + channel] = s[k.mean + channel]
        s[to + channels + channel] = 1 / (s[k.variance + channel] + s[k.settings]) ** 0.5


@kernel(reads="x:map", writes="y:map", numbers="shape:shape statistics weight bias relu")
def batchnorm(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = weight z + bias, with z = (x - m) scale, and ReLU of it where that follows."""
    (channels, height, width), zero, relu = k.shape, splat(0.0), k.relu
    for channel in range(channels):
        mean, scale = mean_and_scale(s, k.statistics + channel, channels)
        weight, bias = splat(s[k.weight + channel]), splat(s[k.bias + channel])
        for h in range(height):
            x, y = row_at(k.x, channel, h), row_at(k.y, channel, h)
            for n in range(0, width * LANES, LANES):
                v = fma(weight, (load(a, x + n) - mean) * scale, bias)
                store(a, y + n, select((v < zero), zero, v) if relu else v)


@kernel(reads="x:map dy:map", writes="rows", numbers="shape:shape statistics")
def batchnorm_sums(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Each channel's sum of dy z and sum of dy, over a block."""
    (channels, height, width), zero = k.shape, splat(0.0)
    to, used = k.rows + i * 2 * channels, first_lanes(lanes_used(c, i))
    for channel in range(channels):
        mean, scale = mean_and_scale(s, k.statistics + channel, channels)
        dweight, dbias = zero, zero
        for h in range(height):
            x, dy = row_at(k.x, channel, h), row_at(k.dy, channel, h)
            weight_line, bias_line = zero, zero
            for n in range(0, width * LANES, LANES):
                delta = load(a, dy + n)
                weight_line = weight_line + delta * ((load(a, x + n) - mean) * scale)
                bias_line = bias_line + delta
            dweight, dbias = dweight + weight_line, dbias + bias_line
        s[to + channel] = sum_lanes(select(used, dweight, zero))
        s[to + channels + channel] = sum_lanes(select(used, dbias, zero))


@kernel(reads="rows", writes="dweight dbias", numbers="channels", for_workers=True)
def merge_sums(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dweight and dbias, over all blocks in their order."""
    channels = k.channels
    for n in range(2 * channels * i // j, 2 * channels * (i + 1) // j):
        total = 0.0
        for block in range(c[BLOCKS]):
            total += s[k.rows + block * 2 * channels + n]
        s[k.dweight + n if n < channels else k.dbias + n - channels] = total


@kernel(
    reads="x:map dy:map",
    writes="dx:map",
    numbers="shape:shape statistics weight dweight dbias",
)
def batchnorm_dx(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dx = weight scale (dy - dbias / M - z dweight / M), or weight scale dy where m is constant.

    Empty lanes get 0. Where m is constant, dweight and dbias are NONE.
    """
    (channels, height, width), zero = k.shape, splat(0.0)
    used, count = first_lanes(lanes_used(c, i)), c[COUNT] * height * width
    varies = k.dweight >= 0
    for channel in range(channels):
        mean, scale = mean_and_scale(s, k.statistics + channel, channels)
        factor = splat(s[k.weight + channel]) * scale
        dweight = per_cell(s, k.dweight, channel, count)
        dbias = per_cell(s, k.dbias, channel, count)
        for h in range(height):
            x, dy = row_at(k.x, channel, h), row_at(k.dy, channel, h)
            dx = row_at(k.dx, channel, h)
            for n in range(0, width * LANES, LANES):
                delta = load(a, dy + n)
                if varies:
                    delta = delta - dbias - (load(a, x + n) - mean) * scale * dweight
                store(a, dx + n, select(used, factor * delta, zero))


def mean_and_scale(s: Memory, place: int, channels: int) -> tuple[Vector, Vector]:
    """Return a channel's mean and scale."""
    return splat(s[place]), splat(s[place + channels])


def per_cell(s: Memory, place: int, channel: int, count: int) -> Vector:
    """Return a channel's gradient divided by the cells that it is a sum over, or 0 for NONE."""
    return splat(s[place + channel] / count) if place >= 0 else splat(0.0)


@kernel(reads="x:map", writes="y:map", numbers="shape:shape statistics weight bias winners")
def batchnorm_pool(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = the largest of each 2 x 2 cells of ReLU(weight z + bias), with z = (x - m) scale.

    ``shape`` is that of y. ``winners`` is where each window's winner (0 to 3, and 4 where ReLU lets
    none through) and its z go.
    """
    (channels, height, width), zero, winners, below = k.shape, splat(0.0), k.winners, k.x.pitch
    for channel in range(channels):
        mean, scale = mean_and_scale(s, k.statistics + channel, channels)
        weight, bias = splat(s[k.weight + channel]), splat(s[k.bias + channel])
        for p in range(height):
            x, y = row_at(k.x, channel, 2 * p), row_at(k.y, channel, p)
            for n in range(0, width * LANES, LANES):
                z = (load(a, x + 2 * n) - mean) * scale
                best, every, winner = fma(weight, z, bias), z, zero
                for cell in range(1, 4):
                    place = x + 2 * n + (cell >> 1) * below + (cell & 1) * LANES
                    own = (load(a, place) - mean) * scale
                    v, every = fma(weight, own, bias), every + own
                    more = (v > best) | (either_nan(v, v) & ~either_nan(best, best))
                    best, z = select(more, v, best), select(more, own, z)
                    winner = select(more, splat(cell), winner)
                store(a, y + n, rectify(best))
                if winners >= 0:
                    store(a, winners, select(best > zero, winner, splat(4.0)))
                    # What is not finite in any cell makes dweight NaN, as a product with 0 does.
                    store(a, winners + LANES, z + zero * every)
                    winners += 2 * LANES


@kernel(reads="dy:map", writes="rows", numbers="shape:shape winners")
def batchnorm_pool_sums(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Each channel's sum of dy z and sum of dy, over a block, from the deltas of the windows."""
    (channels, height, width), zero, winners = k.shape, splat(0.0), k.winners
    to, used = k.rows + i * 2 * channels, first_lanes(lanes_used(c, i))
    for channel in range(channels):
        dweight, dbias = zero, zero
        for p in range(height):
            dy = row_at(k.dy, channel, p)
            weight_line, bias_line = zero, zero
            for n in range(0, width * LANES, LANES):
                delta = select(load(a, winners) < splat(4.0), load(a, dy + n), zero)
                weight_line = weight_line + delta * load(a, winners + LANES)
                bias_line = bias_line + delta
                winners += 2 * LANES
            dweight, dbias = dweight + weight_line, dbias + bias_line
        s[to + channel] = sum_lanes(select(used, dweight, zero))
        s[to + channels + channel] = sum_lanes(select(used, dbias, zero))


@kernel(
    reads="x:map dy:map",
    writes="dx:map",
    numbers="shape:shape statistics weight dweight dbias winners",
)
def batchnorm_pool_dx(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """dx as ``batchnorm_dx`` has it, where dy is a window's delta in its winner and 0 elsewhere.

    Empty lanes get 0. ``shape`` is that of dy.
    """
    (channels, height, width), zero, winners = k.shape, splat(0.0), k.winners
    used, count = first_lanes(lanes_used(c, i)), c[COUNT] * 4 * height * width
    x_pitch, dx_pitch, varies = k.x.pitch, k.dx.pitch, k.dweight >= 0
    for channel in range(channels):
        mean, scale = mean_and_scale(s, k.statistics + channel, channels)
        factor = splat(s[k.weight + channel]) * scale
        dweight = per_cell(s, k.dweight, channel, count)
        dbias = per_cell(s, k.dbias, channel, count)
        for p in range(height):
            x, dy = row_at(k.x, channel, 2 * p), row_at(k.dy, channel, p)
            dx = row_at(k.dx, channel, 2 * p)
            for n in range(0, width * LANES, LANES):
                delta, winner = load(a, dy + n), load(a, winners)
                winners += 2 * LANES
                for cell in range(4):
                    right = 2 * n + (cell & 1) * LANES
                    v = select(winner == splat(cell), delta, zero)
                    if varies:
                        z = (load(a, x + (cell >> 1) * x_pitch + right) - mean) * scale
                        v = v - dbias - z * dweight
                    place = dx + (cell >> 1) * dx_pitch + right
                    store(a, place, select(used, factor * v, zero))


@kernel(writes="scale", numbers="deviation count", for_workers=True)
def inverse(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """scale = 1 / deviation, of so many channels or features."""
    for n in range(k.count * i // j, k.count * (i + 1) // j):
        s[k.scale + n] = 1 / s[k.deviation + n]


@kernel(reads="x:map", writes="y:map", numbers="shape:shape mean scale")
def normalize(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """y = (x - mean) scale."""
    channels, height, width = k.shape
    for channel in range(channels):
        mean, scale = splat(s[k.mean + channel]), splat(s[k.scale + channel])
        for h in range(height):
            x, y = row_at(k.x, channel, h), row_at(k.y, channel, h)
            for n in range(0, width * LANES, LANES):
                store(a, y + n, (load(a, x + n) - mean) * scale)


KERNELS = (
    moments,
    merge_moments,
    running,
    batchnorm,
    batchnorm_sums,
    merge_sums,
    batchnorm_dx,
    batchnorm_pool,
    batchnorm_pool_sums,
    batchnorm_pool_dx,
    inverse,
    normalize,
)
HELPERS = (mean_and_scale, per_cell)
