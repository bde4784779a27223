"""Live training: a run in a thread of its own, that can be watched, paused and gone on with.

A run is ``fit``'s, batch for batch, so that it ends with the same weights as ``fit`` gives for the
same options; but it is made in short pieces, between which others may look at the network.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fullback.engine.lowering import lower
from fullback.engine.machine import memory_of, threads
from fullback.engine.simd import LANES
from fullback.errors import DivergenceError, FullbackError, FullbackWarning, InputError
from fullback.explorer.config import MOST_LAYERS
from fullback.explorer.fields import Fields
from fullback.layers.base import Array
from fullback.memory import gibibytes
from fullback.network import Network
from fullback.pixels import ImageRecord, record_of
from fullback.training.dead import dead_units
from fullback.training.optimizers import CLIP_NORM, SGD
from fullback.training.options import TrainingOptions
from fullback.training.run import EpochFigures, TrainingRun
from fullback.training.schedules import Schedule, constant, warm_cosine
from fullback.training.snapshot import restore, snapshot
from fullback.training.stepper import Piece, PieceLength
from fullback.training.training_data import TrainingData

SCHEDULES: dict[str, Schedule] = {"warm_cosine": warm_cosine, "constant": constant}

PACES = {"full": 0.0, "slow": 0.1, "step": 0.5}
"""Seconds from one piece of a run to the next, by the name of the pace."""

_MOST_EPOCHS = 500
MOST_BYTES = 2**30  # that one page's training takes
_PIECE_SECONDS = 0.04  # of training in one piece: others wait for the network as long as that
_BREATH = 0.004  # seconds between two pieces, in which they get it
_WATCHED = 64  # images on which dead layers are looked for
MOST_POINTS = 20_000  # losses that are kept for the curve


@dataclass(frozen=True)
class Run:
    """The options of a training run.

    Attributes
    ----------
    epochs, batch_size, seed : as for ``fit``
    rate, momentum : of SGD; with a momentum, in Nesterov's way, and clipped as by default
    schedule : "warm_cosine" or "constant"
    freeze : kinds or names of the layers that stay as they are
    """

    epochs: int
    batch_size: int = 64
    rate: float = 0.05
    momentum: float = 0.9
    schedule: str = "warm_cosine"
    seed: int = 0
    freeze: tuple[str, ...] = ()

    @property
    def options(self) -> TrainingOptions:
        """The options as ``fit`` has them."""
        optimizer = SGD(
            self.rate,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            clip_norm=CLIP_NORM,
        )
        return TrainingOptions(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=optimizer,
            schedule=SCHEDULES[self.schedule],
            seed=self.seed,
        )


@dataclass
class Progress:
    """What a run has done so far.

    Attributes
    ----------
    losses : mean loss of every piece: (batches done by then, loss)
    epochs : of every finished epoch: number, loss, accuracy, and accuracy on the test images
    failure : why it ended before its time, or None
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None


