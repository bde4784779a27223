"""A training run: its epochs, batch by batch."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullback.augment import Augment, image_keys, mixture
from fullback.errors import DataError, DivergenceError
from fullback.layers.base import Array
from fullback.network import Network, evaluate_logits
from fullback.options import require_number
from fullback.passes import Seed, first_not_finite, forward_batch
from fullback.training.history import Epoch
from fullback.training.interrupt import DelayedInterrupt
from fullback.training.optimizers import Optimizer, State
from fullback.training.progress import TrainingProgress
from fullback.training.schedules import Schedule
from fullback.training.steps import Batches, Steps, shown_batch

_AT_ONCE_SECONDS = 0.1  # of training between two looks at the progress bar and at Ctrl-C


@dataclass(frozen=True, eq=False)
class Run:
    """One call of ``fit``: the network, the checked data, and what trains the one on the other."""

    net: Network
    images: Array
    targets: Array
    steps: Steps
    order: NDArray[np.int64]  # the images that take part, by index
    epochs: int
    batch_size: int
    optimizer: Optimizer
    seed: int
    state: State
    augment: Augment | None = None
    mixup: float = 0.0

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return -(-len(self.order) // self.batch_size)

    def train(
        self,
        epoch: int,
        schedule: Schedule,
        progress: TrainingProgress,
        interrupt: DelayedInterrupt,
    ) -> EpochFigures:
        """Train one epoch, or a part of it where Ctrl-C comes."""
        check_files(self.images)
        figures = EpochFigures(self.net.loss.classifies)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.order)
        done, at_once = 0, 1
        self.steps.begin()
        while done < self.batches and not interrupt.requested:
            batches = self._some(order, epoch, schedule, done, min(done + at_once, self.batches))
            start = time.perf_counter()
            made = self.steps.train(batches)
            seconds = time.perf_counter() - start
            figures.add(made, batches, self.optimizer.learning_rate)
            done += len(made)
            if len(made) < len(batches.factors):
                self.steps.end()
                raise self._divergence(batches, len(made), epoch, done + 1)
            progress.batch(epoch, done, *figures.so_far())
            at_once = max(1, int(at_once * min(2.0, _AT_ONCE_SECONDS / max(seconds, 1e-6))))
        self.steps.end()
        return figures

    def _some(
        self, order: NDArray[np.int64], epoch: int, schedule: Schedule, start: int, stop: int
    ) -> Batches:
        """Return the batches from ``start`` to ``stop`` of an epoch."""
        before = (epoch - 1) * self.batches
        factors = [
            schedule((before + n) / (self.epochs * self.batches)) for n in range(start, stop)
        ]
        for factor in factors:
            require_number("the schedule's factor", factor, "[0, inf)")
        chosen = order[start * self.batch_size : stop * self.batch_size]
        seeds: list[Seed] = [(self.seed, epoch, n) for n in range(start, stop)]
        return Batches(
            order=chosen,
            size=self.batch_size,
            factors=factors,
            seeds=seeds,
            mixtures=[mixture(self.mixup, seed) for seed in seeds] if self.mixup else (),
            keys=None if self.augment is None else image_keys((self.seed, epoch), chosen),
        )

    def _divergence(self, batches: Batches, n: int, epoch: int, batch: int) -> DivergenceError:
        """Say at which layer a batch whose loss is not finite went wrong."""
        net = self.net
        x, wanted = shown_batch(net, self.images, self.targets, batches, n, self.augment)
        activations, _ = forward_batch(net, x, training=True, seed=batches.seeds[n])
        with np.errstate(all="ignore"):
            loss, _ = net.loss.forward(activations[-1], wanted)
        wrong = first_not_finite(zip(("input", *net.names), activations, strict=True))
        if wrong:
            cause = f"{wrong} is the first layer whose output is not finite"
        elif np.isfinite(loss):
            cause = "in float32, by the lane engine, it is not finite"
        else:
            cause = "every layer's output is finite, but too large for the loss"
        return DivergenceError(
            f"the loss became {loss} in epoch {epoch}, batch {batch}: {cause}; "
            f"{advice(epoch, self.optimizer)}",
            epochs=epoch - 1,
        )


class EpochFigures:
    """The figures of the epoch that runs, over the images so far."""

    def __init__(self, classifies: bool) -> None:
        self.classifies = classifies
        self.batches = 0
        self.images = 0
        self.loss = 0.0
        self.right = 0.0
        self.learning_rate = 0.0
        self.start = time.perf_counter()

    def add(self, made: NDArray[np.float64], batches: Batches, learning_rate: float) -> None:
        """Add the figures of the batches that were trained on."""
        images = min(len(made) * batches.size, len(batches.order))
        sizes = np.full(len(made), batches.size)
        sizes[-1:] -= len(made) * batches.size - images
        self.batches += len(made)
        self.images += images
        self.loss += float((made[:, 0] * sizes).sum())
        self.right += float(made[:, 1].sum())
        if len(made):
            self.learning_rate = learning_rate * batches.factors[len(made) - 1]

    def so_far(self) -> tuple[float, float | None, float]:
        """Loss, accuracy, images a second."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        accuracy = self.right / self.images if self.classifies else None
        return self.loss / self.images, accuracy, self.images / seconds

    def row(self, net: Network, epoch: int, validation: Validation | None) -> Epoch:
        """Return the epoch, with what the network is worth on the validation data."""
        loss, accuracy, images_per_second = self.so_far()
        found = ValidationFigures() if validation is None else validation.measure(net)
        return Epoch(
            epoch=epoch,
            loss=loss,
            accuracy=accuracy,
            validation_loss=found.loss,
            validation_accuracy=found.accuracy,
            seconds=self.images / images_per_second,
            images_per_second=images_per_second,
            validation_balanced=found.balanced,
            validation_f1=found.f1,
            learning_rate=self.learning_rate,
        )


