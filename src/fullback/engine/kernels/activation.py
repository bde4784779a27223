"""Activations, cell by cell; y may lie where x lay, and dx where dy lay.

An activation is two formulas of vectors, of which two functions make its kernels. The slope is that
of a leaky ReLU, a number in shared memory; others have NONE.
"""

from __future__ import annotations

from collections.abc import Callable

from fullback.engine.kernels.functions import tanh
from fullback.engine.kernels.maps import row_at
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Kernel,
    Memory,
    Operands,
    Vector,
    load,
    rectify,
    select,
    splat,
    store,
)


def rectified(x: Vector, slope: Vector) -> Vector:
    """Return max(x, 0)."""
    return rectify(x)


def rectified_dx(dy: Vector, y: Vector, slope: Vector) -> Vector:
    """Return dy where y > 0."""
    return select(y > splat(0.0), dy, splat(0.0))


def leaked(x: Vector, slope: Vector) -> Vector:
    """Return x where x > 0, else slope x."""
    return select(x > splat(0.0), x, slope * x)


def leaked_dx(dy: Vector, y: Vector, slope: Vector) -> Vector:
    """Return dy where y > 0, else slope dy."""
    return select(y > splat(0.0), dy, slope * dy)


def tangent(x: Vector, slope: Vector) -> Vector:
    """Return tanh(x)."""
    return tanh(x)


def tangent_dx(dy: Vector, y: Vector, slope: Vector) -> Vector:
    """Return dy (1 - y^2)."""
    return dy * (splat(1.0) - y * y)


def logistic(x: Vector, slope: Vector) -> Vector:
    """Return 1 / (1 + e^-x), as (1 + tanh(x / 2)) / 2."""
    half = splat(0.5)
    return (splat(1.0) + tanh(x * half)) * half


def logistic_dx(dy: Vector, y: Vector, slope: Vector) -> Vector:
    """Return dy y (1 - y)."""
    return dy * y * (splat(1.0) - y)


def forward(name: str, formula: Callable[[Vector, Vector], Vector]) -> Kernel:
    """Return the kernel y = formula(x, slope)."""

    @kernel(reads="x:map", writes="y:map", numbers="shape:shape slope")
    def each_cell(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
        channels, height, width = k.shape
        slope = splat(s[k.slope]) if k.slope >= 0 else splat(0.0)
        for channel in range(channels):
            for h in range(height):
                x, y = row_at(k.x, channel, h), row_at(k.y, channel, h)
                for n in range(0, width * LANES, LANES):
                    store(a, y + n, formula(load(a, x + n), slope))

    each_cell.__name__ = name
    return each_cell


def backward(name: str, formula: Callable[[Vector, Vector, Vector], Vector]) -> Kernel:
    """Return the kernel dx = formula(dy, y, slope)."""

    @kernel(reads="dy:map y:map", writes="dx:map", numbers="shape:shape slope")
    def each_cell(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
        channels, height, width = k.shape
        slope = splat(s[k.slope]) if k.slope >= 0 else splat(0.0)
        for channel in range(channels):
            for h in range(height):
                dx, dy = row_at(k.dx, channel, h), row_at(k.dy, channel, h)
                y = row_at(k.y, channel, h)
                for n in range(0, width * LANES, LANES):
                    store(a, dx + n, formula(load(a, dy + n), load(a, y + n), slope))

    each_cell.__name__ = name
    return each_cell


relu, relu_dx = forward("relu", rectified), backward("relu_dx", rectified_dx)
leaky_relu, leaky_relu_dx = forward("leaky_relu", leaked), backward("leaky_relu_dx", leaked_dx)
tanh_of, tanh_dx = forward("tanh_of", tangent), backward("tanh_dx", tangent_dx)
sigmoid, sigmoid_dx = forward("sigmoid", logistic), backward("sigmoid_dx", logistic_dx)

KERNELS = (relu, relu_dx, leaky_relu, leaky_relu_dx, tanh_of, tanh_dx, sigmoid, sigmoid_dx)
HELPERS = (
    rectified, rectified_dx, leaked, leaked_dx, tangent, tangent_dx, logistic, logistic_dx
)  # fmt: skip
