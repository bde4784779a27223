"""Mistakes in the gradient of any weight or bias; most act on what was computed rightly."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullback.check.mistakes import common
from fullback.check.mistakes.base import Change, Mistake, Mutant, Mutants, Target
from fullback.layers.base import Array

_DIGITS = 2  # of a threshold that a person writes down, at most
_FEW = 3  # numbers whose signs may be those of any array
_MOMENTUM = (0.9, 0.99, 0.999)

GRADIENTS_NOT_CLEARED = Mistake(
    "gradients-not-cleared",
    "The gradient was added to what an earlier call had left.",
    "dw = sum over n of dy[n] x[n], of this batch alone",
    "dw[...] = 0  # before every backward pass\n# or assign: dw = dy.T @ x, not dw += dy.T @ x",
)
L2_TERM = Mistake(
    "l2-term",
    "The gradient holds an L2 term that this loss does not have.",
    "dw = sum over n of dy[n] x[n];  with a penalty a/2 |w|^2 in the loss, + a w, once",
    "dw = dy.T @ x + a * w  # for a loss of ... + a / 2 * (w**2).sum()\n"
    "# not divided by N, not doubled, and not for biases",
)
L1_TERM = Mistake(
    "l1-term",
    "The gradient holds an L1 term that this loss does not have.",
    "dw = sum over n of dy[n] x[n];  with a penalty a |w| in the loss, + a sign(w), once",
    "dw = dy.T @ x + a * np.sign(w)  # for a loss of ... + a * abs(w).sum()\n"
    "# without that in the loss: dw = dy.T @ x",
)
GRADIENT_CLIPPED = Mistake(
    "gradient-clipped",
    "The gradient was clipped.",
    "dw = sum over n of dy[n] x[n], whatever its size;  clipping belongs to the update",
    "dw = dy.T @ x\nw -= rate * np.clip(dw, -c, c)  # a copy, at the update: dw stays as it is",
)
GRADIENT_NORMALISED = Mistake(
    "gradient-normalised",
    "The gradient was divided by its own size.",
    "dw = sum over n of dy[n] x[n], not divided by |dw|: its size belongs to it",
    "dw = dy.T @ x  # not: dw / np.linalg.norm(dw), not: dw / abs(dw).max()",
)
UPDATE_IN_GRADIENT = Mistake(
    "update-in-gradient",
    "The gradient holds what belongs to the update: a learning rate, or a momentum.",
    "v = b v + (1 - b) dw and w -= rate v  are the update;  dw = sum over n of dy[n] x[n]",
    "dw = dy.T @ x  # the gradient: no rate, no average\n"
    "v = b * v + (1 - b) * dw  # a name of its own\nw -= rate * v",
)


def add_to_gradient(table: Mutants, of: Target) -> None:
    """Add what can happen to the gradient of any weight or bias."""
    table.add(common.SIGN_FLIPPED, Mutant(of, "out", "the sign is flipped", common.negative))
    table.add(
        common.BATCH_SCALE,
        Mutant(of, "out", "the batch's sum stands where the mean belongs: N times too large",
               common.times_images, common.several_images),
        Mutant(of, "out", "the batch's mean was taken twice: divided by N once more",
               common.over_images, common.several_images),
    )  # fmt: skip
    table.add(
        common.LAST_SAMPLE_ONLY,
        Mutant(of, "delta", "only the last image was counted, and divided by N all the same",
               common.only_last, common.several_images),
        Mutant(of, "delta", "only the last image was counted: every image overwrote the one before",
               lambda p, v, dy: common.only_last(p, v, dy) * p.images, common.several_images),
    )  # fmt: skip
    table.add(
        GRADIENTS_NOT_CLEARED,
        Mutant(of, "out", "it is double: it was added to what earlier calls had left",
               lambda p, v, dy: v * 2),
        Mutant(of, "out", "it is three times as large: it was added to what earlier calls had left",
               lambda p, v, dy: v * 3),
    )  # fmt: skip
    table.add(
        L2_TERM,
        Mutant(of, "out", "it holds a multiple of the parameter itself, an L2 term",
               lambda p, v, dy: v + p.decay * p.parameters[of],
               lambda p: bool(p.parameters[of].any()), "decay",
               lambda p, v, given: _multiple(given - v, p.parameters[of])),
    )  # fmt: skip
    table.add(
        L1_TERM,
        Mutant(of, "out", "it holds a multiple of the parameter's signs, an L1 term",
               lambda p, v, dy: v + p.decay * np.sign(p.parameters[of]),
               lambda p: bool(np.count_nonzero(p.parameters[of]) > _FEW), "decay",
               lambda p, v, given: _multiple(given - v, np.sign(p.parameters[of]))),
    )  # fmt: skip
    table.add(
        GRADIENT_CLIPPED,
        Mutant(of, "out", "what is larger than a threshold was cut off, value by value",
               lambda p, v, dy: np.clip(v, -p.decay, p.decay), unknown="threshold",
               solve=lambda p, v, given: _written(_largest(given), _largest(v))),
        Mutant(of, "out", "its norm was brought down to a threshold", _shortened,
               unknown="threshold", solve=lambda p, v, given: _written(_norm(given), _norm(v))),
    )  # fmt: skip
    table.add(
        GRADIENT_NORMALISED,
        Mutant(of, "out", "it was divided by its norm", _divided(_norm)),
        Mutant(of, "out", "it was divided by its largest value", _divided(_largest)),
        Mutant(of, "out", "its mean was taken off, and it was divided by its deviation",
               lambda p, v, dy: _divided(np.std)(p, v - v.mean(), dy),
               lambda p: bool(p.parameters[of].size > 1)),
    )  # fmt: skip
    table.add(
        UPDATE_IN_GRADIENT,
        *(Mutant(of, "out", f"it is {1 - b:.3g} times the gradient, as a running average with a "
                 f"momentum of {b} begins, or a step with a learning rate of {1 - b:.3g}",
                 _times(1 - b)) for b in _MOMENTUM),
        *(Mutant(of, "out", f"it is {1 + b:.4g} times the gradient: with a momentum of {b}, the "
                 "one of an earlier step is in it", _times(1 + b)) for b in _MOMENTUM),
    )  # fmt: skip
    table.add(
        common.CONSTANT_FACTOR,
        Mutant(of, "out", "it was multiplied by a number",
               lambda p, v, dy: v * p.decay, lambda p: bool(p.parameters[of].size > _FEW),
               "factor", _other_factor),
    )  # fmt: skip
    table.add(
        common.CAST_TO_WHOLE,
        Mutant(of, "out", "it was cast to whole numbers, towards 0", common.whole),
    )


def _multiple(of: Array, term: Array) -> float:
    """Return how many times a term is in an array, by least squares."""
    return float((of * term).sum() / (term**2).sum())


def _other_factor(p: Any, v: Array, given: Array) -> float:
    """Return how many times an array is another one, NaN where that has a name of its own."""
    c = _multiple(given, v)
    names = (1.0, -1.0, 2.0, 3.0, p.images, 1 / p.images, *(1 - b for b in _MOMENTUM))
    named = any(abs(c - name) < 1e-4 * abs(name) for name in names)
    return float("nan") if named or np.count_nonzero(v) <= _FEW else c


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array))


def _largest(array: Array) -> float:
    return float(abs(array).max())


def _written(threshold: float, size: float) -> float:
    """Return a threshold below that size if it is one that a person writes down, else NaN.

    Any array that is too small by a factor would else be one that was clipped.
    """
    number = float(f"{threshold:.{_DIGITS - 1}e}")
    exact = abs(threshold - number) <= 1e-6 * threshold
    return number if exact and 0 < threshold < size else float("nan")


def _shortened(p: Any, v: Array, dy: Array) -> Array:
    """Bring an array's norm down to the threshold."""
    shorter: Array = v * min(1.0, p.decay / (_norm(v) or 1.0))
    return shorter


def _divided(by: Any) -> Change:
    return lambda p, v, dy: v / (by(v) or 1.0)


def _times(factor: float) -> Change:
    return lambda p, v, dy: v * factor
