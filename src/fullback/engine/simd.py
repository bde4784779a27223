"""Vectors of sixteen floats, one a lane, and register tiles of them.

Kernels are plain Python functions over these few words. Run as they are, they compute with NumPy,
slowly, so that a reader can step through a kernel with a debugger and coverage sees its lines.
``compiler.py`` compiles the same functions with the words' LLVM form in ``words/``, where a vector
is one register of a CPU with AVX-512, two with AVX2 and four with SSE or Neon; or always one, of
fewer lanes, in kernels that loop over the lanes of a block (``by_register``).

Notation: ``a`` (and ``w``, ``x``, ``g``) is memory, an array of float32, and ``i`` the place in it
where something begins, counted in floats. A *tile* of F x P vectors stays in registers while a sum
of many products is built up in it; F and P are written as literals. Vectors know + - * / and
comparisons, which give masks; masks know & | and ~.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.layers.dropout import GOLDEN, split_mix

LANES = 16

Memory: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Vector: TypeAlias = NDArray[np.float32]  # (16,)
Mask: TypeAlias = NDArray[np.bool_]  # (16,)
Tile: TypeAlias = NDArray[np.float32]  # (F, P, 16)
Operands: TypeAlias = Any  # the attributes that a kernel has declared, see ``operands.py``
Kernel: TypeAlias = Callable[[Memory, Memory, Integers, Operands, int, int], None]

# Memory ------------------------------------------------------------------------------------------


def at(a: Memory, i: int) -> Memory:
    """Return the memory from place ``i`` on."""
    return a[i:]


def row(table: Integers, i: int) -> Integers:
    """Return the integers from place ``i`` on."""
    return table[i:]


def load(a: Memory, i: int) -> Vector:
    """Return the vector at ``i``."""
    return a[i : i + LANES].copy()


def load_bytes(address: int, i: int) -> Vector:
    """Return sixteen bytes, from place ``i`` after an address on, as floats."""
    return _array(address + i, np.uint8)[:LANES].astype(np.float32)  # type: ignore[no-any-return]


def store(a: Memory, i: int, v: Vector) -> None:
    """Write a vector to ``i``."""
    a[i : i + LANES] = v


def store_part(a: Memory, i: int, v: Vector, count: int) -> None:
    """Write the first ``count`` lanes of a vector to ``i``."""
    count = min(count, LANES)
    a[i : i + count] = v[:count]


def broadcast(a: Memory, i: int) -> Vector:
    """Return the one float at ``i`` in every lane."""
    return np.full(LANES, a[i], np.float32)


def splat(value: float) -> Vector:
    """Return a number in every lane."""
    return np.full(LANES, value, np.float32)


def integers(address: int) -> Integers:
    """Return the integers at an address; how many is the caller's to know."""
    table: Integers = _array(address, np.int64)
    return table


def doubles(address: int) -> Doubles:
    """Return the doubles at an address."""
    table: Doubles = _array(address, np.float64)
    return table


def floats(address: int) -> Memory:
    """Return the floats at an address."""
    table: Memory = _array(address, np.float32)
    return table


def _array(address: int, dtype: Any) -> Any:
    size = 2**40 // np.dtype(dtype).itemsize
    kind = np.ctypeslib.as_ctypes_type(dtype)
    return np.ctypeslib.as_array((kind * size).from_address(int(address)))


# Integers ----------------------------------------------------------------------------------------


def smaller(i: int, j: int) -> int:
    """Return the smaller of two integers; unlike Numba's own ``min`` it cannot raise."""
    return min(i, j)


def larger(i: int, j: int) -> int:
    """Return the larger of two integers."""
    return max(i, j)


# Arithmetic --------------------------------------------------------------------------------------


def fma(a: Vector, b: Vector, c: Vector) -> Vector:
    """Return a b + c, rounded once."""
    exact = a.astype(np.float64) * b + c  # the product of two floats is exact in double
    return exact.astype(np.float32)


def plus(a: Vector, b: Vector) -> Vector:
    """Return a + b; unlike ``+``, a sum of many is added up in the order in which it is written."""
    return a + b


def over(a: Vector, b: Vector) -> Vector:
    """Return a / b, rounded once; ``/`` may be a product with 1 / b."""
    return a / b


def rectify(v: Vector) -> Vector:
    """Return max(v, 0), and NaN where v is NaN."""
    return np.where(v < 0, np.float32(0), v)


def select(mask: Mask, a: Vector, b: Vector) -> Vector:
    """Return a where the mask is set, else b."""
    return np.where(mask, a, b)


def either_nan(a: Vector, b: Vector) -> Mask:
    """Return where a or b is NaN."""
    return np.isnan(a) | np.isnan(b)


def first_lanes(count: int) -> Mask:
    """Return the mask of the first ``count`` lanes."""
    return np.arange(LANES) < count


def lane(v: Vector, i: int) -> float:
    """Return the float in one lane, as float32."""
    return np.float32(v[i])  # type: ignore[return-value]


