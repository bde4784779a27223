"""What a training run was like, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes
    ----------
    epoch : its number, from 1
    loss : mean of the batches' losses while they were trained
    accuracy : share of images that were right while they were trained; None without classes. Where
        images are mixed, either label counts by its share
    validation_loss, validation_accuracy : the same of the validation data after the epoch, or None
    seconds : time it took, without validation
    images_per_second : images trained in a second
    """

    epoch: int
    loss: float
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    images_per_second: float

    @property
    def figure(self) -> float:
        """What an epoch is judged by, the higher the better.

        Its validation accuracy; or minus its validation loss; or minus its loss: the first of them
        that there is.
        """
        if self.validation_accuracy is not None:
            return self.validation_accuracy
        return -(self.loss if self.validation_loss is None else self.validation_loss)


@dataclass
class History:
    """The epochs of a training run, in order.

    ``history["loss"]`` is the list of one figure over all epochs. ``interrupted`` tells whether
    the run ended early by Ctrl-C.
    """

    epochs: list[Epoch] = field(default_factory=list)
    interrupted: bool = False

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


def improvements(epochs: Sequence[Epoch], tol: float = 0.0) -> list[bool]:
    """Tell of every epoch whether its figure was better, by more than tol, than all before it."""
    best, better = float("-inf"), []
    for epoch in epochs:
        better.append(epoch.figure > best + tol)
        best = max(best, epoch.figure)
    return better
