"""What a classifier is worth: figures and curves of a set of answers, and thresholds for them.

The mathematics is scikit-learn's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.errors import InputError, OptionError, ShapeError
from fullback.options import require_number, require_whole
from fullback.threshold import Threshold, answers

_BINS = 10


@dataclass(frozen=True, eq=False)
class Metrics:
    """Figures of a classifier's answers to N images of K classes.

    Attributes
    ----------
    accuracy : share of right answers
    auc, macro_auc : area under the ROC curve of every class against all others, of shape (K,), and
        their mean: the probability that an image of the class has a higher probability for it than
        one of another class; NaN where all images are of the class, or none is
    average_precision : area under the precision-recall curve of every class, likewise
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
    auc: NDArray[np.float64]
    macro_auc: float
    average_precision: NDArray[np.float64]
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


def measure(
    labels: ArrayLike,
    probabilities: ArrayLike,
    k: int | None = None,
    *,
    threshold: Threshold | None = None,
) -> Metrics:
    """Return the figures of a classifier's answers.

    Parameters
    ----------
    labels : of shape (N,), from 0 to K - 1
    probabilities : what ``Network.predict_proba`` returns, of shape (N, K)
    k : for ``top_k``; by default 3, or 5 of more than ten classes, or 1 of two
    threshold : from which probability on a class is answered; None for the most probable class

    Raises
    ------
    ShapeError, InputError
        The arrays do not fit together, hold NaN, or a label is not a class.
    """
    from sklearn import metrics
    from sklearn.calibration import calibration_curve

    y, p = _checked(labels, probabilities)
    classes = np.arange(p.shape[1])
    if k is not None:
        require_whole("k", k, 1)
        if k > len(classes):
            raise InputError(f"k (={k}) is more than the {len(classes)} classes")
    else:
        k = 1 if len(classes) < 3 else 5 if len(classes) > 10 else min(3, len(classes) - 1)
    given = answers(p, threshold)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y, given, labels=classes, zero_division=0.0
    )
    confusion: NDArray[np.int64] = metrics.confusion_matrix(y, given, labels=classes)
    there = confusion.sum(axis=0) + confusion.sum(axis=1) > 0
    top = np.argsort(-p, axis=1, kind="stable")[:, :k]
    surest = np.minimum(p.max(axis=1), 1.0)
    right, probability = calibration_curve(p.argmax(axis=1) == y, surest, n_bins=_BINS)
    place = np.searchsorted(np.linspace(0, 1, _BINS + 1)[1:-1], surest)
    images = np.bincount(place, minlength=_BINS)
    images = images[images > 0]
    areas = np.full((2, len(classes)), np.nan)
    for curve in curves(y, p):
        areas[:, curve.label] = curve.auc, curve.average_precision
    known = np.isfinite(areas[0])
    return Metrics(
        accuracy=float(metrics.accuracy_score(y, given)),
        auc=areas[0],
        macro_auc=float(areas[0][known].mean()) if known.any() else float("nan"),
        average_precision=areas[1],
        k=k,
        top_k=float((top == y[:, None]).any(axis=1).mean()),
        precision=precision,
        recall=recall,
        f1=f1,
        support=np.asarray(support).astype(np.int64),
        macro_f1=float(f1[there].mean()),
        confusion=confusion,
        calibration_error=float(images @ abs(right - probability) / len(y)),
        probability=probability,
        right=right,
        images=images,
    )


