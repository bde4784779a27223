"""Other right ways for a whole backward pass, with which a search begins, and constant factors.

Ways to decide ties are mutants of a layer without a mistake (``Mutants.add(None, ...)`` in
``mistakes``): ``tie_rules`` yields them for the whole pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.ensemble import Ensemble
from fullback.check.diagnose.layouts import Reading
from fullback.check.diagnose.submission import Submitted
from fullback.check.mistakes import LossPass, Mutant, first_delta, mutants_of, rules_of
from fullback.check.mistakes.common import BATCH_SCALE
from fullback.check.mistakes.gradient import GRADIENTS_NOT_CLEARED
from fullback.check.mistakes.loss import SUM_CONVENTION, SUM_LOSS, factor
from fullback.layers.base import Array
from fullback.passes import Trace

Reduction: TypeAlias = Literal["mean", "sum"]
Ties: TypeAlias = Mapping[str, Mutant]
"""How ties are decided in layers by name; as in fullback where a layer is not named."""

_NEARLY = 1e-3  # how far off a multiple of the right array one may be, and be tried as one
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


def conventions(
    loss: LossPass,
    submitted: Submitted,
    trace: Trace,
    reduction: Reduction | None,
    *,
    scale_free: bool = False,
) -> list[Convention]:
    """Return those that what was submitted may follow, the usual one first.

    Which factor its gradients and its deltas have is read off the first of each behind the loss:
    where that is a multiple of the right one.
    """
    of_gradients = _factor(submitted.gradients, trace.gradients)
    of_deltas = _factor(submitted.deltas, trace.deltas)
    found = [Convention()]
    if scale_free:
        return [Convention((), of_gradients)] if of_gradients and of_gradients > 0 else found
    if loss.images > 1 and submitted.deltas:
        found.append(Convention((SUM_CONVENTION,), 1 / loss.images))
    if loss.images > 1 and reduction is None:
        found.append(Convention((SUM_LOSS,)))
    both = {c for c in (of_gradients, of_deltas) if c is not None}
    c = next(iter(both)) if both else 1.0
    usual = (1.0,) if reduction else (1.0, float(loss.images))
    if all(abs(c / other - 1) < _EXACTLY for other in both) and not any(
        abs(c / one - 1) < _EXACTLY for one in usual
    ):
        alone = not submitted.deltas
        found.append(Convention((_factor_mutant(loss, c, reduction, gradients_alone=alone),)))
    return found


def _factor(
    submitted: Mapping[str, tuple[Reading, ...]], right: Mapping[str, Array]
) -> float | None:
    """Return the factor of the first array behind the loss, if it is a multiple of the right one.

    ``right`` is in the order of the network.
    """
    for name in reversed(list(right)):
        if name not in submitted or not right[name].any():
            continue
        for reading in submitted[name]:
            array, truth = reading.values, right[name]
            c = float((array * truth).sum() / (truth**2).sum())
            if c and length(array - c * truth) <= _NEARLY * length(array):
                return c
        return None
    return None


def _factor_mutant(
    loss: LossPass, c: float, reduction: Reduction | None, *, gradients_alone: bool
) -> Mutant:
    """Return the mistake that multiplies everything by c: the catalogue's, where it has it."""
    right = first_delta(loss)
    for mutant in mutants_of(loss):
        wrong = first_delta(loss, (mutant,))
        if mutant.mistake and length(wrong - c * right) <= _EXACTLY * length(wrong):
            return mutant
    n, classes = loss.images, loss.logits.shape[1]
    meanings = {
        1 / n: "1 / N, of N images", float(n): "N, the number of images", 0.5: "1/2", 2.0: "2",
        float(classes): "the number of classes", 1 / classes: "1 / the number of classes",
        1 / (n * classes): "1 / (N K), of N images and K classes", -1.0: "a sign",
        1 / n**2: "1 / N^2, of N images",
    }  # fmt: skip
    exact, words = next(
        ((m, f": {w}") for m, w in meanings.items() if abs(c / m - 1) < _EXACTLY), (c, "")
    )
    said = f"everything is {exact:.6g} times right{words}"
    if reduction == "sum" and exact == 1 / n:
        return factor(exact, "the batch's mean stands where the sum belongs", BATCH_SCALE)
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
