"""Finite differences of somebody's layer, and how far gradients are from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fullback.check.gradients.differences import (
    EPS,
    Slope,
    measured_noise,
    power_of_two,
    slope_across,
)
from fullback.check.layer.plain_layer import PlainLayer
from fullback.check.layer.signatures import Given
from fullback.layers.base import Array

_STEP = 2.0**-7  # of the usual size of what is moved
_CERTAIN = 10.0  # estimated errors by which two numbers may differ
_SAME, _SAME_SINGLE = 1e-6, 1e-3  # of the largest entry: what is a rounding


@dataclass(frozen=True)
class Measured:
    """A derivative: for one entry, at ``place``, or in a direction, ``way``."""

    label: str
    place: tuple[int, ...] | None
    way: Array | None
    slope: Slope

    def of(self, gradient: Array) -> float:
        """Return what a gradient says that it is."""
        if self.way is not None:
            return float((gradient * self.way).sum())
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

    def __init__(self, layer: PlainLayer, given: Given, dy: Array, y: Array) -> None:
        self.layer, self.given, self.dy = layer, given, dy.astype(np.float64)
        self.double = y.dtype == np.float64
        usual = float(np.sqrt(((self.dy * y) ** 2).sum()))
        self.noise = max(
            measured_noise(lambda t: self._value("dx", t * given.x), 2.0**12 * EPS),
            float(np.finfo(y.dtype).eps) * usual,
            float(np.finfo(np.float64).tiny),
        )

    def array(self, name: str) -> Array:
        """Return what a gradient is the gradient of."""
        return self.given.x if name == "dx" else self.given.parameters[name[1:]]

    def measure(
        self, name: str, places: Sequence[tuple[int, ...]], rng: np.random.Generator
    ) -> list[Measured]:
        """Return the derivatives for some entries, and along directions in which many move."""
        found = []
        for place in places:
            way = np.zeros_like(self.array(name))
            way[place] = 1.0
            label = f"{name}[{', '.join(map(str, place))}]"
            found.append(Measured(label, place, None, self.along(name, way)))
        for label, way in self._directions(name, rng):
            found.append(Measured(label, None, way, self.along(name, way)))
        return found

    def along(self, name: str, way: Array) -> Slope:
        """Return the derivative along a direction."""
        scale = float(np.sqrt((self.array(name) ** 2).mean())) or 1.0
        step = power_of_two(_STEP * scale / float(np.abs(way).max()))
        return slope_across(lambda t: self._value(name, t * way), step, self.noise, scale=scale)

    def verdict(self, gradient: Array, measured: Sequence[Measured]) -> Verdict:
        """Compare a gradient with what was measured."""
        entries = [abs(own.slope.value) for own in measured if own.way is None]
        largest = max(float(np.abs(gradient).max()), *entries) or 1.0
        same = _SAME if self.double else _SAME_SINGLE
        error = precision = most = 0.0
        wrong = None
        for own in measured:
            if own.slope.kink:
                continue
            value, unit = own.of(gradient), largest
            if own.way is not None:  # many entries add up
                unit *= float(np.sqrt((own.way**2).sum()))
            off = abs(value - own.slope.value)
            error, precision = max(error, off / unit), max(precision, own.slope.error / unit)
            if off > _CERTAIN * own.slope.error + same * unit and off / unit > most:
                most = off / unit
                wrong = f"{own.label} is {value:.6g}, but finite differences give "
                wrong += f"{own.slope.value:.6g}"
        return Verdict(error, precision, sum(own.slope.kink for own in measured), wrong)

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
            way = rng.choice([-1.0, 1.0], array.shape) * rng.uniform(0.5, 1.5, array.shape)
            yield f"the slope in random direction {number}", way
        if name == "dx" and array.ndim == 4:
            for n in range(len(array)):
                way = np.zeros_like(array)
                way[n] = 1.0
                yield f"the slope with image {n} moved alike", way

    def _value(self, name: str, by: Array) -> float:
        own = self.given.copy()
        moved = {
            key: array + by if f"d{key}" == name else array for key, array in own.parameters.items()
        }
        x = own.x + by if name == "dx" else own.x
        return float((self.dy * self.layer.run(Given(x, moved, own.labels)).y).sum())
