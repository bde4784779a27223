"""The words that kernels are written in: compiled against Python, bit for bit.

And the functions made of them against NumPy in float64, and the whole engine in plain Python.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fullback.augment import draws
from fullback.engine import simd
from fullback.engine.kernels import functions
from fullback.engine.kernels.functions import cosine, exp, log, sine, tanh
from fullback.engine.library import library
from fullback.engine.operands import DECLARATIONS, in_python, kernel
from fullback.engine.simd import (
    LANES,
    at,
    biases,
    broadcast,
    cells,
    doubles,
    draw,
    either_nan,
    exponent,
    first_lanes,
    floats,
    fma,
    integers,
    lane,
    larger,
    load,
    load_bytes,
    load_tile,
    mantissa,
    nearest,
    outer,
    over,
    pairs,
    pick,
    pixels,
    plus,
    rectify,
    rectify_tile,
    root,
    row,
    rows_of,
    select,
    slide,
    slide_back,
    smaller,
    splat,
    stays,
    store,
    store_lane_sums,
    store_part,
    store_squares,
    store_tile,
    sum_lanes,
    times_power,
    transpose,
    turned,
    whole,
    zeros,
)
from fullback.layers.dropout import uniform

OF_THE_LOOP = {"call", "meet", "flush_denormals", "restore_denormals"}
"""What only ``loop.run`` says: every run of ``test_engine_networks.py`` does."""

needs_compiler = pytest.mark.skipif(not library().compiled, reason="NUMBA_DISABLE_JIT is set")


# Kernels that say the words, from memory a to memory s --------------------------------------------


def of_vectors(a, s, c, k, i, j):
    one, zero = splat(1.0), splat(0.0)
    x, y, z = load(a, i), load(a, i + LANES), load(a, i + 2 * LANES)
    store(s, j, x + y)
    store(s, j + 16, x - y)
    store(s, j + 32, x * y)
    store(s, j + 48, fma(x, y, z))
    store(s, j + 64, rectify(x))
    store(s, j + 80, select(x > y, one, zero))
    store(s, j + 96, select(x >= y, one, zero))
    store(s, j + 112, select(x < y, one, zero))
    store(s, j + 128, select(x <= y, one, zero))
    store(s, j + 144, select(x == y, one, zero))
    store(s, j + 160, select(either_nan(x, y), x, y))
    store(s, j + 176, select((x > y) & ~(y < z), one, zero))
    store(s, j + 192, select((x > y) | (y < z), one, zero))
    store(s, j + 208, root(x))
    store(s, j + 224, nearest(x))
    store(s, j + 240, broadcast(a, i + 5))
    store_part(s, j + 256, x, k[0])
    store(s, j + 272, select(first_lanes(k[0]), x, y))
    store(s, j + 288, splat(lane(x, k[1])))
    store(s, j + 304, splat(sum_lanes(x)))
    store(s, j + 320, splat(k[0] * 1000000007))
    store(s, j + 336, splat(at(a, i + 3)[2]))
    store(s, j + 352, x / y)
    store(s, j + 368, plus(plus(x, y), z))
    store(s, j + 384, over(x, y))


def of_bits(a, s, c, k, i, j):
    x = load(a, i)
    store(s, j, exponent(x))
    store(s, j + 16, mantissa(x))
    store(s, j + 32, times_power(x, load(a, i + LANES)))


def of_whole_numbers(a, s, c, k, i, j):
    c[0], c[1] = smaller(i, j), larger(i, j)
    c[2], c[3] = row(c, 9)[1], integers(k[0])[1]
    s[0], s[1] = doubles(k[1])[1], floats(k[2])[1]


def of_draws(a, s, c, k, i, j):
    kept = stays(c[0], i, j, c[1])
    store(s, 0, select(kept, splat(1.0), splat(0.0)))


def of_lanes(a, s, c, k, i, j):
    """Draws of the keys in c, and each lane's own cell of a map in a."""
    store(s, 0, draw(c, k[0]))
    store(s, 16, turned(load(a, 0)))
    store(s, 32, pick(a, i, load(a, 0), load(a, 16), j))
    x = load(a, 32) * splat(37.5)
    store(s, 48, whole(x) - splat(1.0))
    store(s, 64, x - whole(x))


