"""Several processes, the *ranks*, that run one program on one batch: what they tell each other.

The ranks deal out a batch's chunks of blocks as threads do, and run a program in *segments*: up to
the end of a phase for blocks they work alone, then they tell each other what their blocks have
written for later phases (``Phase.shares``) and the blocks' losses. Phases for workers are run by
all ranks alike, on what is then the same memory. So each sum has the terms, and the order, that it
has in one process, the parameters move alike on all ranks, and nothing else has to be told.

Where a group is ``fast``, every rank has chunks of its own and adds them up, and the ranks add up
what they have (``Group.add``): that is less to tell, but how it is rounded depends on how many
ranks there are. A gradient is told as soon as a segment has finished it, while the next ones run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.engine.context import (
    BATCH,
    BEGIN,
    BLOCK_STEP,
    CHUNK_STEP,
    FIRST_BLOCK,
    FIRST_CHUNK,
    MOST_CHUNKS,
    TOTAL,
)
from fullback.engine.program import Phase, Share, code
from fullback.engine.simd import LANES, Integers

if TYPE_CHECKING:
    from fullback.engine.lowering.plan import Gradient, Plan

Floats: TypeAlias = NDArray[np.float32]
Places: TypeAlias = NDArray[np.intp]


class Group(Protocol):
    """Ranks that run one program together.

    Attributes
    ----------
    rank, size : which of how many this is
    fast : whether the order of sums may depend on how many there are
    """

    rank: int
    size: int
    fast: bool

    def gather(self, own: Floats, every: Floats, sizes: Sequence[int]) -> None:
        """Fill ``every`` with what all ranks have, one after the other, of these sizes."""

    def add(self, own: Floats, total: Floats) -> Callable[[], None]:
        """Begin to fill ``total`` with the sum of what all ranks have; return what waits for it."""


def blocks_of(rank: int, group: Group, blocks: int, chunks: int) -> Places:
    """Return which blocks of a batch are a rank's, where there are at most so many chunks."""
    every = np.arange(blocks)
    chunk = every if group.fast else every % max(1, min(chunks, blocks))
    return np.flatnonzero(chunk % group.size == rank)


