"""How training's time grows: with the data set, the width of a network, and the size of an image.

Every size takes a turn in every round, and medians are shown. The last column divides the time of
an image by its arithmetic, and compares that with the best size before: where it stays at 1 or
below, time grows no faster than the arithmetic.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

from tables import console, progress, table

from fullback import Network, zoo
from fullback.bench.problem import Problem, training_flops
from fullback.bench.rival import Lanes
from fullback.engine.machine import threads

BATCH = 64
COUNTS = (1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 60_000)
WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
SIZES = (28, 32, 40, 48, 56, 64, 80, 96, 112, 128)


def of_width(width: int) -> Network:
    """Return the network of two convolutions and two dense layers, this wide."""
    layers = f"conv{width} relu pool conv{2 * width} relu pool flatten dense{4 * width} relu"
    return Network.parse(f"{layers} dense10", (1, 28, 28))


def seconds_an_image(problems: Sequence[Problem], rounds: int, seconds: float) -> list[float]:
    """Time every problem in every round, and return the medians."""
    runs = []
    for problem in problems:
        ours = Lanes(problem, "uint8", threads())
        turns = max(1, round(seconds / (ours.settle(seconds / 4) * problem.steps)))
        runs.append((ours, turns * problem.steps))  # whole passes over the data
    taken: list[list[float]] = [[] for _ in problems]
    for _ in range(rounds):
        for (ours, steps), times in zip(runs, taken, strict=True):
            start = time.perf_counter()
            ours.train(steps)
            times.append((time.perf_counter() - start) / (steps * BATCH))
    return [statistics.median(times) for times in taken]


def show(
    title: str, what: str, names: Sequence[str], problems: Sequence[Problem], *how: Any
) -> None:
    """Measure problems and show them."""
    with progress.status(title):
        times = seconds_an_image(problems, *how)
    made = table(title, what, "MFLOP/image", "us/image", "GFLOP/s", "ns/kFLOP", "to best before")
    best = 0.0
    for name, problem, seconds in zip(names, problems, times, strict=True):
        flops = training_flops(problem.net)
        cost = seconds / flops
        rise = cost / best if best else 1.0
        best = min(best, cost) if best else cost
        made.add_row(
            name,
            f"{flops / 1e6:.3g}",
            f"{seconds * 1e6:,.3g}",
            f"{flops / seconds / 1e9:.3g}",
            f"{cost * 1e12:.3g}",
            f"{rise:.2f} x",
        )
    console.print("", made)


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.25, help="of a turn")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller sizes")
    options = parser.parse_args()
    how = (options.rounds, options.seconds)
    counts, widths, sizes = COUNTS, WIDTHS, SIZES
    if options.quick:
        counts, widths, sizes = counts[:2], widths[:2], sizes[:2]
    for name in ("question", "small"):
        problems = [Problem(name, zoo.NETWORKS[name](), BATCH, n // BATCH * BATCH) for n in counts]
        show(
            f"images in the data set, {name}", "images", [f"{n:,}" for n in counts], problems, *how
        )
    problems = [Problem.make("width", of_width(width), BATCH, 2048) for width in widths]
    show("width W: conv W, conv 2W, dense 4W", "W", [str(w) for w in widths], problems, *how)
    problems = [Problem.make("size", zoo.small((1, n, n)), BATCH, 2048) for n in sizes]
    show("size of an image, small", "size", [f"{n}x{n}" for n in sizes], problems, *how)


if __name__ == "__main__":
    main()