def _checked(
    labels: ArrayLike, probabilities: ArrayLike
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return labels and probabilities, of shapes (N,) and (N, K), or raise what is wrong."""
    y, p = np.asarray(labels), np.asarray(probabilities, np.float64)
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(y):
        raise ShapeError(
            f"labels of shape {y.shape} and probabilities of shape {p.shape} do not fit; expected "
            "(N,) and (N, K)"
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise InputError(f"labels must be whole numbers from 0 to {p.shape[1] - 1}")
    if not np.isfinite(p).all() or p.min() < 0 or p.max() > 1 + 1e-6:
        raise InputError("probabilities must be from 0 to 1")
    return y, p


# Curves and thresholds --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Curve:
    """What can be had of one class against all others, over every threshold of its probability.

    Attributes
    ----------
    label : the class
    false_positives, true_positives, auc : its ROC curve, as shares of the other classes' images and
        of its positive, and the area under it
    recall, precision, average_precision : its precision-recall curve, and the area under it
    share : of the images that are of this class: the precision of answers by chance
    """

    label: int
    false_positives: NDArray[np.float64]
    true_positives: NDArray[np.float64]
    auc: float
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    average_precision: float
    share: float


def curves(labels: ArrayLike, probabilities: ArrayLike) -> list[Curve]:
    """Return the curves of every class that has images, while others have some, too.

    Parameters
    ----------
    labels, probabilities : of shapes (N,) and (N, K), as in ``measure``

    Raises
    ------
    ShapeError, InputError
        As in ``measure``.
    """
    from sklearn import metrics

    y, p = _checked(labels, probabilities)
    found = []
    for label in np.unique(y).tolist():
        positive = y == label
        if positive.all():
            continue
        false, true, _ = metrics.roc_curve(positive, p[:, label])
        precision, recall, _ = metrics.precision_recall_curve(positive, p[:, label])
        found.append(
            Curve(
                label,
                false,
                true,
                float(metrics.auc(false, true)),
                recall,
                precision,
                float(metrics.average_precision_score(positive, p[:, label])),
                float(positive.mean()),
            )
        )
    return found


def choose_threshold(
    labels: ArrayLike,
    probabilities: ArrayLike,
    label: int,
    *,
    recall: float | None = None,
    cost: tuple[float, float] | None = None,
) -> Threshold:
    """Choose the probability from which on a class is answered, for an aim.

    It lies half way between two probabilities that occur, so that rounding does not matter.

    Parameters
    ----------
    labels, probabilities : of shapes (N,) and (N, K), as in ``measure``
    label : the class
    recall : the share of its images that is to be found, in (0, 1]; of the thresholds that reach
        it, the one with the highest precision is taken
    cost : of a false positive and of a false negative, an image of the class that is not found; the
        threshold with the smallest sum of costs is taken

    Raises
    ------
    OptionError
        Not one aim is given, or it is out of range.
    InputError
        There are no images of the class, or of no other one; or the threshold that is best answers
        the same class to every image.
    """
    from sklearn.metrics import roc_curve

    y, p = _checked(labels, probabilities)
    if (recall is None) == (cost is None):
        raise OptionError("a threshold is chosen for a recall or for a cost: give one of them")
    if recall is not None:
        require_number("recall", recall, "(0, 1]")
    for name, value in zip(("a false positive", "a miss"), cost or (), strict=False):
        require_number(f"the cost of {name}", value, "(0, 1e12)")
    positive = y == label
    if positive.all() or not positive.any():
        raise InputError(
            f"there are {positive.sum():,} images of class {label} among {len(positive):,}; a "
            "threshold is chosen where there are some of it and some of other classes"
        )
    false, true, values = roc_curve(positive, p[:, label], drop_intermediate=False)
    wrong = np.rint(false * (~positive).sum())  # images, not shares
    right = np.rint(true * positive.sum())
    if cost is not None:
        best = int(np.argmin(wrong * cost[0] + (positive.sum() - right) * cost[1]))
    else:
        precision = right / np.maximum(right + wrong, 1)
        reached = right >= np.ceil(float(recall or 0) * positive.sum() - 1e-9)
        best = int(np.argmax(np.where(reached, precision, -1.0)))
    if best == 0 or right[best] + wrong[best] == len(positive):
        every = "no image" if best == 0 else "every image"
        raise InputError(
            f"the best threshold for this aim answers class {label} to {every}: the model does not "
            "tell the classes apart well enough for it; aim at less"
        )
    middle = (values[best] + values[best + 1]) / 2
    return Threshold(label, float(middle if middle > values[best + 1] else values[best]))


def most_wrong(
    labels: NDArray[np.int64], probabilities: NDArray[Any], threshold: Threshold | None = None
) -> list[int]:
    """Return the images that were answered wrong, the least probable labels first."""
    of_label = probabilities[np.arange(len(labels)), labels]
    wrong = answers(probabilities, threshold) != labels
    return [int(n) for n in np.argsort(of_label, kind="stable") if wrong[n]]


def as_json(found: Metrics) -> dict[str, Any]:
    """Return the figures as JSON holds them."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(found).items()
    }
