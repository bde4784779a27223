r"""Normalisation: batch normalisation, and a fixed one that a model carries for its input.

Batch normalisation, with the mean m and the variance v of each channel over the batch and all
positions, M = N H W values::

    z = (x - m) / sqrt(v + eps)            y = weight z + bias

    dweight = sum of dy z                  dbias = sum of dy
    dx = weight / sqrt(v + eps) (dy - dbias / M - z dweight / M)

The two subtracted terms are there because every x also moved m and v. Outside training, m and v
are the running statistics, which are constants, and the terms vanish.

Source: Ioffe and Szegedy, Batch Normalization (2015), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fullback.layers.base import Array, Layer, Parameters, Shape
from fullback.layers.window import require_image
from fullback.options import require_number, take_plain


@dataclass(frozen=True, repr=False)
class BatchNorm2D(Layer):
    """Bring every channel of a (C, H, W) image to mean 0 and variance 1, then scale and shift it.

    In training, mean and variance are the batch's, and the running ones move towards them. In
    prediction, and in training while the layer is frozen, they are the running ones.

    Parameters
    ----------
    momentum : share of a batch's statistics in the running ones after a step, in [0, 1]
    epsilon : number added to the variance, in [0, 1]

    Raises
    ------
    OptionError
        An option is out of range.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    kind: ClassVar[str] = "batchnorm"

    def __post_init__(self) -> None:
        take_plain(self)
        require_number("BatchNorm2D: momentum", self.momentum, "[0, 1]")
        require_number("BatchNorm2D: epsilon", self.epsilon, "[0, 1]")

    def output_shape(self, input_shape: Shape) -> Shape:
        return require_image("BatchNorm2D", input_shape)

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        return {"weight": input_shape[:1], "bias": input_shape[:1]}

    def statistic_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        return {"mean": input_shape[:1], "variance": input_shape[:1]}

    def initial_parameters(
        self, input_shape: Shape, rng: np.random.Generator, gain: float
    ) -> dict[str, Array]:
        return {"weight": np.ones(input_shape[0]), "bias": np.zeros(input_shape[0])}

    def initial_statistics(self, input_shape: Shape) -> dict[str, Array]:
        return {"mean": np.zeros(input_shape[0]), "variance": np.ones(input_shape[0])}

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        if training:
            mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
        else:
            mean, variance = parameters["mean"], parameters["variance"]
        scale = 1 / np.sqrt(variance + self.epsilon)  # (C,)
        z = (x - _channel(mean)) * _channel(scale)
        y = _channel(parameters["weight"]) * z + _channel(parameters["bias"])
        return y, (z, scale, (mean, variance) if training else None)

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        z, scale, batch = cache
        dweight = (dy * z).sum(axis=(0, 2, 3))
        dbias = dy.sum(axis=(0, 2, 3))
        through = dy
        if batch is not None:
            count = dy.size // dy.shape[1]  # N H W
            through = dy - _channel(dbias) / count - z * _channel(dweight) / count
        dx = _channel(parameters["weight"] * scale) * through
        return dx, {"weight": dweight, "bias": dbias}

    def next_statistics(self, cache: Any, statistics: Parameters) -> dict[str, Array]:
        """Move the running mean and variance (the unbiased one) towards the batch's."""
        z, _, batch = cache
        if batch is None:
            return {}
        mean, variance = batch
        count = z.size // z.shape[1]
        unbiased = variance * (count / max(count - 1, 1))
        old, new = 1 - self.momentum, self.momentum
        return {
            "mean": old * statistics["mean"] + new * mean,
            "variance": old * statistics["variance"] + new * unbiased,
        }


@dataclass(frozen=True, repr=False)
class Normalize(Layer):
    """Bring every channel of the input to mean 0 and standard deviation 1: ``y = (x - m) / s``.

    m and s are measured once, on the training data, by ``Network.adapt`` (``fit`` calls it where
    nothing has), and saved with the model, which so carries its own preprocessing. Until then the
    layer changes nothing. A channel without any spread is only shifted.
    """

    kind: ClassVar[str] = "normalize"

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def statistic_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        return {"mean": input_shape[:1], "deviation": input_shape[:1], "images": ()}

    def initial_statistics(self, input_shape: Shape) -> dict[str, Array]:
        return {
            "mean": np.zeros(input_shape[0]),
            "deviation": np.ones(input_shape[0]),
            "images": np.zeros(()),  # how many images were measured
        }

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        return (x - _like(parameters["mean"], x)) / _like(parameters["deviation"], x), None

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        return dy / _like(parameters["deviation"], dy), {}

    def measured(self, batches: Iterable[Array]) -> dict[str, Array]:
        """Return the statistics of images that come in batches (N, C, H, W) or (N, features).

        Batches are merged as in Chan, Golub and LeVeque (1983), equation 2.1.
        """
        mean = squares = np.zeros(())
        count = images = 0
        for x in batches:
            axes = (0, *range(2, x.ndim))
            cells, own_mean = x.size // x.shape[1], x.mean(axis=axes)
            own_squares = ((x - _like(own_mean, x)) ** 2).sum(axis=axes)
            shift, total = own_mean - mean, count + cells
            mean = mean + shift * (cells / total)
            squares = squares + own_squares + shift**2 * (count * cells / total)
            count, images = total, images + len(x)
        deviation = np.sqrt(squares / count)  # of a constant: not 0, but the mean's rounding
        return {
            "mean": mean,
            "deviation": np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0),
            "images": np.asarray(float(images)),
        }


def _channel(values: Array) -> Array:
    """(C,) as (C, 1, 1), to meet (N, C, H, W)."""
    return values[:, None, None]


def _like(values: Array, x: Array) -> Array:
    """(C,) with as many axes behind it as x has behind its channels."""
    return values.reshape(values.shape + (1,) * (x.ndim - 2))
