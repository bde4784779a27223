"""A learning rate that is not known, of weights that were updated early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.hypothesis import Hypothesis
from fullback.layers.base import Array


def with_rate(
    h: Hypothesis, array: Array, observed: Callable[[Hypothesis], Array]
) -> Hypothesis | None:
    """Find the learning rate of an early update from the first array that shows it."""
    if not h.chain.unresolved:
        return h

    def at(rate: float) -> Array:
        result: Array = observed(replace(h, chain=h.chain.with_rate(rate)))
        return result

    rate, step = 0.0, 1e-2
    with np.errstate(all="ignore"):
        for attempt in range(6):
            here = at(rate)
            if attempt and length(array - here) > 0.1 * length(array):
                return None
            slope = (at(rate + step) - here) / step
            if here.shape != array.shape or not (slope**2).sum() > 0:
                return None
            change = float(((array - here) * slope).sum() / (slope**2).sum())
            rate += change
            if not np.isfinite(rate) or abs(rate) > 1e4:
                return None
            if abs(change) <= 1e-10 * abs(rate):
                break
    if rate <= 0 or (array.size < 2):
        return None
    assumed = tuple(
        replace(one, number=rate) if one.mutant.unknown == "rate" else one for one in h.assumed
    )
    return replace(h, chain=h.chain.with_rate(rate), assumed=assumed, rate=rate)
