"""What a mutant is: one stage of a layer's backward pass, done as people do it by mistake.

The backward pass of a layer is a short line of *stages*, each a function of the layer's pass, the
value that the stage before left, and the delta. A mutant puts its own function in place of one of
them; two mutants of different stages make a pair.

==========  ==========================================================================
target      what the line of stages computes
==========  ==========================================================================
"delta"     the next delta dx, or, at the loss, the first delta
"weight"    dL/dw of the layer
"bias"      dL/db of the layer
==========  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from fullback.layers.base import Array

Target: TypeAlias = Literal["delta", "weight", "bias"]
Unknown: TypeAlias = Literal["rate", "decay", "threshold", "factor"]
Change: TypeAlias = Callable[[Any, Any, Array], Any]
Solve: TypeAlias = Callable[[Any, Array, Array], float]
Memo: TypeAlias = dict[tuple[Any, ...], Any]
Condition: TypeAlias = Callable[[Any], bool]
Stages: TypeAlias = Sequence[tuple[str, Change]]

UNKNOWNS: dict[Unknown, str] = {
    "rate": "learning rate",
    "decay": "coefficient",
    "threshold": "threshold",
    "factor": "factor",
}
"""What each number is called that a mistake can have and that is found from the data."""


def always(p: Any) -> bool:
    """Put no condition on a mutant."""
    return True


@dataclass(frozen=True)
class Mistake:
    """One entry of the catalogue.

    Attributes
    ----------
    id : its public name
    sentence : what was done
    mend : the right formula, in the notation of ``layers/``
    hint : how that is written, in up to three lines of NumPy
    """

    id: str
    sentence: str
    mend: str
    hint: str


@dataclass(frozen=True, eq=False)
class Mutant:
    """One stage done wrongly.

    Attributes
    ----------
    target, stage : what it changes
    description : what was done, as the end of a sentence: "the filters were not turned ..."
    change : the stage's function, (pass, value, dy) to value
    when : whether it makes sense in a pass
    unknown : which number the change takes from the pass: "rate" is its ``rate``, the others are
        its ``decay``
    solve : finds a number that is not a rate, from the pass, what the stages before give, and the
        submitted array; NaN where there is none
    mistake : the catalogue's id, which ``Mutants.add`` gives it; None for a convention, which is
        another right way
    """

    target: Target
    stage: str
    description: str
    change: Change = field(repr=False)
    when: Condition = field(default=always, repr=False)
    unknown: Unknown | None = None
    solve: Solve | None = field(default=None, repr=False)
    mistake: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes two mutants of different layers the same mistake."""
        return self.mistake or "", self.description


delta, weight, bias = (partial(Mutant, target) for target in ("delta", "weight", "bias"))

Maker: TypeAlias = Callable[[Any], Iterable[Mutant]]


class Mutants:
    """The mutants of a kind of layer, the likelier ones first, and their mistakes."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._entries: list[tuple[Mistake | None, Condition, Mutant | Maker]] = []

    def __add__(self, other: Mutants) -> Mutants:
        both = Mutants()
        both.mistakes = self.mistakes + other.mistakes
        both._entries = self._entries + other._entries
        return both

    def add(
        self, mistake: Mistake | None, *entries: Mutant | Maker, when: Condition = always
    ) -> None:
        """Add ways to make a mistake; without a mistake they are conventions.

        Parameters
        ----------
        mistake : of which they are
        entries : mutants, or functions that return mutants for a pass, where their number or their
            words depend on it
        when : whether they make sense in a pass
        """
        if mistake is not None:
            self.mistakes.append(mistake)
        for entry in entries:
            entry = named(entry, mistake) if isinstance(entry, Mutant) else entry
            self._entries.append((mistake, when, entry))

    def of(self, p: Any) -> Iterator[Mutant]:
        """Yield those that make sense in the pass of a layer, or of the loss."""
        targets = {"delta", *getattr(p, "parameters", {})}
        for mistake, when, entry in self._entries:
            if when(p):
                every = [entry] if isinstance(entry, Mutant) else entry(p)
                every = [named(m, mistake) for m in every]
                yield from (m for m in every if m.target in targets and m.when(p))


def named(one: Mutant, mistake: Mistake | None) -> Mutant:
    """Return a mutant as a way to make a mistake."""
    if mistake is None or one.mistake == mistake.id:
        return one
    return replace(one, mistake=mistake.id)


def run_stages(
    stages: Stages,
    p: Any,
    value: Any,
    dy: Array,
    mutants: Sequence[Mutant],
    memo: Memo | None = None,
) -> Any:
    """Run the stages, with the mutants' in place of the right ones; "out" takes any number.

    Parameters
    ----------
    stages : the right ones
    p, value, dy : the pass, what the first stage is given, and the delta
    mutants : the mistakes
    memo : keeps what the right stages compute, and what the stages before "out" last computed, for
        other mutants of the same pass and delta
    """
    kept = {} if memo is None else memo
    so_far: tuple[Mutant, ...] = ()
    for place, (name, right) in enumerate(stages):
        here = tuple(m for m in mutants if m.stage == name)
        so_far += here
        slot = id(stages), name, bool(so_far)
        if slot in kept and kept[slot][0] == so_far:
            value = kept[slot][1]
            continue
        for change in [m.change for m in here] or [right]:
            value = change(p, value, dy)
        numbers = any(m.unknown for m in so_far)
        if (place == len(stages) - 2 and not numbers) or not so_far:
            kept[slot] = so_far, value
    return value


def compatible(mutants: Sequence[Mutant]) -> bool:
    """Whether these mutants can be made at once: at most one a stage, but any number at the end."""
    stages = [one.stage for one in mutants if one.stage != "out"]
    ids = [one.mistake for one in mutants]
    return len(set(stages)) == len(stages) and len(set(ids)) == len(ids)


def same(p: Any, value: Any, dy: Array) -> Any:
    """Pass the value on: the right thing to do at most stages."""
    return value
