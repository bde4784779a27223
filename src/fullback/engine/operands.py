"""How a kernel declares its operands, and how it finds them.

    @kernel(reads="x:map", writes="y:map", numbers="slope shape:shape")
    def leaky_relu(a, s, c, k, i, j):
        channels, height, width = k.shape
        ... k.x.place + channel * k.x.plane ...

To the machine, operands are a row of integers: places in memory and sizes. To a kernel they are
the attributes of ``k``, by their declared names: in Python a named tuple, and compiled a load from
that row, both generated from the declaration. No place is counted by hand.

An operand is one integer, or of one of the KINDS, which are several. ``reads`` and ``writes`` are
what a listing of the program shows; ``numbers`` are the others. A name that is in both is one
operand, which is changed in place. Where lowering has None for an operand, it is NONE.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fullback.engine.simd import Integers, Kernel

NONE = -1
"""An operand for which there is nothing, for instance the bias of a layer without."""


class View(NamedTuple):
    """A map: its first cell that is not padding, and the steps between channels and rows."""

    place: int
    plane: int
    pitch: int


class Shape(NamedTuple):
    """The size of a map; a row of features is one channel of one row."""

    channels: int
    height: int
    width: int


class Pair(NamedTuple):
    """Something along both axes."""

    rows: int
    columns: int


KINDS: dict[str, type[View] | type[Shape] | type[Pair]] = {
    "map": View,
    "shape": Shape,
    "pair": Pair,
}
_KIND_NAMES = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True)
class Field:
    """An operand: its name, where it begins in the row, and what it is."""

    name: str
    start: int
    kind: type[View] | type[Shape] | type[Pair] | None  # None for one integer

    def __str__(self) -> str:
        return f"{self.name}:{_KIND_NAMES[self.kind]}" if self.kind else self.name

    @property
    def size(self) -> int:
        """How many integers it is."""
        return 1 if self.kind is None else len(self.kind._fields)


class Declaration:
    """The operands of a kernel.

    Attributes
    ----------
    reads, writes : names of what a listing shows
    fields : all operands in the order of the row, by name
    size : how many integers they are
    for_workers : whether the kernel is run once a batch by all workers, and not for every block
    by_register : whether its vectors have the lanes of one register of the CPU, REGISTER, over
        which it loops; those of other kernels have all lanes, in several registers
    """

    def __init__(
        self,
        reads: str,
        writes: str,
        numbers: str,
        *,
        for_workers: bool,
        by_register: bool = False,
    ) -> None:
        self.reads, self.writes = _names(reads), _names(writes)
        self.for_workers, self.by_register = for_workers, by_register
        self.fields: dict[str, Field] = {}
        self.size = 0
        for text in f"{reads} {writes} {numbers}".split():
            name, _, kind = text.partition(":")
            field = Field(name, self.size, KINDS[kind] if kind else None)
            if name not in self.fields:
                self.fields[name] = field
                self.size += field.size
            elif self.fields[name].kind is not field.kind:
                raise ValueError(f"the operand {name} is declared as two kinds")
        self._tuple: Any = namedtuple("Operands", self.fields)  # type: ignore[misc]

    def __str__(self) -> str:
        return " ".join(str(field) for field in self.fields.values())

    def unpacked(self, row: Integers) -> Any:
        """Return the operands of a row as Python's kernels take them."""
        whole = [int(number) for number in row[: self.size]]
        return self._tuple(
            *[
                field.kind(*whole[field.start : field.start + field.size])
                if field.kind
                else whole[field.start]
                for field in self.fields.values()
            ]
        )

    def require_names(self, kernel: Kernel, names: Set[str]) -> None:
        """Raise TypeError where operands of a kernel are missing or unknown."""
        if names == self.fields.keys():
            return
        unknown, missing = names - self.fields.keys(), self.fields.keys() - names
        wrong = [f"{name} is unknown" for name in sorted(unknown)]
        wrong += [f"{name} is missing" for name in self.fields if name in missing]
        raise TypeError(f"{kernel.__name__} takes the operands {self}: {', '.join(wrong)}")


DECLARATIONS: dict[Callable[..., None], Declaration] = {}
"""What every kernel has declared."""


def kernel(
    *,
    reads: str = "",
    writes: str = "",
    numbers: str = "",
    for_workers: bool = False,
    by_register: bool = False,
) -> Callable[[Kernel], Kernel]:
    """Declare the operands of the kernel that follows."""
    declaration = Declaration(
        reads, writes, numbers, for_workers=for_workers, by_register=by_register
    )

    def declare(function: Kernel) -> Kernel:
        DECLARATIONS[function] = declaration
        return function

    return declare


def in_python(function: Kernel) -> Kernel:
    """Return a kernel as the loop calls it where it is not compiled: with a row of integers."""
    declaration = DECLARATIONS[function]

    def called(a: Any, s: Any, c: Integers, k: Integers, i: int, j: int) -> None:
        function(a, s, c, declaration.unpacked(np.asarray(k)), i, j)

    return called


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.partition(":")[0] for part in text.split())
