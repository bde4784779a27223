"""How training scales over ranks: measured here, and predicted for up to 1,024 nodes.

1. What sharing a batch costs a rank, without a network (as ``ranks.py`` measures it), gives the
   terms of compute.
2. Exchanges between hosts, which are network namespaces with a delay and a bandwidth
   (``scaling_hosts.py``), give those of communication by TCP; exchanges on this machine those of
   shared memory.
3. Training with ``fit(comm=)`` is timed on the cores here and between hosts, at delays and
   bandwidths that no term was fitted to, and shown beside what the model (``scaling_model.py``)
   says.
4. The model says how 2 to 1,024 nodes would do.

    python benchmarks/scaling.py                       # some five minutes; hosts need root
    python benchmarks/scaling.py --save terms.json     # keep what was measured
    python benchmarks/scaling.py --terms terms.json --threads 16   # predict from it
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import scaling_hosts
from ranks import measured
from rich.progress import Progress
from scaling_hosts import Hosts
from scaling_model import (
    ETHERNET_10,
    ETHERNET_100,
    INFINIBAND,
    MEMORY,
    NODES,
    Compute,
    Link,
    Model,
    Told,
    Wire,
    fit_compute,
    fit_wire,
    useful,
)
from scaling_nets import NETWORKS
from tables import console, progress, table

BATCHES, FEW = (64, 256, 1024), (64, 256)
RANKS = {"": (1,), "exact": (2, 4, 16), "fast": (2, 16, 1024)}
SLOW = 0.05  # seconds of a step on 64 images, from which on a network is measured with few images
TURN = 0.3  # seconds of a measurement

FITTED = ((0.0, 125e6), (0.0, 1.25e9), (5e-4, 125e6), (1e-3, 25e6))
HELD_OUT = ((0.0, 3e8), (2.5e-4, 6e7))
"""Delays and bandwidths, in seconds and bytes a second, of hosts for terms and to try them on."""

SIZES, OTHER_SIZES = (16, 4096, 65_536, 524_288), (256, 20_000, 200_000)


def compute_terms(name: str) -> tuple[dict[str, Compute], float]:
    """Measure a network's steps on one thread, and return the terms."""
    net = NETWORKS[name]()
    first, _ = measured(net, FEW[0], "", 1, steps=1, repeats=2)
    times = {}
    for batch in FEW if first > SLOW else BATCHES:
        for sums, ranks in ((sums, n) for sums, every in RANKS.items() for n in every):
            expected = first * batch / FEW[0]
            steps = max(1, min(8, int(TURN / 4 / expected)))
            repeats = max(2, min(9, int(TURN / steps / expected)))
            way = measured(net, batch, sums, ranks, steps=steps, repeats=repeats)
            times[sums, batch, ranks] = way[0]
    return fit_compute(times, net)


def ask(starts: Callable[[Sequence[str]], None], cases: Sequence[dict[str, Any]]) -> list[float]:
    """Have ranks do some cases, and return the seconds of each."""
    with tempfile.TemporaryDirectory() as folder:
        job, found = Path(folder) / "job.json", Path(folder) / "found.json"
        job.write_text(json.dumps(list(cases)))
        program = Path(__file__).with_name("scaling_rank.py")
        starts([sys.executable, str(program), str(job), str(found)])
        return list(json.loads(found.read_text()))


