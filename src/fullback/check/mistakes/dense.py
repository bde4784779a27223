"""A dense layer, and Flatten: their stages, their mistakes, their rounding.

Stages: "delta", "weight" (which weights the delta meets) and "out" for the next delta; "delta",
"input" (which activations it meets) and "out" for the weights; "delta", "rule", "out" for the bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullback.check.mistakes import common, gradient
from fullback.check.mistakes.base import Mutants, Stages, bias, delta, same, weight
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.check.mistakes.rules import Rules, Terms, positions, sum_noise
from fullback.layers.base import Array

DELTA: Stages = (
    ("delta", same),
    ("weight", lambda p, dy, _: dy @ p.parameters["weight"]),
    ("out", same),
)
WEIGHT: Stages = (("delta", same), ("input", lambda p, dy, _: dy.T @ p.x), ("out", same))
BIAS: Stages = (("delta", same), ("rule", lambda p, dy, _: dy.sum(axis=0)), ("out", same))

MUTANTS = Mutants()


def _square(p: LayerPass) -> bool:
    units, features = p.parameters["weight"].shape
    return bool(units == features > 1)


MUTANTS.add(
    common.ROWS_COLUMNS_SWAPPED,
    delta("weight", "the weight matrix was transposed where it must not be, or the other way round",
          lambda p, dy, _: dy @ p.parameters["weight"].T, _square),
    weight("out", "the gradient is transposed", lambda p, v, dy: v.T, _square),
)  # fmt: skip
MUTANTS.add(
    common.MEMORY_ORDER,
    delta("weight", "the weights (units, features) were reshaped to (features, units), not "
          "transposed",
          lambda p, dy, _: dy @ p.parameters["weight"].reshape(p.x.shape[1], -1).T),
    delta("weight", "the weights (features, units) were reshaped to (units, features), not "
          "transposed",
          lambda p, dy, _: dy @ p.parameters["weight"].T.reshape(-1, p.x.shape[1])),
    when=lambda p: not _square(p) and min(p.parameters["weight"].shape) > 1,
)  # fmt: skip
MUTANTS.add(
    common.WEIGHTS_UPDATED_EARLY,
    delta("weight", "the delta was taken through weights that had been updated already",
          lambda p, dy, _: dy @ (p.parameters["weight"] - p.rate * (dy.T @ p.x)), unknown="rate"),
    delta("weight", "each image's delta was taken through weights that had been updated with that "
          "image already",
          lambda p, dy, _: dy @ p.parameters["weight"]
          - p.rate * p.images * (dy**2).sum(axis=1, keepdims=True) * p.x,
          common.several_images, unknown="rate"),
)  # fmt: skip
common.add_to_delta(MUTANTS)
common.add_inputs(MUTANTS, lambda p, x, dy: dy.T @ x)
gradient.add_to_gradient(MUTANTS, "weight")
MUTANTS.add(
    common.BIAS_AVERAGED,
    bias("out", "it was averaged over the batch, where the delta already holds 1 / N",
         common.over_images, common.several_images),
)  # fmt: skip
gradient.add_to_gradient(MUTANTS, "bias")


def _terms(layer: Any, x: Array, y: Array) -> Terms:
    return Terms(output=x.shape[1] + 1, delta=layer.units, gradient=positions(y))


RULES = Rules(
    MUTANTS,
    {"delta": DELTA, "weight": WEIGHT, "bias": BIAS},
    terms=_terms,
    absolute=lambda p: {"cache": abs(p.x)},
    noise=sum_noise(_terms),
    weighs=True,
)


# Flatten ------------------------------------------------------------------------------------------

FLATTEN_MUTANTS = Mutants()


def _maps(p: LayerPass) -> bool:
    return bool(p.x.ndim == 4)


def _several_maps(p: LayerPass) -> bool:
    return bool(p.x.shape[1] > 1)


FLATTEN_MUTANTS.add(
    common.FLATTEN_ORDER,
    delta("rule", "it was folded back as row, column, channel, and not as channel, row, column",
          lambda p, dy, _: common.read_as(dy.reshape(p.x.shape), (0, 2, 3, 1)), _several_maps),
    delta("rule", "it was reordered from channels first to channels last, and not moved back",
          lambda p, dy, _: common.lie_as(dy.reshape(p.x.shape), (0, 2, 3, 1)), _several_maps),
    delta("rule", "it was folded back column by column, and not row by row",
          lambda p, dy, _: common.read_as(dy.reshape(p.x.shape), (0, 1, 3, 2))),
    when=_maps,
)  # fmt: skip
FLATTEN_MUTANTS.add(
    common.IMAGES_MIXED,
    delta("rule", "it was folded back with the images as the last axis",
          lambda p, dy, _: np.moveaxis(dy.reshape(*p.x.shape[1:], -1), -1, 0)),
    delta("rule", "features by images were folded back as if they were images by features",
          lambda p, dy, _: np.ascontiguousarray(dy.T).reshape(p.x.shape)),
    when=lambda p: _maps(p) and p.images > 1,
)  # fmt: skip
FLATTEN_RULES = Rules(
    FLATTEN_MUTANTS,
    {"delta": (("rule", lambda p, dy, _: dy.reshape(p.x.shape)), ("out", same))},
    adds=lambda p: False,
)
