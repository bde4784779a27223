"""The header of an .npy array: the one place that reads it, for .npz members and for .npy files.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Nothing that a
header says is believed before it is held against the size of what follows.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy

from fullback.errors import DataError

HEADER_BYTES = 2**16
"""More than NumPy accepts as a header."""

_READ = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_MOST_AXES = 16


@dataclass(frozen=True)
class ArrayHeader:
    """What an array's header says, whose size was found to be right.

    Attributes
    ----------
    shape, dtype : of the array; plain numbers, one at least
    order : "C", or "F" where columns follow each other
    offset : bytes before the first number
    size : bytes of all numbers
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    offset: int
    size: int


def read_array_header(start: bytes, total: int, what: str) -> ArrayHeader:
    """Read the header of an array of plain numbers.

    Parameters
    ----------
    start : the first ``HEADER_BYTES`` bytes, or all where there are fewer
    total : how many bytes there are in all
    what : what errors call the array

    Raises
    ------
    DataError
        It is not such a header, or does not fit the number of bytes.
    """
    header = io.BytesIO(start)  # NumPy would read as long a header as the file claims
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers from Python 2, or of odd syntax
            shape, fortran_order, dtype = _READ[npy.read_magic(header)](header)
    except Exception as error:  # on damaged headers NumPy raises whatever its parser does
        raise DataError(
            f"{what} is not an array in .npy form, version 1 or 2; save it with np.savez or np.save"
        ) from error
    if dtype.kind not in "biuf":
        raise DataError(
            f"{what} has dtype {dtype}; expected plain numbers: "
            "save it as np.asarray(..., dtype='uint8'), or 'float32', or 'int64'"
        )
    if not all(length > 0 for length in shape) or len(shape) > _MOST_AXES:
        raise DataError(f"{what} has shape {shape}; expected at least one number, in few axes")
    size = math.prod(shape) * dtype.itemsize
    if header.tell() + size != total:
        raise DataError(
            f"{what} should have {size} bytes for its shape {shape} and dtype {dtype} but has "
            f"{total - header.tell()}; copy the file again, or save it anew"
        )
    return ArrayHeader(shape, dtype, "F" if fortran_order else "C", header.tell(), size)
