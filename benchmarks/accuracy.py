"""Rows of published tables, with the published protocol: test error on MNIST, ours beside theirs.

Every network is trained on all 60,000 training images for a number of epochs that is set in
advance, and tested once, when training has ended; nothing is chosen by the test images. With
--cifar, a network with batch normalisation is trained on 10,000 images of CIFAR-10 by fullback and
by PyTorch, by the same recipe and from the same weights.

    python benchmarks/accuracy.py --data-dir FOLDER [--rows lenet1 simard recipe] [--seeds 3]
    python benchmarks/accuracy.py --cifar cifar10_subset.npz --seeds 5
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import fullback as fb

CIFAR_NET = (
    "conv32 batchnorm relu pool conv32 batchnorm relu pool conv64 batchnorm relu pool flatten "
    "dense10"
)
CIFAR_EPOCHS, CIFAR_BATCH, CIFAR_RATE = 20, 64, 0.05


@dataclass(frozen=True)
class Row:
    """A row of a published table, and how it is trained here.

    Attributes
    ----------
    source, network, published : where it is from, what it is, its test error in per cent
    build : makes the network from a seed
    options : of ``fit``
    pad : rows and columns of zeros that images get below and on the right
    """

    source: str
    network: str
    published: float
    build: Callable[[int], fb.Network]
    options: dict[str, Any]
    pad: int = 0


def simard(seed: int) -> fb.Network:
    """Simard's network: 5 and 50 maps of 5x5 filters at every second place, 100 units."""
    text = (
        "conv5(kernel_size=5, stride=2, padding=valid) tanh "
        "conv50(kernel_size=5, stride=2, padding=valid) tanh flatten dense100 tanh dense10"
    )
    return fb.Network.parse(text, (1, 29, 29), seed=seed)


SGD = fb.SGD(0.05, momentum=0.9, nesterov=True)
# As LeCun et al. describe them: shifts, scaling, squeezing and horizontal shear.
DISTORTIONS = fb.Augment(shift=2, scale=0.15, shear=0.2)
ROWS = {
    "lenet1": Row(
        "LeCun et al. 1998",
        "LeNet-1",
        1.7,
        lambda seed: fb.zoo.lenet1(seed=seed),
        {"epochs": 20, "optimizer": SGD},
    ),
    "lenet5": Row(
        "LeCun et al. 1998",
        "LeNet-5",
        0.95,
        lambda seed: fb.zoo.lenet5(seed=seed),
        {"epochs": 20, "optimizer": SGD},
    ),
    "lenet5-distorted": Row(
        "LeCun et al. 1998",
        "LeNet-5, distortions",
        0.8,
        lambda seed: fb.zoo.lenet5(seed=seed),
        {"epochs": 20, "optimizer": SGD, "augment": DISTORTIONS},
    ),
    "simard": Row(
        "Simard et al. 2003",
        "conv 5-50, 100 units, elastic",
        0.4,
        simard,
        {
            "epochs": 200,
            "optimizer": fb.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-5),
            "augment": fb.Augment(elastic=34, sigma=4),
        },
        pad=1,
    ),
    "recipe": Row(
        "fullback",
        "deep, the recipe of docs/training.md",
        0.4,
        lambda seed: fb.zoo.deep(seed=seed),
        {
            "epochs": 20,
            "optimizer": fb.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
            "augment": fb.Augment(shift=2, rotate=10, scale=0.1, shear=0.1),
        },
    ),
}


def errors(row: Row, data: fb.Dataset, seeds: int, progress: Progress) -> tuple[list[float], float]:
    """Return the test error of every seed in per cent, and the seconds that one takes."""
    pad = ((0, 0), (0, 0), (0, row.pad), (0, row.pad))
    train, test = (np.pad(x, pad) for x in (data.x_train, data.x_test))
    task = progress.add_task(row.network, total=seeds * row.options["epochs"])
    made, start = [], time.perf_counter()
    for seed in range(seeds):
        net = row.build(seed)
        fb.fit(
            net,
            train,
            data.y_train,
            seed=seed,
            callbacks=[lambda _: progress.advance(task)],
            verbose=False,
            **row.options,
        )
        made.append(100 * (1 - net.score(test, data.y_test)))
    return made, (time.perf_counter() - start) / seeds


