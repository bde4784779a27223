"""Training: epochs of shuffled batches, a gradient step each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import ArrayLike

from fullback.augment import Augment
from fullback.errors import DivergenceError, OptionError
from fullback.model import Engine, Model
from fullback.options import short
from fullback.pixels import record_of
from fullback.training.checkpoint import Checkpoint
from fullback.training.class_weights import ClassWeight
from fullback.training.dead import DeadUnitWatch
from fullback.training.delayed_interrupt import DelayedInterrupt
from fullback.training.history import History
from fullback.training.listeners import (
    AnyCallback,
    Listener,
    Listeners,
    UserCallback,
    user_callbacks,
)
from fullback.training.optimizers import DEFAULT, Optimizer
from fullback.training.options import Sums, TrainingOptions
from fullback.training.progress import TrainingProgress, console_of
from fullback.training.run import EpochFigures, TrainingRun
from fullback.training.schedules import Plateau, Schedule, warm_cosine
from fullback.training.shared import (
    begin,
    joined,
    leading,
    listeners_of,
    part_of,
    require_same,
    rounding_of,
    shared_data,
)
from fullback.training.snapshot import restore, snapshot
from fullback.training.stepper import PieceLength, blas_threads
from fullback.training.training_data import TrainingData

if TYPE_CHECKING:
    from rich.console import Console

_PIECE_SECONDS = 0.1  # of training between two looks at the progress bar and at Ctrl-C


def fit(
    net: Model,
    x: ArrayLike | None,
    y: ArrayLike | None,
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
    comm: Any = None,
    sums: Sums = "exact",
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
    comm : an MPI communicator like mpi4py's ``MPI.COMM_WORLD``, whose processes, the ranks, train
        the network together: all call ``fit`` with the same arguments, and end with the same
        network. Each computes its share of every batch. Images and labels, given on all ranks or on
        rank 0 alone (``None`` on the others), are read by the rank that trains on them. Rank 0
        shows, writes and calls back. See docs/mpi.md
    sums : "exact" gives the same weights, bit for bit, whatever the number of ranks; "fast" has
        less to send for large networks, and then the sums of gradients are rounded in an order that
        depends on the number of ranks

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
    RankError
        Another rank has failed, with an error of its own.

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
    if not isinstance(net, Model):
        raise OptionError(f"fit takes a Network first, got {short(net)}")
    options = TrainingOptions(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        class_weight=class_weight,
        augment=augment,
        mixup=mixup,
        average=average,
        pixel_range=pixel_range,
        seed=seed,
        engine=engine,
        sums=sums,
    )
    with joined(comm, fast=sums == "fast") as ranks:
        part = part_of(ranks, given=x is not None)
        data = None
        if part is not None:
            data = TrainingData.of(
                net,
                net.check_images(cast(ArrayLike, x), part=part),
                cast(ArrayLike, y),
                sample_weight=sample_weight,
                class_weight=class_weight,
                validation_data=validation_data,
            )
        leads, validates = leading(ranks), data is not None and data.validation is not None
        data = shared_data(ranks, data)
        options = options.for_run(net, len(data), validates=validates if leads else None)
        require_same(ranks, net, data, options)
        users = user_callbacks(net, callbacks, validates=validates) if leads else []
        console, record = console_of(verbose), None
        if leads:
            record = record_of(data.images, data.order, pixel_range, net.trained_on)
        run, history = TrainingRun(net, data, options, ranks), History([])
        listeners: list[Listener] = []
        if leads:
            listeners, history = _listeners(run, users, console, checkpoint)
        begin(run, record, history)
        with blas_threads(options.engine), DelayedInterrupt(ranks) as interrupt:
            _train(run, listeners_of(run, listeners), history, interrupt)
    return history


def _listeners(
    run: TrainingRun,
    users: Sequence[UserCallback],
    console: Console | None,
    checkpoint: str | os.PathLike[str] | None,
) -> tuple[list[Listener], History]:
    """Return all listeners, in the order in which they are called, and the epochs of a file."""
    files = []
    if checkpoint is not None:
        files.append(Checkpoint(checkpoint, run, [user.callback for user in users]))
    listeners = [
        TrainingProgress(console, run.options.epochs, run.batches, checkpoint, rounding_of(run)),
        *files,
        *users,
        DeadUnitWatch(run.net, run.data, run.options.epochs),
    ]
    return listeners, History(files[0].load() if files else [])


def _train(
    run: TrainingRun, listeners: Listeners, history: History, interrupt: DelayedInterrupt
) -> None:
    """Train the epochs that are left, and tell the listeners of them."""
    net, epochs = run.net, run.options.epochs
    try:
        enough = listeners.begin(history)
        while not enough and len(history) < epochs:
            before = snapshot(net)
            try:
                figures = _train_epoch(run, listeners, history, interrupt)
            except DivergenceError:
                restore(net, before)
                if not history.epochs:
                    run.undo()
                listeners.finish(history, diverged=True)
                raise
            if not interrupt.asked:
                history.epochs.append(run.row(len(history) + 1, figures))
                enough = listeners(history.epochs[-1])
            if interrupt.asked:  # in the epoch, or in its validation or callbacks
                history.interrupted = enough = True
    finally:
        listeners.close()
    listeners.finish(history)


def _train_epoch(
    run: TrainingRun, listeners: Listeners, history: History, interrupt: DelayedInterrupt
) -> EpochFigures:
    """Train the next epoch, or a part of it where Ctrl-C comes, and return its figures."""
    epoch, schedule = len(history) + 1, run.options.schedule
    if isinstance(schedule, Plateau):
        schedule = schedule.after(history.epochs)
    figures, length = EpochFigures(run), PieceLength(_PIECE_SECONDS, run.ranks)
    with contextlib.closing(run.epoch(epoch, schedule, length)) as pieces:
        while not interrupt.asked and (piece := next(pieces, None)) is not None:
            figures.add(piece)
            listeners.batch(epoch, figures)
    run.require_finite(epoch)
    return figures
