"""One way to make a mistake in a forward pass, and the tables that hold them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fullback.check.mistakes.base import Mistake
from fullback.layers import Layer
from fullback.layers.base import Array


@dataclass(frozen=True, eq=False)
class Way:
    """One way to make a mistake.

    Attributes
    ----------
    mistake : of which it is one
    description : what was done, as a sentence without its full stop
    output : what is computed so, from the pass; None where it makes no sense
    """

    mistake: Mistake
    description: str
    output: Callable[[Any], Array | None]


WAYS: dict[type[Layer], list[Way]] = {}
LOSS_WAYS: list[Way] = []


def add(*kinds: type[Layer], mistake: Mistake, ways: dict[str, Callable[[Any], Any]]) -> None:
    """Add ways to make a mistake in some kinds of layers: what was done, and what it gives."""
    for kind in kinds:
        WAYS.setdefault(kind, []).extend(Way(mistake, *way) for way in ways.items())
