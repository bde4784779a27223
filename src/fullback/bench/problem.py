"""What is measured: a network, a batch size, data in memory; and how its arithmetic is counted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullback import zoo
from fullback.network import Network

RATE, MOMENTUM = 0.01, 0.9
"""Of the stochastic gradient descent that everyone does, without Nesterov's form."""

_MOST_IMAGES, _MOST_VALUES = 8192, 2**25  # of a problem's data


def cifar_bn(seed: int = 0) -> Network:
    """Return three stages of convolution and batch normalisation for colour images of 32x32."""
    stages = " ".join(f"conv{filters} batchnorm relu pool" for filters in (16, 32, 64))
    return Network.parse(f"{stages} flatten dense10", (3, 32, 32), seed=seed)


NETWORKS: dict[str, Callable[[], Network]] = {
    "question": zoo.question,
    "small": zoo.small,
    "wide": zoo.wide,
    "cifar-bn": cifar_bn,
}
"""The networks that are measured, by name."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A network that is to be trained on images in memory.

    Every framework takes the same images in the same order: step n takes
    ``order[n * batch : (n + 1) * batch]``, and behind the last batch comes the first one again.

    Attributes
    ----------
    name : what it is called
    net : the network, with its weights before training
    batch : images a step
    count : images in all, a multiple of ``batch``
    """

    name: str
    net: Network
    batch: int
    count: int

    @classmethod
    def make(cls, name: str, net: Network, batch: int, count: int = _MOST_IMAGES) -> Problem:
        """Return a problem of at least one batch, and at most about ``count`` images."""
        count = min(count, _MOST_VALUES // int(np.prod(net.input_shape)))
        return cls(name, net, batch, max(1, count // batch) * batch)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The images, of shape (count, *input_shape)."""
        return _pixels(self.count, self.net.input_shape)

    @property
    def floats(self) -> NDArray[np.float32]:
        """The same images from 0 to 1."""
        return _floats(self.count, self.net.input_shape)

    @property
    def labels(self) -> NDArray[np.int64]:
        """A label for every image."""
        return np.random.default_rng(1).integers(0, self.net.output_shape[0], self.count)

    @property
    def order(self) -> NDArray[np.int64]:
        """The images by number, shuffled."""
        return np.random.default_rng(2).permutation(self.count)

    @property
    def steps(self) -> int:
        """Steps that see every image once."""
        return self.count // self.batch

    @property
    def first(self) -> NDArray[np.int64]:
        """The images of the first step, by number."""
        return self.order[: self.batch]


# The last data set is kept: in a process that measures one problem after the other, only one.
@functools.lru_cache(maxsize=1)
def _pixels(count: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


@functools.lru_cache(maxsize=1)
def _floats(count: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return _pixels(count, shape).astype(np.float32) / np.float32(255)


def training_flops(net: Network) -> int:
    """Return the floating-point operations of one image's training step.

    Multiply-adds of convolutions and matrix products count as two operations each, and the forward
    pass, the weights' gradient and the next delta take the same number of them. The lowest layer
    with parameters needs no next delta. Nothing else counts: not activations, pooling,
    normalisation or the optimizer; and a product that a smarter algorithm saves counts as done.
    """
    flops, trained_below = 0, False
    shapes = (net.input_shape, *net.shapes)
    for layer, given in zip(net.layers, shapes, strict=False):
        flops += 2 * layer.multiply_adds(given) * (3 if trained_below else 2)
        trained_below |= bool(layer.parameter_shapes(given))
    return flops


def inference_flops(net: Network) -> int:
    """Return the floating-point operations of one image's forward pass."""
    shapes = (net.input_shape, *net.shapes)
    return sum(2 * layer.multiply_adds(x) for layer, x in zip(net.layers, shapes, strict=False))
