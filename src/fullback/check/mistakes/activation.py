"""Activations and dropout: which cells a delta passes, and by what factor.

Stages: "delta", "rule", "out".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fullback.check.mistakes import common
from fullback.check.mistakes.base import Change, Mistake, Mutant, Mutants, Target, delta, same
from fullback.check.mistakes.kinks import RECTIFIER
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.check.mistakes.rules import OWN, Rules, layer_rule
from fullback.layers.base import Array


def _with_cache(cache: Any) -> Change:
    """Return the layer's own rule with another cache, a function of the pass."""
    return lambda p, v, dy: layer_rule(replace(p, cache=cache(p)), v, dy)


MASK_MISSING = Mistake(
    "relu-mask-missing",
    "The activation's slope is missing: the delta passed it unchanged.",
    "dx = dy where x > 0, else 0   (in general dx = dy f'(x))",
    "dx = dy * (x > 0)  # x: what went into the ReLU",
)


def _missing(what: str) -> Mutant:
    return delta("rule", f"the {what} is missing: the delta was handed down as it came", same)


def _of_last_image(what: str) -> Mutant:
    words = f"the last image's {what} stood in the cache for every image"
    return delta(
        "rule", words, _with_cache(lambda p: common.last_for_all(p.cache)), common.several_images
    )


# ReLU and LeakyReLU: their cache is x -------------------------------------------------------------

RECTIFIER_MUTANTS = Mutants()
RECTIFIER_MUTANTS.add(MASK_MISSING, _missing("mask"))
RECTIFIER_MUTANTS.add(
    Mistake("relu-mask-for-delta",
        "The ReLU handed down its mask in place of the masked delta.",
        "dx = dy where x > 0, else 0",
        "mask = x > 0\ndx = dy * mask  # not: dx = mask"),
    delta("rule", "the mask itself was handed down in place of the masked delta",
          lambda p, v, dy: (p.cache > 0).astype(np.float64)),
)  # fmt: skip
RECTIFIER_MUTANTS.add(
    Mistake("relu-mask-of-delta",
        "The ReLU was applied to the delta: negative deltas were cut off.",
        "dx = dy where x > 0, else 0: the sign of x decides, not that of dy",
        "dx = dy * (x > 0)  # not: np.maximum(dy, 0), not: dy * (dy > 0)"),
    delta("rule", "the mask was made from the delta's sign and not from the input's",
          lambda p, v, dy: np.maximum(v, 0)),
    delta("rule", "the delta's own negative cells were cut off as well as those of the mask",
          lambda p, v, dy: np.where(p.cache > 0, np.maximum(v, 0), 0)),
)  # fmt: skip
RECTIFIER_MUTANTS.add(
    common.SIGN_FLIPPED,
    delta("rule", "the mask is inverted: the delta passed where the input was not positive",
          lambda p, v, dy: np.where(p.cache > 0, 0, v)),
)  # fmt: skip


def _at_zero(p: LayerPass) -> bool:
    """Whether the input of a ReLU, which has no slope at 0, is 0 somewhere."""
    return p.layer.kind == "relu" and bool((p.cache == 0).any())


RECTIFIER_MUTANTS.add(
    None,
    delta("rule", "the slope at exactly 0 is taken as 1 here, and as 0 in fullback: both are right",
          lambda p, v, dy: np.where(p.cache >= 0, v, 0), _at_zero),
    delta("rule", "the slope at exactly 0 is taken as 1/2 here, and as 0 in fullback: both are "
          "right",
          lambda p, v, dy: np.where(p.cache == 0, v / 2, np.where(p.cache > 0, v, 0)), _at_zero),
)  # fmt: skip


def _masks_of_others(p: LayerPass) -> Iterator[Mutant]:
    def activation(name: str) -> Any:
        return lambda p: p.activations[name]

    for name, other in p.activations.items():
        if other.shape == p.x.shape and name not in (p.before, p.name):
            words = f"the mask in the cache was that of {name}"
            yield delta("rule", words, _with_cache(activation(name)))


RECTIFIER_MUTANTS.add(common.CACHE_OVERWRITTEN, _masks_of_others, _of_last_image("mask"))
RECTIFIER_RULES = Rules(
    RECTIFIER_MUTANTS, {"delta": OWN}, adds=lambda p: False, kinks=RECTIFIER
)  # fmt: skip


# Sigmoid and tanh: their cache is y ---------------------------------------------------------------

SMOOTH_MUTANTS = Mutants()
SMOOTH_MUTANTS.add(MASK_MISSING, _missing("slope"))
SMOOTH_MUTANTS.add(
    common.SLOPE_TWICE,
    delta("rule", "the slope was applied twice",
          lambda p, v, dy: layer_rule(p, layer_rule(p, v, dy), dy)),
)  # fmt: skip
SMOOTH_MUTANTS.add(
    common.WRONG_CACHED_INPUT,
    delta("rule", "the slope was computed from the input x, in a formula that takes the output y",
          _with_cache(lambda p: p.x)),
    delta("rule", "the slope was computed from the output, in a formula that takes the input",
          _with_cache(lambda p: p.layer.forward(p.y, {})[0])),
)  # fmt: skip
SMOOTH_MUTANTS.add(common.CACHE_OVERWRITTEN, _of_last_image("slope"))
SMOOTH_MUTANTS.add(
    MASK_MISSING,
    delta("rule", "the slope is missing, and the sign is flipped: t - y, where (y - t) f'(x) "
          "belongs", common.negative),
)  # fmt: skip


def _smooth_rules(largest: Any) -> Rules:
    """Return the rules; ``largest`` is the first factor of the slope, as a function of y."""

    def sizes(p: LayerPass, target: Target, dy: Array, mutants: Sequence[Mutant]) -> Array | None:
        """1 - y loses digits near y = 1."""
        return None if mutants else dy * (largest(p.y) * (1 + p.y))

    return Rules(
        SMOOTH_MUTANTS,
        {"delta": OWN},
        noise=lambda p, y, eps: np.full(y.shape, 2 * eps),
        sizes=sizes,
    )


SIGMOID_RULES, TANH_RULES = _smooth_rules(lambda y: y), _smooth_rules(lambda y: 1)


# Dropout: its cache is the mask -------------------------------------------------------------------

DROPOUT_MUTANTS = Mutants()

DROPOUT_MUTANTS.add(
    Mistake("dropout-mask-lost",
        "Dropout's mask or its scale was left out on the way back.",
        "dx = m dy, with m = 1 / (1 - rate) where the unit stayed, else 0",
        "mask = (rng.random(x.shape) >= rate) / (1 - rate)  # forward: y = mask * x\n"
        "dx = mask * dy  # back: the same mask"),
    delta("rule", "the mask of dropped units is missing: the delta was handed down as it came",
          same),
    delta("rule", "dropped units get no delta, as they should, but the scale 1 / (1 - rate) is "
          "missing", lambda p, v, dy: np.where(p.cache > 0, v, 0)),
    delta("rule", "the scale 1 / (1 - rate) is there, but dropped units get a delta all the same",
          lambda p, v, dy: v / (1 - p.layer.rate)),
    when=lambda p: p.cache is not None,
)  # fmt: skip
DROPOUT_RULES = Rules(DROPOUT_MUTANTS, {"delta": OWN}, modal=True)