def sum_lanes(v: Vector) -> float:
    """Return the sum of all lanes, added up in pairs, as float32."""
    n = LANES
    while n > 1:
        n //= 2
        v = v[:n] + v[n : 2 * n]
    return np.float32(v[0])  # type: ignore[return-value]


def root(v: Vector) -> Vector:
    """Return the square root."""
    return np.sqrt(v)


def nearest(v: Vector) -> Vector:
    """Return the nearest whole numbers, halves to even."""
    return np.rint(v)


def whole(v: Vector) -> Vector:
    """Return the largest whole numbers that are not above, for numbers of less than 2^31."""
    return np.floor(v)


def times_power(v: Vector, n: Vector) -> Vector:
    """Return v 2^n for whole n, where both v and that are positive normal numbers."""
    with np.errstate(invalid="ignore"):
        return (v.view(np.int32) + (n.astype(np.int32) << 23)).view(np.float32)


def exponent(v: Vector) -> Vector:
    """Return e where v = m 2^e with 1 <= m < 2, for positive normal v."""
    return ((v.view(np.int32) >> 23) - 127).astype(np.float32)


def mantissa(v: Vector) -> Vector:
    """Return m where v = m 2^e with 1 <= m < 2, for positive normal v."""
    return ((v.view(np.int32) & 0x7FFFFF) | 0x3F800000).view(np.float32)


def stays(key: int, first: int, step: int, threshold: int) -> Mask:
    """Return which lanes a dropout leaves in: lane l draws number ``first + l * step``.

    The draw is SplitMix64 of the key and the number, as in ``layers/dropout.py``; its upper 53
    bits are compared with ``threshold``.
    """
    with np.errstate(over="ignore"):
        number = np.uint64(first + 1) + np.arange(LANES, dtype=np.uint64) * np.uint64(step)
        z = split_mix(number * GOLDEN + np.uint64(int(key) & 0xFFFFFFFFFFFFFFFF))
    return (z >> np.uint64(11)) >= np.uint64(threshold)


def draw(keys: Integers, number: int) -> Vector:
    """Return a number in [0, 1) in every lane: draw ``number`` of the lane's own key.

    SplitMix64, as in ``stays``; its upper 24 bits are what a float holds.
    """
    with np.errstate(over="ignore"):
        z = np.asarray(keys[:LANES]).view(np.uint64)
        z = split_mix(z + np.uint64(number + 1) * GOLDEN)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


# Across lanes ------------------------------------------------------------------------------------


def pick(a: Memory, i: int, rows: Vector, columns: Vector, pitch: int) -> Vector:
    """Return each lane's own cell of a map: of whole rows and columns, counted from ``i``."""
    places = i + rows.astype(np.int64) * pitch + columns.astype(np.int64) * LANES
    return np.take(a, places + np.arange(LANES))


def turned(v: Vector) -> Vector:
    """Return in every lane what the next one has, and in the last what the first one has."""
    return np.roll(v, -1)


# Tiles -------------------------------------------------------------------------------------------


def zeros(f: int, p: int) -> Tile:
    """Return a tile of zeros."""
    return np.zeros((f, p, LANES), np.float32)


def biases(tile: Tile, a: Memory, i: int) -> Tile:
    """Return a tile of the same size whose row number n is the float at ``i + n``, in every lane.

    Where ``i`` is negative, the tile is zeros.
    """
    if i < 0:
        return np.zeros_like(tile)
    f, p, _ = tile.shape
    return np.repeat(a[i : i + f], p * LANES).reshape(f, p, LANES)


def rows_of(tile: Tile) -> int:
    """Return F, a tile's rows of vectors."""
    return len(tile)


def outer(tile: Tile, w: Memory, i: int, w_step: int, x: Memory, j: int, x_step: int) -> Tile:
    """Add the products of F floats, broadcast, and P vectors: the tile of a matrix product.

    ``tile[f, p] += w[i + f * w_step] * x[j + p * x_step]``
    """
    weights = w[i : i + len(tile) * w_step : w_step] if w_step else np.full(len(tile), w[i])
    return _fma_tile(weights[:, None, None], _vectors(x, j, x_step, tile.shape[1])[None], tile)


def pairs(tile: Tile, y: Memory, i: int, y_step: int, x: Memory, j: int, x_step: int) -> Tile:
    """Add the products of F vectors and P vectors, lane by lane.

    ``tile[f, p] += y[i + f * y_step] * x[j + p * x_step]``
    """
    return _fma_tile(
        _vectors(y, i, y_step, tile.shape[0])[:, None],
        _vectors(x, j, x_step, tile.shape[1])[None],
        tile,
    )


def slide(tile: Tile, w: Memory, i: int, x: Memory, j: int, pitch: int) -> Tile:
    """Add what F filters of 3 x 3 weights answer at four neighbouring places, 2 x 2.

    ``tile[f, 2 p + q] += sum over r, s of w[i + (3 r + s) * F + f] * x[j + (p + r) * pitch +
    (q + s) * 16]``
    """
    for r in range(3):
        for s in range(3):
            for p in range(2):
                start = j + (p + r) * pitch + s * LANES
                part = outer(tile[:, 2 * p : 2 * p + 2], w, i, 1, x, start, LANES)
                tile = np.concatenate([tile[:, : 2 * p], part, tile[:, 2 * p + 2 :]], axis=1)
            i += len(tile)
    return tile


