"""Does every seed train? The question's network on MNIST at the default settings, many times.

Trains from every seed twice: all of it, and with its filters frozen as they were drawn.

    python benchmarks/seeds.py --data-dir FOLDER
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import fullback as fb


def accuracies(
    data: fb.Dataset, net: str, seeds: int, epochs: int, *, frozen: bool
) -> NDArray[np.float64]:
    """Return the test accuracy of every seed, in per cent."""
    made = []
    for seed in track(range(seeds), "frozen " if frozen else "trained", transient=True):
        network = fb.zoo.NETWORKS[net](data.image_shape, data.classes, seed=seed)
        if frozen:
            network.freeze("conv")
        fb.fit(network, data.x_train, data.y_train, epochs=epochs, seed=seed, verbose=False)
        made.append(100 * network.score(data.x_test, data.y_test))
    return np.array(made)


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--net", default="question", choices=fb.zoo.NETWORKS)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore", fb.DeadUnitWarning)
    where = {} if options.data_dir is None else {"data_dir": options.data_dir}
    data = fb.load_data(options.data, **where)
    start = time.perf_counter()
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{options.net}, {options.data}, {options.epochs} epochs, {options.seeds} seeds: "
        "test accuracy",
    )
    for column in ("filters", "least", "quarter", "median", "most", "below 95 %"):
        table.add_column(column, justify="left" if column == "filters" else "right")
    for frozen in (False, True):
        made = accuracies(data, options.net, options.seeds, options.epochs, frozen=frozen)
        figures = np.quantile(made, (0, 0.25, 0.5, 1))
        below = int((made < 95).sum())
        name = "frozen" if frozen else "trained"
        table.add_row(name, *[f"{figure:.2f} %" for figure in figures], str(below))
    table.caption = f"{time.perf_counter() - start:.0f} s"
    Console().print(table)


if __name__ == "__main__":
    main()
