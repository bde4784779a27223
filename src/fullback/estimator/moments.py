"""Mean and deviation of targets, also of several batches together."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from fullback.errors import FullbackWarning, InputError
from fullback.estimator.reading import Array
from fullback.training.target_scale import TargetScale

_LARGEST, _SMALLEST = 1e37, 1e-30  # of targets and of their deviation, in float32
_DIGITS = 1e5  # times the deviation, above which the mean leaves too few of float32's digits


@dataclass(frozen=True, eq=False)
class Moments(TargetScale):
    """Weighted moments of targets with K outputs.

    Attributes
    ----------
    mean, deviation : of shape (K,); the deviation of a constant output is 0
    weight : sum of the weights of all targets
    """

    weight: float

    @classmethod
    def of(cls, targets: Array, weights: Array | None) -> Moments:
        """Measure targets of shape (N, K) with weights of shape (N,)."""
        if weights is not None and weights.any():
            targets, weights = targets[weights != 0], weights[weights != 0]
        weights = np.ones(len(targets)) if weights is None else weights
        first = targets[0]  # subtracted, so that a constant's mean is that very number
        apart = targets - first
        with np.errstate(over="ignore", invalid="ignore"):  # check refuses what is too large
            mean = np.average(apart, axis=0, weights=weights)
            deviation = np.sqrt(np.average((apart - mean) ** 2, axis=0, weights=weights))
        return cls(first + mean, deviation, float(weights.sum()))

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of targets together."""
        weight = self.weight + other.weight
        share, more = self.weight / weight, other.weight / weight
        apart = other.mean - self.mean
        square = share * self.deviation**2 + more * other.deviation**2 + share * more * apart**2
        return Moments(self.mean + more * apart, np.sqrt(square), weight)

    def check(self) -> None:
        """Raise where float32 cannot hold such targets, and warn where it holds few digits.

        Raises
        ------
        InputError
            Numbers are too large, or differ by too little.

        Warns
        -----
        FullbackWarning
            The mean is far larger than the deviation.
        """
        largest = np.abs(self.mean) + self.deviation
        if not (largest < _LARGEST).all():
            raise InputError(
                f"y reaches {largest.max():g}, too large for the network's float32 numbers; give y "
                "in other units"
            )
        varies = self.deviation > 0
        if (self.deviation[varies] < _SMALLEST).any():
            raise InputError(
                f"y has a deviation of {self.deviation[varies].min():g}, too small for the "
                "network's float32 numbers; give y in other units"
            )
        far = varies & (np.abs(self.mean) > _DIGITS * self.deviation)
        if far.any():
            n = int(np.flatnonzero(far)[0])
            step = np.spacing(np.float32(abs(self.mean[n])))
            warnings.warn(
                f"y has the mean {self.mean[n]:g} and a deviation of only {self.deviation[n]:g}: "
                f"the network answers in float32, in steps of {step:g}; "
                "subtract a constant from y",
                FullbackWarning,
                stacklevel=5,
            )
