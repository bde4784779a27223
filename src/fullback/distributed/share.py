"""What ranks share: the cores of a machine, and the images that rank 0 alone has."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.distributed.ranks import Ranks
from fullback.engine.machine import threads


def threads_of_rank(ranks: Ranks) -> int:
    """Return how many threads this rank takes: its part of the cores that it shares with others.

    FULLBACK_NUM_THREADS says how many a rank takes, whatever the others do.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if affinity else list(range(os.cpu_count() or 1))
    own = [platform.node(), cores]
    alike = [other for other in ranks.every(own) if other[0] == own[0] and {*other[1]} & {*cores}]
    if os.environ.get("FULLBACK_NUM_THREADS"):
        return threads()
    return max(1, min(threads(), len(cores) // len(alike)))


def scattered(
    ranks: Ranks, images: NDArray[Any], wanted: Sequence[NDArray[np.int64]]
) -> NDArray[Any]:
    """Return the images that this rank wants, of those that rank 0 has.

    Parameters
    ----------
    ranks : of which rank 0 has the values of ``images``, and the others their shape and dtype
    wanted : for every rank the images that it wants, by number
    """
    size = images.dtype.itemsize * int(np.prod(images.shape[1:], dtype=int))
    every = None
    if ranks.leads:
        rows = np.ascontiguousarray(images[np.concatenate(wanted)])
        every = rows.reshape(-1).view(np.uint8)
    own = np.zeros((len(wanted[ranks.rank]), *images.shape[1:]), images.dtype)
    ranks.scatter(every, [len(each) * size for each in wanted], own.reshape(-1).view(np.uint8))
    return own
