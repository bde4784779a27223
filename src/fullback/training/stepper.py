"""What makes the steps of a run, on either engine."""

from __future__ import annotations

import contextlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fullback.network import Network
from fullback.passes import Engine
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

    def train(self, batches: Batches) -> NDArray[np.float64]:
        """Train on batches until one has a loss that is not finite; it changes no parameter.

        Returns
        -------
        figures : the loss and the number of right answers of every batch that was trained on, of
            shape (done, 2)
        """


def stepper_of(net: Network, data: TrainingData, options: TrainingOptions, state: State) -> Stepper:
    """Return what trains a network with the engine of the options; the state is its optimizer's."""
    if options.engine == "lanes":
        from fullback.training.lane_stepper import LaneStepper

        return LaneStepper(net, data, options, state)
    from fullback.training.reference_stepper import ReferenceStepper

    return ReferenceStepper(net, data, options, state)


def blas_threads(engine: Engine | None) -> contextlib.AbstractContextManager[object]:
    """Return a context in which the reference engine's products take one thread.

    They are small, several threads are slower at them, and sums whose order depends on the number
    of threads would make the weights depend on it too. The lane engine has threads of its own, and
    changes nothing for the other threads of the process.
    """
    return threadpool_limits(1, "blas") if engine == "reference" else contextlib.nullcontext()
