"""What a training run was like, epoch by epoch, and which of its epochs were better than others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fullback.errors import InputError, OptionError

Monitor: TypeAlias = Literal["loss", "accuracy", "balanced", "f1"]

MONITORS: tuple[str, ...] = get_args(Monitor)
"""What an epoch can be judged by."""

_SHARES = ("accuracy", "validation_accuracy", "validation_balanced", "validation_f1")
_MOST = 1e300  # of a figure that is read from a file


@dataclass(frozen=True)
class ValidationFigures:
    """What a network is worth on validation data; see Epoch."""

    loss: float | None = None
    accuracy: float | None = None
    balanced: float | None = None
    f1: float | None = None


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes
    ----------
    epoch : its number, from 1
    loss : mean of the batches' losses while they were trained
    accuracy : share of images that were right while they were trained; None without classes. Where
        images are mixed, either label counts by its share
    validation_loss : the loss of the validation data after the epoch, with the class weights that
        the training data have; None without validation data
    validation_accuracy : share of the validation images that were right after the epoch, or None
    seconds : time it took, without validation
    images_per_second : images trained in a second
    validation_balanced : mean of the recall of every class that the validation data have
        (scikit-learn's ``balanced_accuracy_score``), or None
    validation_f1 : mean of the F1 score of every class (scikit-learn's ``f1_score`` with
        ``average="macro"``), or None
    learning_rate : that of the epoch's last step
    """

    epoch: int
    loss: float
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    images_per_second: float
    validation_balanced: float | None = None
    validation_f1: float | None = None
    learning_rate: float | None = None

    @property
    def figure(self) -> float:
        """Its score, the higher the better.

        Its validation accuracy; or minus its validation loss; or minus its loss: the first of them
        that there is.
        """
        if self.validation_accuracy is not None:
            return self.validation_accuracy
        return -self.monitored_loss

    @property
    def monitored_loss(self) -> float:
        """Its validation loss, or without validation data its training loss."""
        return self.loss if self.validation_loss is None else self.validation_loss

    def judged_by(self, monitor: Monitor) -> float:
        """Return what it is judged by, the higher the better: minus the loss, or a share.

        Of the validation data, or where there are none, of the training data while they were
        trained.

        Raises
        ------
        InputError
            The epoch has no such figure.
        """
        if monitor == "loss":
            return -self.monitored_loss
        value = getattr(self, f"validation_{monitor}")
        if value is None and monitor == "accuracy":
            value = self.accuracy
        if value is None:
            raise InputError(
                f"epoch {self.epoch} has no validation_{monitor} to be judged by; give "
                "validation_data and a network that classifies, or monitor='loss'"
            )
        return float(value)

    @classmethod
    def read(cls, figures: Mapping[str, Any]) -> Epoch:
        """Return an epoch from the figures that a file holds.

        Raises
        ------
        ValueError
            A figure is missing, has another type, or a value that it cannot have.
        """
        known = {field.name: field for field in fields(cls)}
        if not isinstance(figures, Mapping) or not figures.keys() <= known.keys():
            raise ValueError("unknown figures")
        for name, figure in known.items():
            value = figures.get(name, None if figure.default is MISSING else figure.default)
            if value is None and (figure.default is None or "None" in str(figure.type)):
                continue
            whole = name == "epoch"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ValueError(f"{name} is not a number")  # noqa: TRY004 -- as any other fault
            low, high = 0.0, 1.0 if name in _SHARES else _MOST
            if not (-_MOST if name.endswith("loss") else low) <= value <= high:  # NaN as well
                raise ValueError(f"{name} is out of range")
        return cls(**figures)


@dataclass
class History:
    """The epochs of a training run, in order.

    ``history["loss"]`` is the list of one figure over all epochs. ``interrupted`` tells whether
    the run ended early by Ctrl-C. ``dead_units`` has the units that were 0 for every one of up to
    256 training images when the run ended, by the name of their ReLU layer.
    """

    epochs: list[Epoch] = field(default_factory=list)
    interrupted: bool = False
    dead_units: dict[str, NDArray[np.intp]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> list[float | None]:
        if name not in Epoch.__dataclass_fields__:
            raise KeyError(
                f"no figure is called {name!r}; there are {list(Epoch.__dataclass_fields__)}"
            )
        return [getattr(epoch, name) for epoch in self.epochs]

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.epochs)

    def __len__(self) -> int:
        return len(self.epochs)


def require_monitor(option: str, monitor: object) -> None:
    """Raise OptionError unless epochs can be judged by that."""
    if monitor not in MONITORS:
        raise OptionError(f"{option} must be one of {', '.join(MONITORS)}, got {monitor!r}")


def check_monitor(option: str, monitor: Monitor, *, classifies: bool, validates: bool) -> None:
    """Raise OptionError where a run's epochs will not have what they are to be judged by."""
    if monitor != "loss" and not classifies:
        raise OptionError(
            f"{option} '{monitor}' needs classes, and this network's loss has none; use 'loss'"
        )
    if monitor in ("balanced", "f1") and not validates:
        raise OptionError(f"{option} '{monitor}' needs validation_data; give some, or use 'loss'")


def best_epoch(epochs: Sequence[Epoch], monitor: Monitor = "loss") -> int:
    """Return the number of the best epoch, from 1; 0 of none.

    Of epochs that are equal by accuracy, balanced accuracy or F1, the one with the lower loss is
    better, and then the earlier one.
    """
    judged = [(epoch.judged_by(monitor), -epoch.monitored_loss) for epoch in epochs]
    return judged.index(max(judged)) + 1 if judged else 0


def improvements(
    epochs: Sequence[Epoch], monitor: Monitor = "loss", tol: float = 0.0
) -> list[bool]:
    """Tell of every epoch whether it brought something.

    It did where its loss was lower, by more than a share of ``tol``, than all before it, or what is
    monitored was higher, by more than ``tol``: accuracy and the other shares stay where they are
    for many epochs while a network learns.
    """
    better, best, least = [], float("-inf"), float("inf")
    for epoch in epochs:
        figure, loss = epoch.judged_by(monitor), epoch.monitored_loss
        shares = monitor != "loss" and figure > best + tol
        better.append(shares or loss < least - tol * abs(least) or least == float("inf"))
        best, least = max(best, figure), min(least, loss)
    return better


def warm_up(epochs: Sequence[Epoch]) -> int:
    """Return how many of the first epochs had a learning rate that was still rising."""
    rising = 0
    for n in range(1, len(epochs)):
        before, rate = epochs[n - 1].learning_rate, epochs[n].learning_rate
        if before is None or rate is None or rate <= before:
            break
        rising = n + 1
    return rising
