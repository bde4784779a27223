"""Dropout: y = m x, and dx = m dy by the same kernel, which draws the same m again."""

from __future__ import annotations

from fullback.engine.context import KEYS, RANDOM, STEP
from fullback.engine.kernels.maps import row_at
from fullback.engine.operands import kernel
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    Operands,
    integers,
    load,
    select,
    splat,
    stays,
    store,
)


@kernel(reads="x:map", writes="y:map", numbers="shape:shape number threshold scale")
def dropout(a: Memory, s: Memory, c: Integers, k: Operands, i: int, j: int) -> None:
    """Leave features out: number n of an image is the draw of its place in the whole batch.

    ``number`` says which random layer it is, ``threshold`` is that of the draw's 53 bits, and
    ``scale`` is where in shared memory the scale of what stays is.
    """
    channels, height, width = k.shape
    features, threshold = channels * height * width, k.threshold
    key = integers(c[KEYS])[c[STEP] * c[RANDOM] + k.number]
    scale, zero = splat(s[k.scale]), splat(0.0)
    number = i * LANES * features
    for channel in range(channels):
        for h in range(height):
            x, y = row_at(k.x, channel, h), row_at(k.y, channel, h)
            for n in range(0, width * LANES, LANES):
                mask = select(stays(key, number, features, threshold), scale, zero)
                store(a, y + n, load(a, x + n) * mask)
                number += 1


KERNELS = (dropout,)
HELPERS = ()
