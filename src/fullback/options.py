"""Option values of layers, losses, optimizers and training: how they are checked and shown."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fullback.errors import OptionError

MOST_UNITS = 2**28
"""The largest number of filters, groups or units of a layer."""

_MOST_BITS = 256


def take_plain(described: Any) -> None:
    """Replace NumPy numbers among a frozen dataclass's options by Python's.

    So that ``Dense(labels.max() + 1)`` is checked, shown and saved as ``Dense(10)`` is.
    """
    for field in dataclasses.fields(described):
        value = getattr(described, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(described, field.name, value.item())
        elif isinstance(value, tuple):
            plain = tuple(n.item() if isinstance(n, np.generic) else n for n in value)
            object.__setattr__(described, field.name, plain)


def require_whole(option: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raise OptionError unless ``value`` is a whole number from ``minimum`` to ``maximum``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise OptionError(
            f"{option} must be a whole number of at least {minimum}, got {short(value)}"
        )
    if maximum is not None and value > maximum:
        raise OptionError(f"{option} must be at most {maximum:,}, got {short(value)}")


def require_number(option: str, value: object, interval: str) -> None:
    """Raise OptionError unless ``value`` is a number in the interval, written like ``[0, 1)``."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.integer | np.floating)
        or not low <= value <= high
        or (interval[0] == "(" and value == low)
        or (interval[-1] == ")" and value == high)
    ):
        raise OptionError(f"{option} must be a number in {interval}, got {short(value)}")


def require_flag(option: str, value: object) -> None:
    """Raise OptionError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise OptionError(f"{option} must be True or False, got {short(value)}")


class _Short(reprlib.Repr):
    """Writes values cut to a length that fits into a message."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 100
        self.maxtuple = self.maxlist = self.maxdict = 4

    def repr_int(self, x: int, level: int) -> str:
        """Write a number; of one with thousands of digits Python itself refuses to."""
        if x.bit_length() > _MOST_BITS:
            return f"a number of {x.bit_length():,} bits"
        return super().repr_int(x, level)


short = _Short().repr
"""``repr``, cut to a length that fits into a message."""


def listed(names: Sequence[object], most: int = 4) -> str:
    """List the first of some names in a message: ``cat, dog, ...``."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")


def shown(described: Any) -> str:
    """Show a dataclass by the options that differ from their defaults: ``Conv2D(8, stride=2)``.

    The first option is shown by its value alone, if it has no default.
    """
    options: list[str] = []
    for field in dataclasses.fields(described):
        value = getattr(described, field.name)
        if field.default is dataclasses.MISSING and not options:
            options.append(repr(value))
        elif value != field.default:
            options.append(f"{field.name}={value!r}")
    return f"{type(described).__name__}({', '.join(options)})"
