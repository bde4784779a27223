"""What a run's folder gets while it is trained: history, log and events for TensorBoard."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fullback.atomic import write_atomically
from fullback.training.callbacks import Callback
from fullback.training.history import Epoch, History

if TYPE_CHECKING:
    from fullback.cli.run_folder import RunFolder

_WRITE_EVERY = 1.0  # seconds from one writing of the figures to the next, at least
_SHORT = 2.0  # seconds: a run that takes no longer does without tensorboardX till its end
_CURVES = (
    *("loss", "accuracy", "validation_loss", "validation_accuracy", "validation_balanced"),
    *("validation_f1", "images_per_second"),
)


class Reporter(Callback):
    """Writes the epochs down; those that a checkpoint brought are written anew.

    The log gets every epoch at once. The figures are written at most once a second, and when
    training ends; where it is killed, the checkpoint has them.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.epochs: list[Epoch] = []
        self.events: Any = None  # tensorboardX's writer
        self.written = 0  # epochs that the writer has
        self.start = self.last_write = time.monotonic()

    def begin(self, history: History) -> None:
        """Write the epochs that a checkpoint brought."""
        self.epochs = list(history)
        self.folder.log(
            f"goes on after epoch {len(self.epochs)}" if self.epochs else "training begins"
        )
        self.start = time.monotonic()
        if self.epochs:
            self._write_history()

    def __call__(self, epoch: Epoch) -> None:
        """Write an epoch."""
        self.epochs.append(epoch)
        now = time.monotonic()
        if now - self.last_write > _WRITE_EVERY:
            self._write_history()
            if now - self.start > _SHORT:
                self._add_events()
        figures = [
            f"{name.replace('_', ' ')} {value:.6g}"
            for name in _CURVES
            if (value := getattr(epoch, name, None)) is not None
        ]
        self.folder.log(f"epoch {epoch.epoch}: {', '.join(figures)}")

    def finish(self, history: History) -> None:
        """Write what is not written, and close what is open."""
        self._write_history()
        self._add_events()
        if self.events is not None:
            self.events.close()
        for name, units in history.dead_units.items():
            self.folder.log(f"{name}: {len(units)} units answer 0 to every image")
        if not history.interrupted:
            self.folder.log(f"training ended after epoch {len(history)}")

    def _write_history(self) -> None:
        self.last_write = time.monotonic()
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(field.name for field in dataclasses.fields(Epoch))
        table.writerows(vars(epoch).values() for epoch in self.epochs)
        csv_file, json_file = self.folder.history
        write_atomically(csv_file, text.getvalue().encode())
        rows = json.dumps([vars(epoch) for epoch in self.epochs], indent=1)
        write_atomically(json_file, rows.encode() + b"\n")

    def _add_events(self) -> None:
        """Give TensorBoard's files the epochs that they lack, where what writes them is there."""
        if self.events is None:
            if find_spec("tensorboardX") is None:
                return
            from tensorboardX import SummaryWriter

            events = self.folder.path / "tensorboard"
            for old in events.glob("events.out.tfevents.*"):
                old.unlink()
            self.events = SummaryWriter(str(events))
        for epoch in self.epochs[self.written :]:
            for name in _CURVES:
                if (value := getattr(epoch, name, None)) is not None:
                    self.events.add_scalar(name, value, epoch.epoch)
        self.written = len(self.epochs)
        self.events.flush()
