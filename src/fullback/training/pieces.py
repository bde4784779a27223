"""Training in pieces: a few batches at a time, between which others look at the network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullback.training.batches import Batches
from fullback.training.stepper import Stepper


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
    """How many batches make a piece that takes about so many seconds; 1 at first."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.batches = 1

    def note(self, batches: int, seconds: float) -> None:
        """Take note of how long a piece of so many batches took."""
        self.batches = max(1, int(batches * min(2.0, self.seconds / max(seconds, 1e-6))))


def pieces(
    stepper: Stepper, count: int, part: Callable[[int, int], Batches], length: PieceLength
) -> Iterator[Piece]:
    """Train on ``count`` batches, and yield every piece, up to one whose loss is not finite.

    While nothing is asked for, the network has what was learned, and may be changed.

    Parameters
    ----------
    stepper : what trains
    part : returns the batches from one number to another
    length : of the pieces, which may be changed between them
    """
    done, finite = 0, True
    while finite and done < count:
        batches = part(done, min(done + length.batches, count))
        start = time.perf_counter()
        stepper.begin()
        piece = Piece(batches, stepper.train(batches))
        stepper.end()
        length.note(len(batches.factors), time.perf_counter() - start)
        done, finite = done + len(piece.figures), piece.finite
        yield piece
