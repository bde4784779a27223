"""Axes by letters: "NCHW" is images, channels, rows, columns; an axis "1" has length 1."""

from __future__ import annotations

import numpy as np

from fullback.layers.base import Array


def arranged(array: Array, axes: str, order: str) -> Array:
    """Return an array with these axes in another order; those that it leaves out have length 1.

    Raises
    ------
    ValueError
        It has other axes, or one that the order leaves out is longer than 1.
    """
    lengths = dict(zip(axes, array.shape, strict=True))
    letters = [axis for axis in order if axis in axes and axis != "1"]
    places = [axis for axis in axes if axis in letters]
    moved = array.reshape([lengths[axis] for axis in places])
    moved = moved.transpose([places.index(axis) for axis in letters])
    return np.array(moved.reshape([lengths.get(axis, 1) for axis in order]), order="C")
