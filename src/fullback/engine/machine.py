"""A lowered network with memory of its own, run by threads."""

from __future__ import annotations

import _thread
import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.engine import context
from fullback.engine.copies import Copies
from fullback.engine.library import Library, library
from fullback.engine.lowering.plan import Plan
from fullback.engine.program import Phase, Region, code
from fullback.engine.ranks import Exchange, Group
from fullback.engine.simd import LANES, Integers
from fullback.errors import OptionError
from fullback.layers.base import Array
from fullback.memory import available_memory, require_memory

MOST_THREADS = 1024

_MUCH = 2**26  # bytes of all workers' arenas; less is taken without asking
_MOST_INTERRUPTS = 1000  # in one run; then there is another reason
STAGED = 2**22
"""Values that are copied at a time where the machine cannot read images in place."""

_KINDS = {np.dtype(np.uint8): 0, np.dtype(np.float32): 1, np.dtype(np.float64): 2}


def threads() -> int:
    """Return how many threads runs take: FULLBACK_NUM_THREADS, or one for every core.

    Where OMP_NUM_THREADS is a number, as in joblib's processes and on many clusters, there are no
    more than that. A task of Dask takes one: its worker runs as many tasks at a time as it was
    given threads. Results do not depend on it.

    Raises
    ------
    OptionError
        FULLBACK_NUM_THREADS is set to something else than a number of threads.
    """
    chosen = os.environ.get("FULLBACK_NUM_THREADS", "")
    if not chosen:
        if _is_dask_task():
            return 1
        affinity = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
        limit = os.environ.get("OMP_NUM_THREADS", "")
        if re.fullmatch(r"[1-9]\d{0,8}", limit):
            cores = min(cores, int(limit))
        return min(cores, MOST_THREADS)
    with contextlib.suppress(ValueError):
        if 1 <= int(chosen) <= MOST_THREADS:
            return int(chosen)
    raise OptionError(
        f"FULLBACK_NUM_THREADS must be a whole number from 1 to {MOST_THREADS}, got {chosen!r}; "
        "unset it for one thread a core"
    )


def _is_dask_task() -> bool:
    """Whether this thread runs a task on a worker of Dask, which then has imported it."""
    worker = sys.modules.get("distributed.worker")
    try:
        return worker is not None and worker.get_worker() is not None
    except ValueError:  # what Dask raises where there is none
        return False


def memory_of(plan: Plan, workers: int) -> int:
    """Return how many bytes a program's memory takes, with so many threads."""
    arenas = plan.blocks if _by_block(plan) else workers
    return 4 * (arenas * (plan.arena.size + LANES) + plan.shared.size + LANES)


def _by_block(plan: Plan) -> bool:
    """Whether all blocks of a batch are kept until they have met, as batch normalisation needs."""
    return sum(phase.scope == 0 for phase in plan.phases) > 1


