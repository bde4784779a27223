"""Finite differences of a function of one number, at 0, that know how precise they are.

The central difference ``(f(h) - f(-h)) / 2h`` has two errors: what the Taylor series goes on with,
which falls with h^2, and the rounding of f, which grows as 1 / h. A step that is right for one
function is wrong for the next, so none is chosen beforehand: steps shrink four-fold from a large
one, the errors of the first kind are extrapolated away (Ridders, Accurate computation of F'(x) and
F'(x)F''(x), 1982), and the estimate with the least estimated error is taken. The size of the
rounding is measured (Moré and Wild, Estimating computational noise, 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fullback.layers.base import Array, Shape

EPS = float(np.finfo(np.float64).eps)
STEP = 2.0**-7
"""Of the usual size of what is moved: the first and largest step."""
CERTAIN = 10.0
"""Estimated errors by which two numbers may differ."""

_SHRINK = 4.0
_LEVELS = 11  # steps down to a millionth of the first


@dataclass(frozen=True)
class Slope:
    """A derivative, at a point that may be at a kink, where the slopes to both sides differ.

    Attributes
    ----------
    value : the derivative; at a kink, that of the piece on which the point counts
    error : the estimated size of its error
    left, right : the slopes to both sides; away from a kink they are ``value``
    kink : whether the point is at a kink
    side_error : the estimated size of the error of ``left`` and ``right``
    """

    value: float
    error: float
    left: float
    right: float
    kink: bool
    side_error: float = 0.0

    @staticmethod
    def smooth(value: float, error: float) -> Slope:
        """Return the derivative at a point that is at no kink."""
        return Slope(value, error, value, value, False)

    @property
    def rules(self) -> tuple[float, ...]:
        """What the usual rules for a derivative at a kink give.

        Units at their kink that the step switches on add their share to the slope on one side, and
        those that it switches off to the other. Rules count each of them not at all (which is
        ``value``), wholly, or by half; or they take the slope to one side.
        """
        both = self.left + self.right
        return (self.value, both - self.value, both / 2, self.left, self.right)

    def follows(self, value: float, tolerance: float) -> bool:
        """Whether a usual rule for a derivative at a kink gives this value."""
        tolerance += 4 * self.side_error
        return any(abs(value - rule) <= tolerance for rule in self.rules)

    def allows(self, value: float, tolerance: float) -> bool:
        """Whether the value lies between those of the rules, so that a mixture may give it."""
        tolerance += 4 * self.side_error
        return min(self.rules) - tolerance <= value <= max(self.rules) + tolerance


def usual_size(array: Array) -> float:
    """Return the usual size of an array's numbers: their root mean square, or 1 for zeros."""
    return float(np.sqrt((array**2).mean())) or 1.0


def random_direction(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw a direction in which all entries move.

    All moves are of like size, so that every entry counts, and no two the same, so that the
    mistakes of two entries do not cancel.
    """
    signs: Array = rng.choice([-1.0, 1.0], shape)
    return signs * rng.uniform(0.5, 1.5, shape)


def largest_first(values: Array, count: int) -> list[int]:
    """Return the places in flat order of the largest entries."""
    return [int(n) for n in np.argsort(-np.abs(values.ravel()), kind="stable")[:count]]


def power_of_two(step: float) -> float:
    """Return the power of two below a step: adding it to a number loses the fewest digits."""
    return float(2.0 ** math.floor(math.log2(step)))


def central(f: Callable[[float], float], step: float, noise: float, *, scale: float = 0.0) -> Slope:
    """Return the derivative of a smooth f at 0.

    Parameters
    ----------
    f : the function
    step : the first and largest step
    noise : size of the rounding of f
    scale : size of the numbers that the step is added to, whose rounding makes the step inexact
    """
    best = Slope.smooth(math.nan, math.inf)
    slopes: list[float] = []
    for level in range(_LEVELS):
        h = step / _SHRINK**level
        slopes.append((f(h) - f(-h)) / (2 * h))
        if level == 0:
            continue
        value, truncation = _extrapolated(slopes[-3:])
        rounding = noise / h + abs(value) * EPS * scale / h
        if not truncation + rounding >= best.error:
            best = Slope.smooth(value, truncation + rounding)
        if truncation <= rounding or rounding > best.error:
            break
    return best


def _extrapolated(slopes: list[float]) -> tuple[float, float]:
    """Extrapolate two or three central differences to h = 0: the value, and its error.

    The error is the largest change that the last extrapolation made, which is more than what it
    left, where the function is smooth on the scale of these steps.
    """
    before, last = slopes[-2:]
    gain = _SHRINK**2
    first = last + (last - before) / (gain - 1)
    if len(slopes) == 2:
        return first, max(abs(first - last), abs(first - before))
    earlier = before + (before - slopes[0]) / (gain - 1)
    second = first + (first - earlier) / (gain**2 - 1)
    return second, max(abs(second - first), abs(second - earlier))


def measured_noise(f: Callable[[float], float], spacing: float) -> float:
    """Return the size of the rounding of f around 0, from its differences of high order.

    Differences of order k of a smooth function vanish with spacing^k; those of numbers that are
    off at random do not, but grow with k in a known way (Moré and Wild 2011, equation 2.1).
    """
    values = np.array([f(k * spacing) for k in range(-4, 5)])
    sizes = []
    differences = values
    for order in range(1, 7):
        differences = np.diff(differences)
        if order >= 4:
            growth = math.comb(2 * order, order)
            sizes.append(math.sqrt(float((differences**2).mean()) / growth))
    return max(*sizes, EPS * float(np.abs(values).max()))


def slope_across(
    f: Callable[[float], float], step: float, noise: float, *, scale: float = 0.0
) -> Slope:
    """Return the derivative at 0 of a function that may have kinks, at 0 or near it.

    At a kink at 0, ``(f(h) - 2 f(0) + f(-h)) / h`` tends to the difference of both slopes; where f
    is smooth, to 0. Kinks beside 0 spoil the steps that reach over them, and smaller steps are
    taken. A kink at 0 has no derivative: its value is then the mean of both slopes.
    """
    middle = f(0.0)
    seen: dict[float, tuple[float, float]] = {}

    def both(h: float) -> tuple[float, float]:
        if h not in seen:
            seen[h] = f(h), f(-h)
        return seen[h]

    best = central(lambda t: both(abs(t))[0 if t > 0 else 1], step, noise, scale=scale)
    jumps, h = [], step * 2.0**-14
    for h in (step * 2.0**-12, step * 2.0**-14):
        after, before = both(h)
        jumps.append((after - 2 * middle + before) / h)
    rounding = (4 * noise + EPS * scale * abs(best.value)) / h
    # A kink's jump stays as the step shrinks; what curvature adds shrinks with it.
    if abs(jumps[1]) <= max(8 * rounding, 0.5 * abs(jumps[0])):
        return best
    left, right = (middle - before) / h, (after - middle) / h
    off = rounding + abs(jumps[0] - jumps[1])
    return Slope((left + right) / 2, off, left, right, True, off)
