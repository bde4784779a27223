"""Training: epochs of shuffled batches, a gradient step each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from fullback.augment import Augment
from fullback.errors import DivergenceError, InputError, OptionError
from fullback.layers import Normalize
from fullback.layers.base import Array
from fullback.network import Network, check_weights
from fullback.options import require_number, require_whole, short
from fullback.passes import Engine
from fullback.pixels import record_of
from fullback.training.averages import averaged, give_averages
from fullback.training.callbacks import Callback, EarlyStopping
from fullback.training.checkpoint import Checkpoint, fingerprint
from fullback.training.class_weights import ClassWeight, class_weights
from fullback.training.dead import DeadUnitWatch
from fullback.training.history import Epoch, History, check_monitor
from fullback.training.interrupt import DelayedInterrupt
from fullback.training.optimizers import DEFAULT, Optimizer, State
from fullback.training.progress import MOST_EPOCHS, TrainingProgress
from fullback.training.run import Run, Validation, advice
from fullback.training.schedules import Plateau, Schedule, text_of, warm_cosine
from fullback.training.snapshot import restore, snapshot
from fullback.training.steps import steps_of

if TYPE_CHECKING:
    from rich.console import Console

AnyCallback: TypeAlias = Callback | Callable[[Epoch], object]


def fit(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    epochs: int = 5,
    batch_size: int = 64,
    optimizer: Optimizer = DEFAULT,
    schedule: Schedule = warm_cosine,
    validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight | None = None,
    augment: Augment | None = None,
    mixup: float = 0.0,
    average: float = 0.0,
    callbacks: Sequence[AnyCallback] = (),
    pixel_range: tuple[float, float] | None = None,
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
    batch_size : images a step, or all N where that is fewer; the last batch of an epoch takes what
        is left
    optimizer : SGD, Adam or AdamW; the default is SGD(0.05, momentum=0.9, nesterov=True,
        clip_norm=2.0), whose clipping lets every seed and any number of epochs train
    schedule : what the learning rate is multiplied by, as a function of the share of the run that
        is done, from 0 to 1; ``schedules.warm_cosine`` raises it and then takes it down to 0
    validation_data : images and labels on which loss, accuracy, balanced accuracy and F1 are
        measured after every epoch; the loss with the classes' weights
    sample_weight : weights of shape (N,); the loss is each batch's weighted mean
    class_weight : what the weights of a label's images are multiplied by, by label; 1 for labels
        that are missing. "balanced" gives all classes the same weight together
    augment : how the views that are trained on differ from the images
    mixup : alpha; images are mixed with others of their batch by a share from Beta(alpha, alpha),
        and so are their targets. 0 for not at all
    average : decay of a running average of the parameters, like 0.999; the network gets the
        average for validation, for callbacks and in the end. 0 for none
    callbacks : functions that are called with the Epoch when one is done, or `Callback` objects;
        one that returns True ends training
    pixel_range : values of black and white in float images, to which image files and uint8 images
        are brought when the network is used. None is what the network was trained on before, or
        else 0 to 1, 0 to 255, 0 to 16 or -1 to 1 where the images look like that; in any other case
        the network takes floats alone. See ``Network.trained_on``
    seed : fixes the order of the images and what dropout leaves out
    engine : "lanes" or "reference", see Network; for the same seed, weights are the same bit for
        bit whatever the number of threads, but differ between the engines by rounding
    checkpoint : a file in which the run is kept: after an epoch where a second has gone since the
        last time, and when it ends, by whatever way but being killed. A run that finds itself there
        goes on after the last epoch that was kept, and ends with the same weights, bit for bit, as
        one that was never interrupted. Callbacks are called for the epochs that are left. With
        another number of epochs it goes on as well, on the schedule of the new length
    verbose : whether to show progress, on standard error; or the rich Console to show it on

    Returns
    -------
    History
        The figures of every epoch, and the dead units of the network. Ctrl-C ends training after
        the running batch, and the network keeps what it has learned; ``history.interrupted`` tells.

    Raises
    ------
    OptionError, ShapeError, InputError
        Options or data that cannot be used; nothing was trained.
    DivergenceError
        The loss was no longer finite. The network is as it was when the epoch began, or what a
        callback or ``average`` makes of it.
    ModelFileError
        The checkpoint is damaged.
    DataError
        A file that images are mapped from has become shorter.
    OSError
        The checkpoint cannot be written; what it held before it still holds.

    Warns
    -----
    DeadUnitWarning
        All units of a ReLU layer, or at the end more than half of them, were 0 for all of up to 256
        training images, spread over the set.
    FullbackWarning
        A checkpoint's run goes on to another number of epochs than it was started for.
        Float images are taken for pixels that do not go from 0 to 1, or are on another scale than
        those that the network was trained on before.
    """
    if not isinstance(net, Network):
        raise OptionError(f"fit takes a Network first, got {short(net)}")
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    weights = check_weights(sample_weight, len(images))
    of_class = None
    if class_weight is not None:
        of_class = class_weights(net, targets, class_weight, weights)
        weights = of_class[targets] * (1.0 if weights is None else weights)
    check_options(net, len(images), epochs, batch_size, optimizer, seed)
    batch_size = min(batch_size, len(images))
    _check_hooks(schedule, callbacks, validation_data, verbose)
    check_practice(net, batch_size, augment, mixup, average)
    validation = None
    if validation_data is not None:
        validation = _validation(net, *validation_data, of_class)
    _check_monitors(net, schedule, callbacks, validates=validation is not None)
    order = np.arange(len(images)) if weights is None else np.flatnonzero(weights)
    record = record_of(images, order, pixel_range, net.trained_on)

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
            schedule=text_of(schedule),
            augment=repr(augment),
            mixup=mixup,
            average=average,
            seed=seed,
            engine=chosen_engine,
            images=len(images),
            data=fingerprint(images, targets),
            sample_weight=None if weights is None else fingerprint(weights, weights),
            validation_data=validation and fingerprint(validation.images, validation.targets),
        )
    state = optimizer.initial_state(net.parameters, net.parameters)  # a callback may unfreeze
    if average:
        state |= {f"average.{name}": array.copy() for name, array in net.parameters.items()}
    stopping = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
    history = History([] if kept is None else kept.load(net, state, stopping))
    steps = steps_of(
        net,
        chosen_engine,
        images,
        targets,
        weights,
        optimizer,
        state,
        batch_size,
        augment=augment,
        mixes=mixup > 0,
        average=average,
    )
    untouched, known, threshold = snapshot(net), net.trained_on, net.threshold
    net.trained_on, net.threshold = record, None  # which was chosen for other weights
    measure(net, images, order)
    run = Run(
        net=net,
        images=images,
        targets=targets,
        steps=steps,
        order=order,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        seed=seed,
        state=state,
        augment=augment,
        mixup=mixup,
    )
    watch = DeadUnitWatch(net, images, order, epochs)
    progress = TrainingProgress(_console(verbose), epochs, run.batches)
    with progress, blas_threads(chosen_engine), DelayedInterrupt() as interrupt:
        if history.epochs:
            progress.say(f"goes on after epoch {len(history)} of {epochs}, from {checkpoint}")
        with averaged(net, state):
            enough = any([_hook(own, "begin", history) is True for own in callbacks])  # noqa: C419
        try:
            for epoch in range(len(history) + 1, 1 if enough else epochs + 1):
                before = snapshot(net)
                now = schedule.after(history.epochs) if isinstance(schedule, Plateau) else schedule
                try:
                    figures = run.train(epoch, now, progress, interrupt)
                    _require_finite(net, epoch, optimizer)
                except DivergenceError:
                    restore(net, before)
                    if not history.epochs:
                        restore(net, untouched)
                        net.trained_on, net.threshold = known, threshold
                    _end(net, state, callbacks, history, None)
                    raise
                if not interrupt.requested:
                    with averaged(net, state):
                        row = figures.row(net, epoch, validation)
                    history.epochs.append(row)
                    progress.epoch(row)
                    if kept is not None:
                        kept.note(net, state, history.epochs, stopping)
                    with averaged(net, state):
                        enough = any([own(row) is True for own in callbacks])  # noqa: C419 -- all
                    watch.note(figures.images)
                if interrupt.requested:  # in the epoch, or in its validation or callbacks
                    history.interrupted = True
                    progress.say(
                        f"interrupted in epoch {epoch}, after batch {figures.batches} of "
                        f"{run.batches}: the network keeps what it has learned"
                    )
                if interrupt.requested or enough:
                    break
        finally:
            if kept is not None:
                kept.write(history.epochs)
        _end(net, state, callbacks, history, watch)
    return history


