"""Training on images that stay on the disk: from memory, from a warm file, and from a cold one.

    python benchmarks/disk.py [--folder FOLDER] [--gigabytes 2] [--size 28] [--net small]

What a disk costs shows where the file is larger than the memory that there is, as under
``systemd-run --scope -p MemoryMax=1G``: else the system has soon read all of it. The program

writes a file of random images into FOLDER (by default the system's for temporary files), and
trains one epoch of it. "cold" is after the file was taken out of memory (``posix_fadvise``, on
Linux); "alone" is without the thread that reads ahead. All end with the same weights, which is
checked.
"""

from __future__ import annotations

import argparse
import mmap
import os
import tempfile
import time
from pathlib import Path

import numpy as np

import fullback as fb
from fullback.training import read_ahead


class Nowhere:
    """Rows of no file: nothing is read ahead."""

    @classmethod
    def of(cls, images: np.ndarray) -> None:
        """See Rows."""


def forget(path: Path, mapped: np.memmap) -> None:
    """Take a file out of the system's memory, which keeps what is mapped somewhere."""
    mapped._mmap.madvise(mmap.MADV_DONTNEED)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write(path: Path, count: int, shape: tuple[int, ...]) -> None:
    """Write so many random images."""
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *shape))
    step = max(1, 2**24 // int(np.prod(shape)))
    for start in range(0, count, step):
        part = images[start : start + step]
        part[...] = rng.integers(0, 256, part.shape, np.uint8)
    images.flush()


def epoch(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[float, bytes]:
    """Train an epoch; return the seconds and the weights."""
    net = fb.zoo.NETWORKS[name](images.shape[1:], 10, seed=0)
    start = time.perf_counter()
    fb.fit(net, images, labels, epochs=1, verbose=False)
    seconds = time.perf_counter() - start
    return seconds, b"".join(array.tobytes() for array in net.parameters.values())


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--images", type=int, default=0, help="trained on, spread over the file")
    parser.add_argument("--net", default="small")
    given = parser.parse_args()
    shape = (given.channels, given.size, given.size)
    count = int(given.gigabytes * 2**30 / np.prod(shape))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "x.npy"
        write(path, count, shape)
        every = count // given.images if given.images else 1
        mapped = np.load(path, mmap_mode="r")[::every]
        labels = np.arange(len(mapped)) % 10
        whole = np.array(mapped)
        epoch(given.net, whole[:1024], labels[:1024])  # compiles
        print(f"{count:,} images of {shape}, {len(mapped):,} trained on, network {given.net}")
        found = set()
        rows = read_ahead.Rows
        for name, images, cold, ahead in (
            ("memory", whole, False, True),
            ("warm file, alone", mapped, False, False),
            ("warm file", mapped, False, True),
            ("cold file, alone", mapped, True, False),
            ("cold file", mapped, True, True),
        ):
            if cold:
                forget(path, mapped)
            else:
                mapped.max()
            read_ahead.Rows = rows if ahead else Nowhere
            seconds, weights = epoch(given.net, images, labels)
            found.add(weights)
            print(f"{name:20} {len(images) / seconds:12,.0f} images a second  {seconds:8.2f} s")
        if len(found) != 1:
            raise SystemExit("the weights differ")


if __name__ == "__main__":
    main()
