"""What a classifier is worth: figures of a set of answers. Their mathematics is scikit-learn's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.errors import InputError, ShapeError
from fullback.options import require_whole

_BINS = 10


@dataclass(frozen=True, eq=False)
class Metrics:
    """Figures of a classifier's answers to N images of K classes.

    Attributes
    ----------
    accuracy : share of right answers
    k, top_k : share of images whose label is among the k most probable classes
    precision, recall, f1 : of every class, of shape (K,); 0 where they are not defined
    support : images of every class, of shape (K,)
    macro_f1 : mean of f1 over the classes that have images or were answered
    confusion : images by label and answer, of shape (K, K)
    calibration_error : how far the probability of the answers is from the share that is right,
        on average over ten equal ranges of probability (Guo et al. 2017, equation 3)
    probability, right, images : the curve of that: of every range that is not empty, the mean
        probability of the answers, the share that is right, and how many there are
    """

    accuracy: float
    k: int
    top_k: float
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    macro_f1: float
    confusion: NDArray[np.int64]
    calibration_error: float
    probability: NDArray[np.float64]
    right: NDArray[np.float64]
    images: NDArray[np.int64]


def measure(labels: ArrayLike, probabilities: ArrayLike, k: int | None = None) -> Metrics:
    """Return the figures of a classifier's answers.

    Parameters
    ----------
    labels : of shape (N,), from 0 to K - 1
    probabilities : what ``Network.predict_proba`` returns, of shape (N, K)
    k : for ``top_k``; by default 3, or 5 of more than ten classes, or 1 of two

    Raises
    ------
    ShapeError, InputError
        The arrays do not fit together, hold NaN, or a label is no class.
    """
    from sklearn import metrics
    from sklearn.calibration import calibration_curve

    y, p = np.asarray(labels), np.asarray(probabilities, np.float64)
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(y):
        raise ShapeError(
            f"labels of shape {y.shape} and probabilities of shape {p.shape} do not fit; expected "
            "(N,) and (N, K)"
        )
    classes = np.arange(p.shape[1])
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= len(classes):
        raise InputError(f"labels must be whole numbers from 0 to {len(classes) - 1}")
    if not np.isfinite(p).all() or p.min() < 0 or p.max() > 1 + 1e-6:
        raise InputError("probabilities must be from 0 to 1")
    if k is not None:
        require_whole("k", k, 1)
        if k > len(classes):
            raise InputError(f"k (={k}) is more than the {len(classes)} classes")
    else:
        k = 1 if len(classes) < 3 else 5 if len(classes) > 10 else min(3, len(classes) - 1)
    answers: NDArray[np.int64] = p.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y, answers, labels=classes, zero_division=0.0
    )
    confusion: NDArray[np.int64] = metrics.confusion_matrix(y, answers, labels=classes)
    there = confusion.sum(axis=0) + confusion.sum(axis=1) > 0
    top = np.argsort(-p, axis=1, kind="stable")[:, :k]
    surest = np.minimum(p.max(axis=1), 1.0)
    right, probability = calibration_curve(answers == y, surest, n_bins=_BINS)
    place = np.searchsorted(np.linspace(0, 1, _BINS + 1)[1:-1], surest)
    images = np.bincount(place, minlength=_BINS)
    images = images[images > 0]
    return Metrics(
        accuracy=float(metrics.accuracy_score(y, answers)),
        k=k,
        top_k=float((top == y[:, None]).any(axis=1).mean()),
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        macro_f1=float(f1[there].mean()),
        confusion=confusion,
        calibration_error=float(images @ abs(right - probability) / len(y)),
        probability=probability,
        right=right,
        images=images,
    )


def most_wrong(labels: NDArray[np.int64], probabilities: NDArray[Any]) -> list[int]:
    """Return the images that were answered wrong, the least probable labels first."""
    of_label = probabilities[np.arange(len(labels)), labels]
    wrong = probabilities.argmax(axis=1) != labels
    return [int(n) for n in np.argsort(of_label, kind="stable") if wrong[n]]


def as_json(found: Metrics) -> dict[str, Any]:
    """Return the figures as JSON holds them."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(found).items()
    }
