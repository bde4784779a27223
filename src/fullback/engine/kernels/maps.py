"""Where cells lie in a map, and how a row of them is parted into tiles."""

from __future__ import annotations

from fullback.engine.operands import View
from fullback.engine.simd import smaller


def row_at(view: View, channel: int, row: int) -> int:
    """Return the place of a row's first cell; in a row, cells follow each other."""
    return view.place + channel * view.plane + row * view.pitch


def even_part(left: int, most: int) -> int:
    """Return the first of the fewest parts of at most so many that are left, about equally large.

    Of 14 cells in tiles of at most 5 places: 5, and of the 9 that are left 5, and 4. It is never 2,
    so that no tile of two has to be compiled.
    """
    parts = (left + most - 1) // most
    part = smaller((left + parts - 1) // parts, most)  # so that the compiler knows, too
    return 1 if part == 2 else part


KERNELS = ()
HELPERS = (row_at, even_part)