def of_tiles(a, s, c, k, i, j):
    """Tiles of the shapes that kernels use; k: steps of the first operand, and of the second."""
    tile = biases(zeros(4, 7), a, i)
    tile = outer(tile, a, i + 9, k[0], a, i + 40, k[1])
    store_tile(s, j, 7 * LANES, LANES, tile)
    j += 28 * LANES
    tile = zeros(4, 7)
    tile = pairs(tile, a, i + 9, k[1], a, i + 500, k[0])
    store_tile(s, j, LANES, 4 * LANES, tile)
    j += 28 * LANES
    square = slide(load_tile(4, 4, a, i, 4 * LANES, LANES), a, i + 3, a, i + 200, k[2])
    store_squares(s, j, 4 * LANES, 2 * LANES, rectify_tile(square))
    j += 16 * LANES
    one = slide(zeros(1, 4), a, i + 3, a, i + 200, k[2])
    store_tile(s, j, 0, LANES, one)
    j += 4 * LANES
    nine = slide_back(
        zeros(1, 9),
        cells(one, 0),
        a,
        i + 7,
        k[2],
    )
    store_tile(s, j, 0, LANES, nine)
    j += 9 * LANES
    column = outer(biases(zeros(8, 1), a, i), a, i + 9, k[0], a, i + 40, k[1])
    store_tile(s, j, LANES, 0, column)
    j += 8 * LANES
    store_lane_sums(s, j, 9, 1, nine, first_lanes(k[3]), False)
    store_lane_sums(s, j, 9, 1, nine, first_lanes(LANES), i == 0)
    store_lane_sums(s, j + 9, 2, 3, column, first_lanes(k[3]), i > 0)
    j += 32
    store(s, j, cells(square, 3)[2])
    store_tile(s, j + LANES, 0, LANES, biases(nine, a, -1))
    s[j + 10 * LANES] = rows_of(square) + 10 * rows_of(one)


def of_images(a, s, c, k, i, j):
    store_tile(s, 0, 0, LANES, pixels(k, i, 0))
    store_tile(s, 256, 0, LANES, pixels(row(k, 16), i, 1))
    store_tile(s, 512, 0, LANES, pixels(row(k, 32), i, 2))
    store(s, 1100, load_bytes(k[0], i))
    transpose(a, i, j, s, 768, 20)


@kernel(reads="x:map w", writes="y:map", numbers="shape:shape n size:pair")
def of_operands(a, s, c, k, i, j):
    """Operands, one by one, and as helpers take them."""
    channels, height, width = k.shape
    c[0], c[1], c[2] = k.x.place, k.x.plane, k.x.pitch
    c[3], c[4], c[5], c[6] = k.w, k.y.place, k.y.plane, k.y.pitch
    c[7], c[8], c[9], c[10], c[11], c[12] = channels, height, width, k.n, k.size.rows, k.size[1]


def of_functions(a, s, c, k, i, j):
    for n in range(0, k[0], LANES):
        x = load(a, n)
        store(s, n, exp(x))
        store(s, k[0] + n, log(x))
        store(s, 2 * k[0] + n, tanh(x))
        store(s, 3 * k[0] + n, sine(x))
        store(s, 4 * k[0] + n, cosine(x))


keep = []  # what the compiled code must not outlive
KERNELS = (
    of_vectors, of_bits, of_whole_numbers, of_draws, of_lanes, of_tiles, of_images, of_operands,
    of_functions,
)  # fmt: skip


@pytest.fixture(scope="module")
def compiled():
    """Return the kernels compiled, taking arrays as the Python ones do."""
    from numba.extending import register_jitable

    from fullback.engine import compiler

    for helper in functions.HELPERS:
        register_jitable(forceinline=True, **compiler._OPTIONS)(helper)
    return {kernel: taking_arrays(compiler, kernel) for kernel in KERNELS}