class Trainer:
    """One run on one network.

    Parameters
    ----------
    net : the network, which the run changes
    lock : what is held while the network is read or changed
    train, test : images and labels
    run : the options
    """

    def __init__(
        self,
        net: Network,
        lock: threading.RLock,
        train: tuple[Array, Array],
        test: tuple[Array, Array],
        run: Run,
    ) -> None:
        images = net.check_images(train[0])
        run = replace(run, batch_size=min(run.batch_size, len(images)))  # as fit does
        self.net, self.lock, self.run, self.test = net, lock, run, test
        record = scale_of(net, images)
        self.data = TrainingData.of(net, images, train[1])
        set_frozen(net, run.freeze)
        options = run.options.for_run(net, len(images))
        _require_room(net, run.batch_size)
        net.trained_on = record
        self.training = TrainingRun(net, self.data, options)
        self.batches = self.training.batches
        self.total = self.batches * run.epochs
        self.done = 0
        self.progress = Progress()
        self.pace = "full"
        self._length = PieceLength(_PIECE_SECONDS)
        self._pieces = self._all_pieces()
        self._figures = EpochFigures(self.training)  # of the running epoch
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _all_pieces(self) -> Iterator[tuple[int, Piece]]:
        """Train, and yield every piece with the number of its epoch."""
        for epoch in range(1, self.run.epochs + 1):
            schedule = self.training.options.schedule
            for piece in self.training.epoch(epoch, schedule, self._length, shared=True):
                yield epoch, piece

    @property
    def running(self) -> bool:
        """Whether it trains at this moment."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin, or go on, in a thread of its own."""
        if self.running or self.done >= self.total or self.progress.failure:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self.train, name="fullback-training", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Stop after the running piece, and wait for it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def train(self, most: int | None = None) -> None:
        """Train up to the end, a pause, or that many batches in all."""
        end = self.total if most is None else min(most, self.total)
        with threadpool_limits(1, "blas"):
            while self.done < end and not self._stop.is_set():
                slow = PACES[self.pace]
                start = time.perf_counter()
                try:
                    with self.lock:
                        self._piece(1 if slow else min(self._length.batches, end - self.done))
                except FullbackError as error:
                    self.progress.failure = str(error)
                    return
                except BaseException as error:
                    self.progress.failure = f"training broke off ({error!r}); reset the network"
                    raise
                seconds = time.perf_counter() - start
                self._stop.wait(max(slow - seconds, _BREATH))

    def _piece(self, count: int) -> None:
        """Train on at most so many batches of the running epoch."""
        before, net = snapshot(self.net), self.net
        self._length.batches = count
        epoch, diverged = self.done // self.batches + 1, False
        try:
            epoch, piece = next(self._pieces)
        except DivergenceError:
            diverged = True
        if diverged or not all(np.isfinite(array).all() for array in net.parameters.values()):
            restore(net, before)
            if not all(np.isfinite(array).all() for array in net.parameters.values()):
                raise InputError(
                    "weights of this network are not finite: reset it, or open another one"
                )
            raise InputError(
                f"the loss is no longer finite in epoch {epoch}: the learning rate "
                f"{self.run.rate:g} is too large; reset the network, and give a smaller one"
            )
        self.done += len(piece.figures)
        self._note(epoch, piece)

    def _note(self, epoch: int, piece: Piece) -> None:
        """Keep the figures of a piece, and of an epoch that it ends."""
        self._figures.add(piece)
        self.progress.losses.append((self.done, float(piece.figures[:, 0].mean())))
        if len(self.progress.losses) > MOST_POINTS:
            del self.progress.losses[1::2]
        if self.done % self.batches:
            return
        loss, accuracy, _ = self._figures.so_far()
        self._figures = EpochFigures(self.training)
        found = self.net.evaluate(*self.test)
        self.progress.epochs.append(
            {
                "epoch": epoch,
                "batches": self.done,
                "loss": loss,
                "accuracy": accuracy,
                "test_loss": found.loss,
                "test_accuracy": found.score,
                "dead": self._dead_layers(),
            }
        )

    def _dead_layers(self) -> list[str]:
        """Return the layers that are 0 everywhere, for some images."""
        shapes = dict(zip(self.net.names, self.net.shapes, strict=True))
        dead = dead_units(self.net, self.data.images[:_WATCHED])
        return [name for name, units in dead.items() if len(units) == shapes[name][0]]

    def report(self) -> dict[str, Any]:
        """Return the run's options and what it has done, as the page shows it."""
        progress = self.progress
        return {
            "running": self.running,
            "batches": self.done,
            "total": self.total,
            "batches_per_epoch": self.batches,
            "finished": self.done >= self.total,
            "failure": progress.failure,
            "points": len(progress.losses),
            "losses": [[n, round(loss, 6)] for n, loss in list(progress.losses)],
            "epochs": list(progress.epochs),
            "rate": self.run.rate,
            "frozen": sorted(self.net.frozen),
            "pace": self.pace,
        }


def _require_room(net: Network, batch: int) -> None:
    """Raise InputError where a training step takes more memory than a page may have."""
    if net.choose_engine(None) == "lanes":
        plan = lower(net, "gradients", blocks=-(-batch // LANES), training=True)
        size = memory_of(plan, threads())
    else:
        size = 2 * batch * net.pass_values * net.dtype.itemsize
    if size > MOST_BYTES:
        raise InputError(
            f"training this network in batches of {batch} takes {gibibytes(size)} of memory, and "
            f"one page may take {gibibytes(MOST_BYTES)}; give a smaller batch_size, or build a "
            "smaller network"
        )


def scale_of(net: Network, images: Array) -> ImageRecord:
    """Return the record of checked images that a network is to be trained on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FullbackWarning)  # that the scale is a guess
        return record_of(images, np.arange(len(images)), None, net.trained_on)


def set_frozen(net: Network, names: tuple[str, ...]) -> None:
    """Freeze these layers, and no others."""
    if net.frozen:
        net.unfreeze(*net.frozen)
    if names:
        net.freeze(*names)


def read_run(given: Fields) -> Run:
    """Read the options of a training run."""
    return Run(
        epochs=given.whole("epochs", 1, _MOST_EPOCHS),
        batch_size=given.whole("batch_size", 1, 4096, 64),
        rate=given.number("rate", "(0, 100]", 0.05),
        momentum=given.number("momentum", "[0, 1)", 0.9),
        schedule=given.choice("schedule", tuple(SCHEDULES), "warm_cosine"),
        seed=given.whole("seed", 0, 2**31, 0),
        freeze=tuple(given.texts("freeze", 40, MOST_LAYERS)),
    )


def described(run: Run) -> dict[str, Any]:
    """Return a run's options as ``read_run`` reads them."""
    return {**run.__dict__, "freeze": list(run.freeze)}