def exchange_cases(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return exchanges of these sizes."""
    return [{"what": what, "floats": n} for what in ("gather", "add") for n in sizes]


def told(case: dict[str, Any], ranks: int) -> Told:
    """Return what the model calls an exchange."""
    n = case["floats"]
    return Told(case["what"], n * (ranks if case["what"] == "gather" else 1), n, n, 0.0)


def link(delay: float, bandwidth: float) -> Link:
    """Return the network between hosts."""
    return Link(f"{1e3 * delay:g} ms, {8e-9 * bandwidth:g} Gbit/s", delay, bandwidth)


def exchange_rows(
    settings: Sequence[tuple[float, float]], counts: Sequence[int], sizes: Sequence[int], bar: Any
) -> list[tuple[Told, int, Link, float]]:
    """Measure exchanges between hosts."""
    rows, cases = [], exchange_cases(sizes)
    for delay, bandwidth in settings:
        for count in counts:
            bar(f"{count} hosts, {link(delay, bandwidth).name}")
            with Hosts(count, delay=delay) as hosts:
                hosts.limit(bandwidth)
                times = ask(hosts.start, cases)
            rows += [
                (told(case, count), count, link(delay, bandwidth), seconds)
                for case, seconds in zip(cases, times, strict=True)
            ]
    return rows


def training_cases(name: str, *, weak: bool) -> list[dict[str, Any]]:
    """Return training of a network, of one rank and of all."""
    batch = 64 if name == "10 million" else 256
    one = {"what": "fit", "net": name, "batch": batch, "sums": "exact", "seconds": TURN}
    cases = [{**one, "alone": True}]
    for sums in ("exact", "fast"):
        for size in (batch, 2 * batch) if weak else (batch,):
            cases.append({**one, "sums": sums, "batch": size, "alone": False})
    return cases


# Tables ---------------------------------------------------------------------------------------


def percent(value: float) -> str:
    """Return a share as text."""
    return f"{100 * value:.0f} %"


def show_terms(found: dict[str, Any]) -> None:
    """Show what was fitted."""
    columns = ("network", "sums", "us a block", "us a block, alike", "us a step", "us packing")
    shown = table("Compute, on one thread", *columns, "ns a node", "off by")
    for name, (compute, off) in found["compute"].items():
        for sums, each in compute.items():
            terms = (each.block, each.alike, each.step, each.pack, each.node * 1e3)
            numbers = [f"{1e6 * term:,.1f}" for term in terms]
            shown.add_row(name, sums or "alone", *numbers, percent(off))
    console.print("", shown)
    columns = ("exchanges", "x latency", "x bytes / bandwidth", "us a round", "us a message")
    shown = table("Communication", *columns, "ns a byte", "off by")
    for name in ("memory", "tcp"):
        if name in found:
            wire, off = found[name]
            numbers = (f"{wire.late:.2f}", f"{wire.full:.2f}", f"{1e6 * wire.round:.0f}")
            more = (f"{1e6 * wire.message:.0f}", f"{1e9 * wire.byte:.2f}", percent(off))
            shown.add_row(name, *numbers, *more)
    console.print("", shown)


def show_exchanges(found: dict[str, Any]) -> None:
    """Show exchanges beside what the model says of them."""
    columns = ("network", "hosts", "kind", "kB each", "ms measured", "ms predicted", "error")
    shown = table("Exchanges between hosts, which no term was fitted to", *columns)
    errors = []
    for each, count, network, seconds in found["held out"]:
        said = found["tcp"][0].seconds(each, count, network)
        errors.append(abs(said / seconds - 1))
        size = f"{4e-3 * each.own:,.1f}"
        times = (
            f"{1e3 * seconds:.2f}",
            f"{1e3 * said:.2f}",
            f"{100 * (said / seconds - 1):+.0f} %",
        )
        shown.add_row(network.name, str(count), each.kind, size, *times)
    console.print("", shown)
    console.print(
        f"median error {percent(statistics.median(errors))}, largest {percent(max(errors))}"
    )


def show_training(found: dict[str, Any]) -> None:
    """Show training steps of two ranks beside what the model says of them."""
    columns = ("ranks", "network", "sums", "batch", "ms measured", "ms predicted", "error")
    shown = table("Training of two ranks, of one thread each", *columns, "efficiency", "predicted")
    errors = []
    for place, network, case, seconds, alone in found["training"]:
        model = Model(NETWORKS[case["net"]](), found["compute"][case["net"]][0])
        wire = found["memory" if network is MEMORY else "tcp"][0]
        batch = case["batch"]
        first = alone[1]
        if case["alone"]:
            said, shares = model.alone(batch, 1), ("", "")
        else:
            said = model.seconds(batch, 2, 1, case["sums"], network, wire)
            work = batch / alone[0]  # of a batch of one rank
            one = model.alone(alone[0], 1)
            shares = (percent(first * work / 2 / seconds), percent(one * work / 2 / said))
        errors.append(abs(said / seconds - 1))
        sums = "one rank" if case["alone"] else case["sums"]
        times = (
            f"{1e3 * seconds:.2f}",
            f"{1e3 * said:.2f}",
            f"{100 * (said / seconds - 1):+.0f} %",
        )
        shown.add_row(place, case["net"], sums, str(batch), *times, *shares)
    console.print("", shown)
    console.print(
        f"median error {percent(statistics.median(errors))}, largest {percent(max(errors))}"
    )


def networks(found: dict[str, Any]) -> list[tuple[Link, Wire]]:
    """Return the networks to predict for, with the terms that go with them."""
    kinds = [(INFINIBAND, found["memory"][0])]
    if "tcp" in found:
        kinds = [(ETHERNET_10, found["tcp"][0]), (ETHERNET_100, found["tcp"][0]), *kinds]
    return kinds


def show_predictions(found: dict[str, Any], threads: int, batch: int, share: int) -> None:
    """Show the efficiency that the model expects, and how many nodes are useful."""
    least = table(f"Largest useful number of nodes of {threads} threads", "network", "scaling",
                  "sums", *(each.name for each, _ in networks(found)))  # fmt: skip
    for scaling, size in (("strong", batch), ("weak", share)):
        of = "in all" if scaling == "strong" else "a node"
        title = f"Efficiency, {scaling}: {size} images a batch {of}, nodes of {threads} threads"
        shown = table(title, "network", "sums", "between nodes", *map(str, NODES))
        for name, (compute, _) in found["compute"].items():
            model = Model(NETWORKS[name](), compute)
            for sums in ("exact", "fast"):
                best = []
                for network, wire in networks(found):
                    efficiency = getattr(model, scaling)(size, threads, sums, network, wire)
                    shown.add_row(
                        name, sums, network.name, *(f"{100 * efficiency[n]:.0f}" for n in NODES)
                    )
                    best.append(str(useful(efficiency)))
                least.add_row(name, scaling, sums, *best)
        console.print("", shown)
    console.print("", least)


# What was measured, to a file and back --------------------------------------------------------


def save(found: dict[str, Any], path: Path) -> None:
    """Write what was fitted."""
    text = {
        "compute": {
            name: [{sums: dataclasses.asdict(each) for sums, each in compute.items()}, off]
            for name, (compute, off) in found["compute"].items()
        },
        **{
            name: [dataclasses.asdict(found[name][0]), found[name][1]]
            for name in ("memory", "tcp")
            if name in found
        },
    }
    path.write_text(json.dumps(text, indent=1))


def read(path: Path) -> dict[str, Any]:
    """Return what ``save`` wrote."""
    text = json.loads(path.read_text())
    found = {
        name: (Wire(**text[name][0]), text[name][1]) for name in ("memory", "tcp") if name in text
    }
    compute = {
        name: ({sums: Compute(**each) for sums, each in terms.items()}, off)
        for name, (terms, off) in text["compute"].items()
    }
    return {"compute": compute, **found}


def measure(names: Sequence[str]) -> dict[str, Any]:
    """Measure everything that can be measured here."""
    found: dict[str, Any] = {"compute": {}, "training": []}
    without = scaling_hosts.missing()
    if without:
        console.print(f"no hosts, and no terms of TCP: {without}")
    with Progress(console=progress, transient=True) as shown:
        task = shown.add_task("", total=None)

        def bar(text: str) -> None:
            shown.update(task, description=text)

        for name in names:
            bar(f"compute, {name}")
            found["compute"][name] = compute_terms(name)
        bar("exchanges in memory")
        cases = exchange_cases(SIZES)
        times = ask(lambda command: scaling_hosts.start(2, command), cases)
        found["memory"] = fit_wire(
            [(told(case, 2), 2, MEMORY, t) for case, t in zip(cases, times, strict=True)]
        )
        if not without:
            found["tcp"] = fit_wire(exchange_rows(FITTED, (2, 4), SIZES, bar))
            found["held out"] = exchange_rows(HELD_OUT, (2, 3), OTHER_SIZES, bar)
        for name in names:
            bar(f"training on the cores here, {name}")
            cases = training_cases(name, weak=True)
            times = ask(lambda command: scaling_hosts.start(2, command), cases)
            note(found, "here", MEMORY, cases, times)
        for delay, bandwidth in () if without else HELD_OUT:
            between = link(delay, bandwidth)
            bar(f"training on hosts, {between.name}")
            cases = [case for name in names for case in training_cases(name, weak=False)]
            with Hosts(2, delay=delay) as hosts:
                hosts.limit(bandwidth)
                times = ask(hosts.start, cases)
            note(found, between.name, between, cases, times)
    return found


def note(
    found: dict[str, Any], place: str, between: Link, cases: Sequence[Any], times: Sequence[float]
) -> None:
    """Take note of training steps, each with the batch and the seconds of one rank alone."""
    alone = {
        case["net"]: (case["batch"], seconds)
        for case, seconds in zip(cases, times, strict=True)
        if case["alone"]
    }
    for case, seconds in zip(cases, times, strict=True):
        found["training"].append((place, between, case, seconds, alone[case["net"]]))


def main() -> None:
    """Measure, or read what was measured, and show it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--quick", action="store_true", help="small alone")
    parser.add_argument("--threads", type=int, default=2, help="of a node to predict for")
    parser.add_argument("--batch", type=int, default=1024, help="images, strong scaling")
    parser.add_argument("--share", type=int, default=256, help="images a node, weak scaling")
    parser.add_argument("--save", type=Path, help="a file for the terms")
    parser.add_argument("--terms", type=Path, help="such a file, in place of measuring")
    chosen = parser.parse_args()
    names = chosen.nets or (["small"] if chosen.quick else list(NETWORKS))
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        parser.error(f"unknown network {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    if chosen.terms:
        found = read(chosen.terms)
    else:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > 0.5:
            console.print(f"{load:.1f} of {cores} cores are taken by other programs: wait for them")
        try:
            found = measure(names)
        except scaling_hosts.CommandError as error:
            sys.exit(f"error: {error}")
        if chosen.save:
            save(found, chosen.save)
        if "tcp" in found:
            show_exchanges(found)
        show_training(found)
    show_terms(found)
    show_predictions(found, chosen.threads, chosen.batch, chosen.share)


if __name__ == "__main__":
    main()
