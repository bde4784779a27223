"""Mistakes in an activation or in dropout: which cells a delta passes, and by what factor.

Stages: "delta", "rule", "out".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fullback.check.mistakes.base import Change, Mutant, Stages, same
from fullback.check.mistakes.common import last_for_all
from fullback.check.mistakes.layer_pass import Scene
from fullback.layers import Dropout, LeakyReLU, ReLU, Sigmoid, Tanh
from fullback.layers.base import Array


def layer_rule(scene: Scene, value: Array, dy: Array) -> Array:
    """Carry the delta back as the layer's own page does."""
    dx, _ = scene.layer.backward(value, scene.kept, scene.parameters)
    return dx


STAGES: Stages = (("delta", same), ("rule", layer_rule), ("out", same))


def _last_image(scene: Scene, value: Array, dy: Array) -> Array:
    return layer_rule(replace(scene, kept=last_for_all(scene.kept)), value, dy)


def _mask_of(name: str) -> Change:
    return lambda s, v, dy: layer_rule(replace(s, kept=s.activations[name]), v, dy)


def mutants(scene: Scene) -> Iterator[Mutant]:
    """Yield the mutants of an activation or of dropout."""
    layer = scene.layer
    if isinstance(layer, Dropout):
        yield from _dropout(scene)
        return
    mask = "mask" if isinstance(layer, ReLU | LeakyReLU) else "slope"
    yield Mutant(
        "relu-mask-missing",
        "delta",
        "rule",
        same,
        f"the {mask} is missing: the delta was handed down as it came",
    )
    if isinstance(layer, ReLU | LeakyReLU):
        yield Mutant(
            "relu-mask-for-delta",
            "delta",
            "rule",
            lambda s, v, dy: (s.kept > 0).astype(np.float64),
            "the mask itself was handed down in place of the masked delta",
        )
        yield Mutant(
            "relu-mask-of-delta",
            "delta",
            "rule",
            lambda s, v, dy: np.maximum(v, 0),
            "the mask was made from the delta's sign and not from the input's",
        )
        yield Mutant(
            "relu-mask-of-delta",
            "delta",
            "rule",
            lambda s, v, dy: np.where(s.kept > 0, np.maximum(v, 0), 0),
            "the delta's own negative cells were cut off as well as those of the mask",
        )
        yield Mutant(
            "sign-flipped",
            "delta",
            "rule",
            lambda s, v, dy: np.where(s.kept > 0, 0, v),
            "the mask is turned round: the delta passed where the input was not positive",
        )
        if (scene.kept == 0).any() and isinstance(layer, ReLU):
            yield Mutant(
                None,
                "delta",
                "rule",
                lambda s, v, dy: np.where(s.kept >= 0, v, 0),
                "the slope at exactly 0 is taken as 1 here, and as 0 in fullback: both are right",
            )
            yield Mutant(
                None,
                "delta",
                "rule",
                lambda s, v, dy: np.where(s.kept == 0, v / 2, np.where(s.kept > 0, v, 0)),
                "the slope at exactly 0 is taken as 1/2 here, and as 0 in fullback: both are right",
            )
    if isinstance(layer, Sigmoid | Tanh):
        yield Mutant(
            "wrong-cached-input",
            "delta",
            "rule",
            lambda s, v, dy: layer_rule(replace(s, kept=s.x), v, dy),
            "the slope was computed from the input x, in a formula that takes the output y",
        )
        yield Mutant(
            "wrong-cached-input",
            "delta",
            "rule",
            lambda s, v, dy: layer_rule(replace(s, kept=s.layer.forward(s.y, {})[0]), v, dy),
            "the slope was computed from the output, in a formula that takes the input",
        )
    if isinstance(layer, ReLU | LeakyReLU):
        for name, other in scene.activations.items():
            if other.shape == scene.x.shape and name not in (scene.before, scene.name):
                yield Mutant(
                    "cache-overwritten",
                    "delta",
                    "rule",
                    _mask_of(name),
                    f"the mask in the cache was that of {name}",
                )
    if scene.images > 1:
        yield Mutant(
            "cache-overwritten",
            "delta",
            "rule",
            _last_image,
            f"the last image's {mask} stood in the cache for every image",
        )


def _dropout(scene: Scene) -> Iterator[Mutant]:
    if scene.kept is None:
        return
    yield Mutant(
        "dropout-mask-lost",
        "delta",
        "rule",
        same,
        "the mask of dropped units is missing: the delta was handed down as it came",
    )
    yield Mutant(
        "dropout-mask-lost",
        "delta",
        "rule",
        lambda s, v, dy: np.where(s.kept > 0, v, 0),
        "dropped units get no delta, as they should, but the scale 1 / (1 - rate) is missing",
    )
    yield Mutant(
        "dropout-mask-lost",
        "delta",
        "rule",
        lambda s, v, dy: v / (1 - s.layer.rate),
        "the scale 1 / (1 - rate) is there, but dropped units get a delta all the same",
    )
