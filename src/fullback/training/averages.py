"""The running average of the parameters, which a network has while it is looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fullback.network import Network
from fullback.training.optimizers import State


@contextlib.contextmanager
def averaged(net: Network, state: State) -> Iterator[None]:
    """Within this context the network has the averages of its parameters, where there are some."""
    before = {name: net.parameters[name].copy() for name in _averages(state)}
    give_averages(net, state)
    try:
        yield
    finally:
        for name, array in before.items():
            net.parameters[name] = array


def give_averages(net: Network, state: State) -> None:
    """Give a network the averages of its parameters, where there are some."""
    for name in _averages(state):
        net.parameters[name] = state[f"average.{name}"]


def _averages(state: State) -> list[str]:
    return [name.removeprefix("average.") for name in state if name.startswith("average.")]
