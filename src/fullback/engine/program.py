"""Programs: a network as a list of instructions over planned memory.

Memory comes in two pieces. An *arena* belongs to a worker (or, where a network normalises over the
batch, to a block) and holds the maps of sixteen images; *shared* memory belongs to all and holds
parameters, gradients and what passes between blocks. Both are planned once, here, and addressed by
place, in floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from operator import index
from typing import Any, TypeAlias

import numpy as np

from fullback.engine.kernels import KERNELS
from fullback.engine.loop import FOR_BLOCKS, WIDTH
from fullback.engine.operands import DECLARATIONS, NONE, View
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
    def view(self) -> View:
        """What kernels take for a map."""
        return View(self.place, self.plane, self.pitch)

    @property
    def features(self) -> int:
        """Cells in all."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Floats in all."""
        return self.features * LANES

    @property
    def dense(self) -> bool:
        """Whether there is no padding between the cells."""
        _, height, width = self.shape
        return self.pitch == width * LANES and self.plane == height * self.pitch

    def reshaped(self, channels: int, height: int, width: int) -> Map:
        """Return the cells of a map without padding in another shape."""
        pitch = width * LANES
        return Map(self.name, self.place, (channels, height, width), height * pitch, pitch)

    def flat(self, name: str) -> Map:
        """Return the same cells as a row of features."""
        return replace(self.reshaped(1, 1, self.features), name=name)

    def moved(self, rows: int, columns: int) -> Map:
        """Return the map that begins some rows and columns further down and right."""
        return replace(self, place=self.place + rows * self.pitch + columns * LANES)

    def every(self, rows: int) -> Map:
        """Return the map of every second (third, ...) row."""
        return replace(self, pitch=rows * self.pitch)


@dataclass(frozen=True)
class Region:
    """A piece of memory."""

    name: str
    place: int
    size: int

    def at(self, start: int) -> Region:
        """Return what begins some floats further on."""
        return replace(self, place=self.place + start, size=self.size - start)


@dataclass(frozen=True)
class Share:
    """A region of shared memory of which every block, or every chunk of blocks, writes a part.

    Attributes
    ----------
    region : all parts, one after the other
    size : floats of a part
    by_chunk : whether the parts are those of chunks
    whole : whether the parts of all blocks are read, also where gradients are added up by rank
    """

    region: Region
    size: int
    by_chunk: bool = False
    whole: bool = False


Operand: TypeAlias = "Map | Region | Sequence[int] | int | None"
"""What lowering gives for an operand: a map or region stands for its place."""


@dataclass
class Memory:
    """One of the two pieces of memory, as it is planned."""

    guard: int  # floats left free behind every region
    size: int = 0
    regions: list[Region] = field(default_factory=list)

    def size_of(self, name: str) -> int | None:
        """Return the floats of a region, or None where there is none of that name."""
        return next((region.size for region in self.regions if region.name == name), None)

    def take(self, name: str, size: int) -> Region:
        """Return a new region; it begins at a cache line."""
        region = Region(name, self.size, size)
        self.regions.append(region)
        self.size += -(-size // LANES) * LANES + self.guard
        return region


@dataclass(frozen=True)
class Instruction:
    """A kernel with its operands, and its description for people.

    Attributes
    ----------
    kernel : what is called
    operands : the integers that it is called with
    layers : names of the layers whose composition, or a part of it, is computed
    reads, writes : names of what lies in memory
    backward : whether it belongs to the backward pass
    sentence : what it does
    sources, results : return what is read and computed, in the names of a trace: "a:conv1",
        "d:pool1". Only listings ask
    """

    kernel: Kernel
    operands: tuple[int, ...]
    layers: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    backward: bool
    sentence: str
    sources: Callable[[], tuple[str, ...]]
    results: Callable[[], tuple[str, ...]]

    @property
    def row(self) -> list[int]:
        """The instruction as the machine reads it."""
        return [
            _NUMBERS[self.kernel], *self.operands, *[0] * (WIDTH - 1 - len(self.operands))
        ]  # fmt: skip


def row_of(kernel: Kernel, operands: Mapping[str, Operand]) -> tuple[int, ...]:
    """Return the integers that stand for operands, in the order that a kernel has declared.

    Raises
    ------
    TypeError
        Operands are missing, unknown or of another kind than declared.
    """
    declaration = DECLARATIONS[kernel]
    declaration.require_names(kernel, operands.keys())
    row: list[int] = []
    for name, declared in declaration.fields.items():
        value: Any = operands[name]
        if declared.kind is None:
            value = NONE if value is None else getattr(value, "place", value)
            numbers: Any = (value,)
        else:
            numbers = value.view if isinstance(value, Map) else value
        try:
            fits = type(numbers) is not Region and len(numbers) == declared.size
            row += map(index, numbers)
        except TypeError:
            fits = False
        if not fits:
            kind = str(declared).partition(":")[2] or "integer"
            raise TypeError(
                f"{kernel.__name__} takes for {name} one {kind}, got {operands[name]!r}"
            ) from None
    return tuple(row)


@dataclass(frozen=True)
class Phase:
    """Instructions that are run one after the other, for blocks or for all workers.

    ``shares`` is what blocks write for later phases.
    """

    scope: int
    instructions: list[Instruction]
    shares: list[Share] = field(default_factory=list)

    @property
    def has_loss(self) -> bool:
        """Whether blocks report their part of the batch's loss."""
        return self.scope == FOR_BLOCKS and any(
            instruction.layers == ("loss",) for instruction in self.instructions
        )


def code(phases: Sequence[Phase]) -> tuple[Integers, Integers]:
    """Return the instructions and the phases as the machine reads them."""
    rows: list[list[int]] = []
    bounds = [len(phases)]
    for phase in phases:
        bounds += [phase.scope, len(rows), len(rows) + len(phase.instructions)]
        rows += [instruction.row for instruction in phase.instructions]
    return np.array(rows, np.int64).reshape(-1), np.array(bounds, np.int64)
