"""What a mutant is: one stage of a layer's backward pass, done as somebody did it by mistake.

The backward pass of a layer is a short line of *stages*, each a function of the scene, the value
that the stage before left, and the delta. A mutant puts its own function in place of one of them;
two mutants of different stages make a pair.

==========  ==========================================================================
target      what the line of stages computes
==========  ==========================================================================
"delta"     the next delta dx, or, at the loss, the first delta
"weight"    dL/dw of the layer
"bias"      dL/db of the layer
==========  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fullback.check.mistakes.layer_pass import LossScene, Scene
from fullback.layers.base import Array

Target: TypeAlias = Literal["delta", "weight", "bias"]
Change: TypeAlias = Callable[[Any, Any, Array], Any]
Stages: TypeAlias = Sequence[tuple[str, Change]]


@dataclass(frozen=True, eq=False)
class Mutant:
    """One stage done wrongly.

    Attributes
    ----------
    mistake : the catalogue's id; None for a convention, which is another right way
    target, stage : what it changes
    change : the stage's function, (scene, value, dy) to value
    said : what was done, as the end of a sentence: "the filters were not turned ..."
    unknown : "rate" or "decay", where the change takes such a number from the scene
    """

    mistake: str | None
    target: Target
    stage: str
    change: Change = field(repr=False)
    said: str
    unknown: Literal["rate", "decay"] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes two mutants of different layers the same mistake."""
        return self.mistake or "", self.said


def run_stages(
    stages: Stages, scene: Scene | LossScene, value: Any, dy: Array, mutants: Iterable[Mutant]
) -> Any:
    """Run the stages, with the mutants' in place of the right ones; "out" takes any number."""
    own: dict[str, list[Change]] = {}
    for mutant in mutants:
        own.setdefault(mutant.stage, []).append(mutant.change)
    for name, right in stages:
        for change in own.get(name, [right]):
            value = change(scene, value, dy)
    return value


def compatible(mutants: Sequence[Mutant]) -> bool:
    """Whether these mutants can be made at once: at most one a stage, but any number at the end."""
    stages = [mutant.stage for mutant in mutants if mutant.stage != "out"]
    ids = [mutant.mistake for mutant in mutants]
    return len(set(stages)) == len(stages) and len(set(ids)) == len(ids)


def same(scene: Scene | LossScene, value: Any, dy: Array) -> Any:
    """Pass the value on: the right thing to do at most stages."""
    return value
