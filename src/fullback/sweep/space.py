"""The space that a sweep searches: options, and the values that each of them may have."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fullback.errors import OptionError
from fullback.options import did_you_mean, short

_DIGITS = 4  # of a number, so that it is the one that tables show; more in a narrow range
_MOST_REPEATS = 1000  # draws in a row that were there before; then the space is used up
_MOST_TRIALS = 100_000
_OF_A_RANGE = ("from", "to", "scale", "steps")


@dataclass(frozen=True)
class Choices:
    """Values that are listed."""

    values: tuple[Any, ...]

    def grid(self) -> tuple[Any, ...]:
        """Return the values of a grid."""
        return self.values

    def draw(self, share: float) -> Any:
        """Return the value at a share of the list, from 0 to less than 1."""
        return self.values[int(share * len(self.values))]


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, which are among them; whole ones where both ends are whole.

    Attributes
    ----------
    log : whether every ratio is as likely, and not every difference
    steps : how many values a grid has, or None
    """

    low: float
    high: float
    log: bool = False
    steps: int | None = None

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def grid(self) -> tuple[Any, ...]:
        """Return the values of a grid, evenly spaced; whole ones each once."""
        shares = np.linspace(0, 1, self.steps or 1)
        values = [self._between(self.low, self.high, float(share)) for share in shares]
        if self.whole:
            return tuple(dict.fromkeys(map(round, values)))
        digits = self._digits + len(str(self.steps)) - 1
        return tuple(self._short(value, digits) for value in values)

    def draw(self, share: float) -> Any:
        """Return the number at a share of the range, from 0 to less than 1."""
        if self.whole:  # each has the room up to the next one
            return min(math.floor(self._between(self.low, self.high + 1, share)), self.high)
        return self._short(self._between(self.low, self.high, share), self._digits)

    @property
    def _digits(self) -> int:
        """How many digits distinguish a thousand numbers of the range."""
        spread = (self.high - self.low) / max(abs(self.low), abs(self.high))
        return _DIGITS + max(0, round(-math.log10(spread)))

    def _between(self, low: float, high: float, share: float) -> float:
        if self.log:
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return low + share * (high - low)

    def _short(self, value: float, digits: int) -> float:
        return min(max(float(f"{value:.{digits}g}"), self.low), self.high)


Values: TypeAlias = Choices | Range
Space: TypeAlias = Mapping[str, Values]


def read_space(table: Mapping[str, Any], *, name: str) -> dict[str, Values]:
    """Read a table ``[grid]`` or ``[space]``.

    Raises
    ------
    OptionError
        It is empty, or has values that are neither a list nor a range.
    """
    if not table:
        raise OptionError(
            f"[{name}] is empty; list the values of an option, as in lr = [0.01, 0.1]"
        )
    return {
        option: _read_values(f"[{name}] {option}", values, name) for option, values in table.items()
    }


def _read_values(where: str, values: Any, name: str) -> Values:
    if isinstance(values, list):
        if not values:
            raise OptionError(f"{where} is an empty list; give values, or leave it out")
        seen = [json.dumps(value, default=str) for value in values]
        for n, value in enumerate(seen):
            if value in seen[:n]:
                raise OptionError(f"{where} lists {value} twice")
        return Choices(tuple(values))
    if not isinstance(values, dict):
        raise OptionError(
            f"{where} must be a list of values or a range {{ from = 0.001, to = 0.1 }}, got "
            f"{short(values)}"
        )
    return _read_range(where, values, in_grid=name == "grid")


def _read_range(where: str, table: Mapping[str, Any], *, in_grid: bool) -> Range:
    for key in table:
        if key not in _OF_A_RANGE:
            hint = did_you_mean(key, _OF_A_RANGE, f"a range has {', '.join(_OF_A_RANGE)}")
            raise OptionError(f"{where} has the unknown key {key!r}{hint}")
    low, high = (_end(where, key, table.get(key)) for key in ("from", "to"))
    scale = table.get("scale", "linear")
    steps: Any = table.get("steps")
    if scale not in ("linear", "log"):
        raise OptionError(f"{where}: 'scale' must be 'linear' or 'log', got {short(scale)}")
    if not low < high:
        raise OptionError(f"{where}: 'from' must be less than 'to', got {low!r} and {high!r}")
    if scale == "log" and low <= 0:
        raise OptionError(f"{where}: on a log scale 'from' must be more than 0, got {low!r}")
    whole = isinstance(steps, int) and not isinstance(steps, bool)
    if in_grid and (not whole or not 2 <= steps <= _MOST_TRIALS):
        raise OptionError(
            f"{where}: a range in a grid needs 'steps', a whole number of at least 2, got "
            f"{short(steps)}"
        )
    if steps is not None and not in_grid:
        raise OptionError(f"{where}: 'steps' is for [grid]; leave it out")
    return Range(low, high, log=scale == "log", steps=steps)


def _end(where: str, key: str, end: Any) -> float:
    number = isinstance(end, int | float) and not isinstance(end, bool)
    if not number or not abs(end) < 1e300:  # NaN as well
        raise OptionError(f"{where}: {key!r} must be a number, got {short(end)}")
    return end  # type: ignore[no-any-return]


def grid_of(space: Space) -> list[dict[str, Any]]:
    """Return every combination of a space's values; those of the last option change fastest.

    Raises
    ------
    OptionError
        There are more than can be trained.
    """
    values = {name: entry.grid() for name, entry in space.items()}
    count = math.prod(map(len, values.values()))
    if count > _MOST_TRIALS:
        raise OptionError(f"[grid] has {count:,} combinations; {_MOST_TRIALS:,} are the most")
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


def draws_of(space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """Draw combinations of a space's values, each of them once.

    They depend on nothing but the space and the seed, and those of a smaller count are the first
    ones of a larger count. Where the space has fewer, those it has are returned.
    """
    found: dict[str, dict[str, Any]] = {}
    repeats = 0
    for number in itertools.count():
        if len(found) == count or repeats == _MOST_REPEATS:
            break
        shares = np.random.default_rng([seed, number]).random(len(space))
        drawn = {
            name: space[name].draw(float(share))
            for name, share in zip(sorted(space), shares, strict=True)
        }
        key = json.dumps(drawn, default=str)
        repeats = repeats + 1 if key in found else 0
        found.setdefault(key, {name: drawn[name] for name in space})
    return list(found.values())
