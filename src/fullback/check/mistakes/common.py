"""Mistakes that any layer's gradients can have: scale, sign, images, an L2 term.

Every line of stages begins with "delta" and ends with "out".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fullback.check.mistakes.base import Change, Mutant, Target
from fullback.check.mistakes.layer_pass import Scene
from fullback.layers.base import Array


def only_last(scene: Scene, value: Array, dy: Array) -> Array:
    """Keep the last image's part."""
    kept = np.zeros_like(value)
    kept[-1] = value[-1]
    return kept


def last_for_all(value: Array) -> Array:
    """Put the last image's part in place of every image's."""
    return np.broadcast_to(value[-1:], value.shape).copy()


def times_as_large(times: int) -> Change:
    """Return the stage that multiplies."""
    return lambda s, v, dy: v * times


def delta_mutants(scene: Scene) -> Iterator[Mutant]:
    """Yield what can happen to the next delta of a layer with parameters."""
    yield Mutant("sign-flipped", "delta", "out", lambda s, v, dy: -v, "its sign is turned round")
    if scene.images > 1:
        yield Mutant(
            "batch-scale",
            "delta",
            "out",
            lambda s, v, dy: v / s.images,
            "it was divided by N once more on the way down",
        )
        yield Mutant(
            "batch-scale",
            "delta",
            "out",
            lambda s, v, dy: v * s.images,
            "it was multiplied by N on the way down",
        )
        yield Mutant(
            "last-sample-only",
            "delta",
            "delta",
            only_last,
            "only the last image's was carried down",
        )


def gradient_mutants(scene: Scene, target: Target) -> Iterator[Mutant]:
    """Yield what can happen to the gradient of any weight or bias."""
    yield Mutant("sign-flipped", target, "out", lambda s, v, dy: -v, "the sign is turned round")
    if scene.images > 1:
        yield Mutant(
            "batch-scale",
            target,
            "out",
            lambda s, v, dy: v * s.images,
            "the batch's sum stands where the mean belongs: N times too large",
        )
        yield Mutant(
            "batch-scale",
            target,
            "out",
            lambda s, v, dy: v / s.images,
            "the batch's mean was taken twice: divided by N once more",
        )
        yield Mutant(
            "last-sample-only",
            target,
            "delta",
            only_last,
            "only the last image was counted, and divided by N all the same",
        )
        yield Mutant(
            "last-sample-only",
            target,
            "delta",
            lambda s, v, dy: only_last(s, v, dy) * s.images,
            "only the last image was counted: every image overwrote the one before",
        )
    for times, how in ((2, "double"), (3, "three times as large")):
        yield Mutant(
            "gradients-not-cleared",
            target,
            "out",
            times_as_large(times),
            f"it is {how}: it was added to what earlier calls had left",
        )
    if np.ndim(scene.parameters[target]) and scene.parameters[target].any():
        yield Mutant(
            "l2-term",
            target,
            "out",
            lambda s, v, dy: v + s.decay * s.parameters[target],
            "it holds a multiple of the parameter itself, an L2 term",
            "decay",
        )
