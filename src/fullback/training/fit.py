"""Training: epochs of shuffled batches, a gradient step each."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from fullback.errors import DivergenceError, FullbackWarning, InputError, OptionError
from fullback.layers import Normalize
from fullback.layers.base import Array
from fullback.network import Network, check_weights
from fullback.options import require_number, require_whole
from fullback.passes import Engine, Seed, first_not_finite, forward_batch
from fullback.training.checkpoint import Checkpoint, fingerprint
from fullback.training.dead import warn_of_dead_units
from fullback.training.history import Epoch, History
from fullback.training.interrupt import DelayedInterrupt
from fullback.training.optimizers import SGD, Optimizer, State
from fullback.training.progress import TrainingProgress
from fullback.training.schedules import Schedule, warm_cosine
from fullback.training.steps import Batches, ReferenceSteps, Steps

if TYPE_CHECKING:
    from rich.console import Console

Callback: TypeAlias = Callable[[Epoch], object]

_WATCHED_IMAGES = 256  # training images on which dead units are looked for
_AT_ONCE_SECONDS = 0.1  # of training between two looks at the progress bar and at Ctrl-C
_LARGEST_COUNT = 32  # whole numbers above this are taken for pixels


def fit(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    optimizer: Optimizer = SGD(0.05, momentum=0.9, nesterov=True),
    schedule: Schedule = warm_cosine,
    validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    sample_weight: ArrayLike | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    engine: Engine | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    verbose: bool | Console = True,
) -> History:
    """Train a network in place.

    Parameters
    ----------
    net : the network; its frozen layers keep their parameters and statistics. A
        Normalize that is neither frozen nor adapted is adapted to the images
    x : images, uint8 or float, of shape (N, C, H, W), or (N, H, W) for one channel
    y : labels of shape (N,), or targets of shape (N, outputs) for MeanSquaredError
    epochs : passes over the images
    batch_size : images a step, at most N; the last batch of an epoch takes what is left
    optimizer : SGD, Adam or AdamW
    schedule : what the learning rate is multiplied by, as a function of the share of the run that
        is done, from 0 to 1; ``schedules.warm_cosine`` raises it and then takes it down to 0
    validation_data : images and labels to measure loss and accuracy on after every epoch
    sample_weight : weights of shape (N,); the loss is each batch's weighted mean
    callbacks : functions that are called with the Epoch when one is done; one that returns True
        ends training
    seed : fixes the order of the images and what dropout leaves out
    engine : "lanes" or "reference", see Network; for the same seed, weights are the same bit for
        bit whatever the number of threads, but differ between the engines by rounding
    checkpoint : a file in which the run is kept after every epoch. A run that finds itself there
        goes on after the last epoch that was finished, and ends with the same weights, bit for bit,
        as one that was never interrupted. Callbacks are called for the epochs that are left
    verbose : whether to show progress, on standard error; or the rich Console to show it on

    Returns
    -------
    History
        The figures of every epoch. Ctrl-C ends training after the running batch, and the network
        keeps what it has learned; ``history.interrupted`` tells.

    Raises
    ------
    OptionError, ShapeError, InputError
        Options or data that cannot be used; nothing was trained.
    DivergenceError
        The loss was no longer finite. The network is as it was when the epoch began.
    ModelFileError
        The checkpoint is damaged.
    OSError
        The checkpoint cannot be written; what it held before it still holds.

    Warns
    -----
    DeadUnitWarning
        Units of a ReLU layer were 0 for all of 256 training images, spread over the set.
    FullbackWarning
        Float images look like pixels from 0 to 255.
    """
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    weights = check_weights(sample_weight, len(images))
    check_options(net, len(images), epochs, batch_size, optimizer, seed)
    _check_hooks(schedule, callbacks, validation_data, verbose)
    if validation_data is not None:
        held_out = net.check_images(validation_data[0])
        net.loss.targets(validation_data[1], len(held_out), net.output_shape[0])

    chosen_engine = net.choose_engine(engine)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint.of(
            checkpoint,
            layers=[str(layer) for layer in net.layers],
            input_shape=net.input_shape,
            loss=str(net.loss),
            frozen=sorted(net.frozen),
            epochs=epochs,
            batch_size=batch_size,
            optimizer=str(optimizer),
            schedule=getattr(schedule, "__qualname__", type(schedule).__qualname__),
            seed=seed,
            engine=chosen_engine,
            images=len(images),
            data=fingerprint(images, targets),
            sample_weight=None if weights is None else fingerprint(weights, weights),
        )
    state = optimizer.initial_state(net.parameters, net.parameters)  # a callback may unfreeze
    history = History([] if kept is None else kept.load(net, state))
    data = (images, targets, weights)
    steps: Steps
    if chosen_engine == "lanes":
        from fullback.training.lanes import LaneSteps

        steps = LaneSteps(net, *data, optimizer, state, batch_size)
    else:
        steps = ReferenceSteps(net, *data, optimizer, state)
    _warn_of_pixels(images)
    _measure(net, images)
    run = _Run(
        net=net,
        images=images,
        targets=targets,
        steps=steps,
        order=np.arange(len(images)) if weights is None else np.flatnonzero(weights),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        seed=seed,
        state=state,
    )
    watched = images[np.linspace(0, len(images) - 1, min(len(images), _WATCHED_IMAGES)).astype(int)]
    known_dead: set[str] = set()
    progress = TrainingProgress(_console(verbose), epochs, run.batches)
    # One thread for NumPy's products: they are small, several threads are slower at them, and sums
    # whose order depends on the number of threads would make the weights depend on it too.
    with progress, threadpool_limits(1, "blas"), DelayedInterrupt() as interrupt:
        if history.epochs:
            progress.say(f"goes on after epoch {len(history)} of {epochs}, from {checkpoint}")
        for epoch in range(len(history) + 1, epochs + 1):
            before, enough = _snapshot(net), False
            try:
                figures = run.train(epoch, progress, interrupt)
                _require_finite(net, epoch, optimizer)
            except DivergenceError:
                _restore(net, before)
                raise
            if not interrupt.requested:
                row = figures.row(net, epoch, validation_data)
                history.epochs.append(row)
                progress.epoch(row)
                if kept is not None:
                    kept.save(net, state, history.epochs)
                for callback in callbacks:
                    enough |= callback(row) is True
                warn_of_dead_units(net, watched, known_dead, layers_only=epoch < epochs)
            if interrupt.requested:  # in the epoch, or in its validation or callbacks
                history.interrupted = True
                progress.say(
                    f"interrupted in epoch {epoch}, after batch {figures.batches} of "
                    f"{run.batches}: the network keeps what it has learned"
                )
            if interrupt.requested or enough:
                break
    return history


@dataclass(frozen=True, eq=False)
class _Run:
    """One call of ``fit``: the network, the checked data, and what trains the one on the other."""

    net: Network
    images: Array
    targets: Array
    steps: Steps
    order: NDArray[np.int64]  # the images that take part, by index
    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    seed: int
    state: State

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return -(-len(self.order) // self.batch_size)

    def train(
        self, epoch: int, progress: TrainingProgress, interrupt: DelayedInterrupt
    ) -> _EpochFigures:
        """Train one epoch, or a part of it where Ctrl-C comes."""
        figures = _EpochFigures(self.net.loss.classifies)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.order)
        done, at_once = 0, 1
        self.steps.begin()
        while done < self.batches and not interrupt.requested:
            batches = self._some(order, epoch, done, min(done + at_once, self.batches))
            start = time.perf_counter()
            made = self.steps.train(batches)
            seconds = time.perf_counter() - start
            figures.add(made, batches)
            done += len(made)
            if len(made) < len(batches.factors):
                self.steps.end()
                first = len(made) * self.batch_size
                wrong = batches.order[first : first + self.batch_size]
                raise self._divergence(wrong, epoch, done + 1, batches.seeds[len(made)])
            progress.batch(epoch, done, *figures.so_far())
            at_once = max(1, int(at_once * min(2.0, _AT_ONCE_SECONDS / max(seconds, 1e-6))))
        self.steps.end()
        return figures

    def _some(self, order: NDArray[np.int64], epoch: int, start: int, stop: int) -> Batches:
        """Return the batches from ``start`` to ``stop`` of an epoch."""
        before = (epoch - 1) * self.batches
        factors = [
            self.schedule((before + n) / (self.epochs * self.batches)) for n in range(start, stop)
        ]
        for factor in factors:
            require_number("the schedule's factor", factor, "[0, inf)")
        return Batches(
            order=order[start * self.batch_size : stop * self.batch_size],
            size=self.batch_size,
            factors=factors,
            seeds=[(self.seed, epoch, n) for n in range(start, stop)],
        )

    def _divergence(
        self, chosen: NDArray[np.int64], epoch: int, batch: int, seed: Seed
    ) -> DivergenceError:
        """Say at which layer a batch whose loss is not finite went wrong."""
        net = self.net
        activations, _ = forward_batch(net, self.images[chosen], training=True, seed=seed)
        with np.errstate(all="ignore"):
            loss, _ = net.loss.forward(activations[-1], self.targets[chosen])
        wrong = first_not_finite(zip(("input", *net.names), activations, strict=True))
        cause = (
            f"{wrong} is the first layer whose output is not finite"
            if wrong
            else "every layer's output is finite, but too large for the loss"
        )
        return DivergenceError(
            f"the loss became {loss} in epoch {epoch}, batch {batch}: {cause}; "
            f"{_advice(epoch, self.optimizer)}",
            epochs=epoch - 1,
        )


class _EpochFigures:
    """The figures of the epoch that runs, over the images so far."""

    def __init__(self, classifies: bool) -> None:
        self.classifies = classifies
        self.batches = 0
        self.images = 0
        self.loss = 0.0
        self.right = 0
        self.start = time.perf_counter()

    def add(self, made: NDArray[np.float64], batches: Batches) -> None:
        """Add the figures of the batches that were trained on."""
        images = min(len(made) * batches.size, len(batches.order))
        sizes = np.full(len(made), batches.size)
        sizes[-1:] -= len(made) * batches.size - images
        self.batches += len(made)
        self.images += images
        self.loss += float((made[:, 0] * sizes).sum())
        self.right += int(made[:, 1].sum())

    def so_far(self) -> tuple[float, float | None, float]:
        """Loss, accuracy, images a second."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        accuracy = self.right / self.images if self.classifies else None
        return self.loss / self.images, accuracy, self.images / seconds

    def row(
        self, net: Network, epoch: int, validation_data: tuple[ArrayLike, ArrayLike] | None
    ) -> Epoch:
        loss, accuracy, images_per_second = self.so_far()
        validation = None if validation_data is None else net.evaluate(*validation_data)
        return Epoch(
            epoch=epoch,
            loss=loss,
            accuracy=accuracy,
            validation_loss=None if validation is None else validation.loss,
            validation_accuracy=validation.score if validation and self.classifies else None,
            seconds=self.images / images_per_second,
            images_per_second=images_per_second,
        )


