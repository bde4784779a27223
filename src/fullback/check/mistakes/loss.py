"""Mistakes at the loss: the first delta, (p - t) / N.

Stages: "target" makes t, "rule" makes the images' own deltas, "mean" divides by N, "out".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fullback.check.mistakes import common
from fullback.check.mistakes.base import (
    Change,
    Mistake,
    Mutant,
    Mutants,
    Stages,
    delta,
    named,
    run_stages,
    same,
)
from fullback.check.mistakes.layer_pass import LossPass
from fullback.layers import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from fullback.layers.base import Array
from fullback.layers.loss import softmax


def _rule(p: LossPass, t: Array, dy: Array) -> Array:
    difference: Array = p.p - t
    return difference if p.loss.classifies else 2 * difference / difference.shape[1]


STAGES: Stages = (
    ("target", same),
    ("rule", _rule),
    ("mean", lambda p, v, dy: v * p.share[:, None]),
    ("out", same),
)


def first_delta(p: LossPass, mutants: Sequence[Mutant] = ()) -> Array:
    """Return dL/dlogits, of shape (N, K)."""
    first: Array = run_stages(STAGES, p, p.t, p.p, mutants)
    return first


MUTANTS = Mutants()


def _softmax(p: LossPass) -> bool:
    return isinstance(p.loss, SoftmaxCrossEntropy) and _several_outputs(p)


def _sigmoid(p: LossPass) -> bool:
    return isinstance(p.loss, BinaryCrossEntropy)


def _squares(p: LossPass) -> bool:
    return isinstance(p.loss, MeanSquaredError)


def _classes(p: LossPass) -> bool:
    """Whether every class has an output, with one target at the label and another elsewhere."""
    at_label = p.t == p.t.max()
    one_hot = bool((at_label.sum(axis=1) == 1).all()) and len(np.unique(p.t)) == 2
    return _several_outputs(p) and (p.loss.classifies or one_hot)


def _several_outputs(p: LossPass) -> bool:
    return bool(p.logits.shape[1] > 1)


def _jacobian(g: Array, p: Array) -> Array:
    """The softmax's Jacobian applied to g."""
    product: Array = p * (g - (g * p).sum(axis=1, keepdims=True))
    return product


def _slope(p: LossPass) -> Array:
    """The slope of a sigmoid, from its output."""
    slope: Array = np.maximum(p.p * (1 - p.p), np.finfo(float).tiny)
    return slope