def taking_arrays(compiler, kernel):
    import numba

    entry = numba.cfunc(compiler.signature(kernel), **compiler._OPTIONS)(kernel)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 2)(entry.address)
    keep.append(entry)

    def run(a, s, c, k, i, j):
        function(*(array.ctypes.data for array in (a, s, c, k)), i, j)

    return run


def memory(seed, size=4096):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def both(compiled, kernel, a, k=(), i=0, j=0, c=(), size=4096):
    """Run a kernel compiled and in Python; return what both wrote to s and c."""
    results = []
    python = in_python(kernel) if kernel in DECLARATIONS else kernel
    for run in (compiled[kernel], python):
        s, whole = np.full(size, -77, np.float32), np.zeros(32, np.int64)
        whole[: len(c)] = c
        with np.errstate(all="ignore"):
            run(a, s, whole, np.array([*k, 0, 0], np.int64), i, j)
        results.append((s, whole))
    return results


def assert_same(results):
    (s, c), (s_python, c_python) = results
    np.testing.assert_array_equal(s, s_python)  # NaN equals NaN, and 0 is -0
    np.testing.assert_array_equal(c, c_python)


def test_every_word_is_said_here():
    words = {
        name
        for name, function in inspect.getmembers(simd, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == simd.__name__
    }
    said = set(re.findall(r"\w+", "".join(inspect.getsource(kernel) for kernel in KERNELS)))
    assert words - said == OF_THE_LOOP


TINY = float(np.finfo(np.float32).tiny)
NAN, INF = np.nan, np.inf
SPECIAL = np.float32(
    [NAN, INF, -INF, 0, -0.0, 1, -1, 0.5, 1.5, -2.5, TINY, -TINY, TINY / 8, 3e38, -3e38, 7]
)


@needs_compiler
@pytest.mark.parametrize("count", [0, 1, 7, 16, 40])
def test_vectors(compiled, count):
    for seed in range(20):
        results = both(compiled, of_vectors, memory(seed), k=(count, seed % LANES), i=seed)
        assert_same(results)
    for shift in range(LANES):
        a = np.concatenate([SPECIAL, np.roll(SPECIAL, shift), np.roll(SPECIAL, 3 * shift)])
        assert_same(both(compiled, of_vectors, a, k=(count, shift)))


@needs_compiler
def test_bits(compiled):
    rng = np.random.default_rng(0)
    for _ in range(50):
        # positive normal numbers, and powers of 2 that lead from one to another
        bits = rng.integers(0x00800000, 0x7F800000, (2, LANES), dtype=np.int32)
        a = np.concatenate([bits[0].view(np.float32), (bits[1] >> 23) - (bits[0] >> 23)])
        a = a.astype(np.float32)
        assert_same(both(compiled, of_bits, a))
        desired = np.frexp(a[:LANES])
        s, _ = both(compiled, of_bits, a)[1]
        np.testing.assert_array_equal(s[:LANES], desired[1] - 1)
        np.testing.assert_array_equal(s[LANES : 2 * LANES], desired[0] * 2)
        power = a[LANES:].astype(int)
        np.testing.assert_array_equal(s[2 * LANES : 3 * LANES], np.ldexp(a[:LANES], power))


@needs_compiler
def test_whole_numbers(compiled):
    whole, double, single = np.array([5, -6]), np.array([1.5, 2.25]), np.float32([3, -7.5])
    k = [array.ctypes.data for array in (whole, double, single)]
    c = np.arange(20) * 3
    for i, j in ((-5, 9), (9, -5), (2, 2)):
        results = both(compiled, of_whole_numbers, memory(0), k=k, i=i, j=j, c=c)
        assert_same(results)
        s, written = results[0]
        assert written[:4].tolist() == [min(i, j), max(i, j), 30, -6]
        assert s[:2].tolist() == [2.25, -7.5]


@needs_compiler
def test_draws(compiled):
    for key in (0, 7, -1, 2**63 - 1, -(2**63)):
        for rate in (0.0, 0.1, 0.5, 0.999):
            threshold = int(np.ceil(rate * 2**53))
            results = both(compiled, of_draws, memory(0), i=100, j=37, c=(key, threshold))
            assert_same(results)
            draws = uniform(key & (2**64 - 1), 100 + 16 * 37)[100::37][:LANES]
            np.testing.assert_array_equal(results[0][0][:LANES], draws >= rate)


@needs_compiler
def test_lanes(compiled):
    rng = np.random.default_rng(0)
    for number in (0, 5, 1000):
        keys = rng.integers(-(2**63), 2**63, LANES)
        a = memory(number)
        rows, columns = rng.integers(-2, 5, LANES), rng.integers(-2, 7, LANES)
        a[:LANES], a[LANES : 2 * LANES] = rows, columns
        start, pitch = 1000, 9 * LANES
        results = both(compiled, of_lanes, a, k=(number,), i=start, j=pitch, c=keys)
        assert_same(results)
        s, _ = results[0]
        np.testing.assert_array_equal(s[:16], draws(keys.view(np.uint64), number))
        np.testing.assert_array_equal(s[16:32], np.roll(rows, -1))
        places = start + rows * pitch + columns * LANES + np.arange(LANES)
        np.testing.assert_array_equal(s[32:48], a[places])
        assert (s[48:64] == np.floor(a[32:48] * np.float32(37.5)) - 1).all()


@needs_compiler
@pytest.mark.parametrize(("w_step", "x_step"), [(0, 16), (1, 32), (9, 0), (17, 48)])
def test_tiles(compiled, w_step, x_step):
    for used in (1, 9, 16):
        for i in (0, 3):
            k = (w_step, x_step, 160, used)
            assert_same(both(compiled, of_tiles, memory(i), k=k, i=i, j=5))
    special = memory(1)
    special[::97] = np.resize(SPECIAL, len(special[::97]))
    assert_same(both(compiled, of_tiles, special, k=(w_step, x_step, 160, 16)))


@needs_compiler
def test_images(compiled):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 40), dtype=np.uint8)
    numbers = rng.normal(size=(16, 40))
    numbers[0, :4] = np.nan, np.inf, -np.inf, 1e300
    with np.errstate(over="ignore"):
        singles = numbers.astype(np.float32)
    images = pixels, singles, numbers
    k = [own.ctypes.data + n * own.strides[0] for own in images for n in rng.permutation(16)]
    for i in (0, 5, 24):
        results = both(compiled, of_images, memory(0), k=k, i=i, j=21)
        assert_same(results)


