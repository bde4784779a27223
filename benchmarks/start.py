"""Start-up and memory, each in a fresh process, and the one compilation of the kernels."""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import console, progress, table

FIRST_STEP = """
import numpy as np
import fullback as fb
net = fb.Network.parse("conv6 relu pool conv12 relu pool flatten dense30 relu dense10", (1, 28, 28))
x = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), np.uint8)
y = np.arange(64) % 10
fb.fit(net, x, y, epochs=1, batch_size=64, verbose=False)
"""


def run(command: list[str], **environment: str) -> tuple[float, float]:
    """Run a process, and return its seconds and the most MB that it had in memory."""
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 -- commands from this file
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with code {process.returncode}")
    kilobytes = usage.ru_maxrss / 1024 if sys.platform == "darwin" else usage.ru_maxrss
    return seconds, kilobytes / 1024


def main() -> None:
    """Measure everything and show it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="of which the medians are shown")
    parser.add_argument("--data-dir", help="folder with the MNIST files")
    parser.add_argument("--quick", action="store_true", help="3 runs, without the compilation")
    options = parser.parse_args()
    fullback = shutil.which("fullback", path=Path(sys.executable).parent) or "fullback"
    python = [sys.executable, "-c"]
    commands = {
        "fullback --help": [fullback, "--help"],
        "import fullback": [*python, "import fullback"],
        "import fullback, every name": [*python, "from fullback import *"],
        "first training step": [*python, FIRST_STEP],
        "(for comparison: import numpy)": [*python, "import numpy"],
    }
    runs = 3 if options.quick else options.runs
    for command in commands.values():
        run(command)  # the kernels are compiled, and files are in memory
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with progress.status("starting processes"):
        for _ in range(runs):
            for name, command in commands.items():
                taken[name].append(run(command))
    made = table("from the shell, to the end of the process", "what", "seconds", "slowest", "MB")
    for name, results in taken.items():
        seconds, memory = zip(*results, strict=True)
        made.add_row(
            name, f"{statistics.median(seconds):.3f}", f"{max(seconds):.3f}", f"{max(memory):.0f}"
        )
    if options.data_dir:
        with progress.status("an epoch of MNIST"), tempfile.TemporaryDirectory() as folder:
            out = ["--out", str(Path(folder) / "model.safetensors")]
            data = ["--data", "mnist", "--data-dir", options.data_dir]
            for net in ("question", "small", "wide"):
                command = [fullback, "train", "--net", net, "--epochs", "1", *data, *out]
                seconds, memory = run(command)
                made.add_row(f"an epoch of MNIST, {net}", f"{seconds:.3f}", "", f"{memory:.0f}")
    if not options.quick:
        with progress.status("compiling"), tempfile.TemporaryDirectory() as folder:
            seconds, memory = run([fullback, "warmup"], FULLBACK_CACHE_DIR=folder)
            made.add_row("compiling the kernels, once", f"{seconds:.3f}", "", f"{memory:.0f}")
    console.print("", made)


if __name__ == "__main__":
    main()
