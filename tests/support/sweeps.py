"""Sweeps for tests: their files, their data, and what they leave behind."""

import csv
from pathlib import Path

import numpy as np

BASE = """
data = "toy.npz"
net = "conv2 relu pool flatten dense3"
epochs = 4
validation = 0.2
"""
GRID = (
    BASE
    + """
[sweep]
metric = "accuracy"
[grid]
lr = [0.02, 0.1]
batch_size = [8, 16]
"""
)
LONG = (
    BASE.replace("epochs = 4", "epochs = 400")
    + """
[sweep]
trials = 4
workers = 2
[space]
lr = { from = 0.01, to = 0.2, scale = "log" }
momentum = { from = 0.1, to = 0.9 }
"""
)


def write_data(folder):
    """Write a data set of which something can be learned."""
    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    x = rng.integers(0, 160, (150, 1, 12, 12), np.uint8)
    x[np.arange(150), 0, 4 * y + 1] += 70
    np.savez(folder / "toy.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])


def write(text, name="s.toml"):
    Path(name).write_text(text, encoding="utf-8")
    return name


def rows(folder):
    with (Path(folder) / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def models(folder):
    return {
        path.parent.name: path.read_bytes() for path in Path(folder).glob("*/model.safetensors")
    }


def logs(folder):
    return "".join(path.read_text(encoding="utf-8") for path in Path(folder).glob("*/log.txt"))