def check_options(
    net: Network, images: int, epochs: int, batch_size: int, optimizer: Optimizer, seed: int
) -> None:
    """Raise OptionError or InputError where ``fit`` could not train so on that many images."""
    require_whole("epochs", epochs, 1, MOST_EPOCHS)
    require_whole("batch_size", batch_size, 1)
    if images < 1:
        raise InputError("there are no images to train on")
    if not isinstance(optimizer, Optimizer):
        raise OptionError(f"optimizer must be an optimizer like SGD(0.05), got {optimizer!r}")
    require_whole("seed", seed, 0)
    if not net.parameters:
        raise OptionError(f"the network has no parameters: there is nothing to train in {net}")
    if not net.trainable():
        raise OptionError("every layer with parameters is frozen: there is nothing to train")


def check_practice(
    net: Network, batch_size: int, augment: object, mixup: float, average: float
) -> None:
    """Raise OptionError or ShapeError where these do not go with the network."""
    if augment is not None:
        if not isinstance(augment, Augment):
            raise OptionError(f"augment must be like Augment(shift=2), got {augment!r}")
        augment.check_shape(net.input_shape)
    require_number("mixup", mixup, "[0, 1e4]")
    if mixup and batch_size < 2:
        raise OptionError("mixup needs batches of at least 2 images, to mix one with another")
    require_number("average", average, "[0, 1)")


