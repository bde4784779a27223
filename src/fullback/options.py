"""Options of layers, losses, optimizers and training: how they are checked, shown and read."""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def require_numbers(described: object, **intervals: str) -> None:
    """Raise OptionError unless the options of these names are numbers in their intervals."""
    for name, interval in intervals.items():
        require_number(f"{type(described).__name__}: {name}", getattr(described, name), interval)


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


# Text ---------------------------------------------------------------------------------------------


def read_value(text: str) -> object:
    """Read a number, a pair, true or false; anything else stays a word for its owner to judge."""
    if re.fullmatch(r"\d{1,9}", text):
        return int(text)
    if re.fullmatch(r"(\d{1,9}\.?|\d{0,9}\.\d{1,9})(e-?\d{1,2})?", text):
        return float(text)
    if match := re.fullmatch(r"(\d{1,9})x(\d{1,9})", text):
        return int(match[1]), int(match[2])
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def read_options(
    owner: str,
    words: Iterable[str],
    known: Sequence[str],
    *,
    values: Mapping[str, object] | None = None,
    read: Callable[[str, str], object] = lambda _, value: read_value(value),
) -> dict[str, Any]:
    """Read options that are written ``name=value``.

    Parameters
    ----------
    owner : what has the options, for messages
    words : the options, one by one
    known : their names
    values : those that are read already
    read : returns a value, given its name and text

    Raises
    ------
    OptionError
        An option is unknown, is given twice or has no value.
    """
    options = dict(values or {})
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if name in known and name not in options and equals:
            options[name] = read(name, value)
            continue
        if name not in known:
            reason = f"is not one of its options{did_you_mean(name, known)}"
        else:
            reason = "is given twice" if name in options else "has no value"
        raise OptionError(
            f"{owner}: {word!r} {reason}; write name=value with the options: "
            f"{', '.join(known) or 'none'}"
        )
    return options


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return what a message about an unknown name ends with: ``"; did you mean relu?"``."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else otherwise and f"; {otherwise}"
