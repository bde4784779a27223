"""A convolution: its rules. ``conv_delta`` and ``conv_weight`` have what people do wrong in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullback.check.mistakes import conv_delta, conv_weight
from fullback.check.mistakes.conv_stages import BIAS, DELTA, WEIGHT, by_group
from fullback.check.mistakes.rules import Rules, Terms, positions, sum_noise
from fullback.layers.base import Array


def _terms(layer: Any, x: Array, y: Array) -> Terms:
    cells = int(np.prod(layer.parameter_shapes(x.shape[1:])["weight"][2:]))
    return Terms(
        output=x.shape[1] // layer.groups * cells + 1,
        delta=layer.filters // layer.groups * cells,
        gradient=positions(y),
    )


RULES = Rules(
    conv_delta.MUTANTS + conv_weight.MUTANTS,
    {"delta": DELTA, "weight": WEIGHT, "bias": BIAS},
    run=by_group,
    terms=_terms,
    absolute=lambda p: {"cache": (abs(p.cache[0]), p.cache[1])},
    noise=sum_noise(_terms),
    weighs=True,
)