def check_options(
    net: Network, images: int, epochs: int, batch_size: int, optimizer: Optimizer, seed: int
) -> None:
    """Raise OptionError or InputError where ``fit`` could not train so on that many images."""
    require_whole("epochs", epochs, 1)
    require_whole("batch_size", batch_size, 1)
    if batch_size > images:
        raise InputError(
            f"batch_size (={batch_size}) is larger than the training set of {images} images; "
            f"use at most {images}"
        )
    if not isinstance(optimizer, Optimizer):
        raise OptionError(f"optimizer must be an optimizer like SGD(0.05), got {optimizer!r}")
    require_whole("seed", seed, 0)
    if not net.trainable():
        raise OptionError("every layer with parameters is frozen: there is nothing to train")


def _check_hooks(
    schedule: object, callbacks: object, validation_data: object, verbose: object
) -> None:
    if not callable(schedule):
        raise OptionError(
            f"schedule must be a function like schedules.warm_cosine, got {schedule!r}"
        )
    if not isinstance(callbacks, Iterable):
        raise OptionError(f"callbacks must be a list of functions, got {callbacks!r}")
    for callback in callbacks:
        if not callable(callback):
            raise OptionError(f"callbacks must be functions, got {callback!r}")
    if validation_data is not None and not (
        isinstance(validation_data, tuple | list) and len(validation_data) == 2
    ):
        raise OptionError("validation_data must be a pair (images, labels)")
    if not isinstance(verbose, bool) and not hasattr(verbose, "is_terminal"):
        raise OptionError(f"verbose must be True, False or a rich Console, got {verbose!r}")


