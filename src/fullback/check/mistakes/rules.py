"""What the checks know about a kind of layer beside its mistakes: the right stages, and rounding.

A sum of n rounded terms is usually off by half an eps times the sum of the terms' absolute values,
and, where they have one sign, by that times the square root of n / 3 (Higham, Accuracy and
Stability of Numerical Algorithms, 2002, section 4.2: rounding errors add up like random ones).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fullback.check.mistakes.base import Memo, Mutant, Mutants, Stages, Target, run_stages, same
from fullback.check.mistakes.kinks import Kinks
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.layers.base import Array

Run: TypeAlias = Callable[[Stages, LayerPass, Array, Sequence[Mutant], Memo | None], Array]


class Terms(NamedTuple):
    """How many terms are added up in one cell of each."""

    output: int = 1
    delta: int = 1
    gradient: int = 1


@dataclass(frozen=True, eq=False)
class Rules:
    """One kind of layer, as the checks know it.

    Attributes
    ----------
    mutants : the mistakes, the likelier ones first
    stages : the right way to the next delta, and to the gradients of the parameters, by target
    run : runs stages on a pass, with mutants in place of some, and a memo as in ``run_stages``
    terms : how many terms each sum has, for layer, input and output
    absolute : fields of the pass in which every factor is its absolute value, from the right pass;
        what only chooses keeps what it chooses by
    noise : usual error of the output, from the absolute pass, the output and eps; None where the
        layer only chooses or rearranges
    sizes : sums of the absolute values behind one result, from the absolute pass and delta
    adds : whether the next delta is computed, and not only chosen or rearranged, in a pass
    kinks : how the layer chooses among cells, where it does
    weighs : whether its units are products with weights that must not start equal
    modal : whether it computes otherwise in training
    """

    mutants: Mutants
    stages: Mapping[Target, Stages]
    run: Run = field(default=lambda stages, p, dy, *rest: run_stages(stages, p, dy, dy, *rest))
    terms: Callable[[Any, Array, Array], Terms] = field(
        default=lambda layer, x, y: Terms(gradient=positions(y))
    )
    absolute: Callable[[LayerPass], dict[str, Any]] = field(default=lambda p: {})
    noise: Callable[[LayerPass, Array, float], Array | None] = field(default=lambda p, y, eps: None)
    sizes: Callable[[LayerPass, Target, Array, Sequence[Mutant]], Array | None] = field(
        default=lambda p, target, dy, mutants: None
    )
    adds: Callable[[LayerPass], bool] = field(default=lambda p: True)
    kinks: Kinks | None = None
    weighs: bool = False
    modal: bool = False


# The right stages, where the layer's own page is followed ----------------------------------------


def layer_rule(p: LayerPass, value: Array, dy: Array) -> Array:
    """Carry the delta back as the layer's own page does."""
    dx: Array = p.layer.backward(value, p.cache, p.parameters)[0]
    return dx


def own_gradient(target: Target) -> Stages:
    """Return the stages of a gradient as the layer's own page computes it."""

    def rule(p: LayerPass, value: Array, dy: Array) -> Array:
        gradient: Array = p.layer.backward(value, p.cache, p.parameters)[1][target]
        return gradient

    return (("delta", same), ("rule", rule), ("out", same))


OWN: Stages = (("delta", same), ("rule", layer_rule), ("out", same))


# Rounding -----------------------------------------------------------------------------------------


def positions(y: Array) -> int:
    """Return how many cells of an output, over images and places, one unit or channel has."""
    return int(np.prod(y.shape)) // int(y.shape[1])


def amplitude_of(size: Array, result: Array, terms: int, eps: float) -> Array:
    """Return how far a sum is usually off, from the sum of absolute values and the sum itself."""
    amplitude: Array = eps / 2 * (abs(size) + abs(result) * (terms / 3 + 1) ** 0.5)
    return amplitude


def sum_noise(terms: Callable[[Any, Array, Array], Terms]) -> Callable[..., Array]:
    """Return the usual error of an output whose cells are sums of so many terms."""

    def noise(p: LayerPass, y: Array, eps: float) -> Array:
        size, _ = p.layer.forward(p.x, p.parameters)
        return amplitude_of(size, y, terms(p.layer, p.x, y).output, eps)

    return noise
