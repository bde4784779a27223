"""Dropout: y = m x, and dx = m dy by the same kernel, which draws the same m again."""

from __future__ import annotations

from fullback.engine.context import KEYS, RANDOM, STEP
from fullback.engine.simd import (
    LANES,
    Integers,
    Memory,
    integers,
    load,
    select,
    splat,
    stays,
    store,
)


def dropout(a: Memory, s: Memory, c: Integers, k: Integers, i: int, j: int) -> None:
    """Leave features out: number n of an image is the draw of its place in the whole batch.

    Operands: x, plane, pitch; y, plane, pitch; C, H, W; which random layer it is; the threshold
    of the draw's 53 bits; place in shared memory of the scale of what stays.
    """
    features = k[6] * k[7] * k[8]
    key = integers(c[KEYS])[c[STEP] * c[RANDOM] + k[9]]
    scale, zero = splat(s[k[11]]), splat(0.0)
    number = i * LANES * features
    for channel in range(k[6]):
        for h in range(k[7]):
            x, y = k[0] + channel * k[1] + h * k[2], k[3] + channel * k[4] + h * k[5]
            for n in range(0, k[8] * LANES, LANES):
                mask = select(stays(key, number, features, k[10]), scale, zero)
                store(a, y + n, load(a, x + n) * mask)
                number += 1


KERNELS = (dropout,)
HELPERS = ()
