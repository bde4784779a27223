"""What a rank does for ``scaling.py``, which starts it by ``mpiexec``: it exchanges, or trains.

    mpiexec -n 2 python scaling_rank.py JOB.json FOUND.json

``JOB.json`` is a list of cases; rank 0 writes the seconds of each. They take turns,
of which the fastest counts: others have lost time to other programs.

- ``{"what": "gather", "floats": n}``, ``{"what": "add", "floats": n}``: an exchange, where every
  rank has so many floats
- ``{"what": "fit", "net": name, "batch": n, "sums": "exact", "seconds": s}``: a training
  step, of all ranks or, without sums, of rank 0 alone, for about so many seconds
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from scaling_nets import NETWORKS

import fullback as fb
from fullback.distributed.ranks import Ranks

ROUNDS = 3
LOOPS = 6  # of exchanges, in a turn
EPOCHS = 12  # at most, in a turn
_SHORT = 0.02  # seconds of a loop, or an epoch: few enough that some are not interrupted
_LEAST, _MOST = 2, 400  # exchanges of a loop, or batches of an epoch


def wait(comm: Any) -> None:
    """Wait for all ranks, without taking the processor from them."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(1e-3)


def exchange(ranks: Ranks, case: dict[str, Any]) -> float:
    """Return the seconds of an exchange: the mean of some, one after the other."""
    own = np.zeros(case["floats"], np.float32)
    every = np.zeros(len(own) * (1 if case["what"] == "add" else ranks.size), np.float32)

    def once() -> None:
        if case["what"] == "add":
            ranks.add(own, every)()
        else:
            ranks.gather(own, every, [len(own)] * ranks.size)

    def seconds_of(count: int) -> float:
        ranks.meet()
        start = time.perf_counter()
        for _ in range(count):
            once()
        # Of the rank that is last: another may have sent, and not wait for what arrives.
        return max(ranks.every(time.perf_counter() - start)) / count

    once()
    count = max(_LEAST, min(_MOST, int(_SHORT / seconds_of(_LEAST))))
    return min(seconds_of(count) for _ in range(LOOPS))


def train(comm: Any, case: dict[str, Any], steps: int, epochs: int) -> float:
    """Return the seconds of a training step: of the fastest epoch, the first apart."""
    net = NETWORKS[case["net"]]()
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (steps * case["batch"], *net.input_shape), np.uint8)
    y = rng.integers(0, net.output_shape[0], len(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fb.FullbackWarning)
        history = fb.fit(net, x, y, epochs=epochs, batch_size=case["batch"], comm=comm,
                         optimizer=fb.SGD(1e-4, momentum=0.9), sums=case["sums"] or "exact",
                         verbose=False)  # fmt: skip
    return min(epoch.seconds for epoch in history.epochs[min(1, epochs - 1) :]) / steps


def training(world: Any, case: dict[str, Any]) -> float:
    """Return the seconds of a training step, of all ranks or of rank 0 alone."""
    comm = world if case["sums"] else None
    seconds = 0.0
    if comm is not None or world.Get_rank() == 0:
        first = train(comm, case, _LEAST, 1)
        steps = max(_LEAST, min(_MOST, int(_SHORT / first)))
        epochs = max(2, min(EPOCHS, int(case["seconds"] / steps / first)))
        if comm is not None:
            steps, epochs = comm.bcast((steps, epochs))
        seconds = train(comm, case, steps, epochs)
    wait(world)
    return seconds


def main() -> None:
    """Do all cases, in turns."""
    world = MPI.COMM_WORLD
    cases = json.loads(Path(sys.argv[1]).read_text())
    taken: list[list[float]] = [[] for _ in cases]
    ranks = Ranks(world)
    for _ in range(ROUNDS):
        for case, times in zip(cases, taken, strict=True):
            fits = case["what"] == "fit"
            times.append(training(world, case) if fits else exchange(ranks, case))
    ranks.close()
    if world.Get_rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps([min(times) for times in taken]))


if __name__ == "__main__":
    main()
