"""Arrays of any library, as NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullback.layers.base import Array


def to_numpy(value: Any) -> Array:
    """Return a user's array, of NumPy, PyTorch or JAX, or a list, as NumPy's."""
    for method in ("detach", "cpu", "numpy"):
        if not isinstance(value, np.ndarray) and hasattr(value, method):
            value = getattr(value, method)()
    return np.asarray(value)


def is_numeric(array: Array) -> bool:
    """Whether an array holds real numbers."""
    return array.dtype.kind in "iuf"
