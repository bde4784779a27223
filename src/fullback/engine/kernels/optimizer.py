"""Optimizers: what a step does with the sum of the chunks' gradients, a parameter's rows at a time.

The gradient of a parameter lies in one piece or, for each chunk of blocks, in one; chunks are added
in their order. For all workers: each takes some rows.

Operands: ``p`` has rows of columns; ``g`` is the gradient, ``pitch`` the length of its rows,
``chunk_step`` the step from one chunk's to the next, or 0 where there is one piece; ``memory1``
and ``memory2`` are what the optimizer remembers of p. In shared memory are its ``settings``, which
begin with the weight decay, and the ``factor`` by which gradients are clipped.
"""

from __future__ import annotations

from fullback.engine.context import AVERAGE, CHUNKS, RATES, RATES_EACH, STEP
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
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

_GRADIENT = "rows columns pitch chunk_step"
_STEP = f"{_GRADIENT} settings factor"


def gradient(s: Memory, c: Integers, k: Operands, n: int, m: int) -> Vector:
    """Return a vector of row n of the gradient, from column m on: the sum over the chunks."""
    place = k.g + n * k.pitch + m
    total = load(s, place)
    if k.chunk_step:
        for _ in range(1, c[CHUNKS]):
            place += k.chunk_step
            total = total + load(s, place)
    return total


def rows_of_worker(count: int, i: int, j: int) -> tuple[int, int]:
    """Return the first of so many rows that worker i of j takes, and the end of them."""
    return count * i // j, count * (i + 1) // j


@kernel(reads="g", writes="p", numbers=_GRADIENT, for_workers=True)
def total(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Add up the chunks, and nothing else. ``p`` is where the sum goes, in rows without gaps."""
    columns, (first, stop) = k.columns, rows_of_worker(k.rows, i, j)
    for n in range(first, stop):
        for m in range(0, columns, LANES):
            store_part(s, k.p + n * columns + m, gradient(s, c, k, n, m), columns - m)


@kernel(reads="g", writes="sums", numbers=_GRADIENT, for_workers=True)
def squares(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Write down the sum of the squares of every row of a gradient."""
    columns, (first, stop) = k.columns, rows_of_worker(k.rows, i, j)
    for n in range(first, stop):
        sums = splat(0.0)
        for m in range(0, columns, LANES):
            g = gradient(s, c, k, n, m)
            sums = sums + select(first_lanes(columns - m), g * g, splat(0.0))
        s[k.sums + n] = sum_lanes(sums)


@kernel(reads="sums", writes="factor", numbers="count limit", for_workers=True)
def clip(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Find the factor that brings the length of all gradients together to a limit, at most.

    There are ``count`` sums of squares; the limit is in shared memory.
    """
    if i == 0:  # one worker adds all up, in their order
        sums = splat(0.0)
        for m in range(0, k.count, LANES):
            v = load(s, k.sums + m)
            sums = sums + select(first_lanes(k.count - m), v, splat(0.0))
        length = lane(root(splat(sum_lanes(sums))), 0)
        s[k.factor] = s[k.limit] / length if length > s[k.limit] else 1.0


@kernel(reads="p", writes="e", numbers="rows columns", for_workers=True)
def average(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """E += share (p - e), after the optimizer's step."""
    columns, (first, stop) = k.columns, rows_of_worker(k.rows, i, j)
    share = splat(doubles(c[RATES])[RATES_EACH * c[STEP] + AVERAGE])
    for n in range(first, stop):
        for m in range(0, columns, LANES):
            place = n * columns + m
            e = load(s, k.e + place)
            e = e + share * (load(s, k.p + place) - e)
            store_part(s, k.e + place, e, columns - m)


@kernel(reads="g", writes="p", numbers=f"{_STEP} memory1", for_workers=True)
def sgd(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """V = m v + g, p -= rate v; with Nesterov, p -= rate (g + m v).

    Settings: decay, m, 1 for Nesterov's. The first memory is v.
    """
    columns, (first, stop), nesterov = k.columns, rows_of_worker(k.rows, i, j), s[k.settings + 2]
    decay, momentum = splat(s[k.settings]), splat(s[k.settings + 1])
    rate, factor = splat(doubles(c[RATES])[RATES_EACH * c[STEP]]), broadcast(s, k.factor)
    for n in range(first, stop):
        for m in range(0, columns, LANES):
            at_p, at_v = k.p + n * columns + m, k.memory1 + n * columns + m
            p = load(s, at_p)
            g = factor * gradient(s, c, k, n, m) + decay * p
            v = momentum * load(s, at_v) + g
            step = g + momentum * v if nesterov else v
            store_part(s, at_v, v, columns - m)
            store_part(s, at_p, p - rate * step, columns - m)


@kernel(reads="g", writes="p", numbers=f"{_STEP} memory1 memory2", for_workers=True)
def adam(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """A = b1 a + (1 - b1) g, s = b2 s + (1 - b2) g^2, and p as in ``training/optimizers.py``.

    Settings: decay added to g, b1, b2, epsilon, decay taken off p, 1 - b1, 1 - b2. Rates: rate,
    rate / (1 - b1^t), 1 / (1 - b2^t). The memories are a and s.
    """
    columns, (first, stop), at = k.columns, rows_of_worker(k.rows, i, j), k.settings
    decay, b1, b2 = splat(s[at]), splat(s[at + 1]), splat(s[at + 2])
    epsilon, new1, new2 = splat(s[at + 3]), splat(s[at + 5]), splat(s[at + 6])
    rates, factor = RATES_EACH * c[STEP], broadcast(s, k.factor)
    rate = splat(doubles(c[RATES])[rates])
    corrected = splat(doubles(c[RATES])[rates + 1])
    square_share = splat(doubles(c[RATES])[rates + 2])
    keep = splat(1.0) - rate * splat(s[at + 4])
    for n in range(first, stop):
        for m in range(0, columns, LANES):
            place = n * columns + m
            p = load(s, k.p + place)
            g = factor * gradient(s, c, k, n, m) + decay * p
            mean = b1 * load(s, k.memory1 + place) + new1 * g
            square = b2 * load(s, k.memory2 + place) + new2 * g * g
            p = keep * p - corrected * mean / (root(square * square_share) + epsilon)
            store_part(s, k.memory1 + place, mean, columns - m)
            store_part(s, k.memory2 + place, square, columns - m)
            store_part(s, k.p + place, p, columns - m)


KERNELS = (total, squares, clip, average, sgd, adam)
HELPERS = (gradient, rows_of_worker)
