"""Exponential, logarithm, hyperbolic tangent, sine and cosine of a vector.

Cephes' single-precision polynomials (Moshier, expf.c, logf.c and tanhf.c), within 2 units in the
last place. NaN gives NaN; what is too large for the exponential gives infinity. Sine and cosine are
Taylor's polynomials, for angles from -pi to pi, within 1e-6.
"""

from __future__ import annotations

from fullback.engine.simd import (
    Vector,
    either_nan,
    exponent,
    fma,
    mantissa,
    nearest,
    select,
    splat,
    times_power,
)

INFINITY = float("inf")
NAN = float("nan")


def exp(x: Vector) -> Vector:
    """Return e^x; below the smallest normal number it is 0."""
    n = nearest(x * splat(1.44269504088896341))
    n = select(n < splat(-127.0), splat(-127.0), select(n > splat(128.0), splat(128.0), n))
    r = fma(n, splat(-0.693359375), x)
    r = fma(n, splat(2.12194440e-4), r)
    p = fma(splat(1.9875691500e-4), r, splat(1.3981999507e-3))
    p = fma(p, r, splat(8.3334519073e-3))
    p = fma(p, r, splat(4.1665795894e-2))
    p = fma(p, r, splat(1.6666665459e-1))
    p = fma(p, r, splat(5.0000001201e-1))
    y = times_power(fma(p, r * r, r) + splat(1.0), n)
    y = select(x > splat(88.72283), splat(INFINITY), select(x < splat(-87.33655), splat(0.0), y))
    return select(either_nan(x, x), x, y)


def log(x: Vector) -> Vector:
    """Return the natural logarithm of a positive normal number, infinity or NaN."""
    e, m = exponent(x), mantissa(x)
    high = m > splat(1.41421356237)
    e = select(high, e + splat(1.0), e)
    m = select(high, m * splat(0.5), m) - splat(1.0)
    p = fma(splat(7.0376836292e-2), m, splat(-1.1514610310e-1))
    p = fma(p, m, splat(1.1676998740e-1))
    p = fma(p, m, splat(-1.2420140846e-1))
    p = fma(p, m, splat(1.4249322787e-1))
    p = fma(p, m, splat(-1.6668057665e-1))
    p = fma(p, m, splat(2.0000714765e-1))
    p = fma(p, m, splat(-2.4999993993e-1))
    p = fma(p, m, splat(3.3333331174e-1))
    squared = m * m
    y = p * m * squared
    y = fma(e, splat(-2.12194440e-4), y)
    y = fma(squared, splat(-0.5), y)
    y = fma(e, splat(0.693359375), m + y)
    unusual = either_nan(x, x) | (x == splat(INFINITY))
    return select(unusual, x, y)


def tanh(x: Vector) -> Vector:
    """Return the hyperbolic tangent."""
    size = select(x < splat(0.0), splat(0.0) - x, x)
    z = x * x
    p = fma(splat(-5.70498872745e-3), z, splat(2.06390887954e-2))
    p = fma(p, z, splat(-5.37397155531e-2))
    p = fma(p, z, splat(1.33314422036e-1))
    p = fma(p, z, splat(-3.33332819422e-1))
    small = fma(p * z, x, x)
    large = splat(1.0) - splat(2.0) / (exp(size + size) + splat(1.0))
    large = select(x < splat(0.0), splat(0.0) - large, large)
    return select(size < splat(0.625), small, large)


def half_sine(x: Vector) -> Vector:
    """Return the sine of half an angle."""
    h = x * splat(0.5)
    z = h * h
    p = fma(splat(-1 / 39916800), z, splat(1 / 362880))
    p = fma(p, z, splat(-1 / 5040))
    p = fma(p, z, splat(1 / 120))
    p = fma(p, z, splat(-1 / 6))
    return fma(p * z, h, h)


def half_cosine(x: Vector) -> Vector:
    """Return the cosine of half an angle."""
    h = x * splat(0.5)
    z = h * h
    p = fma(splat(1 / 479001600), z, splat(-1 / 3628800))
    p = fma(p, z, splat(1 / 40320))
    p = fma(p, z, splat(-1 / 720))
    p = fma(p, z, splat(1 / 24))
    p = fma(p, z, splat(-1 / 2))
    return fma(p, z, splat(1.0))


def sine(x: Vector) -> Vector:
    """Return the sine of an angle from -pi to pi."""
    return splat(2.0) * half_sine(x) * half_cosine(x)


def cosine(x: Vector) -> Vector:
    """Return the cosine of an angle from -pi to pi."""
    s = half_sine(x)
    return fma(s * splat(-2.0), s, splat(1.0))


KERNELS = ()
HELPERS = (exp, log, tanh, half_sine, half_cosine, sine, cosine)
