"""Activations, cell by cell; y may lie where x lay, and dx where dy lay.

Forward operands: x, plane, pitch; y, plane, pitch; C, H, W; where in shared memory a slope is.
Backward operands: dx, plane, pitch; dy, plane, pitch; y, plane, pitch; C, H, W; the slope.
A row of features has C of 1 and H of 1.
"""

from __future__ import annotations

from fullback.engine.kernels.functions import tanh
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    load,
    rectify,
    select,
    splat,
    store,
)


def relu(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = max(x, 0)."""
    for channel in range(k[6]):
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            for n in range(0, k[8] * LANES, LANES):
                store(a, y + n, rectify(load(a, x + n)))


def relu_dx(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dx = dy where y > 0."""
    zero = splat(0.0)
    for channel in range(k[9]):
        for h in range(k[10]):
            dx, dy = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            y = k[6] + channel * k[7] + h * k[8]
            for n in range(0, k[11] * LANES, LANES):
                store(a, dx + n, select(load(a, y + n) > zero, load(a, dy + n), zero))


def leaky_relu(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = x where x > 0, else slope x."""
    zero, slope = splat(0.0), splat(s[k[9]])
    for channel in range(k[6]):
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            for n in range(0, k[8] * LANES, LANES):
                v = load(a, x + n)
                store(a, y + n, select(v > zero, v, slope * v))


def leaky_relu_dx(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dx = dy where y > 0, else slope dy."""
    zero, slope = splat(0.0), splat(s[k[12]])
    for channel in range(k[9]):
        for h in range(k[10]):
            dx, dy = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            y = k[6] + channel * k[7] + h * k[8]
            for n in range(0, k[11] * LANES, LANES):
                v = load(a, dy + n)
                store(a, dx + n, select(load(a, y + n) > zero, v, slope * v))


def tanh_of(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = tanh(x)."""
    for channel in range(k[6]):
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            for n in range(0, k[8] * LANES, LANES):
                store(a, y + n, tanh(load(a, x + n)))


def tanh_dx(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dx = dy (1 - y^2)."""
    for channel in range(k[9]):
        for h in range(k[10]):
            dx, dy = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            y = k[6] + channel * k[7] + h * k[8]
            for n in range(0, k[11] * LANES, LANES):
                v = load(a, y + n)
                store(a, dx + n, load(a, dy + n) * (splat(1.0) - v * v))


def sigmoid(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """y = (1 + tanh(x / 2)) / 2."""
    half = splat(0.5)
    for channel in range(k[6]):
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            for n in range(0, k[8] * LANES, LANES):
                store(a, y + n, (splat(1.0) + tanh(load(a, x + n) * half)) * half)


def sigmoid_dx(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """dx = dy y (1 - y)."""
    for channel in range(k[9]):
        for h in range(k[10]):
            dx, dy = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            y = k[6] + channel * k[7] + h * k[8]
            for n in range(0, k[11] * LANES, LANES):
                v = load(a, y + n)
                store(a, dx + n, load(a, dy + n) * v * (splat(1.0) - v))


KERNELS = (relu, relu_dx, leaky_relu, leaky_relu_dx, tanh_of, tanh_dx, sigmoid, sigmoid_dx)
HELPERS = ()