class Machine:
    """A lowered network with its memory.

    Parameters
    ----------
    plan : what ``lower`` returned
    workers : the most threads that will run it
    group : the ranks that run it together, or None
    """

    def __init__(self, plan: Plan, workers: int, group: Group | None = None) -> None:
        self.plan = plan
        self.library: Library = library()
        self.workers = workers if self.library.compiled else 1
        net = plan.net
        self.by_block = _by_block(plan)
        self.arena_size = plan.arena.size + LANES
        count = self._require_memory(plan)
        self.arenas = _aligned(count * self.arena_size)
        self.shared = _aligned(plan.shared.size + LANES)
        for place, values in plan.constants:
            self.shared[place : place + len(values)] = values
        self.copies = Copies(
            [
                (arrays, name, self.view(region, arrays.shape_of(name)))
                for arrays, regions in (
                    (net.parameters, plan.parameters),
                    (net.statistics, plan.statistics),
                )
                for name, region in regions.items()
            ]
        )
        self.contexts = np.zeros((self.workers, context.SIZE), np.int64)
        self.sync = np.zeros(64, np.int64)
        self._segments: list[list[tuple[Any, ...]]] = []  # arguments for the exchange's segments
        self._keep: tuple[Any, ...] = ()  # what the contexts have the addresses of
        self.set_phases(plan.phases)
        self.exchange = None if group is None else Exchange(plan, group, self.shared)

    def _require_memory(self, plan: Plan) -> int:
        """Return how many arenas to make; there are fewer workers where memory is scarce.

        Raises
        ------
        NotEnoughMemoryError
            Not even one worker has enough.
        """
        if self.by_block:
            images = plan.blocks * LANES
            require_memory(
                memory_of(plan, 1),
                f"a batch of {images} images",
                "use smaller batches, or a smaller network",
            )
            return plan.blocks
        arena, least = 4 * self.arena_size, memory_of(plan, 1)
        there = available_memory() if self.workers * arena > _MUCH else None
        if there is not None:
            self.workers = max(1, min(self.workers, 1 + (there - least) // arena))
        require_memory(
            memory_of(plan, self.workers),
            f"a pass of {LANES} images through this network",
            "use a smaller network, or smaller images",
        )
        return self.workers

    def view(self, region: Region, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a piece of shared memory as an array."""
        size = int(np.prod(shape, dtype=int))
        return self.shared[region.place : region.place + size].reshape(shape)

    def set_phases(self, phases: Sequence[Phase]) -> None:
        """Run these phases, the plan's or some of its instructions, from now on."""
        self.code, self.phases = code(phases)
        self._arguments = self._packed_arguments = self.arguments_for(self.phases)
        if phases and phases[0].instructions is self.plan.early:
            count, *bounds = self.phases
            self._later = np.array([count - 1, *bounds[3:]], np.int64)
            self._packed_arguments = self.arguments_for(self._later)

    def arguments_for(self, phases: Integers) -> list[tuple[Any, ...]]:
        """Return what every worker gives the loop for some phases, which must be kept alive."""
        return [self._arguments_of(n, phases) for n in range(self.workers)]

    def _arguments_of(self, worker: int, phases: Integers) -> tuple[Any, ...]:
        start = 0 if self.by_block else worker * self.arena_size
        arena = self.arenas[start:]
        arrays = (self.code, phases, arena, self.shared, self.contexts[worker])
        if not self.library.compiled:
            return (self.library.kernels, *arrays)
        kernels: Any = self.library.kernels
        return tuple(array.ctypes.data for array in (kernels, *arrays))

    def load(self) -> None:
        """Copy the network's parameters and statistics into shared memory."""
        self.copies.load()

    def save(self) -> None:
        """Copy parameters and statistics back."""
        self.copies.save()

    def run(
        self,
        images: Array,
        *,
        batch: int,
        total: int,
        order: NDArray[np.int64] | None = None,
        targets: Array | None = None,
        weights: Array | None = None,
        keys: NDArray[np.uint64] | None = None,
        rates: NDArray[np.float64] | None = None,
        draws: NDArray[np.uint64] | None = None,
        output: NDArray[np.float32] | None = None,
        workers: int | None = None,
        packed: bool = False,
    ) -> tuple[int, NDArray[np.float64]]:
        """Run the program over batches.

        Parameters
        ----------
        images : what ``readable`` returned
        batch : images in a batch
        total : images in the run
        order : which images, batch after batch; None for the first ``total``
        targets : labels as int64, or float64 rows, of all images
        weights : float64 of all images
        keys : (batches, random layers)
        rates : (batches, context.RATES_EACH)
        draws : keys of the distortions, batch after batch
        output : (total, outputs), where the answers go
        workers : how many threads; None for as many as there are
        packed : whether the weights are those of the last run, and need not be packed again

        Returns
        -------
        done : batches that were done before one whose loss is not finite
        figures : (batches, 2), each batch's loss and right answers
        """
        steps = -(-total // batch)
        blocks = -(-min(batch, total) // LANES)
        workers = min(self.workers if workers is None else workers, self.workers, blocks)
        chunks = workers if output is not None else self.plan.chunks
        figures = np.zeros((steps, blocks, 2)) if output is None else _NO_FIGURES
        self._keep = (images, order, targets, weights, keys, rates, draws, output, figures)
        c = self.contexts[0]
        c[context.IMAGES] = images.ctypes.data
        c[context.KIND] = _KINDS[images.dtype]
        c[context.IMAGE_STEP] = images[0].size
        c[context.ORDER] = _address(order)
        c[context.TARGETS] = _address(targets)
        c[context.WEIGHTS] = _address(weights)
        c[context.BATCH] = batch
        c[context.TOTAL] = total
        c[context.STEPS] = steps
        c[context.MOST_BLOCKS] = blocks
        c[context.MOST_CHUNKS] = chunks
        c[context.ARENA_STEP] = self.arena_size if self.by_block else 0
        c[context.FIGURES] = figures.ctypes.data
        c[context.KEYS] = _address(keys)
        c[context.RANDOM] = len(self.plan.random)
        c[context.RATES] = _address(rates)
        c[context.DRAWS] = _address(draws)
        c[context.OUTPUT] = _address(output)
        c[context.SYNC] = self.sync.ctypes.data
        c[context.BEGIN] = 0
        c[context.FIRST_CHUNK], c[context.CHUNK_STEP] = 0, 1
        c[context.FIRST_BLOCK], c[context.BLOCK_STEP] = 0, 1
        if self.exchange is None:
            self._start(workers, self._packed_arguments if packed else self._arguments)
        else:
            self._run_with_others(self.exchange, workers, figures)
        return int(c[context.DONE]), figures.sum(axis=1)

    def rest(self) -> None:
        """Let go of the arrays of the last run."""
        self._keep = ()

    def _run_with_others(
        self, exchange: Exchange, workers: int, figures: NDArray[np.float64]
    ) -> None:
        """Run as one of several ranks, segment by segment."""
        c = self.contexts[0]
        if not self._segments:
            self._segments = [self.arguments_for(each.bounds) for each in exchange.segments]
        exchange.begin(c)
        for step in range(c[context.STEPS]):
            c[context.BEGIN], c[context.STEPS] = step, step + 1
            for number, arguments in enumerate(self._segments):
                exchange.before(number, c)
                self._start(workers, arguments)
                exchange.after(number, c, figures[step])
            if c[context.DONE] == step:
                break  # its loss is not finite

    def _start(self, workers: int, arguments: list[tuple[Any, ...]]) -> None:
        """Run as several workers: threads for all but the first, which is the calling one."""
        if workers == 1:
            self.library.run(*arguments[0], 0, 1)
            return
        self.contexts[1:workers] = self.contexts[0]
        self.sync[:] = 0
        crew = [0]  # how many run, once that is known
        gates: list[_thread.LockType] = []  # at which threads wait for that
        ends: list[_thread.LockType] = []  # which threads open when they are done
        done = self.contexts[0, context.DONE :]
        done[0] = -1  # until the run of this thread ends

        def work(worker: int, gate: _thread.LockType, end: _thread.LockType) -> None:
            gate.acquire()
            if worker < crew[0]:
                self.library.run(*arguments[worker], worker, crew[0])
            end.release()

        def begin() -> None:
            with contextlib.suppress(RuntimeError):  # the system has no more: fewer do the same
                for worker in range(1, workers):
                    gate, end = _closed_lock(), _closed_lock()
                    gates.append(gate)
                    _thread.start_new_thread(work, (worker, gate, end))
                    ends.append(end)
            crew[0] = 1 + len(ends)

        def finish() -> None:
            for gate in gates:
                if gate.locked():
                    gate.release()
            if crew[0] and done[0] < 0:
                self.library.run(*arguments[0], 0, crew[0])
            for end in ends:
                with end:
                    pass

        _insist(begin, finish)


_NO_FIGURES = np.zeros((1, 1, 2))


def _closed_lock() -> _thread.LockType:
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock


def _insist(begin: Callable[[], None], finish: Callable[[], None]) -> None:
    """Call both, and where Ctrl-C comes between ``finish`` again until it is through; then raise.

    Threads that wait for one that was interrupted would wait for ever, and threads that still run
    would write to memory that is used for something else.
    """
    interrupt: BaseException | None = None
    for _ in range(_MOST_INTERRUPTS):
        try:
            if interrupt is None:
                begin()
            finish()
            break
        except BaseException as error:  # noqa: BLE001 -- whatever a signal's handler raises
            interrupt = interrupt or error
    if interrupt is not None:
        raise interrupt


def readable(images: Array) -> bool:
    """Return whether the machine can read images where they are."""
    contiguous = images.flags.c_contiguous and images.dtype in _KINDS and images.dtype.isnative
    return bool(contiguous) and images[0].size >= LANES


def staged(
    images: Array, count: int | None = None, places: NDArray[np.intp] | None = None
) -> Array:
    """Return a copy of images that the machine can read: of at least sixteen pixels each.

    Where ``count`` is given, the images are at some places among so many; the others are 0.
    """
    dtype = images.dtype if images.dtype in _KINDS else np.float32
    size = images[:1].size if len(images) else int(np.prod(images.shape[1:], dtype=int))
    copy = np.zeros((len(images) if count is None else count, max(LANES, size)), dtype)
    rows = slice(None) if places is None else places
    copy[rows, :size] = images.reshape(len(images), size)
    return copy


def _address(array: Array | None) -> int:
    return 0 if array is None else array.ctypes.data


def _aligned(size: int) -> NDArray[np.float32]:
    """Return zeros that begin at a cache line."""
    memory = np.zeros(size + LANES, np.float32)
    start = -(memory.ctypes.data // 4) % LANES
    return memory[start : start + size]
