r"""Losses: how wrong a batch's outputs are, as one number, and the first delta.

Both are means over the batch; with sample weights u, weighted means: sum of u l / sum of u.

Softmax and cross-entropy, together because their derivative is so simple. With the logits x and
the target distribution t (1 for the label, 0 elsewhere)::

    p[n, k] = exp(x[n, k]) / sum over j of exp(x[n, j])
    l[n]    = - sum over k of  t[n, k] log p[n, k]
    dx[n, k] = (p[n, k] - t[n, k]) / N

Label smoothing a takes a of the target away from the label and spreads it over all classes:
t = (1 - a) onehot + a / classes (Szegedy et al. 2016, section 7).

Mean squared error, over a batch of N images and K outputs::

    l[n]     = sum over k of  (x[n, k] - t[n, k])^2 / K
    dx[n, k] = 2 (x[n, k] - t[n, k]) / (N K)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fullback.errors import InputError, ShapeError
from fullback.layers.base import Array
from fullback.options import require_number, shown, take_plain


class Loss(ABC):
    """A loss, described by a frozen dataclass."""

    kind: ClassVar[str]

    classifies: ClassVar[bool]
    """Whether targets are labels and outputs the logits of classes."""

    @abstractmethod
    def targets(self, y: Any, images: int, outputs: int) -> Array:
        """Check what a user gave as ``y`` and bring it to the shape that ``forward`` takes."""

    @abstractmethod
    def mixed(self, targets: Array, others: Array, share: float, outputs: int) -> Array:
        """Return targets of images that were mixed: their own by a share, others' by the rest."""

    @abstractmethod
    def forward(
        self, x: Array, targets: Array, sample_weight: Array | None = None
    ) -> tuple[float, Any]:
        """Return the loss, and what ``backward`` needs.

        Parameters
        ----------
        x : ndarray of shape (N, outputs), the last layer's output
        targets : what ``targets`` or ``mixed`` returned
        sample_weight : ndarray of shape (N,), not negative and not all zero
        """

    @abstractmethod
    def backward(self, cache: Any) -> Array:
        """Return the first delta, dL/dx, of shape (N, outputs)."""

    def __repr__(self) -> str:
        return shown(self)


@dataclass(frozen=True, repr=False)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of the softmax of the logits, for labels that are class indices.

    Parameters
    ----------
    label_smoothing : a, in [0, 1)
    """

    label_smoothing: float = 0.0

    kind: ClassVar[str] = "softmax_cross_entropy"
    classifies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        take_plain(self)
        require_number("SoftmaxCrossEntropy: label_smoothing", self.label_smoothing, "[0, 1)")

    def targets(self, y: Any, images: int, outputs: int) -> Array:
        """Check labels, of shape (N,), whole numbers from 0 to outputs - 1.

        Raises
        ------
        ShapeError, InputError
            There is not one label per image, or a label is not the index of an output.
        """
        labels = np.asarray(y)
        if labels.shape != (images,):
            hint = (
                "; y.argmax(axis=1) turns one-hot rows into labels"
                if labels.shape == (images, outputs)
                else ""
            )
            raise ShapeError(
                f"y must be {images} labels, one per image, but has shape {labels.shape}{hint}"
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(
                f"labels must be whole numbers from 0 to {outputs - 1}, got {labels.dtype}; "
                "y.astype(int) converts whole floats"
            )
        if labels.size and (labels.min() < 0 or labels.max() >= outputs):
            wrong = int(np.flatnonzero((labels < 0) | (labels >= outputs))[0])
            raise InputError(
                f"label {labels[wrong]} of image {wrong} is out of range: the network has "
                f"{outputs} outputs, for labels 0 to {outputs - 1}"
            )
        return labels.astype(np.int64, copy=False)

    def mixed(self, targets: Array, others: Array, share: float, outputs: int) -> Array:
        rows = np.zeros((len(targets), outputs))
        rows[np.arange(len(targets)), targets] += share
        rows[np.arange(len(targets)), others] += 1 - share
        return rows

    def forward(
        self, x: Array, targets: Array, sample_weight: Array | None = None
    ) -> tuple[float, Any]:
        shifted = x - x.max(axis=1, keepdims=True)  # the largest exponent is 0: no overflow
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        t = np.full(x.shape, self.label_smoothing / x.shape[1], x.dtype)
        if targets.ndim == 2:
            t += ((1 - self.label_smoothing) * targets).astype(x.dtype)
        else:
            t[np.arange(len(x)), targets] += 1 - self.label_smoothing
        share = _shares(sample_weight, x)
        loss = -(share[:, None] * t * log_p).sum(dtype=np.float64)
        return float(loss), (np.exp(log_p), t, share)

    def backward(self, cache: Any) -> Array:
        p, t, share = cache
        dx: Array = (p - t) * share[:, None]
        return dx


@dataclass(frozen=True, repr=False)
class MeanSquaredError(Loss):
    """Mean squared difference from targets of shape (N, outputs), or (N,) for one output."""

    kind: ClassVar[str] = "mean_squared_error"
    classifies: ClassVar[bool] = False

    def targets(self, y: Any, images: int, outputs: int) -> Array:
        """Check targets and return them as (N, outputs) floats.

        Raises
        ------
        ShapeError, InputError
            The shape is another one, or there are values that are not finite numbers.
        """
        targets = np.asarray(y)
        if targets.shape != (images, outputs) and not (outputs == 1 and targets.shape == (images,)):
            raise ShapeError(
                f"y must have shape {(images, outputs)}, one row of {outputs} numbers per image, "
                f"but has shape {targets.shape}"
            )
        if targets.dtype.kind not in "iuf":
            raise InputError(f"targets must be numbers, got {targets.dtype}")
        targets = targets.reshape(images, outputs).astype(np.float64, copy=False)
        if not np.isfinite(targets).all():
            wrong = int(np.flatnonzero(~np.isfinite(targets).all(axis=1))[0])
            raise InputError(f"the target of image {wrong} is not finite; remove it or correct it")
        return targets

    def mixed(self, targets: Array, others: Array, share: float, outputs: int) -> Array:
        return share * targets + (1 - share) * others

    def forward(
        self, x: Array, targets: Array, sample_weight: Array | None = None
    ) -> tuple[float, Any]:
        difference = x - targets.astype(x.dtype, copy=False)
        share = _shares(sample_weight, x)
        loss = (share * (difference**2).mean(axis=1)).sum(dtype=np.float64)
        return float(loss), (difference, share)

    def backward(self, cache: Any) -> Array:
        difference, share = cache
        dx: Array = 2 * difference * share[:, None] / difference.shape[1]
        return dx


def _shares(sample_weight: Array | None, x: Array) -> Array:
    """Each image's part in the mean: 1 / N, or its weight divided by the sum of all."""
    if sample_weight is None:
        return np.full(len(x), 1 / len(x), x.dtype)
    shares: Array = sample_weight / sample_weight.sum()
    return shares.astype(x.dtype, copy=False)
