"""The steps of training on the reference engine, and what any engine is told of a run's batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Seed, Trace, trace_batch
from fullback.training.optimizers import Optimizer, State


@dataclass(frozen=True, eq=False)
class Batches:
    """Some batches of an epoch, one after the other.

    Attributes
    ----------
    order : the images by number, batch after batch
    size : images in a batch; the last one may have fewer
    factors : what the learning rate is multiplied by in every batch
    seeds : what fixes the draws of every batch
    """

    order: NDArray[np.int64]
    size: int
    factors: Sequence[float]
    seeds: Sequence[Seed]

    def split(self, count: int) -> tuple[Batches, Batches]:
        """Return the first so many batches, and the others."""
        first = self.order[: count * self.size], self.factors[:count], self.seeds[:count]
        other = self.order[count * self.size :], self.factors[count:], self.seeds[count:]
        return (
            Batches(first[0], self.size, first[1], first[2]),
            Batches(other[0], self.size, other[1], other[2]),
        )


class Steps(Protocol):
    """Trains a network on its data, batch by batch."""

    def begin(self) -> None:
        """Take the network's arrays and the optimizer's state over, before some batches."""

    def end(self) -> None:
        """Give both what was learned, after some batches."""

    def train(self, batches: Batches) -> NDArray[np.float64]:
        """Train on batches until one has a loss that is not finite; it changes no parameter.

        Returns
        -------
        figures : the loss and the number of right answers of every batch that was trained on, of
            shape (done, 2)
        """


class ReferenceSteps:
    """Training with the layers' own forward and backward passes."""

    def __init__(
        self,
        net: Network,
        images: Array,
        targets: Array,
        sample_weight: Array | None,
        optimizer: Optimizer,
        state: State,
    ) -> None:
        self.net, self.optimizer, self.state = net, optimizer, state
        self.images, self.targets, self.weights = images, targets, sample_weight

    def begin(self) -> None:
        """Do nothing: the arrays are updated where they are."""

    def end(self) -> None:
        """Do nothing."""

    def train(self, batches: Batches) -> NDArray[np.float64]:
        """See Steps."""
        net, figures = self.net, []
        for n, (factor, seed) in enumerate(zip(batches.factors, batches.seeds, strict=True)):
            chosen = batches.order[n * batches.size : (n + 1) * batches.size]
            weights = None if self.weights is None else self.weights[chosen]
            targets = self.targets[chosen]
            trace = trace_batch(
                net, self.images[chosen], targets, weights, training=True, seed=seed
            )
            if not np.isfinite(trace.loss):
                break
            self.optimizer.step(
                net.parameters, trace.gradients, self.state, net.trainable(), factor=factor
            )
            _move_statistics(net, trace)
            right = 0
            if trace.probabilities is not None:
                right = int((trace.probabilities.argmax(axis=1) == targets).sum())
            figures.append((trace.loss, right))
        return np.array(figures, np.float64).reshape(-1, 2)


def _move_statistics(net: Network, trace: Trace) -> None:
    for name, layer, kept in zip(net.names, net.layers, trace.kept, strict=True):
        if name not in net.frozen:
            for key, value in layer.next_statistics(kept, net.arrays_of(name)).items():
                net.statistics[f"{name}.{key}"] = value