def slide_back(
    tile: Tile, v: tuple[Vector, Vector, Vector, Vector], x: Memory, j: int, pitch: int
) -> Tile:
    """Add what one filter's nine weights get from the deltas of four neighbouring places, 2 x 2.

    ``tile[0, 3 r + s] += sum over p, q of v[2 p + q] * x[j + (p + r) * pitch + (q + s) * 16]``
    """
    for n in range(4):
        for r in range(3):
            start = j + (n // 2 + r) * pitch + n % 2 * LANES
            products = _fma_tile(
                v[n][None, None], _vectors(x, start, LANES, 3)[None], tile[:, 3 * r : 3 * r + 3]
            )
            tile = np.concatenate([tile[:, : 3 * r], products, tile[:, 3 * r + 3 :]], axis=1)
    return tile


def rectify_tile(tile: Tile) -> Tile:
    """Return max(v, 0) of every vector, and NaN where it is NaN."""
    return np.where(tile < 0, np.float32(0), tile)


def cells(tile: Tile, f: int) -> tuple[Vector, ...]:
    """Return the vectors of a tile's row f, a literal."""
    return tuple(tile[f])


def load_tile(f: int, p: int, a: Memory, i: int, f_step: int, p_step: int) -> Tile:
    """Return the tile whose vector (f, p) is at ``i + f * f_step + p * p_step``."""
    return np.stack([_vectors(a, i + n * f_step, p_step, p) for n in range(f)])


def store_tile(a: Memory, i: int, f_step: int, p_step: int, tile: Tile) -> None:
    """Write vector (f, p) to ``i + f * f_step + p * p_step``."""
    for f, vectors in enumerate(tile):
        for p, v in enumerate(vectors):
            store(a, i + f * f_step + p * p_step, v)


def store_squares(a: Memory, i: int, f_step: int, pitch: int, tile: Tile) -> None:
    """Write rows of four vectors as 2 x 2 cells.

    Vector (f, 2 p + q) goes to ``i + f * f_step + p * pitch + q * 16``.
    """
    for f, vectors in enumerate(tile):
        for n, v in enumerate(vectors):
            store(a, i + f * f_step + n // 2 * pitch + n % 2 * LANES, v)


def store_lane_sums(
    a: Memory, i: int, f_step: int, p_step: int, tile: Tile, used: Mask, add: bool
) -> None:
    """Write, or add, each vector's sum over its used lanes to ``i + f * f_step + p * p_step``."""
    for f, vectors in enumerate(tile):
        for p, v in enumerate(vectors):
            place = i + f * f_step + p * p_step
            total = sum_lanes(np.where(used, v, np.float32(0)))
            a[place] = a[place] + total if add else total


def _vectors(x: Memory, j: int, step: int, count: int) -> NDArray[np.float32]:
    return np.stack([x[j + p * step : j + p * step + LANES] for p in range(count)])


def _fma_tile(a: NDArray[np.float32], b: NDArray[np.float32], c: Tile) -> Tile:
    exact = a.astype(np.float64) * b + c
    return exact.astype(np.float32)


# Between images in rows and images in lanes ------------------------------------------------------


def pixels(rows: Integers, i: int, kind: int) -> Tile:
    """Return pixels i to i + 15 of sixteen images as a (1, 16) tile, an image a lane.

    ``rows`` holds the images' addresses; kind is 0 for bytes, 1 for float32, 2 for float64.
    """
    dtype = np.dtype((np.uint8, np.float32, np.float64)[kind])
    images = [_array(rows[n] + i * dtype.itemsize, dtype)[:LANES] for n in range(LANES)]
    return np.stack(images, axis=1).astype(np.float32)[None]


def transpose(a: Memory, i: int, step: int, b: Memory, j: int, b_step: int) -> None:
    """Turn sixteen vectors round: lane l of vector n becomes lane n of vector l."""
    block = _vectors(a, i, step, LANES)
    for n in range(LANES):
        store(b, j + n * b_step, block[:, n])


# The machine -------------------------------------------------------------------------------------


def call(
    kernels: Sequence[Kernel],
    number: int,
    a: Memory,
    s: Memory,
    c: Integers,
    k: Integers,
    i: int,
    j: int,
) -> None:
    """Call a kernel by its number."""
    kernels[number](a, s, c, k, i, j)


def meet(sync: Integers, workers: int) -> None:
    """Wait until all workers have come here."""


def flush_denormals() -> int:
    """Make this thread's floats too small for a full mantissa count as 0; return the old mode."""
    return 0


def restore_denormals(mode: int) -> None:
    """Put the mode back that ``flush_denormals`` returned."""
