"""Finite differences of a user's layer, and how far gradients are from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fullback.check.gradients.differences import (
    CERTAIN,
    EPS,
    STEP,
    Slope,
    measured_noise,
    power_of_two,
    random_direction,
    slope_across,
    usual_size,
)
from fullback.check.layer.plain_layer import PlainLayer
from fullback.check.layer.signatures import CallInputs
from fullback.layers.base import Array

_SAME, _SAME_SINGLE = 1e-6, 1e-3  # of the largest entry: what is a rounding


@dataclass(frozen=True)
class Measured:
    """A derivative: for one entry, at ``place``, or in a ``direction``."""

    label: str
    place: tuple[int, ...] | None
    direction: Array | None
    slope: Slope

    def of(self, gradient: Array) -> float:
        """Return what a gradient says that it is."""
        if self.direction is not None:
            return float((gradient * self.direction).sum())
        return float(gradient[self.place])


@dataclass(frozen=True)
class Verdict:
    """How far a gradient is from what was measured.

    Attributes
    ----------
    error : largest difference, relative to the largest entry
    precision : largest estimated error of what was measured, likewise
    kinks : how much of it was at a kink, and left out
    wrong : the largest mistake, in words; None where there is none
    """

    error: float
    precision: float
    kinks: int
    wrong: str | None


class Slopes:
    """Derivatives of the sum of dy times a layer's output.

    Attributes
    ----------
    double : whether the layer computes in float64
    """

    def __init__(self, layer: PlainLayer, inputs: CallInputs, dy: Array, y: Array) -> None:
        self.layer, self.inputs, self.dy = layer, inputs, dy.astype(np.float64)
        self.double = y.dtype == np.float64
        usual = float(np.sqrt(((self.dy * y) ** 2).sum()))
        self.noise = max(
            measured_noise(lambda t: self._value("dx", t * inputs.x), 2.0**12 * EPS),
            float(np.finfo(y.dtype).eps) * usual,
            float(np.finfo(np.float64).tiny),
        )

    def array(self, name: str) -> Array:
        """Return what a gradient is the gradient of."""
        return self.inputs.x if name == "dx" else self.inputs.parameters[name[1:]]

    def measure(
        self, name: str, places: Sequence[tuple[int, ...]], rng: np.random.Generator
    ) -> list[Measured]:
        """Return the derivatives for some entries, and along directions in which many move."""
        found = []
        for place in places:
            direction = np.zeros_like(self.array(name))
            direction[place] = 1.0
            label = f"{name}[{', '.join(map(str, place))}]"
            found.append(Measured(label, place, None, self.along(name, direction)))
        for label, direction in self._directions(name, rng):
            found.append(Measured(label, None, direction, self.along(name, direction)))
        return found

    def along(self, name: str, direction: Array) -> Slope:
        """Return the derivative along a direction."""
        scale = usual_size(self.array(name))
        step = power_of_two(STEP * scale / float(np.abs(direction).max()))

        def line(t: float) -> float:
            return self._value(name, t * direction)

        return slope_across(line, step, self.noise, scale=scale)

    def verdict(self, gradient: Array, measured: Sequence[Measured]) -> Verdict:
        """Compare a gradient with what was measured."""
        entries = [abs(one.slope.value) for one in measured if one.direction is None]
        largest = max(float(np.abs(gradient).max()), *entries) or 1.0
        same = _SAME if self.double else _SAME_SINGLE
        error = precision = most = 0.0
        wrong = None
        for one in measured:
            if one.slope.kink:
                continue
            value, unit = one.of(gradient), largest
            if one.direction is not None:  # many entries add up
                unit *= float(np.sqrt((one.direction**2).sum()))
            off = abs(value - one.slope.value)
            error, precision = max(error, off / unit), max(precision, one.slope.error / unit)
            if off > CERTAIN * one.slope.error + same * unit and off / unit > most:
                most = off / unit
                wrong = f"{one.label} is {value:.6g}, but finite differences give "
                wrong += f"{one.slope.value:.6g}"
        return Verdict(error, precision, sum(one.slope.kink for one in measured), wrong)

    def _directions(self, name: str, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
        """Yield directions in which many entries move.

        Ties stay ties where all cells of an image move alike, and zeros stay zeros where an array
        is scaled, so that layers which choose among cells have a derivative there.
        """
        array = self.array(name)
        if np.abs(array).max() > 0:
            yield "the slope with all entries scaled", array
        yield "the slope with all entries moved alike", np.ones_like(array)
        for number in (1, 2):
            yield f"the slope in random direction {number}", random_direction(rng, array.shape)
        if name == "dx" and array.ndim == 4:
            for n in range(len(array)):
                direction = np.zeros_like(array)
                direction[n] = 1.0
                yield f"the slope with image {n} moved alike", direction

    def _value(self, name: str, by: Array) -> float:
        one = self.inputs.copy()
        moved = {
            key: array + by if f"d{key}" == name else array for key, array in one.parameters.items()
        }
        x = one.x + by if name == "dx" else one.x
        return float((self.dy * self.layer.run(CallInputs(x, moved, one.labels)).y).sum())
