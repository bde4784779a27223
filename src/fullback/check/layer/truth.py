"""What is right: by finite differences of a user's layer, or by the reference of its kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fullback.check.gradients.differences import (
    CERTAIN,
    EPS,
    STEP,
    Slope,
    largest_first,
    measured_noise,
    power_of_two,
    random_direction,
    slope_across,
    usual_size,
)
from fullback.check.layer.calls import CallInputs
from fullback.check.layer.reference import SAME, SAME_SINGLE, Reference
from fullback.check.layer.report import LayerRow
from fullback.check.layer.user_layer import UserLayer
from fullback.layers.base import Array

_SURE = 0.01  # of the largest entry: what differences must show


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


class Slopes:
    """The truth by finite differences: derivatives of the sum of dy times a layer's output."""

    def __init__(
        self, layer: UserLayer, inputs: CallInputs, dy: Array, samples: int, seed: int
    ) -> None:
        self.layer, self.inputs, self.dy = layer, inputs, dy.astype(np.float64)
        self.samples, self.seed = samples, seed
        y = layer.output(inputs)
        self.same = SAME if y.dtype == np.float64 else SAME_SINGLE
        usual = float(np.sqrt(((self.dy * y) ** 2).sum()))
        self.noise = max(
            measured_noise(lambda t: self._value("dx", t * inputs.x), 2.0**12 * EPS),
            float(np.finfo(y.dtype).eps) * usual,
            float(np.finfo(np.float64).tiny),
        )
        self._measured: dict[str, list[Measured]] = {}

    def of(self, dy: Array) -> Slopes:
        """Return the truth for another delta."""
        return Slopes(self.layer, self.inputs, dy, self.samples, self.seed)

    def judge(self, name: str, gradient: Array, blur: float = 0.0) -> LayerRow:
        """Compare a gradient with differences: some entries, and directions in which many move.

        ``blur`` is how far rounding leaves entries off, beside that of the layer itself.
        """
        if name not in self._measured:
            self._measured[name] = self._measure(name, gradient)
        measured = self._measured[name]
        entries = [abs(one.slope.value) for one in measured if one.direction is None]
        largest = max(float(np.abs(gradient).max()), *entries) or 1.0
        error = precision = most = 0.0
        wrong, sure = None, False
        for one in measured:
            if one.slope.kink:
                continue
            value, unit = one.of(gradient), largest
            if one.direction is not None:  # many entries add up
                unit *= float(np.sqrt((one.direction**2).sum()))
            off = abs(value - one.slope.value)
            error, precision = max(error, off / unit), max(precision, one.slope.error / unit)
            sure |= "random" in one.label and CERTAIN * one.slope.error < _SURE * unit
            if (
                off > CERTAIN * one.slope.error + (self.same + blur / largest) * unit
                and off / unit > most
            ):
                most = off / unit
                wrong = f"{one.label} is {value:.6g}, but finite differences give "
                wrong += f"{one.slope.value:.6g}"
        kinks = sum(one.slope.kink for one in measured)
        return LayerRow(name, "", len(measured), kinks, error, precision, sure, wrong)

    def _array(self, name: str) -> Array:
        return self.inputs.x if name == "dx" else self.inputs.parameters[name[1:]]

    def _measure(self, name: str, gradient: Array) -> list[Measured]:
        rng, found = np.random.default_rng(self.seed), []
        largest = largest_first(gradient, self.samples // 3)
        chosen = dict.fromkeys(map(int, [*largest, *rng.permutation(gradient.size)]))
        for n in list(chosen)[: self.samples]:
            place = tuple(map(int, np.unravel_index(n, gradient.shape)))
            direction = np.zeros_like(self._array(name))
            direction[place] = 1.0
            label = f"{name}[{', '.join(map(str, place))}]"
            found.append(Measured(label, place, None, self._along(name, direction)))
        for label, direction in self._directions(name, rng):
            found.append(Measured(label, None, direction, self._along(name, direction)))
        return found

    def _along(self, name: str, direction: Array) -> Slope:
        scale = usual_size(self._array(name))
        step = power_of_two(STEP * scale / float(np.abs(direction).max()))
        return slope_across(
            lambda t: self._value(name, t * direction), step, self.noise, scale=scale
        )

    def _directions(self, name: str, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
        """Yield directions in which many entries move.

        Ties stay ties where all cells of an image move alike, and zeros stay zeros where an array
        is scaled, so that layers which choose among cells have a derivative there.
        """
        array = self._array(name)
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
        one = self.inputs
        moved = {
            key: array + by if f"d{key}" == name else array for key, array in one.parameters.items()
        }
        x = one.x + by if name == "dx" else one.x
        return float((self.dy * self.layer.output(replace(one, x=x, parameters=moved))).sum())


class ByReference:
    """The truth by the reference, whose output was the layer's: every entry."""

    def __init__(self, reference: Reference, dy: Array, ties: bool) -> None:
        self.reference, self.dy, self.ties = reference, dy, ties
        self.same = SAME if dy.dtype == np.float64 else SAME_SINGLE

    def of(self, dy: Array) -> ByReference:
        """Return the truth for another delta."""
        return ByReference(self.reference, dy, self.ties)

    def judge(self, name: str, gradient: Array, blur: float = 0.0) -> LayerRow:
        """Compare every entry; ``blur`` is how far rounding leaves them off."""
        if name == "dx" and self.ties:
            right = self.reference.settled(gradient, self.dy)
        else:
            right = self.reference.right(name, self.dy)
        blur += 16 * EPS * float(np.abs(self.dy).max())  # where a slope nearly vanishes
        off, unit = np.abs(gradient - right), float(np.abs(right).max()) or 1.0
        error, wrong = float(off.max()) / unit, None
        if error > self.same + blur / unit:
            place = tuple(map(int, np.unravel_index(int(off.argmax()), off.shape)))
            wrong = f"{name}[{', '.join(map(str, place))}] is {gradient[place]:.6g}, where "
            wrong += f"{right[place]:.6g} is right"
        precision = max(EPS, blur / unit)
        sure = precision < _SURE
        return LayerRow(name, "", gradient.size, 0, error, precision, sure, wrong)
