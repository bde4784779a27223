"""Training: epochs of shuffled batches, a gradient step each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from fullback.errors import DivergenceError, InputError, LayerError
from fullback.layers import Normalize, SoftmaxCrossEntropy
from fullback.layers.base import Array
from fullback.network import Network, Trace, check_weights, trace_batch
from fullback.options import require_whole
from fullback.training.dead import warn_of_dead_units
from fullback.training.history import Epoch, History
from fullback.training.interrupt import DelayedInterrupt
from fullback.training.optimizers import SGD, Optimizer
from fullback.training.progress import TrainingProgress
from fullback.training.schedules import Schedule, cosine

if TYPE_CHECKING:
    from rich.console import Console

Callback: TypeAlias = Callable[[Epoch], None]

_WATCHED_IMAGES = 256  # training images on which dead units are looked for


def fit(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    optimizer: Optimizer = SGD(0.01, momentum=0.9),
    schedule: Schedule = cosine,
    validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    sample_weight: ArrayLike | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    verbose: bool | Console = True,
) -> History:
    """Train a network in place.

    Parameters
    ----------
    net : the network; its frozen layers keep their parameters and statistics
    x : images, uint8 or float, of shape (N, C, H, W), or (N, H, W) for one channel
    y : labels of shape (N,), or targets of shape (N, outputs) for MeanSquaredError
    epochs : passes over the images
    batch_size : images a step, at most N; the last batch of an epoch takes what is left
    optimizer : SGD, Adam or AdamW
    schedule : what the learning rate is multiplied by, as a function of the share of the run that
        is done, from 0 to 1; ``schedules.cosine`` takes it down to 0, ``schedules.constant`` not
    validation_data : images and labels to measure loss and accuracy on after every epoch
    sample_weight : weights of shape (N,); the loss is each batch's weighted mean
    callbacks : functions that are called with the Epoch when one is done
    seed : fixes the order of the images and what dropout leaves out
    verbose : whether to show progress, on standard error; or the rich Console to show it on

    Returns
    -------
    History
        The figures of every epoch. Ctrl-C ends training after the running batch, and the network
        keeps what it has learned; ``history.interrupted`` tells.

    Raises
    ------
    LayerError, ShapeError, InputError
        Options or data that cannot be used; nothing was trained.
    DivergenceError
        The loss was no longer finite. The network is as it was when the epoch began.

    Warns
    -----
    DeadUnitWarning
        Units of a ReLU layer were 0 for all of the first 256 training images.
    """
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    weights = check_weights(sample_weight, len(images))
    _check_options(net, len(images), epochs, batch_size, optimizer, seed)
    _check_hooks(schedule, callbacks, validation_data, verbose)
    if validation_data is not None:
        held_out = net.check_images(validation_data[0])
        net.loss.targets(validation_data[1], len(held_out), net.output_shape[0])
    if isinstance(net.layers[0], Normalize) and not net.statistics[f"{net.names[0]}.images"]:
        net.adapt(images)

    eligible = np.arange(len(images)) if weights is None else np.flatnonzero(weights)
    state = optimizer.initial_state(net.parameters, net.trainable())
    history = History()
    known_dead: set[str] = set()
    batches = -(-len(eligible) // batch_size)
    progress = TrainingProgress(_console(verbose), epochs, batches)
    # One thread for NumPy's products: they are small, several threads are slower at them, and sums
    # whose order depends on the number of threads would make the weights depend on it too.
    with progress, threadpool_limits(1, "blas"), DelayedInterrupt() as interrupt:
        for epoch in range(1, epochs + 1):
            order = np.random.default_rng([seed, epoch]).permutation(eligible)
            before = _snapshot(net)
            running = _Running(isinstance(net.loss, SoftmaxCrossEntropy))
            for batch, start in enumerate(range(0, len(order), batch_size)):
                chosen = order[start : start + batch_size]
                trace = trace_batch(
                    net,
                    images[chosen],
                    targets[chosen],
                    None if weights is None else weights[chosen],
                    training=True,
                    seed=(seed, epoch, batch),
                )
                if not np.isfinite(trace.loss):
                    _restore(net, before)
                    raise _divergence(trace, epoch, batch + 1, optimizer)
                optimizer.step(
                    net.parameters,
                    trace.gradients,
                    state,
                    net.trainable(),
                    factor=schedule(int(state["step"]) / (epochs * batches)),
                )
                _move_statistics(net, trace)
                running.add(trace, targets[chosen])
                progress.batch(epoch, batch + 1, *running.figures())
                if interrupt.requested:
                    _require_finite(net, before, epoch, optimizer)
                    history.interrupted = True
                    progress.say(
                        f"interrupted in epoch {epoch}, after batch {batch + 1}: "
                        "the network keeps what it has learned"
                    )
                    return history
            _require_finite(net, before, epoch, optimizer)
            row = running.row(net, epoch, validation_data)
            history.epochs.append(row)
            progress.epoch(row)
            for callback in callbacks:
                callback(row)
            warn_of_dead_units(
                net, images[:_WATCHED_IMAGES], known_dead, layers_only=epoch < epochs
            )
            if interrupt.requested:  # in the validation or a callback
                history.interrupted = True
                progress.say(
                    f"interrupted after epoch {epoch}: the network keeps what it has learned"
                )
                return history
    return history


class _Running:
    """The figures of the epoch that runs, over the images so far."""

    def __init__(self, classifies: bool) -> None:
        self.classifies = classifies
        self.images = 0
        self.loss = 0.0
        self.right = 0
        self.start = time.perf_counter()

    def add(self, trace: Trace, targets: Array) -> None:
        self.images += len(targets)
        self.loss += trace.loss * len(targets)
        if trace.probabilities is not None:
            self.right += int((trace.probabilities.argmax(axis=1) == targets).sum())

    def figures(self) -> tuple[float, float | None, float]:
        """Loss, accuracy, images a second."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        accuracy = self.right / self.images if self.classifies else None
        return self.loss / self.images, accuracy, self.images / seconds

    def row(
        self, net: Network, epoch: int, validation_data: tuple[ArrayLike, ArrayLike] | None
    ) -> Epoch:
        loss, accuracy, images_per_second = self.figures()
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


