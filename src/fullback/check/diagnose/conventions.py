"""Other right ways for a whole backward pass, with which a search may begin.

One that only concerns a layer, as the slope of a ReLU at 0, is a mutant of that layer without a
mistake (``Mutants.add(None, ...)`` in ``mistakes``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fullback.check.diagnose.submission import Submitted
from fullback.check.mistakes import LossPass, Mutant
from fullback.check.mistakes.loss import SUM_CONVENTION


@dataclass(frozen=True, eq=False)
class Convention:
    """A way to begin a backward pass.

    Attributes
    ----------
    mutants : how the first delta is computed; none of them a mistake
    share : what the gradients of parameters are multiplied by at the end
    """

    mutants: tuple[Mutant, ...] = ()
    share: float = 1.0


def conventions(loss: LossPass, submitted: Submitted) -> Iterator[Convention]:
    """Yield those that can be distinguished by what was submitted, the usual one first."""
    yield Convention()
    if loss.images > 1 and submitted.deltas:
        yield Convention((SUM_CONVENTION,), 1 / loss.images)