@needs_compiler
def test_operands(compiled):
    results = both(compiled, of_operands, memory(0), k=range(100, 113))
    assert_same(results)
    assert results[0][1][:13].tolist() == list(range(100, 113))


# Functions ----------------------------------------------------------------------------------------


def units_in_the_last_place(y, exact):
    """Return how far y is from the exact values, in steps between floats of their size."""
    with np.errstate(over="ignore"):
        step = np.spacing(np.abs(exact.astype(np.float32)))
    return np.abs(y - exact) / step


def values(compiled, x):
    """Return the functions' values, compiled, each beside its name."""
    x = np.resize(x, -(-len(x) // LANES) * LANES).astype(np.float32)
    names = ("exp", "log", "tanh", "sine", "cosine")
    s = np.zeros(len(names) * len(x), np.float32)
    empty = np.zeros(4, np.int64)
    compiled[of_functions](x, s, empty, np.array([len(x)]), 0, 0)
    return x, dict(zip(names, s.reshape(len(names), -1), strict=True))


def every_kind_of_float(count):
    """Floats of every size, of both signs."""
    bits = np.random.default_rng(0).integers(0, 2**32, count, dtype=np.uint32)
    x = bits.view(np.float32)
    return x[np.isfinite(x)]


@needs_compiler
def test_functions_are_within_two_units_in_the_last_place(compiled):
    rng = np.random.default_rng(1)
    near = rng.uniform(-90, 90, 2**18), rng.uniform(-1, 1, 2**18), rng.uniform(0.9, 1.1, 2**18)
    x = np.concatenate([every_kind_of_float(2**19), *near])
    x, made = values(compiled, x)
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        exact = {"exp": np.exp(wide), "log": np.log(wide), "tanh": np.tanh(wide)}
    largest = float(np.finfo(np.float32).max)
    within = {
        "exp": (exact["exp"] >= TINY) & (exact["exp"] <= largest),
        "log": x >= TINY,
        "tanh": abs(x) >= TINY,
    }
    for name, where in within.items():
        assert where.sum() > 2**19
        error = units_in_the_last_place(made[name][where], exact[name][where])
        assert error.max() <= 2, f"{name}({x[where][error.argmax()]!r}): {error.max()}"
    assert (made["exp"][exact["exp"] < 0.9999 * TINY] == 0).all()
    assert np.isposinf(made["exp"][exact["exp"] > largest]).all()


@needs_compiler
def test_the_exponential_at_its_ends(compiled):
    """Every float around where it becomes infinite, and 0: one of them was NaN once."""
    steps = np.arange(-200, 201, dtype=np.int32)
    ends = [np.float32(end) for end in (88.72284, 44.36142, -87.33655, -88.72284, -103.97)]
    x = np.concatenate([(end.view(np.int32) + steps).view(np.float32) for end in ends])
    x, made = values(compiled, x)
    with np.errstate(all="ignore"):
        exact, hyperbolic = np.exp(x.astype(np.float64)), np.tanh(x.astype(np.float64))
    largest = float(np.finfo(np.float32).max)
    np.testing.assert_array_equal(np.isposinf(made["exp"]), exact > largest)
    normal = (exact <= largest) & (exact >= TINY)
    np.testing.assert_allclose(made["exp"][normal], exact[normal], rtol=3e-7)
    assert (made["exp"][exact < TINY] <= TINY).all()
    np.testing.assert_allclose(made["tanh"], hyperbolic, rtol=3e-7)


@needs_compiler
def test_functions_of_special_values(compiled):
    x = np.float32([NAN, INF, -INF, 0.0, -0.0, 3e38, -3e38, 88.73, -87.34, 1.0, TINY])
    _, made = values(compiled, x)
    some = {name: y[: len(x)] for name, y in made.items()}
    e = np.exp(1, dtype=np.float32)
    np.testing.assert_array_equal(some["exp"][:9], [NAN, INF, 0, 1, 1, INF, 0, INF, 0])
    assert abs(some["exp"][9] - e) <= 2 * np.spacing(e)
    assert some["exp"][10] == 1
    np.testing.assert_array_equal(some["log"][[0, 1]], [NAN, INF])
    assert some["log"][9] == 0
    np.testing.assert_array_equal(some["tanh"][:9], [NAN, 1, -1, 0, 0, 1, -1, 1, -1])


@needs_compiler
def test_sine_and_cosine(compiled):
    x, made = values(compiled, np.linspace(-np.pi, np.pi, 10_001))
    for name, exact in (("sine", np.sin), ("cosine", np.cos)):
        np.testing.assert_allclose(made[name], exact(x.astype(np.float64)), rtol=0, atol=1e-6)


# The whole engine in plain Python -----------------------------------------------------------------


@needs_compiler
def test_the_engine_runs_in_plain_python():
    """A reader with a debugger sees the same: every layer, gradients, and training."""
    here = Path(__file__).parent
    chosen = [
        "test_engine_kernels.py::test_layers_equal_the_reference",
        "test_engine_networks.py::test_numbers_of_images[2-pooled]",
        "test_engine_networks.py::test_numbers_of_images[17-normed]",
        "test_engine_networks.py::test_numbers_of_images[2-flat]",
        "test_engine_networks.py::test_one_step_of_an_optimizer",
        "test_engine_networks.py::test_nobody_touches_what_is_not_theirs[3-odd]",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *chosen],
        cwd=here,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
