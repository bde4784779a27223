"""The dict in which a network keeps its arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fullback.errors import InputError, ShapeError
from fullback.layers.base import Array, Shape
from fullback.options import did_you_mean


class Arrays(MutableMapping[str, Array]):
    """A dict of arrays whose names, shapes and dtype are fixed: assigning copies the values in.

    Raises
    ------
    KeyError
        There is no such name; the message says what there is.
    ShapeError
        The value has another shape.
    """

    def __init__(self, shapes: Mapping[str, Shape], dtype: np.dtype[Any]) -> None:
        self._arrays = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            hint = did_you_mean(str(name), self._arrays, f"there are {list(self._arrays)}")
            raise KeyError(f"no array is called {name!r}{hint}")
        return self._arrays[name]

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        array, value = self[name], np.asarray(value)
        if value.shape != array.shape:
            raise ShapeError(f"{name} has shape {array.shape}, got an array of shape {value.shape}")
        if value.dtype.kind not in "iuf":
            raise InputError(f"{name} takes numbers, got an array of {value.dtype}")
        with np.errstate(all="ignore"):  # what is too large becomes infinite, as in any cast
            array[...] = value

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name!r} belongs to the network's layers and cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        rows = ", ".join(f"{name!r}: {array.shape}" for name, array in self.items())
        return f"Arrays({{{rows}}})"
