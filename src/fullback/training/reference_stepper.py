"""The steps of training with the layers' own forward and backward passes, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fullback.augment import partners
from fullback.layers.loss import answered, share_right
from fullback.model import Model
from fullback.passes import Trace, trace_batch
from fullback.training.averages import move_averages
from fullback.training.batches import Batches, shown_batch
from fullback.training.optimizers import State
from fullback.training.options import TrainingOptions
from fullback.training.training_data import TrainingData


class ReferenceStepper:
    """Training with the layers' own forward and backward passes; see Stepper."""

    def __init__(
        self, net: Model, data: TrainingData, options: TrainingOptions, state: State
    ) -> None:
        self.net, self.data, self.options, self.state = net, data, options, state

    def begin(self) -> None:
        """Do nothing: the arrays are updated where they are."""

    def end(self) -> None:
        """Do nothing."""

    def own(self, count: int) -> NDArray[np.intp]:
        """Return all: there are no ranks."""
        return np.arange(count)

    def train(self, batches: Batches) -> NDArray[np.float64]:
        """See Stepper."""
        figures: list[tuple[float, float]] = []
        for n in range(len(batches.factors)):
            trace = self._step(batches, n)
            if trace is None:
                break
            figures.append((trace.loss, self._right(trace, batches, n)))
        return np.array(figures, np.float64).reshape(-1, 2)

    def _step(self, batches: Batches, n: int) -> Trace | None:
        """Make the step of a batch, and return its trace; None where its loss is not finite."""
        net, data, options = self.net, self.data, self.options
        weights = None if data.weights is None else data.weights[batches.images(n)]
        shown = shown_batch(net, data, batches, n, options.augment)
        trace = trace_batch(net, *shown, weights, training=True, seed=batches.seeds[n])
        if not np.isfinite(trace.loss):
            return None
        names = net.trainable()
        options.optimizer.step(
            net.parameters, trace.gradients, self.state, names, factor=batches.factors[n]
        )
        _move_statistics(net, trace)
        if options.average:
            move_averages(net, self.state, options.average, names)
        return trace

    def _right(self, trace: Trace, batches: Batches, n: int) -> float:
        """Return how many answers were right; of mixed images either label by its share."""
        if trace.probabilities is None:
            return 0.0
        targets = self.data.targets[batches.images(n)]
        answers = answered(self.net.loss, trace.activations[self.net.names[-1]])
        right = float(share_right(answers, targets).sum())
        if batches.mixtures:
            share, others = batches.mixtures[n], targets[partners(len(targets))]
            right = share * right + (1 - share) * float(share_right(answers, others).sum())
        return right


def _move_statistics(net: Model, trace: Trace) -> None:
    for name, layer, cache in zip(net.names, net.layers, trace.kept, strict=True):
        if name not in net.frozen:
            for key, value in layer.next_statistics(cache, net.arrays_of(name)).items():
                net.statistics[f"{name}.{key}"] = value
