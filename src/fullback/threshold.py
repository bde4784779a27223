"""From which probability on a class is answered, in place of the most probable class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.options import require_number, require_whole, take_plain


@dataclass(frozen=True)
class Threshold:
    """The probability from which on a class is answered.

    A classifier answers the most probable class, which is right where all mistakes cost the same.
    Where one class must not be missed, it is answered from a lower probability on.

    Parameters
    ----------
    label : int
        The class.
    value : float
        Its smallest probability, in (0, 1). Below it, the most probable of the other classes is
        answered.

    Raises
    ------
    OptionError
        It is not a label, or not a probability.
    """

    label: int
    value: float

    def __post_init__(self) -> None:
        take_plain(self)
        require_whole("the label of a threshold", self.label, 0)
        require_number("a threshold", self.value, "(0, 1)")

    def answers(self, probabilities: NDArray[Any]) -> NDArray[np.int64]:
        """Return the labels, of shape (N,), for probabilities of shape (N, classes)."""
        others = probabilities.copy()
        others[:, self.label] = -1
        labels: NDArray[np.int64] = others.argmax(axis=1)
        labels[probabilities[:, self.label] >= self.value] = self.label
        return labels


def answers(probabilities: NDArray[Any], threshold: Threshold | None) -> NDArray[np.int64]:
    """Return the labels of shape (N,) that are answered for probabilities (N, classes)."""
    if threshold is not None:
        return threshold.answers(probabilities)
    labels: NDArray[np.int64] = probabilities.argmax(axis=1)
    return labels
