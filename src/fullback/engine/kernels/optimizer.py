"""Optimizers: what a step does with the sum of the chunks' gradients, a parameter's rows at a time.

The gradient of a parameter lies in one piece or, for each chunk of blocks, in one; chunks are added
in their order. For all workers: each takes some rows.

Operands: p; rows, columns; the gradient, the length of its rows, the step from one chunk's to the
next, or 0 where there is one piece; the optimizer's memories; where in shared memory its numbers
are, which begin with the weight decay; where the factor is by which gradients are clipped.
"""

from __future__ import annotations

from fullback.engine.context import AVERAGE, CHUNKS, RATES, RATES_EACH, STEP
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Vector,
    broadcast,
    doubles,
    first_lanes,
    lane,
    load,
    root,
    select,
    splat,
    store_part,
    sum_lanes,
)


def gradient(s: Memory, c: Integers, place: int, chunk_step: int) -> Vector:
    """Return a vector of the gradient: the sum over the chunks."""
    total = load(s, place)
    if chunk_step:
        for _ in range(1, c[CHUNKS]):
            place += chunk_step
            total = total + load(s, place)
    return total


def total(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Add up the chunks, and nothing else. ``p`` is where the sum goes, in rows without gaps."""
    columns = k[2]
    for n in range(k[1] * i // j, k[1] * (i + 1) // j):
        for m in range(0, columns, LANES):
            g = gradient(s, c, k[3] + n * k[4] + m, k[5])
            store_part(s, k[0] + n * columns + m, g, columns - m)


def squares(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Write down the sum of the squares of every row of a gradient. ``p`` is where they go."""
    columns = k[2]
    for n in range(k[1] * i // j, k[1] * (i + 1) // j):
        sums = splat(0.0)
        for m in range(0, columns, LANES):
            g = gradient(s, c, k[3] + n * k[4] + m, k[5])
            sums = sums + select(first_lanes(columns - m), g * g, splat(0.0))
        s[k[0] + n] = sum_lanes(sums)


def clip(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Find the factor that brings the length of all gradients together to a limit, at most.

    Operands: the sums of squares, and how many; the place of the limit; where the factor goes.
    """
    if i == 0:  # one worker adds all up, in their order
        sums = splat(0.0)
        for m in range(0, k[1], LANES):
            v = load(s, k[0] + m)
            sums = sums + select(first_lanes(k[1] - m), v, splat(0.0))
        length = lane(root(splat(sum_lanes(sums))), 0)
        s[k[3]] = s[k[2]] / length if length > s[k[2]] else 1.0


def average(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """E += share (p - e), after the optimizer's step. Operands: p; rows, columns; e."""
    columns = k[2]
    share = splat(doubles(c[RATES])[RATES_EACH * c[STEP] + AVERAGE])
    for n in range(k[1] * i // j, k[1] * (i + 1) // j):
        for m in range(0, columns, LANES):
            place = n * columns + m
            e = load(s, k[3] + place)
            e = e + share * (load(s, k[0] + place) - e)
            store_part(s, k[3] + place, e, columns - m)


def sgd(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """V = m v + g, p -= rate v; with Nesterov, p -= rate (g + m v).

    Numbers: decay, m, 1 for Nesterov's.
    """
    columns, nesterov = k[2], s[k[8] + 2]
    decay, momentum = splat(s[k[8]]), splat(s[k[8] + 1])
    rate, factor = splat(doubles(c[RATES])[RATES_EACH * c[STEP]]), broadcast(s, k[9])
    for n in range(k[1] * i // j, k[1] * (i + 1) // j):
        for m in range(0, columns, LANES):
            at_p, at_v = k[0] + n * columns + m, k[6] + n * columns + m
            p = load(s, at_p)
            g = factor * gradient(s, c, k[3] + n * k[4] + m, k[5]) + decay * p
            v = momentum * load(s, at_v) + g
            step = g + momentum * v if nesterov else v
            store_part(s, at_v, v, columns - m)
            store_part(s, at_p, p - rate * step, columns - m)


def adam(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """A = b1 a + (1 - b1) g, s = b2 s + (1 - b2) g^2, and p as in ``training/optimizers.py``.

    Numbers: decay added to g, b1, b2, epsilon, decay taken off p, 1 - b1, 1 - b2. Rates: rate,
    rate / (1 - b1^t), 1 / (1 - b2^t).
    """
    columns = k[2]
    decay, b1, b2 = splat(s[k[8]]), splat(s[k[8] + 1]), splat(s[k[8] + 2])
    epsilon, new1, new2 = splat(s[k[8] + 3]), splat(s[k[8] + 5]), splat(s[k[8] + 6])
    rates, factor = RATES_EACH * c[STEP], broadcast(s, k[9])
    rate = splat(doubles(c[RATES])[rates])
    corrected = splat(doubles(c[RATES])[rates + 1])
    square_share = splat(doubles(c[RATES])[rates + 2])
    keep = splat(1.0) - rate * splat(s[k[8] + 4])
    for n in range(k[1] * i // j, k[1] * (i + 1) // j):
        for m in range(0, columns, LANES):
            place = n * columns + m
            p = load(s, k[0] + place)
            g = factor * gradient(s, c, k[3] + n * k[4] + m, k[5]) + decay * p
            mean = b1 * load(s, k[6] + place) + new1 * g
            square = b2 * load(s, k[7] + place) + new2 * g * g
            p = keep * p - corrected * mean / (root(square * square_share) + epsilon)
            store_part(s, k[6] + place, mean, columns - m)
            store_part(s, k[7] + place, square, columns - m)
            store_part(s, k[0] + place, p, columns - m)


KERNELS = (total, squares, clip, average, sgd, adam)
HELPERS = (gradient,)
