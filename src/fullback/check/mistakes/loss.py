"""Mistakes at the loss: the first delta, (p - t) / N.

Stages: "target" makes t, "rule" makes the images' own deltas, "mean" divides by N, "out".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fullback.check.mistakes.base import Mutant, Stages, run_stages, same
from fullback.check.mistakes.layer_pass import LossScene
from fullback.layers.base import Array
from fullback.passes import softmax


def _rule(scene: LossScene, t: Array, dy: Array) -> Array:
    difference: Array = scene.p - t
    return difference if scene.loss.classifies else 2 * difference / difference.shape[1]


def _mean(scene: LossScene, value: Array, dy: Array) -> Array:
    return value * scene.share[:, None]


STAGES: Stages = (("target", same), ("rule", _rule), ("mean", _mean), ("out", same))


def first_delta(scene: LossScene, mutants: tuple[Mutant, ...] = ()) -> Array:
    """Return dL/dlogits, of shape (N, K)."""
    delta: Array = run_stages(STAGES, scene, scene.t, scene.p, mutants)
    return delta


def _softmax_twice(scene: LossScene, t: Array, dy: Array) -> Array:
    g = scene.p - t
    changed: Array = scene.p * (g - (g * scene.p).sum(axis=1, keepdims=True))
    return changed


def _softmax_of_softmax(scene: LossScene, t: Array, dy: Array) -> Array:
    g = softmax(scene.p) - t
    changed: Array = scene.p * (g - (g * scene.p).sum(axis=1, keepdims=True))
    return changed


def _diagonal_of_difference(scene: LossScene, t: Array, dy: Array) -> Array:
    changed: Array = (scene.p - t) * scene.p * (1 - scene.p)
    return changed


def _diagonal_of_quotient(scene: LossScene, t: Array, dy: Array) -> Array:
    changed: Array = -t * (1 - scene.p)  # -t / p, times the diagonal p (1 - p)
    return changed


def _shifted(by: int, *, wraps: bool):  # type: ignore[no-untyped-def]
    def change(scene: LossScene, t: Array, dy: Array) -> Array:
        if wraps:
            return np.roll(t, by, axis=1)
        places = np.clip(np.arange(t.shape[1]) - by, 0, t.shape[1] - 1)
        moved: Array = np.where(
            (np.arange(t.shape[1]) - by == places), np.take(t, places, axis=1), 0.0
        )
        edge = -1 if by > 0 else 0
        moved[:, edge] += t[:, edge]  # what would leave stays at the edge
        return moved

    return change


def _next_image(by: int):  # type: ignore[no-untyped-def]
    return lambda scene, t, dy: np.roll(t, by, axis=0)


def _last(scene: LossScene, value: Array, dy: Array) -> Array:
    kept = np.zeros_like(value)
    kept[-1] = value[-1]
    return kept


def mutants(scene: LossScene) -> Iterator[Mutant]:
    """Yield the mutants that make sense at this loss."""
    if scene.loss.classifies:
        yield Mutant(
            "softmax-twice",
            "delta",
            "rule",
            _softmax_twice,
            "the softmax's Jacobian was applied to p - t, which already holds it",
        )
        yield Mutant(
            "softmax-twice",
            "delta",
            "rule",
            _softmax_of_softmax,
            "the loss, which takes a softmax itself, was given probabilities in place of logits",
        )
        yield Mutant(
            "softmax-diagonal",
            "delta",
            "rule",
            _diagonal_of_difference,
            "p - t was multiplied by p (1 - p), the diagonal of the softmax's Jacobian",
        )
        yield Mutant(
            "softmax-diagonal",
            "delta",
            "rule",
            _diagonal_of_quotient,
            "only the diagonal p (1 - p) of the softmax's Jacobian met -t / p, so that only the "
            "label's own logit gets a delta",
        )
        for by, which in ((1, "one too high"), (-1, "one too low")):
            yield Mutant(
                "labels-shifted",
                "delta",
                "target",
                _shifted(by, wraps=True),
                f"the labels are {which}, the last class wrapping round to the other end",
            )
            yield Mutant(
                "labels-shifted",
                "delta",
                "target",
                _shifted(by, wraps=False),
                f"the labels are {which}, and cut off at the last class",
            )
    else:
        yield Mutant(
            "batch-scale",
            "delta",
            "rule",
            lambda s, t, dy: (s.p - t) / t.shape[1],
            "the 2 of the square's derivative is missing",
        )
        if scene.logits.shape[1] > 1:
            yield Mutant(
                "batch-scale",
                "delta",
                "rule",
                lambda s, t, dy: 2 * (s.p - t),
                "the squares were added up over the outputs, where their mean belongs",
            )
            yield Mutant(
                "batch-scale",
                "delta",
                "rule",
                lambda s, t, dy: s.p - t,
                "both the 2 of the square's derivative and the mean over the outputs are missing",
            )
    for by, which in ((1, "before"), (-1, "behind")):
        yield Mutant(
            "labels-shifted",
            "delta",
            "target",
            _next_image(by),
            f"each image got the label of the image {which} it",
        )
    yield Mutant("sign-flipped", "delta", "out", lambda s, v, dy: -v, "t - p stands for p - t")
    if scene.images > 1:
        yield Mutant(
            "batch-scale",
            "delta",
            "mean",
            lambda s, v, dy: v,
            "the batch's sum stands where the mean belongs: nothing was divided by N",
        )
        yield Mutant(
            "batch-scale",
            "delta",
            "out",
            lambda s, v, dy: v / s.images,
            "the batch's mean was taken twice: divided by N once more",
        )
        yield Mutant("last-sample-only", "delta", "out", _last, "only the last image has a delta")
        yield Mutant(
            "last-sample-only",
            "delta",
            "out",
            lambda s, v, dy: _last(s, v, dy) * s.images,
            "only the last image has a delta, and it was not divided by N",
        )
    if scene.logits.shape[1] > 1 and scene.loss.classifies:
        yield Mutant(
            "batch-scale",
            "delta",
            "out",
            lambda s, v, dy: v / v.shape[1],
            "the mean was taken over the classes too: divided by N K in place of N",
        )