MUTANTS.add(
    Mistake("softmax-twice",
        "The softmax's derivative was applied twice.",
        "dx[n,k] = (p[n,k] - t[n,k]) / N is the delta of the logits: softmax included",
        "delta = (p - t) / N  # of the logits\n# no softmax_backward(delta) after it"),
    delta("rule", "the softmax's Jacobian was applied to p - t, which already holds it",
          lambda p, t, dy: _jacobian(p.p - t, p.p)),
    delta("rule", "the loss, which takes a softmax itself, was given probabilities in place of "
          "logits", lambda p, t, dy: _jacobian(softmax(p.p) - t, p.p)),
    when=_softmax,
)  # fmt: skip
MUTANTS.add(
    Mistake("softmax-diagonal",
        "Only the diagonal of the softmax's Jacobian was used.",
        "dp[j]/dx[k] = p[j] ((j == k) - p[k]), which with -t / p gives  p - t",
        "delta = (p - t) / N  # softmax and cross-entropy together\n"
        "# p * (1 - p) is the diagonal alone: rows of delta must sum to 0"),
    delta("rule", "p - t was multiplied by p (1 - p), the diagonal of the softmax's Jacobian",
          lambda p, t, dy: (p.p - t) * p.p * (1 - p.p)),
    when=_softmax,
)  # fmt: skip
MUTANTS.add(
    Mistake("true-class-only",
        "Only the true class has a delta.",
        "dx[n,k] = (p[n,k] - t[n,k]) / N for every class k: p[n,k] / N where k is not the label",
        "delta = p.copy()\ndelta[np.arange(N), y] -= 1  # every class, then 1 less at the label\n"
        "delta /= N"),
    delta("rule", "the label's own logit has p - 1 and the others have nothing, as also where only "
          "the diagonal p (1 - p) of the softmax's Jacobian meets -t / p",
          lambda p, t, dy: -t * (1 - p.p)),
    delta("rule", "-1 at the label's own logit is all there is: p is missing", lambda p, t, dy: -t),
    when=_softmax,
)  # fmt: skip
MUTANTS.add(
    Mistake("slope-of-probabilities-missing",
        "The delta of the probabilities was taken for that of the logits.",
        "dx[n,k] = (p[n,k] - t[n,k]) / N: the slope of the softmax or sigmoid is in it",
        "delta = (p - t) / N  # of the logits\n"
        "# -t / p is the delta of p: the slope is still missing"),
    delta("rule", "-t / p, the delta of the softmax's output, stands for that of the logits",
          lambda p, t, dy: -t / np.maximum(p.p, np.finfo(float).tiny), _softmax),
    delta("rule", "(p - t) / (p (1 - p)), the delta of the softmax's output, stands for that of "
          "the logits", lambda p, t, dy: (p.p - t) / _slope(p), _softmax),
    delta("rule", "(p - t) / (p (1 - p)), the delta of the sigmoid's output, stands for that of "
          "the logits: the slope p (1 - p) is missing",
          lambda p, t, dy: (p.p - t) / _slope(p), _sigmoid),
)  # fmt: skip
MUTANTS.add(
    common.SLOPE_TWICE,
    delta("rule", "p - t was multiplied by the sigmoid's slope p (1 - p), which it holds already",
          lambda p, t, dy: (p.p - t) * _slope(p)),
    delta("rule", "the loss, which takes a sigmoid itself, was given probabilities in place of "
          "logits", lambda p, t, dy: (1 / (1 + np.exp(-p.p)) - t) * _slope(p)),
    when=_sigmoid,
)  # fmt: skip
MUTANTS.add(
    Mistake("binary-term-lost",
        "One of the two terms of the binary cross-entropy is wrong or missing.",
        "dp = -t / p + (1 - t) / (1 - p), which the slope p (1 - p) makes  p - t",
        "dp = -t / p + (1 - t) / (1 - p)\ndelta = dp * p * (1 - p) / N  # which is (p - t) / N"),
    delta("rule", "only -t / p was taken back, and (1 - t) / (1 - p) is missing: outputs whose "
          "target is 0 get no delta", lambda p, t, dy: -t * (1 - p.p)),
    delta("rule", "the second term has the wrong sign: -t / p - (1 - t) / (1 - p)",
          lambda p, t, dy: -t * (1 - p.p) - (1 - t) * p.p),
    when=_sigmoid,
)  # fmt: skip
MUTANTS.add(
    Mistake("other-probabilities",
        "The first delta was computed from other probabilities than this loss has.",
        "softmax: p[n,k] = exp(x[n,k]) / sum over j of exp(x[n,j]), along a row of classes; "
        "sigmoid: p[n,k] = 1 / (1 + exp(-x[n,k]))",
        "e = np.exp(x - x.max(axis=1, keepdims=True))\n"
        "p = e / e.sum(axis=1, keepdims=True)  # axis 1: the classes\n"
        "p = 1 / (1 + np.exp(-x))              # sigmoid"),
    delta("rule", "the softmax was taken over the images, down the columns, not over the classes",
          lambda p, t, dy: softmax(p.logits.T).T - t,
          lambda p: _softmax(p) and common.several_images(p)),
    delta("rule", "the softmax was taken over the whole batch at once, not image by image",
          lambda p, t, dy: softmax(p.logits.reshape(1, -1)).reshape(t.shape) - t,
          lambda p: _softmax(p) and common.several_images(p)),
    delta("rule", "p is a sigmoid, each class for itself, where it has to be a softmax",
          lambda p, t, dy: 1 / (1 + np.exp(-p.logits)) - t, _softmax),
    delta("rule", "p is a softmax, where it has to be a sigmoid, each output for itself",
          lambda p, t, dy: softmax(p.logits) - t,
          lambda p: _sigmoid(p) and _several_outputs(p)),
)  # fmt: skip


def _cut_off(by: int) -> Change:
    """Shift the labels; what would leave stays at the edge."""

    def change(p: LossPass, t: Array, dy: Array) -> Array:
        places = np.arange(t.shape[1]) - by
        inside = np.clip(places, 0, t.shape[1] - 1)
        moved: Array = np.where(places == inside, np.take(t, inside, axis=1), 0.0)
        edge = -1 if by > 0 else 0
        moved[:, edge] += t[:, edge]
        return moved

    return change


