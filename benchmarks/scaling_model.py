"""What a training step costs that several nodes share: the model of ``scaling.py``.

A node is a rank with ``threads`` threads. A step on a batch in ``blocks`` of 16 images takes

    compute   = block x busiest + (alike x blocks + step) / threads + pack + node x nodes
    exchanges = for each: latency x its rounds x late + bytes / bandwidth x full
                          + a round + a message each + a byte each

``busiest`` is how many blocks the busiest thread of the busiest node has, as the engine deals them
out; ``alike`` is what all nodes do for all blocks, ``step`` what they do once: the optimizer.
``pack`` and ``node`` are what packing and unpacking take. Compute goes on while gradients are told
layer by layer; everything else waits. What is told follows from the program of a network
(`exchanges`), its rounds and bytes from the algorithms of Open MPI 5 (`gathered`, `added`).

Terms are fitted (`fitted`): none is less than can be, and relative errors count. What the model
leaves out: nodes of different speeds, other traffic, links that several nodes share, the time for
reading images, and that threads of one node share its memory's bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from ranks import Nobody, plan_of
from scipy.optimize import nnls

from fullback.engine.lowering.plan import Plan
from fullback.engine.ranks import Exchange, blocks_of
from fullback.engine.simd import LANES
from fullback.network import Network

Sums: TypeAlias = Literal["exact", "fast"]
Kind: TypeAlias = Literal["gather", "add"]
Row: TypeAlias = NDArray[np.float64]

EAGER = 2**16
"""Bytes from which on Open MPI asks the receiver first (``btl_tcp_eager_limit``), and its sum of 4
or more ranks changes from a tree to halves (``nbc_iallreduce.c``)."""

NODES = tuple(2**n for n in range(1, 11))
LEAST = 0.5
"""Efficiency below which more nodes are not called useful."""


@dataclass(frozen=True)
class Link:
    """A network between nodes, as far as the model knows one.

    Attributes
    ----------
    name : what it is called
    latency : seconds from one node to another, of the wire and the switches
    bandwidth : bytes a second, each way
    """

    name: str
    latency: float
    bandwidth: float


ETHERNET_10 = Link("10 Gbit/s", 10e-6, 1.25e9)
ETHERNET_100 = Link("100 Gbit/s", 5e-6, 12.5e9)
INFINIBAND = Link("InfiniBand", 1e-6, 25e9)
MEMORY = Link("memory", 0.0, math.inf)


@dataclass(frozen=True)
class Told:
    """An exchange between all ranks.

    Attributes
    ----------
    kind : whether parts are gathered, or gradients added up
    floats : of all parts, or of a gradient
    own : of the largest part
    least : of the smallest one
    done : which share of the blocks' work comes between the exchange before and this one
    """

    kind: Kind
    floats: int
    own: int
    least: int
    done: float


def exchanges(net: Network, batch: int, ranks: int, sums: Sums) -> tuple[list[Told], int]:
    """Return what ranks tell each other in a batch, and how many chunks the program has."""
    plan = plan_of(net, batch, sums)
    group = Nobody(ranks, fast=sums == "fast")
    segments = Exchange(plan, group, np.empty(0, np.float32)).segments
    blocks = -(-batch // LANES)
    chunks = min(plan.chunks, blocks)
    first, last = (
        {True: len(blocks_of(rank, group, chunks, chunks)),
         False: len(blocks_of(rank, group, blocks, chunks))}
        for rank in (0, ranks - 1)
    )  # fmt: skip
    found, begin = [], 0
    shares = _shares_of_work(net, plan)
    waits = 0.0
    for segment in segments:
        count = int(segment.bounds[0])
        waits += sum(shares[begin : begin + count])
        begin += count
        parts = [(share.size, share.by_chunk) for share in segment.shares]
        parts += [(4, False)] if segment.has_loss else []
        if parts:
            floats = sum(size * (chunks if by_chunk else blocks) for size, by_chunk in parts)
            own, least = (
                sum(size * n[by_chunk] for size, by_chunk in parts) for n in (first, last)
            )
            found.append(Told("gather", floats, own, least, waits))
            waits = 0.0
        if segment.sums:
            floats = sum(piece.rows * piece.pitch for piece in segment.sums)
            found.append(Told("add", floats, floats, floats, waits))
            waits = 0.0
    return found, plan.chunks


def _shares_of_work(net: Network, plan: Plan) -> list[float]:
    """Return each phase's share of the blocks' work, by multiply-adds; twice for backward."""
    shapes = (net.input_shape, *net.shapes)
    work = {
        name: layer.multiply_adds(shape)
        for name, layer, shape in zip(net.names, net.layers, shapes, strict=False)
    }
    rows: dict[tuple[str, bool], list[int]] = {}  # phases with instructions of a layer, each way
    for number, phase in enumerate(plan.phases):
        for each in phase.instructions if phase.scope == 0 else ():
            for name in each.layers:
                if work.get(name):
                    rows.setdefault((name, each.backward), []).append(number)
    shares = np.zeros(len(plan.phases))
    for (name, backward), numbers in rows.items():
        for number in numbers:
            shares[number] += work[name] * (2 if backward else 1) / len(numbers)
    total = shares.sum()
    return [float(share) for share in (shares / total if total else shares)]


def busiest(batch: int, ranks: int, threads: int, chunks: int, sums: Sums = "exact") -> int:
    """Return the blocks of the thread that has the most; there are at most so many chunks."""
    blocks = -(-batch // LANES)
    if sums == "fast":
        blocks = -(-blocks // ranks)  # of the first rank, which has chunks of its own
        ranks = 1
    chunks = min(chunks, blocks)
    return sum(len(range(c, blocks, chunks)) for c in range(0, chunks, threads * ranks))


# Exchanges ------------------------------------------------------------------------------------


def _rounds(size: float) -> int:
    """Return how often something crosses the network for a message: asked for, answered, sent."""
    return 1 if size < EAGER else 3


def gathered(floats: int, own: int, least: int, ranks: int) -> tuple[int, int, int, int]:
    """Return rounds, messages and bytes of a rank that gathers: all send to all, at once.

    The bytes are those of the busiest way, out of the rank with the largest part or into that with
    the smallest; and what a rank handles, which is both.
    """
    out, into = 4 * own * (ranks - 1), 4 * (floats - least)
    return _rounds(4 * own), ranks - 1, max(out, into), out + into


def added(floats: int, ranks: int) -> tuple[int, int, int, int]:
    """Return rounds, messages and bytes, one after the other, of a sum over ranks.

    The bytes are counted as those of ``gathered`` are; either way they are the same.

    Few ranks, or few numbers, go up and down a binomial tree as a whole. Otherwise ranks exchange
    halves, quarters, ... and what they have added up back again (Rabenseifner); those beyond a
    power of two hand theirs to another rank before, and get the sum from it.
    """
    size = 4 * floats
    if ranks < 4 or size < EAGER:
        steps = 2 * math.ceil(math.log2(ranks))
        return steps * _rounds(size), steps, steps * size, steps * size
    halvings = int(math.log2(ranks))
    parts = [size / 2**n for n in range(1, halvings + 1)] * 2
    if ranks != 2**halvings:
        parts += [size, size]
    return sum(map(_rounds, parts)), len(parts), round(sum(parts)), round(sum(parts))


def features(told: Told, ranks: int, link: Link, crowd: float = 1.0) -> Row:
    """Return what the terms of a `Wire` are multiplied by; so many hosts share each core."""
    if told.kind == "gather":
        rounds, messages, size, handled = gathered(told.floats, told.own, told.least, ranks)
    else:
        rounds, messages, size, handled = added(told.floats, ranks)
    own = crowd * np.array([rounds, messages, handled])
    return np.array([rounds * link.latency, size / link.bandwidth, *own])


@dataclass(frozen=True)
class Wire:
    """What exchanges cost beside the network, in MPI, in the system and in Python.

    Attributes
    ----------
    late, full : times the latency, and times what the bytes take at the bandwidth
    round, message, byte : seconds of each
    """

    late: float
    full: float
    round: float
    message: float
    byte: float

    def seconds(self, told: Told, ranks: int, link: Link, crowd: float = 1.0) -> float:
        """Return what an exchange takes; so many hosts share each core."""
        terms = (self.late, self.full, self.round, self.message, self.byte)
        return float(features(told, ranks, link, crowd) @ terms)


# Compute --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compute:
    """Seconds of one thread, for a network and a kind of sums; see the top."""

    block: float
    alike: float
    step: float
    pack: float
    node: float

    def blocks(self, most: int) -> float:
        """Return what the busiest thread's blocks take."""
        return self.block * most

    def rest(self, batch: int, ranks: int, threads: int) -> float:
        """Return what comes on top of it."""
        shared = self.alike * -(-batch // LANES) + self.step
        return shared / threads + (self.pack + self.node * ranks if ranks > 1 else 0.0)


def fitted(
    rows: Sequence[Sequence[float]] | Row, seconds: Sequence[float], least: Sequence[float] = ()
) -> tuple[Row, float]:
    """Return the terms that fit seconds best, and how far they are off.

    Every row counts by its relative error, of which the median is returned. No term is less than
    the one in ``least``, or than nothing.
    """
    table, taken = np.array(rows, np.float64), np.array(seconds, np.float64)
    table = table / taken[:, None]
    scale = np.linalg.norm(table, axis=0)
    scale[scale == 0] = 1.0
    lower = np.array(least or np.zeros(len(scale)))
    terms = lower + nnls(table / scale, 1 - table @ lower)[0] / scale
    return terms, float(np.median(np.abs(table @ terms - 1)))


def fit_compute(
    times: Mapping[tuple[str, int, int], float], net: Network
) -> tuple[dict[str, Compute], float]:
    """Return the terms of one node alone ("") and of the sums, from seconds on one thread.

    Parameters
    ----------
    times : by sums ("" for one alone), batch and ranks
    net : the network
    """
    found: dict[str, Compute] = {}
    off = []
    for sums in ("", "exact", "fast"):
        ways = [way for way in times if way[0] == sums]
        rows = []
        for _, batch, ranks in ways:
            chunks, blocks = plan_of(net, batch, sums).chunks, -(-batch // LANES)
            most = busiest(batch, ranks, 1, chunks, "fast" if sums == "fast" else "exact")
            rows.append([most, blocks, 1.0, ranks] if sums else [most, 0.0, 1.0, 0.0])
        (block, alike, once, node), error = fitted(rows, [times[way] for way in ways])
        step = min(once, found[""].step) if sums else once
        found[sums] = Compute(block, alike, step, once - step, node)
        off.append(error)
    return found, max(off)


def fit_wire(rows: Iterable[tuple[Told, int, Link, float, float]]) -> tuple[Wire, float]:
    """Return the terms of exchanges from (what is told, ranks, link, hosts a core, seconds).

    Nothing is faster than the link. In memory, where there is none, a message costs what a round
    does.
    """
    rows = list(rows)
    table = np.array([features(*row[:4]) for row in rows])
    taken = [row[4] for row in rows]
    if all(link is MEMORY for _, _, link, _, _ in rows):
        (each, byte), error = fitted(np.stack([table[:, 2] + table[:, 3], table[:, 4]], 1), taken)
        return Wire(1.0, 1.0, each, each, byte), error
    terms, error = fitted(table, taken, (1.0, 1.0, 0.0, 0.0, 0.0))
    return Wire(*terms), error


# Predictions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A network with its terms."""

    net: Network
    compute: Mapping[str, Compute]

    def alone(self, batch: int, threads: int) -> float:
        """Return the seconds of a step on one node."""
        chunks = plan_of(self.net, batch, "").chunks
        compute = self.compute[""]
        return compute.blocks(busiest(batch, 1, threads, chunks)) + compute.rest(batch, 1, threads)

    def seconds(
        self, batch: int, ranks: int, threads: int, sums: Sums, link: Link, wire: Wire
    ) -> float:
        """Return the seconds of a step on so many nodes."""
        if ranks == 1:
            return self.alone(batch, threads)
        compute = self.compute[sums]
        every, chunks = exchanges(self.net, batch, ranks, sums)
        work = compute.blocks(busiest(batch, ranks, threads, chunks, sums))
        now = free = 0.0  # the time, and when nothing more is on its way
        for told in every:
            now += told.done * work
            free = max(now, free) + wire.seconds(told, ranks, link)
            if told.kind == "gather":
                now = free
        now += (1 - sum(told.done for told in every)) * work
        return max(now, free) + compute.rest(batch, ranks, threads)

    def strong(
        self, batch: int, threads: int, sums: Sums, link: Link, wire: Wire
    ) -> dict[int, float]:
        """Return the efficiency by nodes, that share a batch of so many images."""
        one = self.alone(batch, threads)
        return {n: one / n / self.seconds(batch, n, threads, sums, link, wire) for n in NODES}

    def weak(
        self, batch: int, threads: int, sums: Sums, link: Link, wire: Wire
    ) -> dict[int, float]:
        """Return the efficiency by nodes, each of which brings so many images to a batch."""
        one = self.alone(batch, threads)
        return {n: one / self.seconds(batch * n, n, threads, sums, link, wire) for n in NODES}


def useful(efficiency: Mapping[int, float]) -> int:
    """Return the largest number of nodes that is at least half used, and faster than any fewer.

    One where there is none.
    """
    best, found = 1.0, 1
    for nodes, share in sorted(efficiency.items()):
        if nodes * share > best:
            best = nodes * share
            found = nodes if share >= LEAST else found
    return found
