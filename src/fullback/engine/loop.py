"""The loop: runs a program's instructions over the blocks of batch after batch.

A program is a list of *phases*, and a phase a run of instructions. A phase for blocks is run by
every worker on its own share of the blocks, all its instructions on one block and then on the next;
a phase for all workers is run once a batch, every worker doing its part of each instruction.
Between phases the workers meet.

Blocks are dealt out by chunks: blocks b, b + CHUNKS, b + 2 CHUNKS, ... add to one gradient, in this
order, whoever works on them. How many chunks there are depends on the batch and the network alone,
and so does every sum: the same for any number of workers.

Several *ranks*, each a process with workers of its own, share out the chunks of a batch as workers
do: a rank runs every CHUNK_STEP-th of them, and between two phases it is given what the others have
written (``ranks.py``). Or, where a sum may depend on how many ranks there are, each has chunks of
its own, for every BLOCK_STEP-th block.
"""

from __future__ import annotations

from collections.abc import Sequence

from fullback.engine.context import (
    ARENA_STEP,
    BATCH,
    BEGIN,
    BLOCK_STEP,
    BLOCKS,
    CHUNK_STEP,
    CHUNKS,
    COUNT,
    DONE,
    FIGURES,
    FIRST,
    FIRST_BLOCK,
    FIRST_CHUNK,
    MOST_BLOCKS,
    MOST_CHUNKS,
    ROUND,
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
    mode, sync, done, finite = flush_denormals(), integers(c[SYNC]), c[BEGIN], True
    first_block, block_step, ranks = c[FIRST_BLOCK], c[BLOCK_STEP], c[CHUNK_STEP]
    while done < c[STEPS] and finite:
        c[STEP], c[FIRST] = done, done * c[BATCH]
        c[COUNT] = smaller(c[BATCH], c[TOTAL] - c[FIRST])
        c[BLOCKS] = (c[COUNT] + LANES - 1) // LANES
        dealt = (c[BLOCKS] - first_block + block_step - 1) // block_step
        c[CHUNKS] = smaller(dealt, c[MOST_CHUNKS])
        c[ROUND] = c[CHUNKS] * block_step
        for n in range(phases[0]):
            scope, first, stop = phases[3 * n + 1], phases[3 * n + 2], phases[3 * n + 3]
            if scope == CHECK:
                finite = finite_loss(c)
            elif scope == FOR_BLOCKS:
                chunk = c[FIRST_CHUNK] + worker * ranks
                while chunk < c[CHUNKS]:
                    block = first_block + chunk * block_step
                    while block < c[BLOCKS]:
                        arena = at(a, block * c[ARENA_STEP])
                        for m in range(first, stop):
                            k = row(code, m * WIDTH)
                            call(kernels, k[0], arena, s, c, row(k, 1), block, chunk)
                        block += c[ROUND]
                    chunk += workers * ranks
            elif finite:
                for m in range(first, stop):
                    k = row(code, m * WIDTH)
                    call(kernels, k[0], a, s, c, row(k, 1), worker, workers)
            if workers > 1:
                meet(sync, workers)
        done += 1 if finite else 0
    c[DONE] = done
    restore_denormals(mode)