def _warn_of_pixels(images: Array) -> None:
    """Warn of floats that are pixels from 0 to 255, which uint8 images would not be."""
    some = images[:_WATCHED_IMAGES]
    if some.dtype.kind != "f":
        return
    if some.min() >= 0 and _LARGEST_COUNT < some.max() <= 255 and (some == np.floor(some)).all():
        warnings.warn(
            f"the images are floats up to {some.max():g}, and floats are used as they are; if "
            "they are pixels from 0 to 255, give them as x.astype('uint8') or x / 255, so that "
            "the network also takes uint8 images, which are divided by 255",
            FullbackWarning,
            stacklevel=3,
        )


def _measure(net: Network, images: Array) -> None:
    """Adapt a Normalize layer that nobody has adapted or frozen."""
    first, name = net.layers[0], net.names[0]
    if (
        isinstance(first, Normalize)
        and name not in net.frozen
        and not net.statistics[f"{name}.images"]
    ):
        net.adapt(images)


def _console(verbose: bool | Console) -> Console | None:
    if isinstance(verbose, bool):
        if not verbose:
            return None
        from rich.console import Console

        return Console(stderr=True)
    return verbose


def _snapshot(net: Network) -> dict[str, Array]:
    return {
        name: array.copy() for name, array in (*net.parameters.items(), *net.statistics.items())
    }


def _restore(net: Network, arrays: dict[str, Array]) -> None:
    for name, array in arrays.items():
        (net.parameters if name in net.parameters else net.statistics)[name] = array


def _require_finite(net: Network, epoch: int, optimizer: Optimizer) -> None:
    for name, array in (*net.parameters.items(), *net.statistics.items()):
        if not np.isfinite(array).all():
            raise DivergenceError(
                f"{name} was no longer finite after epoch {epoch}; {_advice(epoch, optimizer)}",
                epochs=epoch - 1,
            )


def _advice(epoch: int, optimizer: Optimizer) -> str:
    kept = "from before training" if epoch == 1 else f"from the end of epoch {epoch - 1}"
    return (
        f"the network has its weights {kept}; train with a smaller learning rate than "
        f"{optimizer.learning_rate:g}"
    )
