"""A training run: a network, its data, how it is trained, and its epochs piece by piece."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from fullback import passes
from fullback.augment import image_keys, mixture
from fullback.distributed.ranks import Ranks
from fullback.errors import DivergenceError
from fullback.layers import Normalize
from fullback.model import Model
from fullback.options import require_number
from fullback.passes import Seed, first_not_finite, forward_batch
from fullback.pixels import ImageRecord
from fullback.training.averages import averaged, first_averages
from fullback.training.batches import Batches, shown_batch
from fullback.training.history import Epoch, ValidationFigures
from fullback.training.optimizers import Optimizer
from fullback.training.options import TrainingOptions
from fullback.training.read_ahead import ReadAhead
from fullback.training.schedules import Schedule
from fullback.training.snapshot import restore, snapshot
from fullback.training.stepper import Piece, PieceLength, pieces, stepper_of
from fullback.training.training_data import TrainingData, Validation, check_files


class TrainingRun:
    """What trains a network on its data.

    Everything that a run draws is a function of the seed, the epoch and the batch or image, so that
    it ends with the same weights however it is divided.

    Parameters
    ----------
    net : the network
    data : what it is trained on
    options : how, as ``TrainingOptions.for_run`` returns them
    ranks : the processes that train it together, or None

    Attributes
    ----------
    state : what the optimizer remembers, with the averages of the parameters, if there are any
    batches : batches an epoch
    """

    def __init__(
        self,
        net: Model,
        data: TrainingData,
        options: TrainingOptions,
        ranks: Ranks | None = None,
    ) -> None:
        self.net, self.data, self.options, self.ranks = net, data, options, ranks
        # A callback may unfreeze layers: their parameters have a state as well.
        self.state = options.optimizer.initial_state(net.parameters, net.parameters)
        if options.average:
            self.state |= first_averages(net)
        self.batches = -(-len(data.order) // options.batch_size)
        self.stepper = stepper_of(net, data, options, self.state, ranks)
        self._validation: Validation | None = None

    def begin(self, record: ImageRecord) -> None:
        """Prepare the network for images of this record, before the first epoch.

        Of several ranks, the first one's is prepared.
        """
        net, data = self.net, self.data
        self._before = snapshot(net), net.trained_on, net.threshold
        net.trained_on, net.threshold = record, None  # which was chosen for other weights
        if self.ranks is None or self.ranks.leads:
            adapt(net, data)
        self._validation = data.validation and data.validation.as_taken_by(net)

    def undo(self) -> None:
        """Make the network what it was before ``begin``."""
        arrays, self.net.trained_on, self.net.threshold = self._before
        restore(self.net, arrays)

    def epoch(
        self, epoch: int, schedule: Schedule, length: PieceLength, *, shared: bool = False
    ) -> Generator[Piece, None, None]:
        """Train one epoch, numbered from 1, and yield its pieces, as ``pieces`` does.

        Raises
        ------
        DivergenceError
            A loss is not finite. The network has what was learned until then.
        DataError
            A file that images are mapped from has become shorter.
        """
        check_files(self.data.images)
        order = np.random.default_rng([self.options.seed, epoch]).permutation(self.data.order)
        part, done = functools.partial(self._part, order, epoch, schedule), 0
        every_piece = pieces(self.stepper, self.batches, part, length, shared=shared)
        size = self.options.batch_size
        ahead = ReadAhead(self.data.images, order, size, self.stepper.own)
        with ahead, contextlib.closing(every_piece):
            for piece in every_piece:
                done += len(piece.figures)
                ahead.reached(done * size)
                if not piece.finite:
                    raise self._divergence(piece, epoch, done + 1)
                yield piece

    def _part(
        self, order: NDArray[np.int64], epoch: int, schedule: Schedule, start: int, stop: int
    ) -> Batches:
        """Return the batches from ``start`` to ``stop`` of an epoch."""
        options, size = self.options, self.options.batch_size
        before, total = (epoch - 1) * self.batches, options.epochs * self.batches
        factors = [schedule((before + n) / total) for n in range(start, stop)]
        for factor in factors:
            require_number("the schedule's factor", factor, "[0, inf)")
        images = order[start * size : stop * size]
        seeds: list[Seed] = [(options.seed, epoch, n) for n in range(start, stop)]
        return Batches(
            order=images,
            size=size,
            factors=factors,
            seeds=seeds,
            mixtures=[mixture(options.mixup, seed) for seed in seeds] if options.mixup else (),
            keys=None if options.augment is None else image_keys((options.seed, epoch), images),
        )

    def row(self, epoch: int, figures: EpochFigures) -> Epoch:
        """Return a finished epoch, with what the network is worth on the validation data."""
        loss, accuracy, images_per_second = figures.so_far()
        found = ValidationFigures()
        if self._validation is not None:
            together = None if self.data.scattered else self.ranks
            with averaged(self.net, self.state):
                found = self._validation.measure(self.net, together)
        row = Epoch(
            epoch=epoch,
            loss=loss,
            accuracy=accuracy,
            validation_loss=found.loss,
            validation_accuracy=found.accuracy,
            seconds=figures.images / images_per_second,
            images_per_second=images_per_second,
            validation_balanced=found.balanced,
            validation_f1=found.f1,
            learning_rate=figures.learning_rate,
        )
        return row if self.ranks is None else Epoch(**self.ranks.first(vars(row)))

    def require_finite(self, epoch: int) -> None:
        """Raise DivergenceError where the network has an array that is not finite."""
        net = self.net
        for name, array in (*net.parameters.items(), *net.statistics.items()):
            if not np.isfinite(array).all():
                raise self._expected(
                    f"{name} was no longer finite after epoch {epoch}; "
                    f"{_advice(epoch, self.options.optimizer)}",
                    epoch,
                )

    def _divergence(self, piece: Piece, epoch: int, batch: int) -> DivergenceError:
        """Return the error of a batch whose loss is not finite."""
        if self.ranks is None:
            return self._expected(self._cause(piece, epoch, batch), epoch)
        cause = self._cause(piece, epoch, batch) if self.ranks.leads else None
        return self._expected(self.ranks.first(cause), epoch)

    def _expected(self, message: str, epoch: int) -> DivergenceError:
        """Return the error of an epoch, which every rank raises by itself."""
        error = DivergenceError(message, epochs=epoch - 1)
        if self.ranks is not None:
            self.ranks.expected = error
        return error

    def _cause(self, piece: Piece, epoch: int, batch: int) -> str:
        """Say at which layer the batch whose loss is not finite went wrong."""
        net, n = self.net, len(piece.figures)
        x, y = shown_batch(net, self.data, piece.batches, n, self.options.augment)
        activations, _ = forward_batch(net, x, training=True, seed=piece.batches.seeds[n])
        with np.errstate(all="ignore"):
            loss, _ = net.loss.forward(activations[-1], y)
        wrong = first_not_finite(zip(("input", *net.names), activations, strict=True))
        if wrong:
            cause = f"{wrong} is the first layer whose output is not finite"
        elif np.isfinite(loss):
            cause = "in float32, by the lane engine, it is not finite"
        else:
            cause = "every layer's output is finite, but too large for the loss"
        return (
            f"the loss became {loss} in epoch {epoch}, batch {batch}: {cause}; "
            f"{_advice(epoch, self.options.optimizer)}"
        )


class EpochFigures:
    """The figures of the epoch that runs, over the images so far."""

    def __init__(self, run: TrainingRun) -> None:
        self.classifies = run.net.loss.classifies
        self.rate = run.options.optimizer.learning_rate
        self.batches = 0
        self.images = 0
        self.loss = 0.0
        self.right = 0.0
        self.learning_rate = 0.0
        self.start = time.perf_counter()

    def add(self, piece: Piece) -> None:
        """Add the figures of the batches that were trained on."""
        figures, batches, count = piece.figures, piece.batches, len(piece.figures)
        images = min(count * batches.size, len(batches.order))
        sizes = np.full(count, batches.size)
        sizes[-1:] -= count * batches.size - images
        self.batches += count
        self.images += images
        for (loss, right), size in zip(figures.tolist(), sizes.tolist(), strict=True):
            self.loss += loss * size  # one by one: the sum must not depend on the pieces
            self.right += right
        self.learning_rate = self.rate * batches.factors[count - 1]

    def so_far(self) -> tuple[float, float | None, float]:
        """Loss, accuracy, images a second."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        accuracy = self.right / self.images if self.classifies else None
        return self.loss / self.images, accuracy, self.images / seconds


def adapt(net: Model, data: TrainingData) -> None:
    """Adapt a Normalize layer that is neither adapted nor frozen to the images that take part."""
    first, name = net.layers[0], net.names[0]
    if (
        isinstance(first, Normalize)
        and name not in net.frozen
        and not net.statistics[f"{name}.images"]
    ):
        passes.adapt(net, data.images, None if data.weights is None else data.order)


def _advice(epoch: int, optimizer: Optimizer) -> str:
    """Say what to do about an epoch that diverged."""
    weights = "from before training" if epoch == 1 else f"from the end of epoch {epoch - 1}"
    return (
        f"the network has its weights {weights}; train with a smaller learning rate than "
        f"{optimizer.learning_rate:g}"
    )
