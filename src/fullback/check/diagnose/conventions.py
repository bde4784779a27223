"""Other right ways for a whole backward pass, with which a search begins, and constant factors.

Ways to decide ties are mutants of a layer without a mistake (``Mutants.add(None, ...)`` in
``mistakes``): ``tie_rules`` yields them for the whole pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fullback.check.diagnose import compare
from fullback.check.diagnose.compare import NEARLY, length
from fullback.check.diagnose.ensemble import Ensemble
from fullback.check.diagnose.reader import Reduction
from fullback.check.diagnose.report import place_of
from fullback.check.diagnose.submission import Submitted
from fullback.check.mistakes import LossPass, Mutant, first_delta, mutants_of, rules_of
from fullback.check.mistakes.common import BATCH_SCALE
from fullback.check.mistakes.gradient import GRADIENTS_NOT_CLEARED
from fullback.check.mistakes.loss import SIGN, SUM_CONVENTION, SUM_LOSS, factor, squares_conventions
from fullback.layers import Dense
from fullback.layers.base import Array
from fullback.passes import Trace

Ties: TypeAlias = Mapping[str, Mutant]
"""How ties are decided in layers by name; as in fullback where a layer is not named."""

_EXACTLY = 2e-5  # how far off a factor of a meaning it is that factor


@dataclass(frozen=True, eq=False)
class Convention:
    """A way to begin a backward pass.

    Attributes
    ----------
    mutants : how the first delta is computed
    share : what the gradients of parameters are multiplied by at the end
    """

    mutants: tuple[Mutant, ...] = ()
    share: float = 1.0

    @property
    def right(self) -> bool:
        """Whether no mistake is among them."""
        return all(mutant.mistake is None for mutant in self.mutants)


def conventions(
    ensemble: Ensemble,
    submitted: Submitted,
    trace: Trace,
    reduction: Reduction | None,
    *,
    scale_free: bool = False,
) -> list[Convention]:
    """Return those that what was submitted may follow, the usual one first.

    Which factors its gradients and its deltas have is read off those that are multiples of the
    right ones, and a convention that few of them have, where many have another, is left out.
    """
    loss, n = ensemble.exact.loss, ensemble.exact.loss.images
    deltas = {f"delta of {name}": dy for name, dy in trace.deltas.items()}
    of_gradients = _factors(submitted, trace.gradients, ensemble)
    of_deltas = _factors(submitted, deltas, ensemble)
    if scale_free:
        c = next(iter(of_gradients), None) or _factor_of_a_mistake(submitted, ensemble)
        return [Convention((), c)] if c and c > 0 else [Convention()]
    ways: dict[float, tuple[Mutant, ...]] = {1.0: ()}
    ways |= {c: (mutant,) for c, mutant in squares_conventions(loss).items()}
    found = [(Convention(mutants), c, c) for c, mutants in ways.items()]
    if n > 1 and deltas.keys() & submitted:
        found += [(Convention((*m, SUM_CONVENTION), 1 / n), c, c * n) for c, m in ways.items()]
    if n > 1 and reduction is None:
        ways |= {c * n: (*m, SUM_LOSS) for c, m in ways.items()}
        found += [(Convention(m), c, c) for c, m in ways.items() if SUM_LOSS in m]
    both = [_commonest(factors) for factors in (of_gradients, of_deltas) if factors]
    c = both[0] if both else 1.0
    mirrored = _way(ways, c)
    if mirrored is not None and len(both) == 2 and _same(c, -both[1]):
        found.append((Convention((*mirrored, SIGN), -1.0), c, -c))
    if all(_same(c, other) for other in both) and _way(ways, c) is None:
        backwards = _way(ways, -c)
        if backwards is not None:
            mutants = (*backwards, SIGN)
        else:
            alone = not deltas.keys() & submitted
            mutants = (_factor_mutant(loss, c, reduction, gradients_alone=alone),)
        found.append((Convention(mutants), c, c))
    error = max(_EXACTLY, 4 * ensemble.eps)
    votes = [(_count(of_gradients, g, error), _count(of_deltas, d, error)) for _, g, d in found]
    right = [v for (one, *_), v in zip(found, votes, strict=True) if one.right]
    most = [max(counts) for counts in zip(*right, strict=True)]  # rounding may look like a factor
    kept = [
        one
        for (one, *_), counts in zip(found, votes, strict=True)
        if all(2 * count >= top or top == 1 for count, top in zip(counts, most, strict=True))
    ]
    return kept if any(one.right for one in kept) else [one for one, *_ in found]


def _same(c: float, other: float, error: float = _EXACTLY) -> bool:
    return abs(c / other - 1) < error


def _count(factors: Sequence[float], c: float, error: float = _EXACTLY) -> int:
    return sum(_same(one, c, error) for one in factors)


def _commonest(factors: Sequence[float]) -> float:
    """Return the factor that most have; the first one's where there are several."""
    return max(factors, key=lambda c: _count(factors, c))


