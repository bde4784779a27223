"""Where cells lie in a map."""

from __future__ import annotations

from fullback.engine.operands import View


def row_at(view: View, channel: int, row: int) -> int:
    """Return the place of a row's first cell; in a row, cells follow each other."""
    return view.place + channel * view.plane + row * view.pitch


KERNELS = ()
HELPERS = (row_at,)
