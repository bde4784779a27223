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


SCHEDULES: dict[str, Schedule] = {schedule.__name__: schedule for schedule in (constant, cosine)}
"""Every schedule by its name on the command line."""