def mnist(rows: list[str], data: fb.Dataset, seeds: int) -> None:
    """Print ours beside theirs."""
    table = Table(box=box.SIMPLE_HEAD, title=f"MNIST: test error in per cent, {seeds} seeds")
    table.add_column("source")
    table.add_column("network")
    for column in ("published", "ours, mean", "of every seed", "epochs", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    console = Console()
    with Progress(console=console, transient=True) as progress:
        for name in rows:
            row = ROWS[name]
            made, seconds = errors(row, data, seeds, progress)
            table.add_row(
                row.source,
                row.network,
                f"< {row.published:g}" if name == "recipe" else f"{row.published:g}",
                f"{np.mean(made):.2f}",
                " ".join(f"{error:.2f}" for error in made),
                str(row.options["epochs"]),
                f"{seconds:.0f}",
            )
    console.print(table)


# CIFAR-10 beside PyTorch --------------------------------------------------------------------------


def ours(data: fb.Dataset, seed: int) -> float:
    """Return fullback's test accuracy."""
    net = fb.Network.parse(CIFAR_NET, data.image_shape, seed=seed)
    fb.fit(
        net,
        data.x_train,
        data.y_train,
        epochs=CIFAR_EPOCHS,
        batch_size=CIFAR_BATCH,
        optimizer=fb.SGD(CIFAR_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4),
        augment=fb.Augment(crop=4, flip="horizontal"),
        seed=seed,
        verbose=False,
    )
    return net.score(data.x_test, data.y_test)


def theirs(data: fb.Dataset, seed: int) -> float:
    """Return PyTorch's, of the same network, weights, recipe and augmentation."""
    import torch

    from fullback.bench.pytorch import torch_module

    rng = np.random.default_rng(seed)
    net = fb.Network.parse(CIFAR_NET, data.image_shape, seed=seed)
    model = torch_module(net).to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": others}],
        CIFAR_RATE,
        momentum=0.9,
        nesterov=True,
    )
    x, y = data.x_train.astype(np.float32) / 255, torch.from_numpy(data.y_train)
    steps = -(-len(x) // CIFAR_BATCH)
    model.train()
    for epoch in range(CIFAR_EPOCHS):
        order = rng.permutation(len(x))
        for n in range(steps):
            chosen = order[n * CIFAR_BATCH : (n + 1) * CIFAR_BATCH]
            factor = fb.schedules.warm_cosine((epoch * steps + n) / (CIFAR_EPOCHS * steps))
            for group in optimizer.param_groups:
                group["lr"] = CIFAR_RATE * factor
            images = torch.from_numpy(cropped(x[chosen], rng))
            loss = torch.nn.functional.cross_entropy(
                model(images.to(memory_format=torch.channels_last)), y[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        answers = model(torch.from_numpy(data.x_test.astype(np.float32) / 255)).argmax(1).numpy()
    return float((answers == data.y_test).mean())


def cropped(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return random crops after padding by 4, half of them flipped."""
    padded = np.pad(x, ((0, 0), (0, 0), (4, 4), (4, 4)))
    made = np.empty_like(x)
    for n, (row, column) in enumerate(rng.integers(0, 9, (len(x), 2))):
        view = padded[n, :, row : row + x.shape[2], column : column + x.shape[3]]
        made[n] = view[:, :, ::-1] if rng.random() < 0.5 else view
    return made


def cifar(path: Path, seeds: int) -> None:
    """Print fullback's accuracy beside PyTorch's."""
    data = fb.load_data(path)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{path.name}: test accuracy in per cent, {CIFAR_EPOCHS} epochs, {seeds} seeds",
    )
    for column in ("", "mean", "standard error", "of every seed", "seconds"):
        table.add_column(column, justify="right")
    console = Console()
    with Progress(console=console, transient=True) as progress:
        for name, train in (("fullback", ours), ("PyTorch", theirs)):
            task = progress.add_task(name, total=seeds)
            made, start = [], time.perf_counter()
            for seed in range(seeds):
                made.append(100 * train(data, seed))
                progress.advance(task)
            table.add_row(
                name,
                f"{np.mean(made):.2f}",
                f"{np.std(made, ddof=1) / np.sqrt(seeds):.2f}" if seeds > 1 else "",
                " ".join(f"{accuracy:.1f}" for accuracy in made),
                f"{(time.perf_counter() - start) / seeds:.0f}",
            )
    console.print(table)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cifar", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", fb.DeadUnitWarning)
    if options.cifar:
        cifar(options.cifar, options.seeds)
    else:
        mnist(options.rows, fb.load_data("mnist", options.data_dir), options.seeds)


if __name__ == "__main__":
    main()
