"""The weights that images have by their class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.errors import InputError, OptionError
from fullback.layers.base import Array
from fullback.model import Model
from fullback.options import require_number, require_whole

ClassWeight: TypeAlias = Mapping[int, float] | Literal["balanced"]


def class_weights(
    net: Model, targets: Array, class_weight: ClassWeight, weights: Array | None
) -> NDArray[np.float64]:
    """Return the weight of every class.

    Parameters
    ----------
    net : the network
    targets : labels of the training images, of shape (N,)
    class_weight : weights by label, or "balanced" for the same weight of all classes together
    weights : weights of the images, of shape (N,), or None

    Raises
    ------
    OptionError, InputError
        Weights that cannot be used, or the loss has no classes, or no image is left.
    """
    if not net.loss.classifies:
        raise OptionError(f"class_weight needs a classification loss, and the loss is {net.loss}")
    if targets.ndim == 2:
        raise OptionError("class_weight needs labels of shape (N,), but y has rows of numbers")
    outputs = net.loss.classes(net.output_shape[0])
    weights = np.ones(len(targets)) if weights is None else weights
    if isinstance(class_weight, str) and class_weight == "balanced":
        sums = np.bincount(targets, weights, minlength=outputs)
        return weights.sum() / (np.count_nonzero(sums) * np.where(sums > 0, sums, 1))  # type: ignore[no-any-return]
    if not isinstance(class_weight, Mapping):
        raise OptionError(f"class_weight must be a dict or 'balanced', got {class_weight!r}")
    of_class = np.ones(outputs)
    for label, weight in class_weight.items():
        require_whole("a label in class_weight", label, 0)
        require_number(f"class_weight[{label}]", weight, "[0, inf)")
        if label >= outputs:
            raise OptionError(f"class_weight has label {label}; labels are 0 to {outputs - 1}")
        of_class[label] = weight
    if not (of_class[targets] * weights).any():
        raise InputError("with this class_weight every image has weight 0; nothing is trained on")
    return of_class