def _rolled(by: int, axis: int) -> Change:
    return lambda p, t, dy: np.roll(t, by, axis=axis)


LABELS_SHIFTED = Mistake(
    "labels-shifted",
    "The labels are off by one.",
    "t[n,k] = 1 where k is the label of image n, else 0; classes count from 0",
    "t = np.zeros((N, K))\nt[np.arange(N), y] = 1  # y from 0 to K - 1",
)
for _by, _which in ((1, "one too high"), (-1, "one too low")):
    MUTANTS.add(
        LABELS_SHIFTED,
        delta("target", f"the labels are {_which}, the last class wrapping round to the other end",
              _rolled(_by, 1)),
        delta("target", f"the labels are {_which}, and cut off at the last class",
              _cut_off(_by)),
        when=_classes,
    )  # fmt: skip
MUTANTS.add(
    common.BATCH_SCALE,
    delta("rule", "the 2 of the square's derivative is missing",
          lambda p, t, dy: (p.p - t) / t.shape[1]),
    when=_squares,
)  # fmt: skip
MUTANTS.add(
    LABELS_SHIFTED,
    delta("target", "each image got the label of the image before it", _rolled(1, 0)),
    delta("target", "each image got the label of the image behind it", _rolled(-1, 0)),
)
SIGN = named(delta("out", "t - p stands for p - t", common.negative), common.SIGN_FLIPPED)
MUTANTS.add(common.SIGN_FLIPPED, SIGN)
BATCH_SUM = delta(
    "mean", "the batch's sum stands where the mean belongs: nothing was divided by N",
    same, common.several_images,
)  # fmt: skip
MUTANTS.add(
    common.BATCH_SCALE,
    BATCH_SUM,
    delta("out", "the batch's mean was taken twice: divided by N once more",
          common.over_images, common.several_images),
)  # fmt: skip
MUTANTS.add(
    common.LAST_SAMPLE_ONLY,
    delta("out", "only the last image has a delta", common.only_last, common.several_images),
    delta("out", "only the last image has a delta, and it was not divided by N",
          lambda p, v, dy: common.only_last(p, v, dy) * p.images, common.several_images),
)  # fmt: skip
MUTANTS.add(
    common.BATCH_SCALE,
    delta("out", "the mean was taken over the classes too: divided by N K in place of N",
          lambda p, v, dy: v / v.shape[1], lambda p: p.loss.classifies and _several_outputs(p)),
)  # fmt: skip
SUM_LOSS = delta(
    "mean", "the loss is the batch's sum here, and its mean in fullback: both are right, and every "
    "gradient is N times fullback's", same, common.several_images,
)  # fmt: skip
"""Another right way: everything is N times as large."""

MUTANTS.mistakes.append(common.CONSTANT_FACTOR)


def factor(c: float, description: str, mistake: Mistake = common.CONSTANT_FACTOR) -> Mutant:
    """Return the mistake by which everything is multiplied by c."""
    return named(delta("out", description, lambda p, v, dy: c * v), mistake)


SUM_CONVENTION = delta(
    "mean", "deltas are those of the batch's sum here, and gradients are divided by N at the end; "
    "in fullback the deltas hold 1 / N already: both are right", same, common.several_images,
)  # fmt: skip
"""Another right way for a whole pass: its gradients are divided by N."""
_SQUARES = {
    0.5: "the loss is half the sum of the squares over the outputs here, and their mean in "
    "fullback: both are right, and every gradient is K / 2 times fullback's, of K outputs",
    1.0: "the loss is the sum of the squares over the outputs here, and their mean in fullback: "
    "both are right, and every gradient is K times fullback's, of K outputs",
}


def squares_conventions(p: LossPass) -> dict[float, Mutant]:
    """Return other right ways to add up squared errors, by the factor that they bring."""
    outputs = p.logits.shape[1]
    return {
        share * outputs: delta("rule", words, _added_up(share))
        for share, words in _SQUARES.items()
        if _squares(p) and share * outputs != 1
    }


def _added_up(share: float) -> Change:
    return lambda p, t, dy: 2 * share * (p.p - t)