def _validation(net: Network, x: ArrayLike, y: ArrayLike, of_class: Array | None) -> Validation:
    """Check validation data, and give the images the weights of their classes."""
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    weights = None if of_class is None else of_class[targets]
    if weights is not None and not weights.any():
        raise InputError("with this class_weight every validation image has weight 0")
    return Validation(images, targets, weights)


def _check_monitors(
    net: Network, schedule: object, callbacks: Iterable[object], *, validates: bool
) -> None:
    """Raise OptionError where what goes by the epochs' figures does not fit the run."""
    have = {"classifies": net.loss.classifies, "validates": validates}
    if isinstance(schedule, Plateau):
        check_monitor("Plateau: monitor", schedule.monitor, **have)
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            check_monitor("EarlyStopping: monitor", callback.monitor, **have)
            if callback.net is not net:
                raise OptionError(
                    "EarlyStopping watches another network than the one that is trained"
                )


def blas_threads(engine: Engine) -> contextlib.AbstractContextManager[object]:
    """Return a context in which the reference engine's products take one thread.

    They are small, several threads are slower at them, and sums whose order depends on the number
    of threads would make the weights depend on it too. The lane engine has threads of its own, and
    changes nothing for the other threads of the process.
    """
    return threadpool_limits(1, "blas") if engine == "reference" else contextlib.nullcontext()


def _end(
    net: Network,
    state: State,
    callbacks: Sequence[AnyCallback],
    history: History,
    watch: DeadUnitWatch | None,
) -> None:
    """Give the network its averages, and tell the callbacks that training has ended."""
    give_averages(net, state)
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            callback.finish(history)
    if watch is not None:
        history.dead_units = watch.end()
    for callback in callbacks:
        if not isinstance(callback, EarlyStopping):
            _hook(callback, "finish", history)


def _hook(callback: object, name: str, history: History) -> object:
    """Call a method of a callback that has it."""
    hook = getattr(callback, name, None)
    return hook(history) if callable(hook) else None


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


def measure(net: Network, images: Array, order: NDArray[np.int64]) -> None:
    """Adapt a Normalize layer that nobody has adapted or frozen to the images that take part."""
    first, name = net.layers[0], net.names[0]
    if (
        isinstance(first, Normalize)
        and name not in net.frozen
        and not net.statistics[f"{name}.images"]
    ):
        net.adapt(images if len(order) == len(images) else images[order])


def _console(verbose: bool | Console) -> Console | None:
    if isinstance(verbose, bool):
        if not verbose:
            return None
        from rich.console import Console

        return Console(stderr=True)
    return verbose


def _require_finite(net: Network, epoch: int, optimizer: Optimizer) -> None:
    for name, array in (*net.parameters.items(), *net.statistics.items()):
        if not np.isfinite(array).all():
            raise DivergenceError(
                f"{name} was no longer finite after epoch {epoch}; {advice(epoch, optimizer)}",
                epochs=epoch - 1,
            )
