r"""Losses: how wrong a batch's outputs are, as one number, and the first delta.

Both are means over the batch; with sample weights u, weighted means: sum of u l / sum of u.

Softmax and cross-entropy, together because their derivative is so simple. With the logits x and
the target distribution t (1 for the label, 0 elsewhere)::

    p[n, k] = exp(x[n, k]) / sum over j of exp(x[n, j])
    l[n]    = - sum over k of  t[n, k] log p[n, k]
    dx[n, k] = (p[n, k] - t[n, k]) / N

Label smoothing a takes a of the target away from the label and spreads it over all classes:
t = (1 - a) onehot + a / classes (Szegedy et al. 2016, section 7).

Sigmoid and binary cross-entropy, together for the same reason, with every output a question of its
own, t between 0 and 1::

    p[n, k] = 1 / (1 + exp(-x[n, k]))
    l[n]    = - sum over k of  t[n, k] log p[n, k] + (1 - t[n, k]) log(1 - p[n, k])
            =   sum over k of  max(x, 0) - t x + log(1 + exp(-|x|))     which never overflows
    dx[n, k] = (p[n, k] - t[n, k]) / N

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
    """Whether outputs are the logits of classes."""

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

    def probabilities(self, x: Array) -> Array | None:
        """Return what the loss makes of logits (N, outputs), or None where they are no logits."""
        return None

    def classes(self, outputs: int) -> int:
        """Return how many classes so many outputs tell apart."""
        return outputs

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
        return _labels(labels, outputs, f"the network has {outputs} outputs")

    def mixed(self, targets: Array, others: Array, share: float, outputs: int) -> Array:
        return share * one_hot(targets, outputs) + (1 - share) * one_hot(others, outputs)

    def forward(
        self, x: Array, targets: Array, sample_weight: Array | None = None
    ) -> tuple[float, Any]:
        log_p = _log_softmax(x)
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

    def probabilities(self, x: Array) -> Array:
        """Return the softmax."""
        return softmax(x)


@dataclass(frozen=True, repr=False)
class BinaryCrossEntropy(Loss):
    """Cross-entropy of the sigmoid of every logit for itself, added up over the outputs.

    Targets are labels of shape (N,), which mean one-hot rows, and 0 or 1 for a network of one
    output; or numbers from 0 to 1, of shape (N, outputs).
    """

    kind: ClassVar[str] = "binary_cross_entropy"
    classifies: ClassVar[bool] = True

    def targets(self, y: Any, images: int, outputs: int) -> Array:
        """Check labels or rows. Rows that are one-hot become labels, (N,); others stay floats.

        Raises
        ------
        ShapeError, InputError
            The shape is another one, a label is out of range, or a number is not from 0 to 1.
        """
        given = np.asarray(y)
        if given.shape == (images,) and (given.dtype.kind in "iu" or outputs > 1):
            bound = "one output, for 0 and 1" if outputs == 1 else f"{outputs} outputs"
            return _labels(given, self.classes(outputs), f"the network has {bound}")
        rows = _rows(given.astype(np.int64) if given.dtype.kind == "b" else given, images, outputs)
        if rows.size and not (rows.min() >= 0 and rows.max() <= 1):
            wrong = int(np.flatnonzero(((rows < 0) | (rows > 1)).any(axis=1))[0])
            raise InputError(
                f"targets of {self} must be from 0 to 1, but image {wrong} has another; "
                "MeanSquaredError() takes any numbers"
            )
        if not np.isin(rows, (0, 1)).all() or (outputs > 1 and (rows.sum(axis=1) != 1).any()):
            return rows
        return rows[:, 0].astype(np.int64) if outputs == 1 else rows.argmax(axis=1)

    def mixed(self, targets: Array, others: Array, share: float, outputs: int) -> Array:
        return share * one_hot(targets, outputs) + (1 - share) * one_hot(others, outputs)

    def forward(
        self, x: Array, targets: Array, sample_weight: Array | None = None
    ) -> tuple[float, Any]:
        t = one_hot(targets, x.shape[1]).astype(x.dtype, copy=False)
        share = _shares(sample_weight, x)
        losses = np.maximum(x, 0) - t * x + np.log1p(np.exp(-abs(x)))
        return float((share[:, None] * losses).sum(dtype=np.float64)), (_sigmoid(x), t, share)

    def backward(self, cache: Any) -> Array:
        p, t, share = cache
        dx: Array = (p - t) * share[:, None]
        return dx

    def probabilities(self, x: Array) -> Array:
        """Return the sigmoids."""
        return _sigmoid(x)

    def classes(self, outputs: int) -> int:
        """Return how many classes so many outputs tell apart: one output, 0 and 1."""
        return max(outputs, 2)


@dataclass(frozen=True, repr=False)
class MeanSquaredError(Loss):
    """Mean squared difference from targets of shape (N, outputs), or (N,) for one output.

    Whole numbers of shape (N,) given to several outputs are labels, and mean one-hot rows.
    """

    kind: ClassVar[str] = "mean_squared_error"
    classifies: ClassVar[bool] = False

    def targets(self, y: Any, images: int, outputs: int) -> Array:
        """Check targets and return them as (N, outputs) floats.

        Raises
        ------
        ShapeError, InputError
            The shape is another one, there are values that are not finite numbers, or a label is
            out of range.
        """
        given = np.asarray(y)
        if outputs > 1 and given.shape == (images,) and given.dtype.kind in "iu":
            return one_hot(_labels(given, outputs, f"the network has {outputs} outputs"), outputs)
        return _rows(given, images, outputs)

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


def one_hot(targets: Array, outputs: int) -> Array:
    """Return targets as rows (N, outputs): labels are 1 at their place and 0 elsewhere.

    Of one output, a label 0 or 1 is the number itself.
    """
    if targets.ndim == 2:
        return targets
    if outputs == 1:
        return targets[:, None].astype(np.float64)
    rows = np.zeros((len(targets), outputs))
    rows[np.arange(len(targets)), targets] = 1
    return rows


def share_right(answers: Array, targets: Array) -> Array:
    """Return how right labels that were answered are, (N,): the target's share of each, 0 to 1."""
    if targets.ndim == 1:
        shares: Array = answers == targets
    elif targets.shape[1] == 1:
        shares = np.where(answers == 1, targets[:, 0], 1 - targets[:, 0])
    else:
        shares = targets[np.arange(len(targets)), answers]
    return shares


