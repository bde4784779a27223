"""Where the time of a training step goes: every instruction of a program, timed by itself.

Each instruction is run on its own, many times over the memory that a whole step has left, on one
thread. Their sum is close to the time of a step; what is missing is the way from one to the next.

    python benchmarks/instructions.py question small wide
    python benchmarks/instructions.py "conv16 batchnorm relu pool flatten dense10" --shape 3x32x32
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fullback import zoo
from fullback.engine.context import RATES_EACH
from fullback.engine.kernels.optimizer import sgd
from fullback.engine.lanes import keys
from fullback.engine.lowering import lower
from fullback.engine.lowering.plan import Update
from fullback.engine.machine import Machine
from fullback.engine.program import Phase
from fullback.engine.simd import LANES
from fullback.network import Network

STEPS = 8
REPEATS = 20


def fastest(run: Callable[[], object], times: int) -> float:
    """Return the shortest time of several, in seconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def table(title: str, net: Network, batch: int) -> Table:
    """Time a network's training step, and each of its instructions."""
    numbers = (0.0, 0.9, 0.0)
    update = Update(sgd, ("velocity",), numbers, numbers)
    plan = lower(net, "training", blocks=-(-batch // LANES), training=True, update=update)
    machine = Machine(plan, workers=1)
    machine.load()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch * STEPS, *net.input_shape)).astype(np.uint8)
    labels = rng.integers(0, net.output_shape[0], len(images))
    rates = np.full((STEPS, RATES_EACH), 1e-4)
    draws = keys(net, [(0, 0, n) for n in range(STEPS)])  # of dropout

    def run() -> None:
        machine.run(images, batch=batch, total=len(images), targets=labels, keys=draws, rates=rates)

    step = fastest(run, 9) / STEPS
    machine.set_phases([])
    nothing = fastest(run, 20)
    rows = Table(
        box=box.SIMPLE_HEAD,
        title=f"{title}, batch {batch}: {step * 1e6:,.0f} us a step",
        title_justify="left",
    )
    rows.add_column("instruction")
    rows.add_column("layers")
    rows.add_column("us a step", justify="right")
    rows.add_column("share", justify="right")
    total = 0.0
    for phase in plan.phases:
        for instruction in phase.instructions:
            machine.set_phases([Phase(phase.scope, [instruction] * REPEATS)])
            seconds = max(0.0, fastest(run, 5) - nothing) / STEPS / REPEATS
            total += seconds
            rows.add_row(
                instruction.kernel.__name__,
                " + ".join(instruction.layers),
                f"{seconds * 1e6:.1f}",
                f"{seconds / step:.1%}",
            )
    rows.add_section()
    rows.add_row("sum", "", f"{total * 1e6:.1f}", f"{total / step:.1%}")
    return rows


def main() -> None:
    """Read the command line and print a table for every network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="+", help="networks of the zoo, or layers in text form")
    parser.add_argument("--shape", default="1x28x28", help="shape of an image")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    shape = tuple(int(n) for n in options.shape.split("x"))
    for net in options.nets:
        own = zoo.NETWORKS[net](shape) if net in zoo.NETWORKS else Network.parse(net, shape)
        Console().print(table(net, own, options.batch))


if __name__ == "__main__":
    main()
