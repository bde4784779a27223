"""A network's arrays as they were."""

from __future__ import annotations

from fullback.layers.base import Array
from fullback.model import Model


def snapshot(net: Model) -> dict[str, Array]:
    """Return copies of a network's parameters and statistics."""
    both = (*net.parameters.items(), *net.statistics.items())
    return {name: array.copy() for name, array in both}


def restore(net: Model, arrays: dict[str, Array]) -> None:
    """Give a network arrays back."""
    for name, array in arrays.items():
        (net.parameters if name in net.parameters else net.statistics)[name] = array