def _labels(labels: Array, classes: int, where: str) -> Array:
    """Check labels of shape (N,), whole numbers from 0 to classes - 1."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels must be whole numbers from 0 to {classes - 1}, got {labels.dtype}; "
            "y.astype(int) converts whole floats"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
        raise InputError(
            f"label {labels[wrong]} of image {wrong} is out of range: {where}, "
            f"for labels 0 to {classes - 1}"
        )
    return labels.astype(np.int64, copy=False)


def _rows(targets: Array, images: int, outputs: int) -> Array:
    """Check numbers of shape (N, outputs), or (N,) for one output, and return rows of floats."""
    if targets.shape != (images, outputs) and not (outputs == 1 and targets.shape == (images,)):
        raise ShapeError(
            f"y must have shape {(images, outputs)}, one row of {outputs} numbers per image, "
            f"but has shape {targets.shape}"
        )
    if targets.dtype.kind not in "iuf":
        raise InputError(f"targets must be numbers, got {targets.dtype}")
    rows = targets.reshape(images, outputs).astype(np.float64, copy=False)
    if not np.isfinite(rows).all():
        wrong = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise InputError(f"the target of image {wrong} is not finite; remove it or correct it")
    return rows


def softmax(logits: Array) -> Array:
    """Return each row's exponentials divided by their sum, of shape (N, classes)."""
    with np.errstate(all="ignore"):
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def class_probabilities(loss: Loss, logits: Array) -> Array:
    """Return the probability of every class, (N, classes), from a classifier's logits (N, K).

    One output of a binary cross-entropy tells two classes apart: 0 and 1.
    """
    p = loss.probabilities(logits)
    if p is None:
        raise InputError(f"{loss} has no classes")
    if isinstance(loss, BinaryCrossEntropy) and p.shape[1] == 1:
        return np.hstack([1 - p, p])
    return p


def answered(loss: Loss, logits: Array) -> Array:
    """Return the most probable label of every row of a classifier's logits."""
    if isinstance(loss, BinaryCrossEntropy) and logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(np.int64)
    labels: Array = logits.argmax(axis=1)
    return labels


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)  # the largest exponent is 0: no overflow
    log_p: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_p


def _sigmoid(x: Array) -> Array:
    small = np.exp(-abs(x))  # of a number that is not positive: no overflow
    p: Array = np.where(x > 0, 1, small) / (1 + small)
    return p


def _shares(sample_weight: Array | None, x: Array) -> Array:
    """Each image's part in the mean: 1 / N, or its weight divided by the sum of all."""
    if sample_weight is None:
        return np.full(len(x), 1 / len(x), x.dtype)
    shares: Array = sample_weight / sample_weight.sum()
    return shares.astype(x.dtype, copy=False)
