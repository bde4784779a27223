"""The dict in which a network keeps its arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.errors import InputError, ShapeError
from fullback.layers.base import Array, Shape
from fullback.options import did_you_mean


def _references(arrays: Mapping[str, Array]) -> Iterator[int]:
    """Yield how many references there are to every array of a dict."""
    return map(sys.getrefcount, arrays.values())


_OWN = max(_references({"": np.zeros(1)}))
"""That many where the dict alone refers to an array."""


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
        self._mark = [object()]  # in a list, which shallow copies share as they do the arrays

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was pickled; what lies in a buffer of the pickle is copied, maps of files not.

        ``own_memory`` would be false for them.
        """
        self.__dict__.update(state)
        for name, array in self._arrays.items():
            if not (array.flags.owndata or isinstance(array, np.memmap)):
                self._arrays[name] = array.copy()

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            hint = did_you_mean(str(name), self._arrays, f"there are {list(self._arrays)}")
            raise KeyError(f"no array is called {name!r}{hint}")
        array = self._arrays[name]
        self._mark[0] = object()  # while this holds the array, or another thread might miss both
        return array

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        array, value = self[name], np.asarray(value)
        if value.shape != array.shape:
            raise ShapeError(f"{name} has shape {array.shape}, got an array of shape {value.shape}")
        if value.dtype.kind not in "iuf":
            raise InputError(f"{name} takes numbers, got an array of {value.dtype}")
        with np.errstate(all="ignore"):  # what is too large becomes infinite, as in any cast
            array[...] = value

    @property
    def mark(self) -> object:
        """Another object whenever an array is handed out, to be read or to be written."""
        return self._mark[0]

    def held(self) -> list[str]:
        """Return the names of the arrays that somebody else has, and may write to."""
        if not self._arrays or max(_references(self._arrays)) <= _OWN:
            return []
        counts = zip(self._arrays, _references(self._arrays), strict=True)
        return [name for name, count in counts if count > _OWN]

    def own_memory(self) -> bool:
        """Return whether the arrays lie in memory of their own, and not in a file's."""
        return all(array.flags.owndata for array in self._arrays.values())

    def shape_of(self, name: str) -> Shape:
        """Return the shape of an array."""
        shape: Shape = self._arrays[name].shape
        return shape

    def copy_to(self, name: str, copy: NDArray[Any]) -> None:
        """Copy an array, which is not handed out."""
        copy[...] = self._arrays[name]

    def equals(self, name: str, copy: NDArray[np.float32]) -> bool:
        """Return whether a copy of an array of float32 has the same bits."""
        return np.array_equal(self._arrays[name].view(np.int32), copy.view(np.int32))

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
