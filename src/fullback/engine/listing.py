"""A program as people read it: forward and backward side by side."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fullback.engine.loop import FOR_WORKERS
from fullback.engine.lowering.plan import Plan
from fullback.engine.program import Instruction
from fullback.engine.simd import LANES

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Line:
    """An instruction in the order of execution.

    Attributes
    ----------
    number : its place, from 1
    name : of its kernel
    layers : the layers whose composition it is, or a part of it
    reads, writes : what it reads and writes, by name: activations by their layer's, deltas and
        gradients with a d before it
    once : whether it is run once a batch, or, of the program for one image, when the weights have
        changed; otherwise it is run for every block of sixteen images, or for every image
    made : shape and size of what it writes
    backward : whether it belongs to the backward pass
    sources, results : what it reads and computes, in the names of a trace: "a:conv1", "d:pool1"
    sentence : what it does
    """

    number: int
    name: str
    layers: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    once: bool
    made: str
    backward: bool
    sources: tuple[str, ...]
    results: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Part:
    """The instructions of layers that are computed together: backward mirrors forward."""

    layers: tuple[str, ...]
    forward: tuple[Line, ...]
    backward: tuple[Line, ...]


@dataclass(frozen=True)
class Program:
    """What the lane engine runs for a network; ``print`` shows it.

    Attributes
    ----------
    parts : the instructions, by the layers they belong to, from the input to the loss
    arena : bytes of memory for the maps of sixteen images, or of one
    shared : bytes of memory for parameters, gradients and what passes between blocks
    images : how many images are computed together, 16 or 1
    """

    parts: tuple[Part, ...]
    arena: int
    shared: int
    images: int

    @property
    def lines(self) -> tuple[Line, ...]:
        """All instructions in the order of execution."""
        every = [line for part in self.parts for line in (*part.forward, *part.backward)]
        return tuple(sorted(every, key=lambda line: line.number))

    def table(self) -> Table:
        """Return the rich table that ``print`` shows."""
        from rich import box
        from rich.table import Table

        backwards = any(part.backward for part in self.parts)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for side in ("forward", "backward")[: 1 + backwards]:
            table.add_column("#", justify="right", style="dim")
            table.add_column(side, overflow="fold")
            table.add_column("writes", style="cyan", overflow="fold")
        for part in self.parts:
            table.add_row("", f"[bold]{' + '.join(part.layers)}[/bold]")
            sides = [[_cells(line) for line in part.forward]]
            if backwards:
                sides.append([_cells(line) for line in part.backward])
            for n in range(max(map(len, sides))):
                cells = [side[n] if n < len(side) else ("", "", "") for side in sides]
                table.add_row(*[cell for three in cells for cell in three])
        times, arena = f"once a batch; the others for every block of {LANES} images", " or block"
        if self.images == 1:
            times, arena = "when the weights have changed; the others for every image", ""
        table.caption = (
            f"* {times}. Memory: {_bytes(self.arena)} a thread{arena}, {_bytes(self.shared)} shared"
        )
        table.caption_justify = "left"
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=150, color_system=None, legacy_windows=False)
        with console.capture() as capture:
            console.print(self.table())
        lines = (line.removeprefix(" ").rstrip() for line in capture.get().splitlines())
        return "\n".join(lines).strip("\n")


def listing(plan: Plan) -> Program:
    """Return the program of a plan, ordered for reading."""
    owner = {name: step.names for step in plan.steps for name in step.names}
    names = [("input",), *[step.names for step in plan.steps], ("loss",)]
    forward: dict[tuple[str, ...], list[Line]] = {part: [] for part in names}
    backward: dict[tuple[str, ...], list[Line]] = {part: [] for part in names}
    for line in _lines(plan):
        part = owner.get(line.layers[0], line.layers)
        (backward if line.backward else forward)[part].append(line)
    parts = tuple(Part(part, tuple(forward[part]), tuple(backward[part])) for part in names)
    return Program(parts, plan.arena.size * 4, plan.shared.size * 4, plan.images)


def _lines(plan: Plan) -> Iterator[Line]:
    number = 0
    for phase in plan.phases:
        for instruction in phase.instructions:
            number += 1
            yield Line(
                number,
                instruction.kernel.__name__,
                instruction.layers,
                instruction.reads,
                instruction.writes,
                phase.scope == FOR_WORKERS,
                _made(plan, instruction),
                instruction.backward,
                instruction.sources(),
                instruction.results(),
                instruction.sentence or _plain_sentence(instruction),
            )


def _plain_sentence(instruction: Instruction) -> str:
    written = ", ".join(instruction.writes) or "nothing that is kept"
    return f"{instruction.kernel.__name__} computes {written}."


def _made(plan: Plan, instruction: Instruction) -> str:
    """Return the shape and the size of what an instruction writes first."""
    if not instruction.writes:
        return ""
    name = instruction.writes[0]
    if name in plan.maps:
        shape = list(plan.maps[name].shape)
        text = " x ".join(map(str, shape[-1:] if shape[:2] == [1, 1] else shape))
        return f"{text}, {_bytes(plan.maps[name].size * 4)}"
    size = plan.shared.size_of(name)
    return "" if size is None else _bytes(size * 4)


def _cells(line: Line) -> tuple[str, str, str]:
    made = f"{', '.join(line.writes)} [dim]{line.made}[/dim]" if line.writes else ""
    mark = "*" if line.once else " "
    return f"{line.number}{mark}", f"{line.name}({', '.join(line.reads)})", made


def _bytes(count: int) -> str:
    for unit, size in (("MB", 2**20), ("KB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count // size} {unit}"
    return f"{count} B"
