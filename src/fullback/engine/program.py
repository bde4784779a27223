"""Programs: a network as a list of instructions over planned memory.

Memory comes in two pieces. An *arena* belongs to a worker (or, where a network normalises over the
batch, to a block) and holds the maps of sixteen images; *shared* memory belongs to all and holds
parameters, gradients and what passes between blocks. Both are planned once, here, and addressed by
place, in floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from fullback.engine.kernels import KERNELS
from fullback.engine.loop import WIDTH
from fullback.engine.simd import LANES, Integers, Kernel

Ring = tuple[tuple[int, int], tuple[int, int]]
"""Cells of padding stored around a map: ((above, below), (left, right))."""

NO_RING: Ring = ((0, 0), (0, 0))

_NUMBERS = {kernel: number for number, kernel in enumerate(KERNELS)}


@dataclass(frozen=True)
class Map:
    """Where the maps of a block lie: channels of rows of cells of sixteen lanes.

    A row of features is one channel of one row.
    """

    name: str
    place: int  # of the first cell that is not padding
    shape: tuple[int, int, int]
    plane: int
    pitch: int

    @property
    def view(self) -> tuple[int, int, int]:
        """The three operands by which kernels take a map."""
        return self.place, self.plane, self.pitch

    @property
    def features(self) -> int:
        """Cells in all."""
        return prod(self.shape)

    @property
    def dense(self) -> bool:
        """Whether there is no padding between the cells."""
        _, height, width = self.shape
        return self.pitch == width * LANES and self.plane == height * self.pitch

    def flat(self, name: str) -> Map:
        """Return the same cells as a row of features."""
        size = self.features * LANES
        return Map(name, self.place, (1, 1, self.features), size, size)

    def moved(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Return the view that begins some rows and columns further down and right."""
        return self.place + rows * self.pitch + columns * LANES, self.plane, self.pitch


@dataclass(frozen=True)
class Region:
    """A piece of memory."""

    name: str
    place: int
    size: int


@dataclass
class Memory:
    """One of the two pieces of memory, as it is planned."""

    guard: int  # floats left free behind every region
    size: int = 0
    regions: list[Region] = field(default_factory=list)

    def size_of(self, name: str) -> int | None:
        """Return the floats of a region, or None where there is none of that name."""
        return next((region.size for region in self.regions if region.name == name), None)

    def take(self, name: str, size: int) -> int:
        """Return the place of a new region; it begins at a cache line."""
        region = Region(name, self.size, size)
        self.regions.append(region)
        self.size += -(-size // LANES) * LANES + self.guard
        return region.place


@dataclass(frozen=True)
class Instruction:
    """A kernel with its operands."""

    kernel: Kernel
    operands: tuple[int, ...]
    layers: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def row(self) -> list[int]:
        """The instruction as the machine reads it."""
        operands = [int(operand) for operand in self.operands]
        return [_NUMBERS[self.kernel], *operands, *[0] * (WIDTH - 1 - len(operands))]


@dataclass(frozen=True)
class Phase:
    """Instructions that are run one after the other, for blocks or for all workers."""

    scope: int
    instructions: list[Instruction]


def code(phases: Sequence[Phase]) -> tuple[Integers, Integers]:
    """Return the instructions and the phases as the machine reads them."""
    rows: list[list[int]] = []
    bounds = [len(phases)]
    for phase in phases:
        bounds += [phase.scope, len(rows), len(rows) + len(phase.instructions)]
        rows += [instruction.row for instruction in phase.instructions]
    return np.array(rows, np.int64).reshape(-1), np.array(bounds, np.int64)
