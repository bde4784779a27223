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
    python benchmarks/scaling.py --save a.json         # keep what was measured
    python benchmarks/scaling.py --load a.json --threads 16    # predict from it

Of several files, as ``--load a.json b.json``, the fastest time of each case counts.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import scaling_hosts
from scaling_measure import FITTED, HELD_OUT, Setting, Times, link, load, measure, save
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
from tables import console, table

Exchanged: TypeAlias = tuple[Told, int, Link, float, float]

CORES = os.cpu_count() or 1

# Terms ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """What was fitted, each with how far it is off.

    Attributes
    ----------
    compute : for every network
    memory : of exchanges in shared memory
    tcp : of those between hosts; None where there are no hosts
    """

    compute: dict[str, tuple[dict[str, Compute], float]]
    memory: tuple[Wire, float]
    tcp: tuple[Wire, float] | None

    def networks(self) -> list[tuple[Link, Wire]]:
        """Return the networks to predict for, with the terms that go with them."""
        kinds = [(INFINIBAND, self.memory[0])]
        if self.tcp is not None:
            kinds = [(ETHERNET_10, self.tcp[0]), (ETHERNET_100, self.tcp[0]), *kinds]
        return kinds


def exchanges_of(times: Times, settings: Sequence[Setting]) -> list[Exchanged]:
    """Return the exchanges with these settings, as the model takes them."""
    rows = []
    for key, seconds in times.items():
        if key[0] == "exchange" and key[1] in settings:
            _, setting, count, what, n = key
            told = Told(what, n * (count if what == "gather" else 1), n, n, 0.0)
            between = MEMORY if setting is None else link(*setting)
            rows.append((told, count, between, max(1.0, count / CORES), seconds))
    return rows


def terms_of(times: Times) -> Terms:
    """Return the terms that fit what was measured best."""
    by_net: dict[str, dict[tuple[str, int, int], float]] = {}
    for key, seconds in times.items():
        if key[0] == "compute":
            by_net.setdefault(key[1], {})[key[2:]] = seconds
    tcp = exchanges_of(times, FITTED)
    return Terms(
        {name: fit_compute(every, NETWORKS[name]()) for name, every in by_net.items()},
        fit_wire(exchanges_of(times, [None])),
        fit_wire(tcp) if tcp else None,
    )


# Tables ---------------------------------------------------------------------------------------


def percent(value: float) -> str:
    """Return a share as text."""
    return f"{100 * value:.0f} %"


def error(said: float, seconds: float) -> str:
    """Return how far a prediction is off, as text."""
    return f"{100 * (said / seconds - 1):+.0f} %"


def show_errors(errors: Sequence[float]) -> None:
    """Show how far predictions are off."""
    every = [abs(each) for each in errors]
    middle, most = statistics.median(every), max(every)
    console.print(f"median error {percent(middle)}, largest {percent(most)}")


def show_terms(terms: Terms) -> None:
    """Show what was fitted."""
    columns = ("network", "sums", "us a block", "alike", "us a step", "packing", "ns a node")
    shown = table("Compute, on one thread", *columns, "off by")
    for name, (compute, off) in terms.compute.items():
        for sums, each in compute.items():
            every = (each.block, each.alike, each.step, each.pack, each.node * 1e3)
            shown.add_row(name, sums or "alone", *(f"{1e6 * n:,.1f}" for n in every), percent(off))
    console.print("", shown)
    columns = ("exchanges", "x latency", "x bytes / bandwidth", "us a round", "us a message")
    shown = table("Communication", *columns, "ns a byte", "off by")
    for name, found in (("memory", terms.memory), ("TCP", terms.tcp)):
        if found is not None:
            wire, off = found
            numbers = (f"{wire.late:.2f}", f"{wire.full:.2f}", f"{1e6 * wire.round:.1f}")
            more = (f"{1e6 * wire.message:.1f}", f"{1e9 * wire.byte:.2f}", percent(off))
            shown.add_row(name, *numbers, *more)
    console.print("", shown)


def show_exchanges(times: Times, terms: Terms) -> None:
    """Show exchanges that no term was fitted to beside what the model says of them."""
    columns = ("between hosts", "hosts", "kind", "kB each", "ms measured", "ms predicted", "error")
    shown = table("Exchanges, with what no term was fitted to", *columns)
    errors = []
    for told, count, between, crowd, seconds in exchanges_of(times, HELD_OUT):
        assert terms.tcp is not None  # noqa: S101 -- hosts were there
        said = terms.tcp[0].seconds(told, count, between, crowd)
        errors.append(said / seconds - 1)
        numbers = (f"{4e-3 * told.own:,.1f}", f"{1e3 * seconds:.2f}", f"{1e3 * said:.2f}")
        shown.add_row(between.name, str(count), told.kind, *numbers, error(said, seconds))
    if errors:
        console.print("", shown)
        show_errors(errors)


def show_training(times: Times, terms: Terms) -> None:
    """Show training steps of two ranks beside what the model says of them."""
    columns = ("between ranks", "network", "sums", "batch", "ms measured", "ms predicted", "error")
    shown = table("Training, two ranks of one thread", *columns, "efficiency", "predicted")
    errors, alone = [], {key[1:3]: key for key in times if key[0] == "training" and not key[3]}
    for key, seconds in times.items():
        if key[0] != "training":
            continue
        _, setting, name, sums, batch = key
        model = Model(NETWORKS[name](), terms.compute[name][0])
        found = terms.memory if setting is None else terms.tcp
        assert found is not None  # noqa: S101 -- hosts were there
        between = MEMORY if setting is None else link(*setting)
        said, shares = model.alone(batch, 1), ("", "")
        if sums:
            said = model.seconds(batch, 2, 1, sums, between, found[0])
            one = alone[setting, name]
            work = batch / one[4] / 2  # of what one rank did
            shares = (percent(times[one] * work / seconds),
                      percent(model.alone(one[4], 1) * work / said))  # fmt: skip
        errors.append(said / seconds - 1)
        numbers = (str(batch), f"{1e3 * seconds:.2f}", f"{1e3 * said:.2f}", error(said, seconds))
        shown.add_row(between.name, name, sums or "one rank", *numbers, *shares)
    console.print("", shown)
    show_errors(errors)


def show_predictions(terms: Terms, threads: int, batch: int, share: int) -> None:
    """Show the efficiency that the model expects, and how many nodes are useful."""
    least = table(f"Largest useful number of nodes of {threads} threads", "network", "scaling",
                  "sums", *(each.name for each, _ in terms.networks()))  # fmt: skip
    for scaling, size in (("strong", batch), ("weak", share)):
        of = "in all" if scaling == "strong" else "a node"
        title = f"Efficiency, {scaling}: {size} images a batch {of}, nodes of {threads} threads"
        shown = table(title, "network", "sums", "between nodes", *map(str, NODES))
        for name, (compute, _) in terms.compute.items():
            model = Model(NETWORKS[name](), compute)
            for sums in ("exact", "fast"):
                best = []
                for network, wire in terms.networks():
                    efficiency = getattr(model, scaling)(size, threads, sums, network, wire)
                    shown.add_row(
                        name, sums, network.name, *(f"{100 * efficiency[n]:.0f}" for n in NODES)
                    )
                    best.append(str(useful(efficiency)))
                least.add_row(name, scaling, sums, *best)
        console.print("", shown)
    console.print("", least)


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
    parser.add_argument("--save", type=Path, help="a file for what is measured")
    parser.add_argument("--load", type=Path, nargs="+", help="such files, in place of measuring")
    chosen = parser.parse_args()
    names = chosen.nets or (["small"] if chosen.quick else list(NETWORKS))
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        parser.error(f"unknown network {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    if chosen.load:
        times = load(chosen.load)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # hosts are taken down
        busy = os.getloadavg()[0]
        if busy > 0.5:
            console.print(f"{busy:.1f} of {CORES} cores are taken by other programs: wait for them")
        try:
            times = measure(names)
        except scaling_hosts.CommandError as error:
            sys.exit(f"error: {error}")
        if chosen.save:
            save(times, chosen.save)
    terms = terms_of(times)
    show_exchanges(times, terms)
    show_training(times, terms)
    show_terms(terms)
    show_predictions(terms, chosen.threads, chosen.batch, chosen.share)


if __name__ == "__main__":
    main()
