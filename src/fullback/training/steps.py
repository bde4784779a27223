"""The steps of training on the reference engine, and what any engine is told of a run's batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fullback.augment import Augment, partners
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Engine, Seed, Trace, scaled, trace_batch
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
    mixtures : the share of its own that every image keeps, for every batch; empty without mixup
    keys : what fixes the distortion of every image of ``order``; None without augmentation
    """

    order: NDArray[np.int64]
    size: int
    factors: Sequence[float]
    seeds: Sequence[Seed]
    mixtures: Sequence[float] = ()
    keys: NDArray[np.uint64] | None = None

    def split(self, count: int) -> tuple[Batches, Batches]:
        """Return the first so many batches, and the others."""
        return self._part(0, count), self._part(count, len(self.factors))

    def _part(self, start: int, stop: int) -> Batches:
        images = slice(start * self.size, stop * self.size)
        return Batches(
            order=self.order[images],
            size=self.size,
            factors=self.factors[start:stop],
            seeds=self.seeds[start:stop],
            mixtures=self.mixtures[start:stop],
            keys=None if self.keys is None else self.keys[images],
        )


def average_share(decay: float, step: int) -> float:
    """Return the share that a step's parameters have in their running average.

    It is 1 - decay, and more in the first steps, whose parameters are to be forgotten soon.
    """
    return 1 - min(decay, (1 + step) / (10 + step))


def shown_batch(
    net: Network,
    images: Array,
    targets: Array,
    batches: Batches,
    n: int,
    augment: Augment | None,
) -> tuple[Array, Array]:
    """Return what a batch shows the network: views of its images, mixed, and their targets."""
    place = slice(n * batches.size, (n + 1) * batches.size)
    x, wanted = images[batches.order[place]], targets[batches.order[place]]
    if augment is not None and batches.keys is not None:
        x = augment.view(scaled(x, net.dtype), batches.keys[place])
    if batches.mixtures:
        own, others = net.dtype.type(batches.mixtures[n]), partners(len(x))
        x = scaled(x, net.dtype)
        x = own * x + (1 - own) * x[others]
        wanted = net.loss.mixed(wanted, wanted[others], float(own), net.output_shape[0])
    return x, wanted


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


def steps_of(
    net: Network,
    engine: Engine,
    images: Array,
    targets: Array,
    sample_weight: Array | None,
    optimizer: Optimizer,
    state: State,
    batch_size: int,
    *,
    augment: Augment | None = None,
    mixes: bool = False,
    average: float = 0.0,
) -> Steps:
    """Return what trains a network with an engine."""
    data = (images, targets, sample_weight)
    if engine == "lanes":
        from fullback.training.lanes import LaneSteps

        return LaneSteps(net, *data, optimizer, state, batch_size, augment, mixes, average)
    return ReferenceSteps(net, *data, optimizer, state, augment, average)


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
        augment: Augment | None = None,
        average: float = 0.0,
    ) -> None:
        self.net, self.optimizer, self.state = net, optimizer, state
        self.images, self.targets, self.weights = images, targets, sample_weight
        self.augment, self.average = augment, average

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
            shown = shown_batch(net, self.images, self.targets, batches, n, self.augment)
            trace = trace_batch(net, *shown, weights, training=True, seed=seed)
            if not np.isfinite(trace.loss):
                break
            self.optimizer.step(
                net.parameters, trace.gradients, self.state, net.trainable(), factor=factor
            )
            _move_statistics(net, trace)
            if self.average:
                share = average_share(self.average, int(self.state["step"]))
                for name in net.trainable():
                    kept = self.state[f"average.{name}"]
                    kept += share * (net.parameters[name] - kept)
            right = 0.0
            if trace.probabilities is not None:
                labels, answers = self.targets[chosen], trace.probabilities.argmax(axis=1)
                right = float((answers == labels).sum())
                if batches.mixtures:  # of both labels
                    own, other = batches.mixtures[n], labels[partners(len(labels))]
                    right = own * right + (1 - own) * float((answers == other).sum())
            figures.append((trace.loss, right))
        return np.array(figures, np.float64).reshape(-1, 2)


def _move_statistics(net: Network, trace: Trace) -> None:
    for name, layer, kept in zip(net.names, net.layers, trace.kept, strict=True):
        if name not in net.frozen:
            for key, value in layer.next_statistics(kept, net.arrays_of(name)).items():
                net.statistics[f"{name}.{key}"] = value
