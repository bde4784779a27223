"""Whether an array is another one, as nearly as its precision lets it be.

Where units are undecided, an array may also be another one plus a share, from 0 to 1, of what each
group of them changes. Such an array is only *judged* where these are shares that programs have, 0,
1/2 or 1, and other arrays, the same one negated, scaled, turned or in another order, could not be
explained so too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fullback.check.diagnose.ensemble import NOISY
from fullback.check.mistakes.kinks import Bounds
from fullback.layers.base import Array

_DEVIATIONS = 6.0  # of the noise, that a right array may be off,
_LEAST = 4.0  # and units of rounding beside, as a share of its length
_SINGLE = 1e-5  # relative error that single precision makes, at most, where no sum cancels
_NEARLY_ALL = 0.95
_SHARE = 1e-3  # how far off 0 to 1 a share may be found


FAINT = 3.0
"""Times what rounding explains, from where on an array is not all rounding."""

NEARLY = 1e-3
"""How far off a multiple of another array one may be, and be taken for one."""


@dataclass(frozen=True)
class Fit:
    """How well an array was matched.

    Attributes
    ----------
    error, tolerance : its distance, and the distance that rounding explains
    size : of what was computed
    shares : of what each of the ensemble's other passes changes, by its number, where it took that
    bounded : whether it was explained by undecided units, each decided in any way
    judged : whether a wrong array could not have been explained as well
    """

    error: float
    tolerance: float
    size: float = 0.0
    shares: dict[int, float] = field(default_factory=dict)
    bounded: bool = False
    judged: bool = True

    @property
    def relative(self) -> float:
        """The error as a share of what was computed."""
        return self.error / max(self.size, 1e-300)

    @property
    def near(self) -> bool:
        """Whether single precision alone makes such an error, where no sum cancels."""
        return self.error <= _SINGLE * self.size

    @property
    def undecided(self) -> bool:
        """Whether it takes undecided units to explain the array."""
        return self.bounded or bool(self.shares)

    @property
    def matched(self) -> bool:
        """Whether rounding explains the difference."""
        return self.error <= self.tolerance


def length(array: Array) -> float:
    """Return the root of the sum of squares."""
    flat = np.asarray(array, np.float64).ravel()
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.dot(flat, flat)))


def factor(array: Array, truth: Array, tolerance: float) -> float | None:
    """Return what an array is the truth times, but for a part of its length; None if it is not."""
    square = float((truth**2).sum())
    if array.shape != truth.shape or not square > 0:
        return None
    times = float((array * truth).sum()) / square
    return times if times and length(array - times * truth) <= tolerance * length(array) else None


def hopeless(eps: float) -> float:
    """Return the relative error from which on rounding does not explain a difference.

    It may all the same where a sum cancels.
    """
    return 0.1 if eps > 1e-12 else 1e-5


def fit(
    array: Array,
    computed: Callable[[int], Array],
    eps: float,
    *,
    others: Sequence[int] = (),
    shares: Mapping[int, float] | None = None,
    blur: float = 0.0,
    patient: bool = False,
) -> Fit:
    """Compare an array with what ``computed`` gives in the passes of an ensemble.

    Unless it is ``patient``, what lies far off is not compared with the noise at all.

    Parameters
    ----------
    array : the array
    computed : from a pass's number to the array in it
    eps : of the precision
    others : the numbers of the ensemble's other passes of which the array may hold a share
    shares : what these are where other arrays have shown them
    blur : distance that the array may be off beside
    """
    with np.errstate(all="ignore"):
        exact = computed(0)
        if exact.shape != array.shape:
            return Fit(float("inf"), 0.0)
        error, size = length(array - exact), length(exact)
        if not np.isfinite(error):
            return Fit(float("inf"), 0.0)
        least = 0.3 if others or blur else hopeless(eps)
        if not patient and error > least * max(size, length(array)) + blur:
            return Fit(error, 0.0, size)
        noise = [length(computed(r + 1) - exact) ** 2 for r in range(NOISY)]
        usual = float(np.sqrt(np.mean(noise)))
        tiny = (
            2.0**-24 if eps > 1e-5 else float(np.finfo(np.float32 if eps > 1e-12 else float).tiny)
        )
        # the noise of a few numbers may by chance be measured too small
        tolerance = _DEVIATIONS * usual + _LEAST * eps * size + tiny * array.size**0.5 + blur
        plain = Fit(error, tolerance, size)
        if plain.matched or not others:
            return plain
        changes = {k: computed(1 + NOISY + k) - exact for k in others}
    return _decided(array, exact, changes, dict(shares or {}), plain)


def _decided(
    array: Array, exact: Array, changes: Mapping[int, Array], known: dict[int, float], plain: Fit
) -> Fit:
    """Explain an array by undecided units, decided in some way."""
    changes = {k: c for k, c in changes.items() if length(c) > 0.1 * plain.tolerance}
    base = exact + sum(known[k] * c for k, c in changes.items() if k in known)
    free = [k for k in changes if k not in known]
    columns = np.array([changes[k].ravel() for k in free]).reshape(len(free), array.size).T
    found = np.zeros(len(free))
    usual = True
    if free:
        found = np.linalg.lstsq(columns, (array - base).ravel(), rcond=1e-10)[0]
        sizes = np.linalg.norm(columns, axis=0)
        allowed = plain.tolerance + _SHARE * sizes
        if (np.abs(np.clip(found, 0, 1) - found) * sizes > allowed).any():
            return plain
        halves = np.clip(np.round(2 * found), 0, 2) / 2
        usual = bool((np.abs(found - halves) * sizes <= allowed).all())
    error = length(array - base - (columns @ found).reshape(array.shape))
    if error > plain.tolerance:
        return plain
    judged = not free or (
        usual
        and not explains_anything(
            (array, exact),
            lambda other: _distance(other - base, columns) <= plain.tolerance,
            plain.tolerance,
        )
    )
    shares = known | (dict(zip(free, found.tolist(), strict=True)) if usual else {})
    return Fit(error, plain.tolerance, plain.size, shares, bounded=not judged, judged=judged)


def _distance(array: Array, columns: Array) -> float:
    """Return how far an array is from the span of some columns."""
    flat = array.ravel()
    return length(flat - columns @ np.linalg.lstsq(columns, flat, rcond=1e-10)[0])


def between(array: Array, bounds: Bounds, tolerance: float) -> bool:
    """Whether an array lies between two bounds, but for rounding."""
    if array.shape != bounds.low.shape:
        return False
    outside = np.maximum(array - bounds.high, 0) + np.maximum(bounds.low - array, 0)
    return length(outside) <= tolerance


def explains_anything(
    arrays: tuple[Array, ...], accepts: Callable[[Array], bool], tolerance: float
) -> bool:
    """Whether what accepts these arrays also accepts one with values of wrong size or place."""
    return any(
        min(length(other - a) for a in arrays) > 10 * tolerance and accepts(other)
        for array in arrays
        for other in _altered(array)
    )


def _altered(array: Array) -> Iterator[Array]:
    """Yield an array as it would be wrong: scaled, turned, exchanged, in another order."""
    for factor in (0.0, -1.0, 0.5, 0.9, 1.01, 2.0):
        yield factor * array
    flat = array.ravel()
    rng = np.random.default_rng(0)
    for _ in range(3):
        yield rng.permutation(flat).reshape(array.shape)
        yield rng.normal(size=array.shape) * length(array) / max(array.size, 1) ** 0.5
    yield flat[::-1].reshape(array.shape)
    for axis in range(array.ndim):
        yield np.roll(array, 1, axis)
        yield np.flip(array, axis)
    if array.ndim == 4:
        yield array[:, :, ::-1, ::-1]
    for one in range(array.ndim):
        for other in range(one):
            if array.shape[one] == array.shape[other]:
                yield array.swapaxes(one, other)


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
