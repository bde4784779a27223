"""What every layer is: a frozen description with a forward and a backward pass.

Notation, used in every layer and every docstring:

====================  ==============================================================
``N``                 images in the batch
``C``, ``H``, ``W``   channels, rows and columns of a layer's input
``K``, ``P``, ``Q``   filters (channels), rows and columns of its output
``R``, ``S``          rows and columns of a filter or a pooling window
``x``, ``y``          a layer's input and output
``dx``, ``dy``, ...   the gradient of the loss L with respect to x, y, ...: dL/dx, dL/dy.
                      The gradient of a layer's output, dy, is its *delta*
====================  ==============================================================

A layer holds no arrays. ``forward`` takes the parameters and returns, beside its output, what
``backward`` needs; ``backward`` takes the delta of the layer's output and returns the delta of its
input and the gradients of its parameters. Both are pure functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.options import shown

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Parameters: TypeAlias = Mapping[str, Array]


class Layer(ABC):
    """One layer, described by a frozen dataclass whose fields are its options.

    Shapes that are passed to or returned by the methods below are those of one image, without the
    batch axis: ``(C, H, W)`` or ``(features,)``.
    """

    kind: ClassVar[str]
    """The layer's word in the text form and in names: ``"conv"`` gives ``conv1``, ``conv2``."""

    gain: ClassVar[float | None] = None
    """For activations alone: the factor by which a layer before it scales its initial weights."""

    rectifies: ClassVar[bool] = False
    """For activations: whether a unit that is always negative gets no gradient, and so can die."""

    random: ClassVar[bool] = False
    """Whether ``forward`` draws random numbers in training, from its ``rng_key``."""

    @abstractmethod
    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one image; raises ShapeError where the input does not fit."""

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Shapes of the arrays that training updates."""
        return {}

    def statistic_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Shapes of the arrays that are measured on data and not trained."""
        return {}

    def initial_parameters(
        self,
        input_shape: Shape,
        rng: np.random.Generator,
        gain: float,
    ) -> dict[str, Array]:
        """Values of the parameters before training, in float64."""
        return {}

    def initial_statistics(self, input_shape: Shape) -> dict[str, Array]:
        """Values of the statistics before any data was seen, in float64."""
        return {}

    def multiply_adds(self, input_shape: Shape) -> int:
        """Multiply-adds of one image's forward pass, counted in convolutions and products only."""
        return 0

    def workspace(self, input_shape: Shape) -> int:
        """Values of one image that the forward pass takes beside its input and its output."""
        return 0

    @abstractmethod
    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        """Compute the output of a batch.

        Parameters
        ----------
        x : ndarray of shape (N, *input_shape)
        parameters : mapping of this layer's parameters and statistics, by their short names
        training : whether batch statistics and dropout are in force
        rng_key : the number that fixes a random layer's draws

        Returns
        -------
        y : ndarray of shape (N, *output_shape)
        cache : what ``backward`` needs
        """

    @abstractmethod
    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        """Carry the delta back through the layer.

        Parameters
        ----------
        dy : ndarray of shape (N, *output_shape), the delta dL/dy
        cache : what ``forward`` returned beside y
        parameters : the same mapping that ``forward`` was given

        Returns
        -------
        dx : ndarray of shape (N, *input_shape), the next delta dL/dx
        gradients : dL/dp for every trained parameter p
        """

    def next_statistics(self, cache: Any, statistics: Parameters) -> dict[str, Array]:
        """Statistics after a training step whose forward pass returned ``cache``."""
        return {}

    def __repr__(self) -> str:
        return shown(self)
