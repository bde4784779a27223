"""Batch normalisation and Normalize: their stages, their mistakes, their rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fullback.check.mistakes import common, gradient
from fullback.check.mistakes.base import Mutant, Mutants, Target
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.check.mistakes.rules import OWN, Rules, Terms, own_gradient, positions
from fullback.layers.base import Array

BATCHNORM_MUTANTS = Mutants()
common.add_to_delta(BATCHNORM_MUTANTS)
gradient.add_to_gradient(BATCHNORM_MUTANTS, "weight")
gradient.add_to_gradient(BATCHNORM_MUTANTS, "bias")


def _noise(p: LayerPass, y: Array, eps: float) -> Array:
    return 4 * eps * np.broadcast_to(abs(p.y), y.shape)


def _absolute_batchnorm(p: LayerPass) -> dict[str, Any]:
    weight, bias = (abs(p.parameters[name])[:, None, None] for name in ("weight", "bias"))
    z, scale, batch = p.cache
    x = abs(p.x)
    shift = x.mean(axis=(0, 2, 3), keepdims=True) if batch else 0.0
    size = abs(z) + 2 * (shift + x) * scale[:, None, None]
    return {"cache": (size, scale, batch), "y": weight * size + bias}


def _sizes(p: LayerPass, target: Target, dy: Array, mutants: Sequence[Mutant]) -> Array:
    z, scale, batch = p.cache
    if target != "delta":
        size: Array = 4 * (dy * (z if target == "weight" else 1)).sum(axis=(0, 2, 3))
        return size
    through = dy
    if batch is not None:
        over = (0, 2, 3)
        through = dy + dy.mean(axis=over, keepdims=True)
        through = through + 4 * z * (dy * z).mean(axis=over, keepdims=True)
    factor: Array = 2 * (p.parameters["weight"] * scale)[:, None, None]
    return factor * through


BATCHNORM_RULES = Rules(
    BATCHNORM_MUTANTS,
    {"delta": OWN, "weight": own_gradient("weight"), "bias": own_gradient("bias")},
    terms=lambda layer, x, y: Terms(positions(y), positions(y), positions(y)),
    absolute=_absolute_batchnorm,
    noise=_noise,
    sizes=_sizes,
    modal=True,
)


def _absolute_normalize(p: LayerPass) -> dict[str, Any]:
    tail = (1,) * (p.x.ndim - 2)
    mean, deviation = (abs(p.parameters[k]).reshape(-1, *tail) for k in ("mean", "deviation"))
    return {"y": (abs(p.x) + mean) / deviation}


NORMALIZE_RULES = Rules(Mutants(), {"delta": OWN}, absolute=_absolute_normalize, noise=_noise)