def own_images(rank: int, group: Group, batch: int, total: int, chunks: int) -> Places:
    """Return which places in a run of batches are of images that a rank looks at."""
    places = []
    for first in range(0, total, batch):
        count = min(batch, total - first)
        blocks = blocks_of(rank, group, -(-count // LANES), chunks)
        inside = (blocks[:, None] * LANES + np.arange(LANES)).ravel()
        places.append(first + inside[inside < count])
    return np.concatenate(places)


def _rows(rank: int, group: Group, blocks: int, chunks: int) -> slice | Places:
    """Return ``blocks_of``, as a slice where that is one: it is faster."""
    own = blocks_of(rank, group, blocks, chunks)
    regular = slice(rank, blocks, group.size)
    return regular if own.tolist() == list(range(blocks))[regular] else own


@dataclass(frozen=True)
class Segment:
    """Phases that are run without a word to other ranks, and what they leave to be told.

    Attributes
    ----------
    bounds : the phases as the loop reads them
    shares, has_loss : what is gathered after them
    sums : gradients that the ranks add up, beginning after them
    last : whether these phases take the sums
    """

    bounds: Integers
    shares: list[Share]
    has_loss: bool
    sums: list[Gradient]
    last: bool


@dataclass(frozen=True)
class Layout:
    """What is gathered after a segment.

    Attributes
    ----------
    arrays : of a row for every block or chunk; None stands for the figures of the batch
    rows : for every rank, and of every array, which rows are its own
    sizes : how many floats these are, for every rank
    """

    arrays: list[Floats | None]
    rows: list[list[slice | Places]]
    sizes: list[int]


class Exchange:
    """What a machine tells the machines of other ranks, and is told by them.

    Parameters
    ----------
    plan : the program
    group : the ranks
    shared : the machine's shared memory
    """

    def __init__(self, plan: Plan, group: Group, shared: Floats) -> None:
        self.group, self.shared, self.chunks = group, shared, plan.chunks
        self.segments = _segments(plan, fast=group.fast)
        self._layouts: dict[tuple[int, int], Layout] = {}
        self._waiting: list[tuple[Callable[[], None], list[Gradient], Floats]] = []

    def begin(self, c: Integers) -> None:
        """Say in a machine's context which chunks are this rank's."""
        first, step = (FIRST_BLOCK, BLOCK_STEP) if self.group.fast else (FIRST_CHUNK, CHUNK_STEP)
        c[first], c[step] = self.group.rank, self.group.size

    def before(self, number: int, c: Integers) -> None:
        """Bring shared memory to where a segment can run."""
        last = self.segments[number].last
        c[MOST_CHUNKS] = 1 if last and self.group.fast else self.chunks
        if last:
            for wait, pieces, total in self._waiting:
                wait()
                for piece, values in zip(pieces, _split(total, pieces), strict=True):
                    self._chunks_of(piece, 1)[0] = values
            self._waiting.clear()

    def after(self, number: int, c: Integers, figures: NDArray[np.float64]) -> None:
        """Tell what a segment has written, and take what it has on the other ranks."""
        segment = self.segments[number]
        blocks = -(-min(int(c[BATCH]), int(c[TOTAL] - c[BEGIN] * c[BATCH])) // LANES)
        if segment.shares or segment.has_loss:
            self._gather(number, blocks, figures)
        if segment.sums:
            self._add(segment.sums, blocks)

    def _gather(self, number: int, blocks: int, figures: NDArray[np.float64]) -> None:
        group = self.group
        if (number, blocks) not in self._layouts:
            self._layouts[number, blocks] = self._layout(self.segments[number], blocks)
        layout = self._layouts[number, blocks]
        arrays = [figures.view(np.float32) if each is None else each for each in layout.arrays]
        every = np.empty(sum(layout.sizes), np.float32)
        rows = layout.rows[group.rank]
        own = np.concatenate(
            [array[places].reshape(-1) for array, places in zip(arrays, rows, strict=True)]
        )
        group.gather(own, every, layout.sizes)
        start = 0
        for rank, rows in enumerate(layout.rows):
            if rank == group.rank:
                start += len(own)
                continue
            for array, places in zip(arrays, rows, strict=True):
                part = array[places] if isinstance(places, slice) else places
                stop = start + len(part) * array.shape[1]
                array[places] = every[start:stop].reshape(-1, array.shape[1])
                start = stop

    def _layout(self, segment: Segment, blocks: int) -> Layout:
        """Return what is gathered after a segment of a batch of so many blocks."""
        ranks = range(self.group.size)
        chunks = min(self.chunks, blocks)
        by_block = [_rows(rank, self.group, blocks, chunks) for rank in ranks]
        by_chunk = [_rows(rank, self.group, chunks, chunks) for rank in ranks]
        arrays: list[Floats | None] = [None] if segment.has_loss else []
        for share in segment.shares:
            start, count = share.region.place, chunks if share.by_chunk else blocks
            array = self.shared[start : start + count * share.size]
            arrays.append(array.reshape(count, share.size))
        chunked = [*([False] if segment.has_loss else []), *(s.by_chunk for s in segment.shares)]
        rows = [[(by_chunk if c else by_block)[rank] for c in chunked] for rank in ranks]
        like = [np.empty((blocks, 4), np.float32) if each is None else each for each in arrays]
        sizes = [sum(a[p].size for a, p in zip(like, rows[rank], strict=True)) for rank in ranks]
        return Layout(arrays, rows, sizes)

    def _add(self, pieces: list[Gradient], blocks: int) -> None:
        """Begin to add up gradients, of which every rank has those of its own blocks."""
        own = len(range(self.group.rank, blocks, self.group.size))
        chunks = min(own, self.chunks)
        parts = [
            self._chunks_of(piece, max(1, chunks if piece.chunk_step else 1)).sum(axis=0)
            for piece in pieces
        ]
        values = np.concatenate(parts)
        if not own:
            values[:] = 0  # what the gradients hold is from another batch
        total = np.empty_like(values)
        self._waiting.append((self.group.add(values, total), pieces, total))

    def _chunks_of(self, piece: Gradient, chunks: int) -> Floats:
        """Return the first chunks of a gradient, as rows."""
        start, size = piece.region.place, piece.rows * piece.pitch
        step = piece.chunk_step or size
        return self.shared[start : start + chunks * step].reshape(chunks, step)[:, :size]


def _split(total: Floats, pieces: list[Gradient]) -> list[Floats]:
    ends = list(accumulate(piece.rows * piece.pitch for piece in pieces))
    return np.split(total, ends[:-1])


def _segments(plan: Plan, *, fast: bool) -> list[Segment]:
    """Return the segments of a program: each ends where there is something to tell."""
    bounds = code(plan.phases)[1][1:].reshape(-1, 3)
    numbers = {id(phase): n for n, phase in enumerate(plan.phases, 1)}
    sums = {numbers[id(phase)]: pieces for phase, pieces in plan.told}
    ends = {n for n, phase in enumerate(plan.phases, 1) if _shares(phase, fast=fast)}
    ends |= {n for n, phase in enumerate(plan.phases, 1) if phase.has_loss} | sums.keys()
    found: list[Segment] = []
    first = 0
    for stop in [*sorted(ends), len(plan.phases)]:
        phases = plan.phases[first:stop]
        found.append(
            Segment(
                np.array([len(phases), *bounds[first:stop].ravel()], np.int64),
                [share for phase in phases for share in _shares(phase, fast=fast)],
                any(phase.has_loss for phase in phases),
                sums.get(stop, []),
                last=stop == len(plan.phases),
            )
        )
        first = stop
    return found


def _shares(phase: Phase, *, fast: bool) -> list[Share]:
    """Return what is gathered after a phase; gradients that are added up are not."""
    return [share for share in phase.shares if share.whole or not fast]
