"""Schedules: how the learning rate changes while a network is trained.

A schedule is a function of the share of the run that is done, from 0 at the first batch to 1 after
the last, and returns the factor by which the optimizer's learning rate is multiplied. `Plateau`
goes by the epochs' figures as well.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from fullback.errors import OptionError
from fullback.options import (
    did_you_mean,
    read_options,
    read_value,
    require_number,
    require_numbers,
    require_whole,
    shown,
    take_plain,
)
from fullback.training.history import Epoch, Monitor, improvements, require_monitor

Schedule: TypeAlias = Callable[[float], float]


def constant(done: float) -> float:  # noqa: ARG001 -- the signature of a schedule
    """Return 1: the learning rate stays as it is."""
    return 1.0


def cosine(done: float) -> float:
    """Return (1 + cos(pi done)) / 2: from 1 down to 0, slowly at both ends.

    Source: Loshchilov and Hutter, SGDR (2017), equation 5, without restarts.
    """
    return (1 + math.cos(math.pi * done)) / 2


def warm_cosine(done: float) -> float:
    """Return a factor that rises from 0.1 to 1 in three tenths of the run, then ``cosine``.

    The first gradients are large beside the weights: a shared filter's are sums over all positions
    of an image, and at the full rate they can push it so far that its ReLU never answers again.

    Source: Goyal et al., Accurate, large minibatch SGD (2017), section 2.2, for the rise.
    """
    share = 0.3
    if done < share:
        return 0.1 + 0.9 * done / share
    return cosine((done - share) / (1 - share))


class _Described(ABC):
    """A schedule with options, described by a frozen dataclass."""

    def __post_init__(self) -> None:
        take_plain(self)

    def __repr__(self) -> str:
        return shown(self)

    @abstractmethod
    def __call__(self, done: float) -> float:
        """Return the factor."""


@dataclass(frozen=True, repr=False)
class Steps(_Described):
    """A factor that is multiplied by another one at some points of the run.

    Parameters
    ----------
    factor : what every step multiplies by, in (0, 1)
    at : shares of the run that are done by then, each in (0, 1)
    """

    factor: float = 0.1
    at: float | tuple[float, ...] = (0.5, 0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, factor="(0, 1)")
        for place in self._places():
            require_number("Steps: at", place, "(0, 1)")

    def _places(self) -> tuple[float, ...]:
        return tuple(self.at) if isinstance(self.at, tuple | list) else (self.at,)

    def __call__(self, done: float) -> float:  # noqa: D102
        return self.factor ** sum(done >= place for place in self._places())


@dataclass(frozen=True, repr=False)
class OneCycle(_Described):
    """Up to the full rate and down to next to nothing, both along a cosine.

    Parameters
    ----------
    rise : share of the run that the way up takes, in (0, 1)
    start, end : factors at the start and at the end, in [0, 1]

    Source: Smith and Topin, Super-convergence (2018), with cosines for straight lines.
    """

    rise: float = 0.3
    start: float = 0.04
    end: float = 4e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, rise="(0, 1)", start="[0, 1]", end="[0, 1]")

    def __call__(self, done: float) -> float:  # noqa: D102
        if done < self.rise:
            return 1 - (1 - self.start) * cosine(done / self.rise)
        return self.end + (1 - self.end) * cosine((done - self.rise) / (1 - self.rise))


@dataclass(frozen=True, repr=False)
class WarmUp(_Described):
    """A straight rise from next to nothing, then another schedule over the rest of the run.

    Parameters
    ----------
    share : of the run that the rise takes, in (0, 1)
    then : the schedule that follows, from its start
    """

    share: float = 0.1
    then: Schedule = cosine

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, share="(0, 1)")
        if not callable(self.then) or isinstance(self.then, Plateau):
            raise OptionError(f"WarmUp: then must be a function of the share, got {self.then!r}")

    def __repr__(self) -> str:
        return f"WarmUp(share={self.share!r}, then={text_of(self.then)})"

    def __call__(self, done: float) -> float:  # noqa: D102
        if done < self.share:
            return self.then(0.0) * (0.01 + 0.99 * done / self.share)
        return self.then((done - self.share) / (1 - self.share))


@dataclass(frozen=True, repr=False)
class Plateau(_Described):
    """A factor that shrinks after every few epochs that brought nothing.

    What an epoch brought is judged as by `EarlyStopping`: by what is monitored, or by the loss.

    Parameters
    ----------
    factor : what the factor is multiplied by, in (0, 1)
    patience : epochs without improvement, after which that is done
    least : the smallest factor, in [0, 1]
    monitor : "loss", "accuracy", "balanced" or "f1", of the validation data
    tol : by how much an epoch must be better: a share of the loss, or so much of the others
    """

    factor: float = 0.3
    patience: int = 3
    least: float = 0.001
    monitor: Monitor = "loss"
    tol: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, factor="(0, 1)", least="[0, 1]", tol="[0, 1)")
        require_whole("Plateau: patience", self.patience, 1)
        require_monitor("Plateau: monitor", self.monitor)

    def __call__(self, done: float) -> float:
        """Return 1: what `after` no epoch returns."""
        return 1.0

    def after(self, epochs: Sequence[Epoch]) -> Schedule:
        """Return the schedule of the next epoch: the factor that these epochs lead to."""
        factor, waited = 1.0, 0
        for better in improvements(epochs, self.monitor, self.tol):
            waited = 0 if better else waited + 1
            if waited == self.patience:
                factor, waited = max(self.least, self.factor * factor), 0
        return lambda done: factor  # noqa: ARG005 -- the signature of a schedule


_PLAIN: tuple[Schedule, ...] = (constant, cosine, warm_cosine)
_WITH_OPTIONS: dict[str, type[_Described]] = {
    "steps": Steps,
    "one_cycle": OneCycle,
    "warm_up": WarmUp,
    "plateau": Plateau,
}

SCHEDULES: dict[str, Callable[..., Any]] = {
    plain.__name__: plain for plain in _PLAIN
} | _WITH_OPTIONS
"""Every schedule by its name in text form."""


def parse(text: str) -> Schedule:
    """Read a schedule's text form: ``"cosine"``, or with options ``"steps(factor=0.3, at=0.8)"``.

    Raises
    ------
    OptionError
        There is no such schedule, or an option is unknown or out of range.
    """
    name, bracket, rest = text.strip().partition("(")
    name = name.strip()
    if name not in SCHEDULES:
        hint = did_you_mean(name, SCHEDULES, f"there are {', '.join(SCHEDULES)}")
        raise OptionError(f"unknown schedule {text!r}{hint}")
    kind = _WITH_OPTIONS.get(name)
    if kind is None:
        if bracket:
            raise OptionError(f"the schedule {name} has no options, got {text!r}")
        return SCHEDULES[name]
    if bracket and not rest.rstrip().endswith(")"):
        raise OptionError(f"{text!r} lacks its closing bracket")
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    words = _split(rest.rstrip().removesuffix(")"))
    return kind(**read_options(name, words, known, read=_read))


def _read(name: str, value: str) -> object:
    """Read an option: a schedule, several numbers in brackets, or one value."""
    if name == "then":
        return parse(value)
    if value.startswith("("):
        return tuple(map(read_value, _split(value.strip("()"))))
    return read_value(value)


def _split(text: str) -> list[str]:
    """Split a text at the commas that are not in brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def text_of(schedule: Schedule) -> str:
    """Return a schedule's text, by which a run is known again."""
    if isinstance(schedule, _Described):
        return repr(schedule)
    name = getattr(schedule, "__qualname__", type(schedule).__qualname__)
    return str(name)
