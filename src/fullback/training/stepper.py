"""The steps of a run: what makes them, on either engine, and the loop over a few batches at a time.

`pieces` is that loop: `fit`, the rate finder and the explorer go round it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fullback.distributed.ranks import Ranks
from fullback.errors import OptionError
from fullback.model import Engine, Model
from fullback.training.batches import Batches
from fullback.training.optimizers import State
from fullback.training.options import TrainingOptions
from fullback.training.training_data import TrainingData


class Stepper(Protocol):
    """Trains a network on its data, batch by batch."""

    def begin(self) -> None:
        """Read the network's arrays and the optimizer's state, before some batches."""

    def end(self) -> None:
        """Write what was learned to both, after some batches."""

    def own(self, count: int) -> NDArray[np.intp]:
        """Return which of so many images, of whole batches in turn, are looked at here."""

    def train(self, batches: Batches) -> NDArray[np.float64]:
        """Train on batches until one has a loss that is not finite; it changes no parameter.

        Returns
        -------
        figures : the loss and the number of right answers of every batch that was trained on, of
            shape (done, 2)
        """


def stepper_of(
    net: Model,
    data: TrainingData,
    options: TrainingOptions,
    state: State,
    ranks: Ranks | None = None,
) -> Stepper:
    """Return what trains a network with the engine of the options; the state is its optimizer's.

    Raises
    ------
    OptionError
        There are several ranks, and the engine is the reference.
    """
    if options.engine == "lanes":
        from fullback.training.lane_stepper import LaneStepper

        return LaneStepper(net, data, options, state, ranks=ranks)
    if ranks is not None:
        raise OptionError(
            "training in several processes needs the lane engine; engine='reference', and any "
            "network in float64, trains in one"
        )
    from fullback.training.reference_stepper import ReferenceStepper

    return ReferenceStepper(net, data, options, state)


def blas_threads(engine: Engine | None) -> contextlib.AbstractContextManager[object]:
    """Return a context in which the reference engine's products take one thread.

    They are small, several threads are slower at them, and sums whose order depends on the number
    of threads would make the weights depend on it too. The lane engine has threads of its own, and
    changes nothing for the other threads of the process.
    """
    return threadpool_limits(1, "blas") if engine == "reference" else contextlib.nullcontext()


@dataclass(frozen=True, eq=False)
class Piece:
    """Some batches that were trained on.

    Attributes
    ----------
    batches : those that were to be trained on
    figures : the loss and the number of right answers of every batch that was, of shape (done, 2)
    """

    batches: Batches
    figures: NDArray[np.float64]

    @property
    def finite(self) -> bool:
        """Whether every loss was finite; else the first that was not ended the piece."""
        return len(self.figures) == len(self.batches.factors)


class PieceLength:
    """How many batches make a piece that takes about so many seconds; 1 at first.

    Where there are several ranks, they take the length that rank 0 finds.
    """

    def __init__(self, seconds: float, ranks: Ranks | None = None) -> None:
        self.seconds, self.ranks = seconds, ranks
        self.batches = 1

    def note(self, batches: int, seconds: float) -> None:
        """Take note of how long a piece of so many batches took."""
        self.batches = max(1, int(batches * min(2.0, self.seconds / max(seconds, 1e-6))))
        if self.ranks is not None:
            self.batches = self.ranks.first(self.batches)


def pieces(
    stepper: Stepper,
    count: int,
    part: Callable[[int, int], Batches],
    length: PieceLength,
    *,
    shared: bool = False,
) -> Generator[Piece, None, None]:
    """Train on ``count`` batches, and yield every piece, up to one whose loss is not finite.

    When it ends, or is closed before its end, the network has what was learned.

    Parameters
    ----------
    stepper : what trains
    part : returns the batches from one number to another
    length : of the pieces, which may be changed between them
    shared : whether the network has what was learned after every piece, too, and may be changed
    """
    done, going = 0, count > 0
    begun = False
    while going:
        batches = part(done, min(done + length.batches, count))
        start = time.perf_counter()
        if not begun:
            stepper.begin()
        piece = Piece(batches, stepper.train(batches))
        done += len(piece.figures)
        going = piece.finite and done < count
        begun = going and not shared
        if not begun:
            stepper.end()
        length.note(len(batches.factors), time.perf_counter() - start)
        try:
            yield piece
        except GeneratorExit:
            if begun:
                stepper.end()
            raise
