"""The threshold of ``fullback eval --recall`` and ``--cost``: how it is chosen and what it does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fullback.cli.models import label_of, labels_by_name
from fullback.cli.output import Output, printable, warn
from fullback.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fullback.cli.results import Answers
    from fullback.data import Dataset
    from fullback.network import Network

PartName: TypeAlias = Literal["val", "train", "test"]

_HARDLY = 0.6  # the area under the ROC curve below which a threshold is of little use
_CALLED = {"val": "validation", "train": "training", "test": "test"}


@dataclass(frozen=True)
class Aim:
    """What a threshold is chosen for: a recall of a class, or the least cost.

    Attributes
    ----------
    label : the class
    recall : the share of its images that is found, in (0, 1], or None
    cost : of a false positive and of a false negative, or None
    """

    label: int
    recall: float | None = None
    cost: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.cost is not None:
            return "the costs {:g}:{:g}".format(*self.cost)
        return f"a recall of {self.recall:.2%}"


@dataclass(frozen=True)
class Choice:
    """For what a threshold was chosen, on which part of the data, and on how many images."""

    aim: Aim
    part: PartName
    images: int


def read_aim(
    network: Network, positive: str | None, recall: float | None, cost: str | None
) -> Aim | None:
    """Read ``--positive``, ``--recall`` and ``--cost``; None where no threshold is chosen.

    Raises
    ------
    OptionError
        They do not go together, or one is none of its values.
    """
    if recall is not None and cost is not None:
        raise OptionError("a threshold is chosen for --recall or for --cost; leave one out")
    if recall is None and cost is None:
        if positive is not None:
            raise OptionError("--positive goes with --recall or --cost, which choose a threshold")
        return None
    outputs = network.output_shape[0]
    if positive is None and outputs != 2:
        raise OptionError(f"--positive CLASS is needed: the model knows {outputs} classes")
    label = 1 if positive is None else label_of(network, positive, "--positive")
    if recall is not None:
        if not 0 < recall <= 1:
            raise OptionError(f"--recall must be a share above 0 and up to 1, got {recall:g}")
        return Aim(label, recall=recall)
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(f"{number}:{number}", str(cost))
    if not match:
        raise OptionError(f"--cost must be like 1:20, false positive : false negative, got {cost}")
    return Aim(label, cost=(float(match[1]), float(match[2])))


def choose(
    network: Network, dataset: Dataset, aim: Aim, part: PartName | None, numbers: tuple[str, ...]
) -> Choice:
    """Choose a threshold and give it to the network.

    Parameters
    ----------
    part : the images on which it is chosen; None for those for validation, or else for training
    numbers : what classes are called where the data has numbers alone

    Raises
    ------
    OptionError
        There are no images for validation.
    """
    from sklearn.metrics import roc_auc_score

    from fullback.metrics import choose_threshold

    chosen_on: PartName = part or ("train" if dataset.x_val is None else "val")
    x, y = getattr(dataset, f"x_{chosen_on}"), getattr(dataset, f"y_{chosen_on}")
    if x is None:
        raise OptionError(
            f"--choose-on val: {dataset.name} has no images for validation; put some into a folder "
            "val, or give --choose-on train"
        )
    labels = labels_by_name(network, dataset.name, dataset.class_names, y, numbers)
    p = network.predict_proba(x)
    network.threshold = choose_threshold(labels, p, aim.label, recall=aim.recall, cost=aim.cost)
    area = roc_auc_score(labels == aim.label, p[:, aim.label])
    if area < _HARDLY:
        warn(
            f"the model hardly distinguishes {network.answer_names[aim.label]} from other images "
            f"(AUC {area:.2f}, and 0.5 is chance), and a threshold does not change that; train it "
            "better"
        )
    if chosen_on == "test":
        warn(
            "the threshold is chosen on the test images, so that their figures at it are too good; "
            "choose it on images that are not tested on"
        )
    elif chosen_on == "train" and part is None:
        warn(
            f"the threshold is chosen on the training images, as {dataset.name} has none for "
            "validation; a model is surer of images that it has learned than of others, so look at "
            "the figures of the test images"
        )
    return Choice(aim, chosen_on, len(x))


def as_json(network: Network, choice: Choice | None, *, store: bool) -> dict[str, Any] | None:
    """Return a network's threshold for machines; None where it has none."""
    threshold = network.threshold
    if threshold is None:
        return None
    return {
        "label": threshold.label,
        "name": printable(network.answer_names[threshold.label]),
        "value": threshold.value,
        "chosen_on": None if choice is None else choice.part,
        "stored": store or choice is None,
    }


def show(output: Output, network: Network, answers: Answers, choice: Choice | None) -> None:
    """Say what a network's threshold is, and what the test's answers are with and without it."""
    threshold = network.threshold
    if threshold is None:
        return
    how = "as stored in the model"
    if choice is not None:
        how = f"chosen on {choice.images:,} {_CALLED[choice.part]} images for {choice.aim}"
    name = network.answer_names[threshold.label]
    output.fact("threshold", f"{name} is answered from probability {threshold.value:.4g} on, {how}")
    cost = None if choice is None else choice.aim.cost
    positive = answers.labels == threshold.label
    for predicted, when in (
        (answers.predicted, "with it"),
        (answers.probabilities.argmax(axis=1), "without"),
    ):
        output.fact(when, _figures(positive, predicted == threshold.label, cost))


def _figures(
    positive: NDArray[np.bool_],
    answered: NDArray[np.bool_],
    cost: tuple[float, float] | None,
) -> str:
    """Say how many images (N,) of the class were found, missed, and answered so by mistake."""
    found = int((positive & answered).sum())
    false, missed = int(answered.sum()) - found, int(positive.sum()) - found
    recall, precision = found / max(found + missed, 1), found / max(found + false, 1)
    words = f"recall {recall:.1%}, precision {precision:.1%}; "
    words += f"{false:,} false positives, {missed:,} missed"
    return words if cost is None else f"{words}, cost {false * cost[0] + missed * cost[1]:,g}"
