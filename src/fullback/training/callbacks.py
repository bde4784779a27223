"""Callbacks: what is called while a network is trained."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fullback.atomic import check_writable
from fullback.errors import InputError, OptionError
from fullback.layers.base import Array
from fullback.network import Network
from fullback.options import require_number, require_whole
from fullback.training.history import Epoch, History, improvements
from fullback.training.snapshot import restore, snapshot


class Callback:
    """What ``fit`` calls; to be subclassed. A plain function does for ``__call__`` alone.

    With ``average``, the network has the averages while it is called, and gets its own parameters
    back afterwards.
    """

    def begin(self, history: History) -> object:
        """Be told before the first epoch. ``history`` has those that a checkpoint brought.

        True ends training before it begins.
        """

    def __call__(self, epoch: Epoch) -> object:
        """Be told after every epoch, when its checkpoint is written; True ends training."""

    def finish(self, history: History) -> None:
        """Be told when training has ended: by itself, a callback, Ctrl-C or a DivergenceError."""


class EarlyStopping(Callback):
    """Keep the best epoch's arrays, and end training when no better one has come for a while.

    The best epoch is the one with the highest validation accuracy, or without classes the lowest
    validation loss; without validation data, the lowest training loss. When training has ended,
    by whatever way, the network gets its arrays back.

    Parameters
    ----------
    net : the network that is trained
    patience : epochs without improvement, after which training ends; None for never
    tol : by how much an epoch must be better to count as improvement
    file : a model file in which the best epoch is kept as well. A run that goes on from a
        checkpoint needs it

    Attributes
    ----------
    best : number of the best epoch, from 1; 0 before the first one
    """

    def __init__(
        self,
        net: Network,
        patience: int | None = 10,
        tol: float = 0.0,
        *,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(net, Network):
            raise OptionError(f"EarlyStopping takes the network that is trained, got {net!r}")
        if patience is not None:
            require_whole("EarlyStopping: patience", patience, 1)
        require_number("EarlyStopping: tol", tol, "[0, inf)")
        self.net, self.patience, self.tol = net, patience, tol
        self.file = None if file is None else Path(file)
        if self.file is not None:
            check_writable(self.file)
        self.best = 0
        self._epochs: list[Epoch] = []
        self._arrays = snapshot(net)

    def begin(self, history: History) -> bool:
        """Find the best of the epochs that are done."""
        self._epochs, self.best, self._arrays = [], 0, snapshot(self.net)
        for epoch in history:
            self._note(epoch)
        if self.best and self.best < len(history):
            self._arrays = self._read()
        elif self.best and self.file is not None:  # it may have ended before that was written
            self._write()
        return self._enough()

    def __call__(self, epoch: Epoch) -> bool:
        """Note an epoch; return whether it is time to end."""
        if self._note(epoch):
            self._arrays = snapshot(self.net)
            if self.file is not None:
                self._write()
        return self._enough()

    def finish(self, history: History) -> None:
        """Give the network its best epoch's arrays back."""
        if self.best:
            restore(self.net, self._arrays)

    def _note(self, epoch: Epoch) -> bool:
        """Take note of an epoch; return whether it is the best so far."""
        best = max((own.figure for own in self._epochs), default=-np.inf)
        self._epochs.append(epoch)
        if epoch.figure > best:
            self.best = len(self._epochs)
        return epoch.figure > best

    def _enough(self) -> bool:
        better = improvements(self._epochs, self.tol)
        last = max((n for n, improved in enumerate(better, 1) if improved), default=0)
        return self.patience is not None and len(better) - last >= self.patience

    def _write(self) -> None:
        from fullback.export.safetensors import save

        if self.file is not None:
            save(self.net, self.file)

    def _read(self) -> dict[str, Array]:
        """Return the best epoch's arrays from the file."""
        from fullback.export.safetensors import load

        if self.file is None or not self.file.exists():
            raise InputError(
                f"the best epoch so far, {self.best}, is not in the checkpoint; give "
                "EarlyStopping the file that it was kept in"
            )
        kept = load(self.file)
        if kept.layers != self.net.layers or kept.input_shape != self.net.input_shape:
            raise InputError(f"{self.file} holds another network; give another file")
        return snapshot(kept)
