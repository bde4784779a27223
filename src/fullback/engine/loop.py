"""The loop: runs a program's instructions over the blocks of batch after batch.

A program is a list of *phases*, and a phase a run of instructions. A phase for blocks is run by
every worker on its own share of the blocks, all its instructions on one block and then on the next;
a phase for all workers is run once a batch, every worker doing its part of each instruction.
Between phases the workers meet.

Blocks are dealt out by chunks: blocks b, b + CHUNKS, b + 2 CHUNKS, ... add to one gradient, in this
order, whoever works on them. How many chunks there are depends on the batch and the network alone,
and so does every sum: the same for any number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence

from fullback.engine.context import (
    ARENA_STEP,
    BATCH,
    BLOCKS,
    CHUNKS,
    COUNT,
    DONE,
    FIGURES,
    FIRST,
    MOST_BLOCKS,
    MOST_CHUNKS,
    STEP,
    STEPS,
    SYNC,
    TOTAL,
)
from fullback.engine.simd import (
    LANES,
    Integers,
    Kernel,
    Memory,
    at,
    call,
    doubles,
    flush_denormals,
    integers,
    meet,
    restore_denormals,
    row,
    smaller,
)

WIDTH = 24
"""Integers of an instruction: the kernel's number, then its operands."""

FOR_BLOCKS, FOR_WORKERS, CHECK = 0, 1, 2
"""Whom a phase is for; CHECK has no instructions: it ends the run at a loss that is not finite."""


def finite_loss(c: Integers) -> bool:
    """Return whether the batch's loss is finite."""
    total = 0.0
    for block in range(c[BLOCKS]):
        total += doubles(c[FIGURES])[(c[STEP] * c[MOST_BLOCKS] + block) * 2]
    return total - total == 0


def run(
    kernels: Sequence[Kernel],
    code: Integers,
    phases: Integers,
    a: Memory,
    s: Memory,
    c: Integers,
    worker: int,
    workers: int,
) -> None:
    """Run a program over all batches of a run, as one of several workers.

    ``phases`` holds how many there are, then for each whom it is for and its first and its last
    instruction, the latter not included.
    """
    mode, sync, done, finite = flush_denormals(), integers(c[SYNC]), 0, True
    while done < c[STEPS] and finite:
        c[STEP], c[FIRST] = done, done * c[BATCH]
        c[COUNT] = smaller(c[BATCH], c[TOTAL] - c[FIRST])
        c[BLOCKS] = (c[COUNT] + LANES - 1) // LANES
        c[CHUNKS] = smaller(c[BLOCKS], c[MOST_CHUNKS])
        for n in range(phases[0]):
            scope, first, stop = phases[3 * n + 1], phases[3 * n + 2], phases[3 * n + 3]
            if scope == CHECK:
                finite = finite_loss(c)
            elif scope == FOR_BLOCKS:
                chunk = worker
                while chunk < c[CHUNKS]:
                    block = chunk
                    while block < c[BLOCKS]:
                        arena = at(a, block * c[ARENA_STEP])
                        for m in range(first, stop):
                            k = row(code, m * WIDTH)
                            call(kernels, k[0], arena, s, c, row(k, 1), block, chunk)
                        block += c[CHUNKS]
                    chunk += workers
            elif finite:
                for m in range(first, stop):
                    k = row(code, m * WIDTH)
                    call(kernels, k[0], a, s, c, row(k, 1), worker, workers)
            if workers > 1:
                meet(sync, workers)
        done += 1 if finite else 0
    c[DONE] = done
    restore_denormals(mode)