def _way(ways: Mapping[float, tuple[Mutant, ...]], c: float) -> tuple[Mutant, ...] | None:
    """Return the way to begin that has the factor c."""
    return next((m for one, m in ways.items() if _same(c, one)), None)


def _factors(submitted: Submitted, right: Mapping[str, Array], ensemble: Ensemble) -> list[float]:
    """Return the factors of the arrays that are multiples of the right ones, from the loss down.

    Of one number every other is a multiple, and undecided units above it may change an array.
    """
    found = []
    for name in _from_the_loss(right, ensemble):
        if name not in submitted or np.count_nonzero(right[name]) < 2:
            continue
        for reading in submitted[name]:
            c = compare.factor(reading.values, right[name], NEARLY)
            if c:
                found.append(c)
                break
    return found


def _factor_of_a_mistake(submitted: Submitted, ensemble: Ensemble) -> float | None:
    """Return what the last dense weights' gradient is times that of a mistake at the loss."""
    last = list(ensemble.exact.layers.values())[-1]
    if not isinstance(last.layer, Dense):
        return None
    for mutant in mutants_of(ensemble.exact.loss):
        delta = first_delta(ensemble.exact.loss, (mutant,))
        for c in _factors(submitted, {f"{last.name}.weight": delta.T @ last.x}, ensemble):
            if c > 0:
                return c
    return None


def _from_the_loss(right: Mapping[str, Array], ensemble: Ensemble) -> list[str]:
    """Return the names of gradients or deltas from the loss down to the first undecided units."""
    found = []
    for layer in ("input", *ensemble.exact.layers)[::-1]:
        found += [name for name in right if place_of(name)[0] == layer]
        if layer in ensemble.undecided:
            break
    return found


def _factor_mutant(
    loss: LossPass, c: float, reduction: Reduction | None, *, gradients_alone: bool
) -> Mutant:
    """Return the mistake that multiplies everything by c: the catalogue's, where it has it."""
    n, classes = loss.images, loss.logits.shape[1]
    if reduction == "sum" and abs(c * n - 1) < _EXACTLY:
        return factor(1 / n, "the batch's mean stands where the sum belongs", BATCH_SCALE)
    right = first_delta(loss)
    for mutant in mutants_of(loss):
        wrong = first_delta(loss, (mutant,))
        if mutant.mistake and length(wrong - c * right) <= _EXACTLY * length(wrong):
            return mutant
    meanings = {
        1 / n: "1 / N, of N images", float(n): "N, the number of images", 0.5: "1/2", 2.0: "2",
        float(classes): "the number of classes", 1 / classes: "1 / the number of classes",
        1 / (n * classes): "1 / (N K), of N images and K classes",
        1 / n**2: "1 / N^2, of N images",
    }  # fmt: skip
    exact, words = next(
        ((m, f": {w}") for m, w in meanings.items() if abs(c / m - 1) < _EXACTLY), (c, "")
    )
    said = f"everything is {exact:.6g} times right{words}"
    if gradients_alone and exact in (2.0, 3.0):
        said += "; added to what an earlier call had left, or another factor of the loss"
        return factor(exact, said, GRADIENTS_NOT_CLEARED)
    return factor(exact, said)


def tie_rules(ensemble: Ensemble) -> list[Ties]:
    """Return the ways to decide every tie of an ensemble, fullback's own first.

    Each has one rule for all rectifiers and one for all pooling layers.
    """
    by_kind: dict[int, dict[str, dict[str, Mutant]]] = {}
    for name in ensemble.undecided:
        p = ensemble.exact.layers[name]
        for mutant in mutants_of(p):
            if mutant.mistake is None:
                rules = by_kind.setdefault(id(rules_of(p.layer).kinks), {})
                rules.setdefault(mutant.description, {})[name] = mutant
    choices = [[{}, *rules.values()] for rules in by_kind.values()]
    return [
        dict(itertools.chain(*(c.items() for c in chosen)))
        for chosen in itertools.product(*choices)
    ]
