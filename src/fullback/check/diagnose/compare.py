"""Whether an array is another one, as nearly as its precision lets it be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fullback.check.diagnose.ensemble import NOISY
from fullback.layers.base import Array

_DEVIATIONS = 6.0  # of the noise, that a right array may be off
_CANCELS = 1e5  # units of rounding, in a sum whose terms are larger by that much
_NEARLY_ALL = 0.95
_HOPELESS = 0.3  # relative error from which on no noise explains the difference


@dataclass(frozen=True)
class Fit:
    """How well an array was matched: its distance and the distance that rounding explains."""

    error: float
    tolerance: float
    size: float = 0.0  # of what was computed

    @property
    def relative(self) -> float:
        """The error as a share of what was computed."""
        return self.error / max(self.size, 1e-300)

    @property
    def matched(self) -> bool:
        """Whether rounding explains the difference."""
        return self.error <= self.tolerance


def length(array: Array) -> float:
    """Return the root of the sum of squares."""
    return float(np.sqrt(np.square(array, dtype=np.float64).sum()))


def fit(
    array: Array,
    computed: Callable[[int], Array],
    eps: float,
    *,
    kinks: bool,
    terms: Callable[[], Array] | None = None,
    patient: bool = False,
) -> Fit:
    """Compare an array with what ``computed`` gives in the exact and in the noisy passes.

    Unless it is ``patient``, what lies far off is not compared with the noise at all. Where a sum
    cancels, as a bias before batch normalisation, right values may lie far off too: ``terms``
    gives the sums of absolute values, by which that is known.
    """
    with np.errstate(all="ignore"):
        exact = computed(0)
        if exact.shape != array.shape:
            return Fit(float("inf"), 0.0)
        error, size = length(array - exact), length(exact)
        if not np.isfinite(error):
            return Fit(float("inf"), 0.0)
        hopeless = _HOPELESS if kinks or eps > 1e-12 else 1e-5
        far = not patient and error > hopeless * max(size, length(array))
        if far and (terms is None or max(size, length(array)) > _CANCELS * eps * length(terms())):
            return Fit(error, 0.0, size)
        noise = [np.square(computed(r + 1) - exact).sum() for r in range(NOISY)]
    usual = float(np.sqrt(np.mean(noise)))
    tiny = 2.0**-24 if eps > 1e-5 else float(np.finfo(np.float32 if eps > 1e-12 else float).tiny)
    # a single number's noise may by chance be measured too small; half an eps of it is always there
    floor = eps / 2 * size + tiny * array.size**0.5
    return Fit(error, _DEVIATIONS * usual + floor, size)


def precision(arrays: list[Array]) -> float:
    """Return the eps that arrays were computed with, at best.

    Arrays whose every number is a number of a narrower type were computed in that one.
    """
    floats = [a for a in arrays if a.dtype.kind == "f"]
    worst = max((float(np.finfo(a.dtype).eps) for a in floats), default=2.0**-52)
    cells = [a.ravel() for a in floats if np.isfinite(a).all()]
    together = np.concatenate([c[c != 0] for c in cells]) if cells else np.zeros(0)
    if len(np.unique(together)) < 4:
        return max(worst, 2.0**-52)
    for narrow in (np.float16, np.float32):
        with np.errstate(all="ignore"):
            share = float((together.astype(narrow) == together).mean())
        if share > _NEARLY_ALL:  # what cancels leaves a few bits, which any type holds
            return max(worst, float(np.finfo(narrow).eps))
    return max(worst, 2.0**-52)
