"""Normalisation.

Batch statistics are gathered in two steps. Every block writes each channel's mean and sum of
squared differences, of its own images, to shared memory; then, all workers being done, one of them
merges the blocks in their order (Chan, Golub and LeVeque 1983, equation 2.1). Likewise backward.
"""

from __future__ import annotations

from fullback.engine.context import BLOCKS
from fullback.engine.kernels.images import lanes_used
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    either_nan,
    first_lanes,
    larger,
    load,
    rectify,
    select,
    splat,
    store,
    sum_lanes,
)


def moments(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Each channel's mean and sum of squared differences from it, over a block.

    Operands: x, plane, pitch; C, H, W; two rows of C for every block.
    """
    x, plane, pitch, channels, height, width = k[0], k[1], k[2], k[3], k[4], k[5]
    to, used, zero = k[6] + i * 2 * channels, first_lanes(lanes_used(c, i)), splat(0.0)
    for channel in range(channels):
        total = zero
        for h in range(height):
            line, place = zero, x + channel * plane + h * pitch
            for n in range(0, width * LANES, LANES):
                line = line + load(a, place + n)
            total = total + line
        mean = sum_lanes(select(used, total, zero)) / (height * width * lanes_used(c, i))
        middle, squares = splat(mean), zero
        for h in range(height):
            line, place = zero, x + channel * plane + h * pitch
            for n in range(0, width * LANES, LANES):
                v = load(a, place + n) - middle
                line = line + v * v
            squares = squares + line
        s[to + channel] = mean
        s[to + channels + channel] = sum_lanes(select(used, squares, zero))


def merge_moments(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """The batch's mean m and 1 / sqrt(variance + eps), and the running statistics' next values.

    For all workers. Operands: the blocks' rows; C; cells of an image's channel; m, and behind it
    the scale, C numbers each; running mean; running variance; place of eps and momentum.
    """
    rows, channels, cells, mean_at = k[0], k[1], k[2], k[3]
    epsilon, momentum = s[k[6]], s[k[6] + 1]
    for channel in range(channels * i // j, channels * (i + 1) // j):
        mean, squares, count = 0.0, 0.0, 0
        for block in range(c[BLOCKS]):
            own = lanes_used(c, block) * cells
            place = rows + block * 2 * channels + channel
            shift, total = s[place] - mean, count + own
            mean += shift * own / total
            squares += s[place + channels] + shift * shift * count * own / total
            count = total
        variance = squares / count
        s[mean_at + channel] = mean
        s[mean_at + channels + channel] = 1 / (variance + epsilon) ** 0.5
        unbiased = squares / larger(count - 1, 1)
        s[k[4] + channel] = (1 - momentum) * s[k[4] + channel] + momentum * mean
        s[k[5] + channel] = (1 - momentum) * s[k[5] + channel] + momentum * unbiased


def running(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """The running mean m and 1 / sqrt(running variance + eps), in place of the batch's.

    For all workers. Operands: running mean; running variance; C; m, and behind it the scale;
    place of eps.
    """
    channels = k[2]
    for channel in range(channels * i // j, channels * (i + 1) // j):
        s[k[3] + channel] = s[k[0] + channel]
        s[k[3] + channels + channel] = 1 / (s[k[1] + channel] + s[k[4]]) ** 0.5


def batchnorm(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = weight z + bias, with z = (x - m) scale.

    Operands: x, plane, pitch; y, plane, pitch; C, H, W; m, and behind it the scale; weight; bias;
    whether ReLU follows.
    """
    zero = splat(0.0)
    for channel in range(k[6]):
        mean, scale = splat(s[k[9] + channel]), splat(s[k[9] + k[6] + channel])
        weight, bias = splat(s[k[10] + channel]), splat(s[k[11] + channel])
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            for n in range(0, k[8] * LANES, LANES):
                v = weight * ((load(a, x + n) - mean) * scale) + bias
                store(a, y + n, select((v < zero), zero, v) if k[12] else v)


def batchnorm_sums(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Each channel's sum of dy z and sum of dy, over a block.

    Operands: x, plane, pitch; dy, plane, pitch; C, H, W; m, and behind it the scale; two rows of C
    for every block.
    """
    zero, used = splat(0.0), first_lanes(lanes_used(c, i))
    to = k[10] + i * 2 * k[6]
    for channel in range(k[6]):
        mean, scale = splat(s[k[9] + channel]), splat(s[k[9] + k[6] + channel])
        dweight, dbias = zero, zero
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            weight_line, bias_line = zero, zero
            for n in range(0, k[8] * LANES, LANES):
                delta = load(a, y + n)
                weight_line = weight_line + delta * ((load(a, x + n) - mean) * scale)
                bias_line = bias_line + delta
            dweight, dbias = dweight + weight_line, dbias + bias_line
        s[to + channel] = sum_lanes(select(used, dweight, zero))
        s[to + k[6] + channel] = sum_lanes(select(used, dbias, zero))


def merge_sums(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dweight and dbias, over all blocks in their order.

    For all workers. Operands: the blocks' rows; C; dweight, and behind it dbias.
    """
    channels = k[1]
    for channel in range(2 * channels * i // j, 2 * channels * (i + 1) // j):
        total = 0.0
        for block in range(c[BLOCKS]):
            total += s[k[0] + block * 2 * channels + channel]
        s[k[2] + channel] = total


def batchnorm_dx(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dx = weight scale (dy - dbias / M - z dweight / M), or weight scale dy where m is constant.

    Empty lanes get 0. Operands: x, plane, pitch; dy, plane, pitch; C, H, W; m, and behind it the
    scale; dx, plane, pitch; weight; dweight, and behind it dbias, or -1 where m is constant.
    """
    zero, used = splat(0.0), first_lanes(lanes_used(c, i))
    count = 0
    for block in range(c[BLOCKS]):
        count += lanes_used(c, block) * k[7] * k[8]
    for channel in range(k[6]):
        mean, scale = splat(s[k[9] + channel]), splat(s[k[9] + k[6] + channel])
        factor = splat(s[k[13] + channel]) * scale
        dweight, dbias = zero, zero
        if k[14] >= 0:
            dweight = splat(s[k[14] + channel] / count)
            dbias = splat(s[k[14] + k[6] + channel] / count)
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            dx = k[10] + channel * k[11] + h * k[12]
            for n in range(0, k[8] * LANES, LANES):
                delta = load(a, y + n)
                if k[14] >= 0:
                    delta = delta - dbias - (load(a, x + n) - mean) * scale * dweight
                store(a, dx + n, select(used, factor * delta, zero))


def batchnorm_pool(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = the largest of each 2 x 2 cells of ReLU(weight z + bias), with z = (x - m) scale.

    Operands: x, plane, pitch; y, plane, pitch; C, P, Q; m, and behind it the scale; weight; bias;
    where each window's winner (0 to 3, and 4 where ReLU lets none through) and its z go, or -1.
    """
    zero, winners = splat(0.0), k[12]
    for channel in range(k[6]):
        mean, scale = splat(s[k[9] + channel]), splat(s[k[9] + k[6] + channel])
        weight, bias = splat(s[k[10] + channel]), splat(s[k[11] + channel])
        for p in range(k[7]):
            x, y = k[0] + channel * k[1] + 2 * p * k[2], k[3] + channel * k[4] + p * k[5]
            for n in range(0, k[8] * LANES, LANES):
                z = (load(a, x + 2 * n) - mean) * scale
                best, every, winner = weight * z + bias, z, zero
                for cell in range(1, 4):
                    place = x + 2 * n + (cell >> 1) * k[2] + (cell & 1) * LANES
                    own = (load(a, place) - mean) * scale
                    v, every = weight * own + bias, every + own
                    more = (v > best) | (either_nan(v, v) & ~either_nan(best, best))
                    best, z = select(more, v, best), select(more, own, z)
                    winner = select(more, splat(cell), winner)
                store(a, y + n, rectify(best))
                if winners >= 0:
                    store(a, winners, select(best > zero, winner, splat(4.0)))
                    # What is not finite in any cell makes dweight NaN, as a product with 0 does.
                    store(a, winners + LANES, z + zero * every)
                    winners += 2 * LANES


def batchnorm_pool_sums(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Each channel's sum of dy z and sum of dy, over a block, from the deltas of the windows.

    Operands: winners, each with its z; dy, plane, pitch; C, P, Q; two rows of C for every block.
    """
    zero, used, winners = splat(0.0), first_lanes(lanes_used(c, i)), k[0]
    to = k[7] + i * 2 * k[4]
    for channel in range(k[4]):
        dweight, dbias = zero, zero
        for p in range(k[5]):
            y, weight_line, bias_line = k[1] + channel * k[2] + p * k[3], zero, zero
            for n in range(0, k[6] * LANES, LANES):
                delta = select(load(a, winners) < splat(4.0), load(a, y + n), zero)
                weight_line = weight_line + delta * load(a, winners + LANES)
                bias_line = bias_line + delta
                winners += 2 * LANES
            dweight, dbias = dweight + weight_line, dbias + bias_line
        s[to + channel] = sum_lanes(select(used, dweight, zero))
        s[to + k[4] + channel] = sum_lanes(select(used, dbias, zero))


def batchnorm_pool_dx(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dx as ``batchnorm_dx`` has it, where dy is a window's delta in its winner and 0 elsewhere.

    Empty lanes get 0. Operands as for ``batchnorm_dx``, with P, Q for H, W; winners, each with its
    z.
    """
    zero, used, winners = splat(0.0), first_lanes(lanes_used(c, i)), k[15]
    count = 0
    for block in range(c[BLOCKS]):
        count += lanes_used(c, block) * 4 * k[7] * k[8]
    for channel in range(k[6]):
        mean, scale = splat(s[k[9] + channel]), splat(s[k[9] + k[6] + channel])
        factor = splat(s[k[13] + channel]) * scale
        dweight, dbias = zero, zero
        if k[14] >= 0:
            dweight = splat(s[k[14] + channel] / count)
            dbias = splat(s[k[14] + k[6] + channel] / count)
        for p in range(k[7]):
            x, y = k[0] + channel * k[1] + 2 * p * k[2], k[3] + channel * k[4] + p * k[5]
            dx = k[10] + channel * k[11] + 2 * p * k[12]
            for n in range(0, k[8] * LANES, LANES):
                delta, winner = load(a, y + n), load(a, winners)
                winners += 2 * LANES
                for cell in range(4):
                    right = 2 * n + (cell & 1) * LANES
                    v = select(winner == splat(cell), delta, zero)
                    if k[14] >= 0:
                        z = (load(a, x + (cell >> 1) * k[2] + right) - mean) * scale
                        v = v - dbias - z * dweight
                    store(a, dx + (cell >> 1) * k[12] + right, select(used, factor * v, zero))


def normalize(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = (x - mean) / deviation, or dx = dy / deviation.

    Operands: x, plane, pitch; y, plane, pitch; C, H, W; mean, or -1; deviation.
    """
    for channel in range(k[6]):
        mean = splat(s[k[9] + channel]) if k[9] >= 0 else splat(0.0)
        deviation = splat(s[k[10] + channel])
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            for n in range(0, k[8] * LANES, LANES):
                store(a, y + n, (load(a, x + n) - mean) / deviation)


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
    normalize,
)
HELPERS = ()
