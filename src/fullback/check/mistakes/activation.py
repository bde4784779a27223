"""Activations and dropout: which cells a delta passes, and by what factor.

Stages: "delta", "rule", "out".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fullback.check.mistakes import common
from fullback.check.mistakes.base import Change, Mistake, Mutant, Mutants, Target, delta, same
from fullback.check.mistakes.kinks import RECTIFIER, slope_below
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.check.mistakes.rules import OWN, Rules, layer_rule
from fullback.layers.base import Array


def _with_cache(cache: Any) -> Change:
    """Return the layer's own rule with another cache, a function of the pass."""
    return lambda p, v, dy: layer_rule(replace(p, cache=cache(p)), v, dy)


def _add_other_caches(table: Mutants, what: str) -> None:
    """Add what happens where the mask or slope in the cache is another layer's or image's."""

    def mutants(p: LayerPass) -> Iterator[Mutant]:
        for name, other in p.activations.items():
            if other.shape == p.x.shape and name not in (p.before, p.name):
                words = f"the {what} in the cache was that of {name}"
                output = partial(lambda p, name: p.activations[name], name=name)
                yield delta("rule", words, _with_cache(output))

    table.add(common.CACHE_OVERWRITTEN, mutants)
    common.add_other_images(
        table, delta, "rule", what, lambda of: _with_cache(lambda p: of(p.cache))
    )


OTHER_SLOPE = Mistake(
    "other-activation-slope",
    "The slope is that of another activation.",
    "ReLU: 1 where x > 0, else 0;  leaky ReLU: 1, else a;  sigmoid: y (1 - y);  tanh: 1 - y^2",
    "dx = dy * (x > 0)      # ReLU; leaky: dy * np.where(x > 0, 1, a)\n"
    "dx = dy * y * (1 - y)  # sigmoid, y = sigmoid(x)\n"
    "dx = dy * (1 - y**2)   # tanh, y = np.tanh(x)",
)
_SLOPES: tuple[tuple[str, str, Callable[[LayerPass], Array]], ...] = (
    ("sigmoid", "a sigmoid, y (1 - y) of the output y", lambda p: p.y * (1 - p.y)),
    ("tanh", "a tanh, 1 - y^2 of the output y", lambda p: 1 - p.y**2),
    ("sigmoid", "a sigmoid, computed from the input", lambda p: 1 / (2 + 2 * np.cosh(p.x))),
    ("tanh", "a tanh, computed from the input", lambda p: 1 - np.tanh(p.x) ** 2),
    ("relu", "a ReLU: 1 where the input is positive, else 0", lambda p: p.x > 0),
)
_LEAKS = (0.01, 0.1, 0.2, 0.3)


def _other_slopes(p: LayerPass) -> Iterator[Mutant]:
    for kind, words, slope in _SLOPES:
        if kind != p.layer.kind:
            yield delta("rule", f"the slope is that of {words}", _times(slope))
    for leak in _LEAKS:
        if p.layer.kind in ("relu", "leakyrelu") and leak != getattr(p.layer, "slope", None):
            words = f"the slope is that of a leaky ReLU: {leak} where the input is not positive"
            slope = partial(lambda p, leak: np.where(p.x > 0, 1.0, leak), leak=leak)
            yield delta("rule", words, _times(slope))


def _times(slope: Callable[[LayerPass], Array]) -> Change:
    return lambda p, v, dy: v * slope(p)


# ReLU and LeakyReLU: their cache is x -------------------------------------------------------------

RECTIFIER_MUTANTS = Mutants()
RECTIFIER_MUTANTS.add(
    Mistake("relu-mask-missing",
        "The ReLU's mask is missing: the delta passed it unchanged.",
        "dx = dy where x > 0, else 0;  of a leaky ReLU a dy",
        "dx = dy * (x > 0)  # x: what went into the ReLU"),
    delta("rule", "the mask is missing: the delta was handed down as it came", same),
)  # fmt: skip
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
    """Whether the input of a rectifier, which has no slope at 0, is 0 somewhere."""
    return bool((p.cache == 0).any())


def _with_slope_at_zero(p: LayerPass, v: Array, dy: Array, *, share: float) -> Array:
    """Take the slope at exactly 0 as so much of 1, and the rest of that below 0."""
    closed = slope_below(p.layer)
    slope = np.where(p.cache > 0, 1.0, closed)
    passed: Array = v * np.where(p.cache == 0, share + (1 - share) * closed, slope)
    return passed


RECTIFIER_MUTANTS.add(
    None,
    delta("rule", "the slope at exactly 0 is taken as 1 here, as above 0, and in fullback as below "
          "0: both are right", partial(_with_slope_at_zero, share=1.0), _at_zero),
    delta("rule", "the slope at exactly 0 is taken as the mean of those on its sides here, and in "
          "fullback as below 0: both are right", partial(_with_slope_at_zero, share=0.5), _at_zero),
)  # fmt: skip


RECTIFIER_MUTANTS.add(OTHER_SLOPE, _other_slopes)
_add_other_caches(RECTIFIER_MUTANTS, "mask")
RECTIFIER_RULES = Rules(
    RECTIFIER_MUTANTS, {"delta": OWN}, adds=lambda p: False, kinks=RECTIFIER
)  # fmt: skip


# Sigmoid and tanh: their cache is y ---------------------------------------------------------------

SMOOTH_MUTANTS = Mutants()
SMOOTH_MUTANTS.add(
    Mistake("slope-missing",
        "The activation's slope is missing: the delta passed it unchanged.",
        "dx = dy f'(x): of a sigmoid dy y (1 - y), of a tanh dy (1 - y^2)",
        "dx = dy * y * (1 - y)  # sigmoid; tanh: dx = dy * (1 - y**2)"),
    delta("rule", "the slope is missing: the delta was handed down as it came", same),
    delta("rule", "the slope is missing, and the sign is flipped: t - y, where (y - t) f'(x) "
          "belongs", common.negative),
)  # fmt: skip
SMOOTH_MUTANTS.add(
    common.SLOPE_TWICE,
    delta("rule", "the slope was applied twice",
          lambda p, v, dy: layer_rule(p, layer_rule(p, v, dy), dy)),
)  # fmt: skip
SMOOTH_MUTANTS.add(
    Mistake("slope-at-wrong-place",
        "The slope was computed at another place: of the input for the output, or the reverse.",
        "sigmoid: y (1 - y), tanh: 1 - y^2, of the output y = f(x)",
        "y = sigmoid(x)\n"
        "dx = dy * y * (1 - y)  # takes the output y\n"
        "# sigmoid_prime(x) = sigmoid(x) * (1 - sigmoid(x))  takes the input x"),
    delta("rule", "the slope was computed from the input x, in a formula that takes the output y",
          _with_cache(lambda p: p.x)),
    delta("rule", "the slope was computed from the output, in a formula that takes the input",
          _with_cache(lambda p: p.layer.forward(p.y, {})[0])),
)  # fmt: skip
SMOOTH_MUTANTS.add(OTHER_SLOPE, _other_slopes)
_add_other_caches(SMOOTH_MUTANTS, "slope")


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
