"""Whether a hypothesis explains an array: by rounding, by undecided units, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fullback.check.diagnose import compare
from fullback.check.diagnose.chain import Chain
from fullback.check.diagnose.compare import FAINT, Fit, length
from fullback.check.diagnose.ensemble import NOISY, Ensemble
from fullback.check.diagnose.hypothesis import Hypothesis
from fullback.check.diagnose.layouts import Reading
from fullback.check.diagnose.sketches import Sketches
from fullback.check.mistakes import Mutant, Target
from fullback.check.mistakes.kinks import Bounds
from fullback.layers.base import Array

_SHARP = 1e5  # units of rounding that a mistake's array may be off, as a share of its length,
_SOLVED = 1e-8  # and what a learning rate that was found may be


class Matcher:
    """Compares arrays with what hypotheses compute in an ensemble.

    Parameters
    ----------
    ensemble : the forward passes
    ties : how ties are decided, by the layer's name, where not as in fullback

    Attributes
    ----------
    saturated : whether the first delta is no larger than what rounding makes of it, so that
        nothing that follows from it can be judged
    """

    def __init__(self, ensemble: Ensemble, ties: Mapping[str, Mutant]) -> None:
        self.ensemble, self.ties = ensemble, ties
        self.sketches = Sketches(ensemble)
        first = Chain(ensemble, None, "loss")
        noise = max(length(first.at(r + 1) - first.at(0)) for r in range(NOISY))
        self.saturated = length(first.at(0)) < FAINT * noise

    def fit(
        self,
        h: Hypothesis,
        reading: Reading,
        computed: Callable[[int], Array],
        *,
        patient: bool,
        right: bool,
    ) -> Fit:
        """Compare an array with what a hypothesis computes of it, ``right`` or with mistakes."""
        others: Sequence[int] = () if self.ties else range(len(self.ensemble.others))
        others = others if right else list(h.shares)  # a mistake is no reason to decide units
        found = compare.fit(
            reading.values, computed, self.ensemble.eps,
            others=others, shares=h.shares, blur=reading.blur, patient=patient,
        )  # fmt: skip
        sharp = max(_SHARP * self.ensemble.eps, _SOLVED)
        if not right and found.error > sharp * found.size + reading.blur:
            return replace(found, tolerance=0.0)
        if self.saturated and found.size < FAINT * found.tolerance:
            return replace(found, judged=False)
        return found

    def between(
        self,
        h: Hypothesis,
        reading: Reading,
        computed: Callable[[int], Array],
        bounds: Callable[[], Bounds],
        chain: Chain | None,
    ) -> Fit:
        """Explain an array by undecided units, each decided in any way.

        A delta is judged all the same where the rest of it holds: every undecided unit has a cell
        of its own there, up to the next layer that adds cells up.
        """
        allowed = bounds() if self.ensemble.undecided else None
        nearly = 0.1 * length(reading.values)
        if allowed is None or not compare.between(reading.values, allowed, nearly):
            return Fit(float("inf"), 0.0)
        found = self.fit(h, reading, computed, patient=True, right=True)
        if not compare.between(reading.values, allowed, found.tolerance):
            return found
        if chain is not None and not chain.shared_out(reading.values, found.tolerance):
            return found

        def accepts(other: Array) -> bool:
            return compare.between(other, allowed, found.tolerance)

        judged = (
            chain is not None
            and chain.only_chooses()
            and not compare.explains_anything((reading.values,), accepts, found.tolerance)
        )
        return replace(found, error=0.0, bounded=True, judged=judged)

    def blurred(
        self, h: Hypothesis, reading: Reading, found: Fit, usual: Callable[[int], Array]
    ) -> bool:
        """Whether mistakes only explain an array as rounding in them may make it anything near.

        The right array is as near then, and rounding does not explain that.
        """
        if length(reading.values - usual(0)) > found.tolerance:
            return False
        return not self.fit(h, reading, usual, patient=True, right=True).matched

    def ruled_out(self, h: Hypothesis, reading: Reading, name: str, target: Target) -> bool:
        """Whether a gradient cannot follow from the hypothesis' delta, which is dropped then."""
        if h.shares:
            return False
        key = (h.chain.path, h.share, name, target, id(reading))
        if key in self.ensemble.ruled_out:
            return True
        if not self.sketches.rule_out(h.chain, name, target, h.share, reading):
            return False
        self.ensemble.ruled_out.add(key)
        h.chain.forget()
        if h.new > 1 and h.chain.parent is not None:
            h.chain.parent.forget()  # few others go on from it
        return True
