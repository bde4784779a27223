"""What augmentation and the other practices cost: images a second of training, with and without.

Every one is trained in turn with the plain run, several times over; the share that is lost is the
median over the rounds.

    python benchmarks/augmentation.py [--net small] [--batch 64]
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import fullback as fb

PRACTICES: dict[str, dict[str, Any]] = {
    "crop=2": {"augment": fb.Augment(crop=2)},
    "flip=horizontal crop=2": {"augment": fb.Augment(flip="horizontal", crop=2)},
    "erase=8": {"augment": fb.Augment(erase=8)},
    "shift=2 rotate=10 scale=0.1 shear=0.1": {
        "augment": fb.Augment(shift=2, rotate=10, scale=0.1, shear=0.1)
    },
    "elastic=34 sigma=4": {"augment": fb.Augment(elastic=34)},
    "all of them": {
        "augment": fb.Augment(
            shift=2, rotate=10, scale=0.1, shear=0.1, flip="both", crop=2, erase=8, elastic=34
        )
    },
    "mixup": {"mixup": 0.2},
    "running average": {"average": 0.999},
    "clipping": {"optimizer": fb.SGD(0.05, momentum=0.9, nesterov=True, clip_norm=5.0)},
}


def speed(net: str, x: np.ndarray, y: np.ndarray, batch: int, **options: Any) -> float:
    """Return images trained in a second, of the faster of two epochs."""
    network = fb.zoo.NETWORKS[net]()
    history = fb.fit(network, x, y, epochs=2, batch_size=batch, verbose=False, **options)
    return max(epoch.images_per_second for epoch in history)


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="small", choices=fb.zoo.NETWORKS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore", fb.DeadUnitWarning)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (options.images, 1, 28, 28), dtype=np.uint8)
    y = rng.integers(0, 10, options.images)
    table = Table(box=box.SIMPLE_HEAD, title=f"{options.net}, batch {options.batch}")
    table.add_column("")
    for column in ("images a second", "beside plain", "lost"):
        table.add_column(column, justify="right")
    speed(options.net, x, y, options.batch)
    for name, practice in PRACTICES.items():
        pairs = np.array(
            [
                [speed(options.net, x, y, options.batch, **own) for own in (practice, {})]
                for _ in track(range(options.rounds), name, transient=True)
            ]
        )
        lost = float(np.median(1 - pairs[:, 0] / pairs[:, 1]))
        own, plain = np.median(pairs, axis=0)
        table.add_row(name, f"{own:,.0f}", f"{plain:,.0f}", f"{lost:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
