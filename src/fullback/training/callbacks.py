"""Callbacks: what is called while a network is trained."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from fullback.atomic import check_writable
from fullback.errors import InputError, OptionError
from fullback.layers.base import Array
from fullback.model import Model
from fullback.options import require_number, require_whole
from fullback.training.history import (
    Epoch,
    History,
    Monitor,
    best_epoch,
    improvements,
    require_monitor,
    warm_up,
)
from fullback.training.snapshot import restore, snapshot

WRITE_EVERY = 1.0
"""Seconds of training from one writing of a run's files to the next, at least."""


class Callback:
    """What ``fit`` calls; to be subclassed. A plain function does for ``__call__`` alone.

    With ``average``, the network has the averages while a callback runs, and gets its parameters
    back afterwards.
    """

    def begin(self, history: History) -> object:
        """Act before the first epoch; ``history`` has the epochs that a checkpoint brought.

        Return True to end training before it begins.
        """

    def __call__(self, epoch: Epoch) -> object:
        """Act after an epoch; return True to end training."""

    def finish(self, history: History) -> None:
        """Act when training has ended: by itself, a callback, Ctrl-C or a DivergenceError."""


class EarlyStopping(Callback):
    """Keep the best epoch's arrays, and end training when nothing better has come for a while.

    When training has ended, by whatever way, the network gets the best epoch's arrays back.

    Epochs are waited for while neither the figure that is monitored nor the loss gets better:
    accuracy and the other shares stay where they are for many epochs while a network learns, above
    all where one class is rare. Nor does an epoch count against ``patience`` in which the learning
    rate was still rising, as in the first three tenths of ``schedules.warm_cosine``.

    Parameters
    ----------
    net : the network that is trained
    patience : epochs without improvement, after which training ends; None for never
    tol : by how much an epoch must be better to count as improvement: a share of the loss, or so
        much of accuracy, balanced accuracy or F1
    monitor : what epochs are judged by: ``"loss"``, the lowest; or the highest ``"accuracy"``,
        ``"balanced"`` accuracy (the mean of the classes' recalls) or macro ``"f1"``. They are those
        of the validation data; loss and accuracy of the training data where there are no others.
        The validation loss has the class weights of the training data, so that with
        ``class_weight="balanced"`` it is a balanced measure. Of epochs that are equal by a share,
        the one with the lower loss is the best
    file : a model file in which the best epoch is kept as well, while training runs at most once a
        second

    Attributes
    ----------
    best : number of the best epoch, from 1; 0 before the first one
    """

    def __init__(
        self,
        net: Model,
        patience: int | None = 10,
        tol: float = 1e-4,
        *,
        monitor: Monitor = "loss",
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(net, Model):
            raise OptionError(f"EarlyStopping takes the network that is trained, got {net!r}")
        if patience is not None:
            require_whole("EarlyStopping: patience", patience, 1)
        require_number("EarlyStopping: tol", tol, "[0, inf)")
        require_monitor("EarlyStopping: monitor", monitor)
        self.net, self.patience, self.tol, self.monitor = net, patience, tol, monitor
        self.file = None if file is None else Path(file)
        if self.file is not None:
            check_writable(self.file)
        self.best = 0
        self._epochs: list[Epoch] = []
        self._arrays = snapshot(net)
        self._restored: tuple[int, dict[str, Array]] | None = None
        self._written, self._last_write = 0, -math.inf

    def kept(self) -> tuple[int, dict[str, Array]]:
        """Return the number of the best epoch, and its arrays, for a checkpoint."""
        return self.best, self._arrays

    def take_over(self, best: int, arrays: dict[str, Array]) -> None:
        """Go on from what ``kept`` returned, before training begins; ``begin`` uses it."""
        self._restored = best, arrays

    def begin(self, history: History) -> bool:
        """Find the best of the epochs that are done."""
        self._epochs, self._arrays = list(history), snapshot(self.net)
        self.best, self._written = best_epoch(self._epochs, self.monitor), 0
        restored, self._restored = self._restored, None
        if self.best and self.best < len(history):
            same = restored is not None and restored[0] == self.best
            self._arrays = restored[1] if same and restored is not None else self._read()
        self._write(at_once=True)
        return self._enough()

    def __call__(self, epoch: Epoch) -> bool:
        """Note an epoch; return whether it is time to end."""
        self._epochs.append(epoch)
        if not self.best or best_epoch([self._epochs[self.best - 1], epoch], self.monitor) == 2:
            self.best, self._arrays = len(self._epochs), snapshot(self.net)
        self._write()
        return self._enough()

    def finish(self, history: History) -> None:
        """Give the network its best epoch's arrays back."""
        if self.best:
            restore(self.net, self._arrays)
            self._write(at_once=True)

    def _enough(self) -> bool:
        if self.patience is None:
            return False
        better = improvements(self._epochs, self.monitor, self.tol)
        last = max((n for n, improved in enumerate(better, 1) if improved), default=0)
        waited = len(better) - max(last, warm_up(self._epochs))
        return waited >= self.patience

    def _write(self, *, at_once: bool = False) -> None:
        """Write the best epoch's file where it is another one than before, once in a while."""
        now = time.monotonic()
        if self.file is None or not self.best or self._written == self.best:
            return
        if at_once or now - self._last_write >= WRITE_EVERY:
            from fullback.export.safetensors import save

            current = snapshot(self.net)
            restore(self.net, self._arrays)
            try:
                save(self.net, self.file)
            finally:
                restore(self.net, current)
            self._written, self._last_write = self.best, time.monotonic()

    def _read(self) -> dict[str, Array]:
        """Return the best epoch's arrays from the file."""
        from fullback.export.safetensors import read_model

        if self.file is None or not self.file.exists():
            raise InputError(
                f"the best epoch so far, {self.best}, is not in the checkpoint; give "
                "EarlyStopping the file that it was kept in, and monitor what it monitored"
            )
        saved, _ = read_model(self.file, type(self.net))
        if saved.layers != self.net.layers or saved.input_shape != self.net.input_shape:
            raise InputError(f"{self.file} holds another network; give another file")
        return snapshot(saved)
