"""What the machine can do: its fastest float32 multiply-adds that were measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from fullback.bench.problem import inference_flops
from fullback.engine.lowering import lower
from fullback.engine.machine import Machine
from fullback.network import Network

_SECONDS = 0.7  # of trying, since what else runs on the machine only ever makes it slower
_SIZE = 2048  # rows and columns of the matrices
_IMAGES = 64


@dataclass(frozen=True)
class Peak:
    """The most GFLOP/s that were measured, and of what."""

    gflops: float
    source: str


def measure_peak(threads: int, size: int = _SIZE) -> Peak:
    """Measure NumPy's matrix product and a wide convolution, and return the faster one."""
    return max(
        Peak(_matrix_product(threads, size), f"NumPy's product of {size}x{size} matrices"),
        Peak(_convolution(threads), "fullback's 3x3 convolution of 64 to 64 channels"),
        key=lambda peak: peak.gflops,
    )


def _matrix_product(threads: int, size: int) -> float:
    a = np.random.default_rng(0).random((size, size), np.float32)
    out = np.empty_like(a)
    with threadpool_limits(threads, "blas"):
        return 2 * size**3 / _least_seconds(lambda: np.matmul(a, a, out=out)) / 1e9


def _convolution(threads: int) -> float:
    net = Network.parse("conv64 globalavgpool", (64, 28, 28))
    machine = Machine(lower(net, "logits"), threads)
    machine.load()
    images = np.random.default_rng(0).random((_IMAGES, *net.input_shape), np.float32)
    output = np.empty((_IMAGES, 64), np.float32)
    seconds = _least_seconds(
        lambda: machine.run(images, batch=_IMAGES, total=_IMAGES, output=output)
    )
    return _IMAGES * inference_flops(net) / seconds / 1e9


def _least_seconds(work: Callable[[], object]) -> float:
    work()
    times: list[float] = []
    while sum(times) < _SECONDS:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def processor() -> str:
    """Return what the processor is called, and its widest vectors."""
    name, flags = "", ""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            key, _, value = line.partition(":")
            name = value.strip() if key.strip() == "model name" else name
            flags = value if key.strip() == "flags" else flags
    widest = next((w for w in ("avx512f", "avx2", "avx") if w in flags.split()), "")
    known = name or os.uname().machine if hasattr(os, "uname") else name
    return ", ".join(filter(None, (known, widest)))
