"""The options of a training run, checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from fullback.augment import Augment
from fullback.errors import OptionError
from fullback.model import Engine, Model
from fullback.options import require_number, require_whole
from fullback.training.class_weights import ClassWeight
from fullback.training.history import check_monitor
from fullback.training.optimizers import DEFAULT, Optimizer
from fullback.training.schedules import Plateau, Schedule, text_of, warm_cosine

Sums: TypeAlias = Literal["exact", "fast"]

MOST_EPOCHS = 10**7
"""Epochs of a run; the figures of each are kept."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained: the options of ``fit`` that are not data, and say what it learns.

    Their meanings are described at ``fit``. An option for all who train is a field here with its
    check; ``described`` says how a checkpoint knows it again.

    Raises
    ------
    OptionError
        An option is none, whatever the network.
    """

    epochs: int = 5
    batch_size: int = 64
    optimizer: Optimizer = DEFAULT
    schedule: Schedule = warm_cosine
    class_weight: ClassWeight | None = None
    augment: Augment | None = None
    mixup: float = 0.0
    average: float = 0.0
    pixel_range: tuple[float, float] | None = None
    seed: int = 0
    engine: Engine | None = None
    sums: Sums = "exact"

    def __post_init__(self) -> None:
        require_whole("epochs", self.epochs, 1, MOST_EPOCHS)
        require_whole("batch_size", self.batch_size, 1)
        if not isinstance(self.optimizer, Optimizer):
            raise OptionError(
                f"optimizer must be an optimizer like SGD(0.05), got {self.optimizer!r}"
            )
        if not callable(self.schedule):
            raise OptionError(
                f"schedule must be a function like schedules.warm_cosine, got {self.schedule!r}"
            )
        if self.augment is not None and not isinstance(self.augment, Augment):
            raise OptionError(f"augment must be like Augment(shift=2), got {self.augment!r}")
        require_number("mixup", self.mixup, "[0, 1e4]")
        require_number("average", self.average, "[0, 1)")
        require_whole("seed", self.seed, 0)
        if self.sums not in get_args(Sums):
            raise OptionError(f"sums must be 'exact' or 'fast', got {self.sums!r}")

    def for_run(self, net: Model, images: int, *, validates: bool | None = None) -> TrainingOptions:
        """Return the options of a run of a network on that many images.

        Batches are no larger than all images, and the engine is chosen.

        Parameters
        ----------
        validates : whether there are validation data; None where a schedule may ask for any figure

        Raises
        ------
        OptionError, ShapeError
            The network has nothing to train, or the options do not suit it.
        """
        if not net.parameters:
            raise OptionError(f"the network has no parameters: there is nothing to train in {net}")
        if not net.trainable():
            raise OptionError("every layer with parameters is frozen: there is nothing to train")
        if self.augment is not None:
            self.augment.check_shape(net.input_shape)
        batch_size = min(self.batch_size, images)
        if self.mixup and batch_size < 2:
            raise OptionError("mixup needs batches of at least 2 images, to mix one with another")
        if isinstance(self.schedule, Plateau) and validates is not None:
            check_monitor(
                "Plateau: monitor",
                self.schedule.monitor,
                classifies=net.loss.classifies,
                validates=validates,
            )
        engine = net.choose_engine(self.engine)
        return dataclasses.replace(self, batch_size=batch_size, engine=engine)

    def described(self) -> dict[str, Any]:
        """Return what a checkpoint knows the options again by.

        Class weights are part of the images' weights, and the pixel range changes no weight.
        """
        described = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "optimizer": str(self.optimizer),
            "schedule": text_of(self.schedule),
            "augment": repr(self.augment),
            "mixup": self.mixup,
            "average": self.average,
            "seed": self.seed,
            "engine": self.engine,
        }
        # Files from before there was a choice have exact ones.
        return described | ({} if self.sums == "exact" else {"sums": self.sums})
