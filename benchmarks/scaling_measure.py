"""What ``scaling.py`` measures: compute, exchanges and training, each by a key, in seconds."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import scaling_hosts
from ranks import measured
from rich.progress import Progress
from scaling_hosts import Hosts
from scaling_model import Link
from scaling_nets import LARGEST, NETWORKS
from tables import console, progress

Times: TypeAlias = dict[tuple[Any, ...], float]
"""Seconds by what was measured: a part, and what distinguishes a case in it."""

Setting: TypeAlias = "tuple[float, float] | None"
Bar: TypeAlias = Callable[[str], None]

BATCHES, FEW = (64, 256, 1024), (64, 256)
RANKS = {"": (1,), "exact": (2, 4, 16), "fast": (2, 16, 1024)}
SLOW = 0.05  # seconds of a step on 64 images, from which on a network is measured with few images
TURN = 0.3  # seconds of a measurement

FITTED = ((0.0, 125e6), (0.0, 1.25e9), (5e-4, 125e6), (1e-3, 5e7))
HELD_OUT = ((0.0, 3e8), (2.5e-4, 6e7))
"""Delays and bandwidths, in seconds and bytes a second, of hosts for terms and to try them on."""

SIZES, OTHER_SIZES = (16, 4096, 65_536, 262_144), (256, 20_000, 150_000)


def link(delay: float, bandwidth: float) -> Link:
    """Return the network between hosts."""
    return Link(f"{1e3 * delay:g} ms, {8e-9 * bandwidth:g} Gbit/s", delay, bandwidth)


# Measuring ------------------------------------------------------------------------------------


def ask(starts: Callable[[Sequence[str]], None], cases: Sequence[dict[str, Any]]) -> list[float]:
    """Have ranks do some cases, and return the seconds of each."""
    with tempfile.TemporaryDirectory() as folder:
        job, found = Path(folder) / "job.json", Path(folder) / "found.json"
        job.write_text(json.dumps(list(cases)))
        program = Path(__file__).with_name("scaling_rank.py")
        starts([sys.executable, str(program), str(job), str(found)])
        return list(json.loads(found.read_text()))


def here(command: Sequence[str]) -> None:
    """Start two ranks on this machine, that reach each other by shared memory."""
    scaling_hosts.start(2, command)


def compute_times(name: str) -> Times:
    """Measure a network's steps on one thread, without anybody to wait for."""
    net, times = NETWORKS[name](), {}
    first, _ = measured(net, FEW[0], "", 1, steps=1, repeats=2)
    for batch in FEW if first > SLOW else BATCHES:
        for sums, ranks in ((sums, n) for sums, every in RANKS.items() for n in every):
            expected = first * batch / FEW[0]
            steps = max(1, min(8, int(TURN / 4 / expected)))
            repeats = max(2, min(20, int(TURN / steps / expected)))
            way = measured(net, batch, sums, ranks, steps=steps, repeats=repeats)
            times["compute", name, sums, batch, ranks] = way[0]
    return times


def exchange_times(
    settings: Sequence[Setting], counts: Sequence[int], sizes: Sequence[int], bar: Bar
) -> Times:
    """Measure exchanges: between hosts, or, where the setting is None, of two ranks here."""
    times: Times = {}
    cases = [{"what": what, "floats": n} for what in ("gather", "add") for n in sizes]
    for setting in settings:
        for count in counts:
            if setting is None:
                bar("exchanges in memory")
                found = ask(here, cases)
            else:
                bar(f"exchanges of {count} hosts, {link(*setting).name}")
                with Hosts(count, delay=setting[0]) as hosts:
                    hosts.limit(setting[1])
                    found = ask(hosts.start, cases)
            for case, seconds in zip(cases, found, strict=True):
                times["exchange", setting, count, case["what"], case["floats"]] = seconds
    return times


def training_cases(name: str, *, weak: bool) -> list[dict[str, Any]]:
    """Return training of a network, of one rank and of all."""
    batch = 64 if name == LARGEST else 256
    cases = []
    for sums in ("", "exact", "fast"):
        for size in (batch, 2 * batch) if weak and sums else (batch,):
            case = {"what": "fit", "net": name, "batch": size, "sums": sums, "seconds": TURN}
            cases.append(case)
    return cases


def training_times(names: Sequence[str], setting: Setting, bar: Bar) -> Times:
    """Measure training on two hosts, or, where the setting is None, of two ranks here."""
    times: Times = {}
    if setting is not None:
        names = [name for name in names if name != LARGEST]
    for name in names:
        cases = training_cases(name, weak=setting is None)
        if setting is None:
            bar(f"training here, {name}")
            found = ask(here, cases)
        else:
            bar(f"training on hosts, {link(*setting).name}, {name}")
            with Hosts(2, delay=setting[0]) as hosts:
                hosts.limit(setting[1])
                found = ask(hosts.start, cases)
        for case, seconds in zip(cases, found, strict=True):
            times["training", setting, name, case["sums"], case["batch"]] = seconds
    return times


def measure(names: Sequence[str]) -> Times:
    """Measure everything that can be measured here."""
    without = scaling_hosts.missing()
    if without:
        console.print(f"no hosts, and no terms of TCP: {without}")
    times: Times = {}
    with Progress(console=progress, transient=True) as shown:
        task = shown.add_task("", total=None)

        def bar(text: str) -> None:
            shown.update(task, description=text)

        for name in names:
            bar(f"compute, {name}")
            times |= compute_times(name)
        times |= exchange_times([None], (2,), SIZES, bar)
        if not without:
            times |= exchange_times(FITTED, (2, 4), SIZES, bar)
            times |= exchange_times(HELD_OUT, (2, 3), OTHER_SIZES, bar)
        for setting in (None,) if without else (None, *HELD_OUT):
            times |= training_times(names, setting, bar)
    return times


def save(times: Times, path: Path) -> None:
    """Write what was measured."""
    path.write_text(json.dumps([[*key, seconds] for key, seconds in times.items()], indent=0))


def load(paths: Sequence[Path]) -> Times:
    """Return what ``save`` wrote; of several files, the fastest time of each case."""
    times: Times = {}
    for path in paths:
        for *fields, seconds in json.loads(path.read_text()):
            key = tuple(tuple(each) if isinstance(each, list) else each for each in fields)
            times[key] = min(seconds, times.get(key, seconds))
    return times