def _check_options(
    net: Network, images: int, epochs: int, batch_size: int, optimizer: Optimizer, seed: int
) -> None:
    require_whole("epochs", epochs, 1)
    require_whole("batch_size", batch_size, 1)
    if batch_size > images:
        raise InputError(
            f"batch_size (={batch_size}) is larger than the training set of {images} images; "
            f"use at most {images}"
        )
    if not isinstance(optimizer, Optimizer):
        raise LayerError(f"optimizer must be an optimizer like SGD(0.05), got {optimizer!r}")
    require_whole("seed", seed, 0)
    if not net.trainable():
        raise LayerError("every layer with parameters is frozen: there is nothing to train")


def _check_hooks(
    schedule: object, callbacks: Sequence[object], validation_data: object, verbose: object
) -> None:
    if not callable(schedule):
        raise LayerError(f"schedule must be a function like schedules.cosine, got {schedule!r}")
    for callback in callbacks:
        if not callable(callback):
            raise LayerError(f"callbacks must be functions, got {callback!r}")
    if validation_data is not None and not (
        isinstance(validation_data, tuple | list) and len(validation_data) == 2
    ):
        raise LayerError("validation_data must be a pair (images, labels)")
    if not isinstance(verbose, bool) and not hasattr(verbose, "is_terminal"):
        raise LayerError(f"verbose must be True, False or a rich Console, got {verbose!r}")


def _console(verbose: bool | Console) -> Console | None:
    if isinstance(verbose, bool):
        if not verbose:
            return None
        from rich.console import Console

        return Console(stderr=True)
    return verbose


def _move_statistics(net: Network, trace: Trace) -> None:
    for name, layer, kept in zip(net.names, net.layers, trace.kept, strict=True):
        if name not in net.frozen:
            for key, value in layer.next_statistics(kept, net.arrays_of(name)).items():
                net.statistics[f"{name}.{key}"] = value


def _snapshot(net: Network) -> dict[str, Array]:
    return {
        name: array.copy() for name, array in (*net.parameters.items(), *net.statistics.items())
    }


def _restore(net: Network, arrays: dict[str, Array]) -> None:
    for name, array in arrays.items():
        (net.parameters if name in net.parameters else net.statistics)[name] = array


def _divergence(trace: Trace, epoch: int, batch: int, optimizer: Optimizer) -> DivergenceError:
    wrong = [name for name, y in trace.activations.items() if not np.isfinite(y).all()]
    cause = (
        f"{wrong[0]} is the first layer whose output is not finite"
        if wrong
        else "every layer's output is finite, but too large for the loss"
    )
    return DivergenceError(
        f"the loss became {trace.loss} in epoch {epoch}, batch {batch}: {cause}; "
        f"{_advice(epoch, optimizer)}",
        epochs=epoch - 1,
    )


def _require_finite(
    net: Network, before: dict[str, Array], epoch: int, optimizer: Optimizer
) -> None:
    for name, array in (*net.parameters.items(), *net.statistics.items()):
        if not np.isfinite(array).all():
            _restore(net, before)
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
