"""The running average of the parameters, which a network has while it is looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from fullback.model import Model
from fullback.training.optimizers import State


def average_share(decay: float, step: int) -> float:
    """Return the share that a step's parameters have in their running average.

    It is 1 - decay, and more in the first steps, whose parameters are to be forgotten soon.
    """
    return 1 - min(decay, (1 + step) / (10 + step))


def first_averages(net: Model) -> State:
    """Return the averages before the first step, for the optimizer's state."""
    return {f"average.{name}": array.copy() for name, array in net.parameters.items()}


def move_averages(net: Model, state: State, decay: float, names: Iterable[str]) -> None:
    """Move the averages of these parameters after a step."""
    share = average_share(decay, int(state["step"]))
    for name in names:
        average = state[f"average.{name}"]
        average += share * (net.parameters[name] - average)


@contextlib.contextmanager
def averaged(net: Model, state: State) -> Iterator[None]:
    """Within this context the network has the averages of its parameters, where there are some."""
    before = {name: net.parameters[name].copy() for name in _averages(state)}
    give_averages(net, state)
    try:
        yield
    finally:
        for name, array in before.items():
            net.parameters[name] = array


def give_averages(net: Model, state: State) -> None:
    """Give a network the averages of its parameters, where there are some."""
    for name in _averages(state):
        net.parameters[name] = state[f"average.{name}"]


def _averages(state: State) -> list[str]:
    return [name.removeprefix("average.") for name in state if name.startswith("average.")]
