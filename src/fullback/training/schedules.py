"""Schedules: how the learning rate changes while a network is trained.

A schedule is a function of the share of the run that is done, from 0 at the first batch to 1 after
the last, and returns the factor by which the optimizer's learning rate is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

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


SCHEDULES: dict[str, Schedule] = {
    schedule.__name__: schedule for schedule in (constant, cosine, warm_cosine)
}
"""Every schedule by its name on the command line."""
