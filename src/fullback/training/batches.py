"""Batches: which images a step shows the network, as which views, and at which rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullback.augment import Augment, partners
from fullback.layers.base import Array
from fullback.model import Model
from fullback.passes import Seed, scaled
from fullback.training.training_data import TrainingData


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

    def images(self, n: int) -> NDArray[np.int64]:
        """Return the images of one batch, by number."""
        return self.order[n * self.size : (n + 1) * self.size]

    def split(self, count: int) -> tuple[Batches, Batches]:
        """Return the first so many batches, and the others."""
        return self.part(0, count), self.part(count, len(self.factors))

    def part(self, start: int, stop: int) -> Batches:
        """Return the batches from one number to another."""
        images = slice(start * self.size, stop * self.size)
        return Batches(
            order=self.order[images],
            size=self.size,
            factors=self.factors[start:stop],
            seeds=self.seeds[start:stop],
            mixtures=self.mixtures[start:stop],
            keys=None if self.keys is None else self.keys[images],
        )


def shown_batch(
    net: Model, data: TrainingData, batches: Batches, n: int, augment: Augment | None
) -> tuple[Array, Array]:
    """Return what a batch shows the network: views of its images, mixed, and their targets."""
    x, y = data.images[batches.images(n)], data.targets[batches.images(n)]
    if augment is not None and batches.keys is not None:
        keys = batches.keys[n * batches.size : (n + 1) * batches.size]
        x = augment.view(scaled(x, net.dtype), keys)
    if batches.mixtures:
        share, others = net.dtype.type(batches.mixtures[n]), partners(len(x))
        x = scaled(x, net.dtype)
        x = share * x + (1 - share) * x[others]
        y = net.loss.mixed(y, y[others], float(share), net.output_shape[0])
    return x, y