@dataclass(frozen=True)
class ValidationFigures:
    """What a network is worth on validation data; see Epoch."""

    loss: float | None = None
    accuracy: float | None = None
    balanced: float | None = None
    f1: float | None = None


@dataclass(frozen=True, eq=False)
class Validation:
    """Checked validation images with their targets, and weights of the images or None."""

    images: Array
    targets: Array
    weights: Array | None

    def measure(self, net: Network) -> ValidationFigures:
        """Return what a network is worth on these images."""
        check_files(self.images)
        logits = net.logits(self.images)
        if self.weights is None:
            loss = evaluate_logits(net.loss, logits, self.targets).loss
        else:
            loss, _ = net.loss.forward(logits, self.targets, self.weights)
        if not net.loss.classifies:
            return ValidationFigures(loss)
        answers = logits.argmax(axis=1)
        return ValidationFigures(
            loss, float((answers == self.targets).mean()), *by_class(self.targets, answers)
        )


def by_class(targets: NDArray[np.int64], answers: NDArray[np.int64]) -> tuple[float, float]:
    """Return balanced accuracy and macro F1, as scikit-learn defines them, in a fraction of a ms.

    balanced accuracy = mean over the classes of the targets of  right / images
    macro F1          = mean over the classes of targets or answers of  2 right / (images + answers)
    """
    classes = int(max(targets.max(), answers.max())) + 1
    images = np.bincount(targets, minlength=classes)
    answered = np.bincount(answers, minlength=classes)
    right = np.bincount(targets[targets == answers], minlength=classes)
    there, either = images > 0, images + answered > 0
    f1 = 2 * right[either] / (images + answered)[either]
    return float((right[there] / images[there]).mean()), float(f1.mean())


def check_files(images: Array) -> None:
    """Raise DataError where a file that images are mapped from has become shorter.

    To read what is no longer there would end the process by a signal. A file that is cut short in
    the middle of an epoch still does that.
    """
    own: object = images
    while own is not None:
        if isinstance(own, np.memmap):
            mapped = getattr(own, "_mmap", None)
            if mapped is not None and mapped.size() < len(mapped):
                raise DataError(
                    f"{own.filename} has been cut short while it was trained on: it has "
                    f"{mapped.size():,} bytes, and {len(mapped):,} were mapped; restore it, and "
                    "leave it as it is while training runs"
                )
        own = getattr(own, "base", None)


def advice(epoch: int, optimizer: Optimizer) -> str:
    """Say what to do about an epoch that diverged."""
    kept = "from before training" if epoch == 1 else f"from the end of epoch {epoch - 1}"
    return (
        f"the network has its weights {kept}; train with a smaller learning rate than "
        f"{optimizer.learning_rate:g}"
    )
