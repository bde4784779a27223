"""The mistake that a right array can have: its values lie in another order than the weights."""

from __future__ import annotations

from fullback.check.mistakes.base import Mistake

MEMORY_ORDER = Mistake(
    "memory-order",
    "The gradient has the right values, but they lie in another order than the weights.",
    "dw has the axes of w in the order of w: reshape changes where an axis ends, transpose which "
    "axis is which",
    "dw = dw_matrix.reshape(R, S, C, K)   # first the axes as they lie,\n"
    "dw = dw.transpose(3, 2, 0, 1)        # then their order in w: (K, C, R, S)\n"
    "# where the weights lie so too, say it: diagnose(..., weights={...})",
)
