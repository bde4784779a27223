"""Arrays of any library, as NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullback.errors import InputError
from fullback.layers.base import Array


def to_numpy(value: Any) -> Array:
    """Return a user's array, of NumPy, PyTorch or JAX, or a list, as NumPy's."""
    for method in ("detach", "cpu", "numpy"):
        if not isinstance(value, np.ndarray) and hasattr(value, method):
            value = getattr(value, method)()
    return np.asarray(value)


def numbers(what: str, value: Any) -> Array:
    """Return a user's array, or raise InputError if it does not hold numbers."""
    array = to_numpy(value)
    if not is_numeric(array):
        raise InputError(f"{what} must hold numbers, got an array of {array.dtype}")
    return array


def is_numeric(array: Array) -> bool:
    """Whether an array holds real numbers."""
    return array.dtype.kind in "iuf"
