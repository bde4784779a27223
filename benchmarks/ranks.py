"""What sharing a batch costs a rank, and how many bytes it is told, without any network.

One process computes what one rank of several does: its share of every batch, and the packing of
what it tells and is told; what the others would tell it is taken from nowhere, at once. So the
speed-up that is shown is what ranks on machines of their own cannot exceed, on a network without
latency. Time is that of the processor, on one thread.

    python benchmarks/ranks.py small wide compact --ranks 2 4 8
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from tables import console, table

from fullback import zoo
from fullback.engine.context import RATES_EACH
from fullback.engine.kernels.optimizer import sgd
from fullback.engine.lanes import keys
from fullback.engine.lowering import lower
from fullback.engine.lowering.plan import Plan, Update
from fullback.engine.machine import Machine
from fullback.engine.ranks import Floats
from fullback.engine.simd import LANES
from fullback.network import Network
from fullback.training.lane_stepper import when_told

STEPS, REPEATS = 4, 5
ALONE = ("", 1)


class Nobody:
    """Other ranks that tell zeros, at once; see ``engine.ranks.Group``."""

    def __init__(self, size: int, *, fast: bool) -> None:
        self.rank, self.size, self.fast, self.bytes = 0, size, fast, 0

    def gather(self, own: Floats, every: Floats, sizes: Sequence[int]) -> None:
        """See Group."""
        every[: len(own)], every[len(own) :] = own, 0
        self.bytes += 4 * (len(every) - len(own))

    def add(self, own: Floats, total: Floats) -> Callable[[], None]:
        """See Group."""
        total[:] = own
        self.bytes += round(8 * len(own) * (self.size - 1) / self.size)  # on a ring
        return lambda: None


def plan_of(net: Network, batch: int, sums: str) -> Plan:
    """Return the program that trains a network, of ranks with these sums or, for "", of one."""
    numbers = (0.0, 0.9, 0.0)
    update = Update(sgd, ("velocity",), numbers, numbers)
    when = when_told(net) if sums == "fast" else None
    blocks = -(-batch // LANES)
    return lower(net, "training", blocks=blocks, training=True, update=update, sums=when)


def measured(
    net: Network, batch: int, sums: str, ranks: int, *, steps: int = STEPS, repeats: int = REPEATS
) -> tuple[float, int]:
    """Return the seconds of a batch, and the bytes that a rank is told in it."""
    group = Nobody(ranks, fast=sums == "fast") if sums else None
    machine = Machine(plan_of(net, batch, sums), 1, group)
    machine.load()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch * steps, *net.input_shape)).astype(np.uint8)
    labels = rng.integers(0, net.output_shape[0], len(images))
    rates = np.full((steps, RATES_EACH), 1e-4)
    draws = keys(net, [(0, 0, n) for n in range(steps)])
    seconds = []
    for _ in range(repeats):
        told = 0 if group is None else group.bytes
        start = time.process_time()
        machine.run(images, batch=batch, total=len(images), targets=labels, keys=draws, rates=rates)
        seconds.append(time.process_time() - start)
    return min(seconds) / steps, (0 if group is None else group.bytes - told) // steps


def main() -> None:
    """Measure the networks that are asked for, and show them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", default=["small", "wide", "compact"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--batch", nargs="+", type=int, default=[64, 256])
    chosen = parser.parse_args()
    title = "A rank's share of a batch, on one thread, without a network"
    shown = table(
        title, "network", "batch", "sums", "ranks", "ms a batch", "times one rank", "kB told"
    )
    for name in chosen.nets:
        for batch in chosen.batch:
            ways = [ALONE, *((sums, n) for sums in ("exact", "fast") for n in chosen.ranks)]
            found = {way: measured(zoo.NETWORKS[name](), batch, *way) for way in ways}
            for (sums, ranks), (seconds, told) in found.items():
                faster = found[ALONE][0] / seconds
                row = (f"{1000 * seconds:.2f}", f"{faster:.2f}", f"{told / 1000:,.0f}")
                shown.add_row(name, str(batch), sums, str(ranks), *row)
    console.print(shown)


if __name__ == "__main__":
    main()
