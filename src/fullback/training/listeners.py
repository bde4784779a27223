"""Listeners: what ``fit`` tells of a run, one after the other.

A practice that goes on beside training, like a checkpoint or a progress bar, is a `Listener` in a
file of its own, and stands in ``fit``'s list of them. It is a `Callback` that is also called after
some batches, and when training is over by whatever way. What users give ``fit`` is a listener, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from itertools import groupby
from typing import ClassVar, TypeAlias

from fullback.errors import OptionError
from fullback.model import Model
from fullback.training.averages import averaged, give_averages
from fullback.training.callbacks import Callback, EarlyStopping
from fullback.training.history import Epoch, History, check_monitor
from fullback.training.optimizers import State
from fullback.training.run import EpochFigures

AnyCallback: TypeAlias = Callback | Callable[[Epoch], object]


class Stage(IntEnum):
    """When a listener finishes: those of one stage after all those of the stage before."""

    SETTLE = 0  # it gives the network its last arrays
    JUDGE = 1  # it judges them; left out where training diverged
    TELL = 2  # it tells of them


class Listener(Callback):
    """A callback of ``fit``'s own.

    Attributes
    ----------
    stage : when it finishes
    sees_average : whether the network has its averages, if there are any, while this is called
    """

    stage: Stage = Stage.TELL
    sees_average: ClassVar[bool] = False

    def batch(self, epoch: int, figures: EpochFigures) -> None:
        """Act after some batches of an epoch, which has these figures so far.

        What was learned in them is not in the network yet.
        """

    def close(self) -> None:
        """Act when no epoch comes any more, for whatever reason, also an error."""


class UserCallback(Listener):
    """A callback that a user gave: a function, or anything that has the methods of `Callback`."""

    sees_average = True

    def __init__(self, callback: AnyCallback) -> None:
        self.callback = callback
        self.stage = Stage.SETTLE if isinstance(callback, EarlyStopping) else Stage.TELL

    def begin(self, history: History) -> object:
        """Call its ``begin``, if it has one."""
        return self._call("begin", history)

    def __call__(self, epoch: Epoch) -> object:
        """Call it."""
        return self.callback(epoch)

    def finish(self, history: History) -> None:
        """Call its ``finish``, if it has one."""
        self._call("finish", history)

    def _call(self, name: str, history: History) -> object:
        method = getattr(self.callback, name, None)
        return method(history) if callable(method) else None


class Listeners:
    """All listeners of a run, in the order in which they are called.

    Parameters
    ----------
    listeners : the listeners
    net, state : the network that is trained, and the state of its optimizer with any averages
    """

    def __init__(self, listeners: Sequence[Listener], net: Model, state: State) -> None:
        self.listeners, self.net, self.state = listeners, net, state

    def begin(self, history: History) -> bool:
        """Tell of the beginning; return whether training is to end at once."""
        return self._any(lambda listener: listener.begin(history))

    def __call__(self, epoch: Epoch) -> bool:
        """Tell of an epoch; return whether training is to end."""
        return self._any(lambda listener: listener(epoch))

    def batch(self, epoch: int, figures: EpochFigures) -> None:
        """Tell of some batches."""
        for listener in self.listeners:
            listener.batch(epoch, figures)

    def close(self) -> None:
        """Tell that no epoch comes any more."""
        for listener in self.listeners:
            listener.close()

    def finish(self, history: History, *, diverged: bool = False) -> None:
        """Give the network its averages, and tell of the end."""
        give_averages(self.net, self.state)
        for listener in sorted(self.listeners, key=lambda listener: listener.stage):
            if not (diverged and listener.stage is Stage.JUDGE):
                listener.finish(history)

    def _any(self, call: Callable[[Listener], object]) -> bool:
        """Call all listeners, and return whether one returned True."""
        returned: list[object] = []
        for sees_average, group in groupby(
            self.listeners, key=lambda listener: listener.sees_average
        ):
            with averaged(self.net, self.state) if sees_average else contextlib.nullcontext():
                returned += map(call, group)
        return any(value is True for value in returned)


def user_callbacks(net: Model, callbacks: object, *, validates: bool) -> list[UserCallback]:
    """Return users' callbacks as listeners.

    Raises
    ------
    OptionError
        They are no functions, watch another network, or monitor a figure that there will not be.
    """
    if not isinstance(callbacks, Iterable):
        raise OptionError(f"callbacks must be a list of functions, got {callbacks!r}")
    listeners = list(map(UserCallback, callbacks))
    for callback in (listener.callback for listener in listeners):
        if not callable(callback):
            raise OptionError(f"callbacks must be functions, got {callback!r}")
        if isinstance(callback, EarlyStopping):
            check_monitor(
                "EarlyStopping: monitor",
                callback.monitor,
                classifies=net.loss.classifies,
                validates=validates,
            )
            if callback.net is not net:
                raise OptionError(
                    "EarlyStopping watches another network than the one that is trained"
                )
    return listeners
