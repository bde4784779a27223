"""Dropout: in training, each feature is left out with some probability.

With m[n, c] = 1 / (1 - rate) where the feature stays and 0 where it is dropped::

    y = m x        dx = m dy        in training
    y = x          dx = dy          otherwise

The scale keeps the expected value of y at x, so that nothing changes when training ends.

Source: Srivastava et al., Dropout (2014), section 10, with the scale in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fullback.layers.base import Array, Layer, Parameters, Shape
from fullback.options import require_number, take_plain


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """Leave features out at random, in training only.

    Parameters
    ----------
    rate : probability of being left out, in [0, 1)

    Raises
    ------
    OptionError
        The rate is out of range.
    """

    rate: float = 0.5

    kind: ClassVar[str] = "dropout"
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        take_plain(self)
        require_number("Dropout: rate", self.rate, "[0, 1)")

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        if not training:
            return x, None
        stays = uniform(rng_key, x.size).reshape(x.shape) >= self.rate
        mask = stays.astype(x.dtype) / (1 - self.rate)
        return x * mask, mask

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        mask = cache
        return (dy if mask is None else dy * mask), {}


def uniform(rng_key: int, count: int) -> NDArray[np.float64]:
    """Return ``count`` numbers in [0, 1); number i is a function of the rng_key and i alone.

    That makes the draws independent of the order, and the thread, in which they are made.
    """
    z = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    z += np.uint64(rng_key)
    return (split_mix(z) >> np.uint64(11)).astype(np.float64) * 2.0**-53


GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""What the counter of SplitMix64 goes on by."""


def split_mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 random bits for every state of the counter.

    SplitMix64 (Steele, Lea and Flood 2014, figure 16), read as a hash of its counter.
    """
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
