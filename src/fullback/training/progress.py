"""What training shows: a bar for the epoch that runs, and lines for those that are done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fullback.errors import OptionError
from fullback.training.history import Epoch, History
from fullback.training.listeners import Listener, Stage
from fullback.training.run import EpochFigures

if TYPE_CHECKING:
    from rich.console import Console

_MOST_LINES = 12  # epochs that get a line; of more, every second or third gets one


class TrainingProgress(Listener):
    """What ``fit`` shows of batches and epochs; without a console it is silent.

    On a terminal the running epoch has a bar with loss, accuracy and images a second. Elsewhere
    only the lines of the finished epochs are written.

    Parameters
    ----------
    console : what it is shown on, or None
    epochs, batches : of the run, and of an epoch
    checkpoint : the file that a run may go on from
    note : a line to begin with, if any
    """

    stage = Stage.SETTLE

    def __init__(
        self,
        console: Console | None,
        epochs: int,
        batches: int,
        checkpoint: str | os.PathLike[str] | None = None,
        note: str = "",
    ) -> None:
        self.console, self.note = console, note
        self.epochs, self.batches, self.checkpoint = epochs, batches, checkpoint
        self.every = -(-epochs // _MOST_LINES)
        self.place = (1, 0)  # the running epoch, and its batches that are done
        if console is not None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn(
                    "epoch {task.fields[epoch]:>{task.fields[width]}}/{task.fields[epochs]}"
                ),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(compact=True),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
            self._task = self._bar.add_task(
                "", total=batches, epoch=1, epochs=epochs, width=len(str(epochs)), figures=""
            )

    def begin(self, history: History) -> None:
        """Show the bar, and whether a run goes on."""
        if self.console is not None:
            self._bar.start()
        if self.note:
            self._say(self.note)
        if history.epochs:
            self._say(
                f"goes on after epoch {len(history)} of {self.epochs}, from {self.checkpoint}"
            )

    def batch(self, epoch: int, figures: EpochFigures) -> None:
        """Show how far the running epoch is, with its figures so far."""
        self.place = (epoch, figures.batches)
        if self.console is not None:
            loss, accuracy, images_per_second = figures.so_far()
            text = _figures(loss, accuracy, None, None, images_per_second)
            self._bar.update(self._task, completed=figures.batches, epoch=epoch, figures=text)

    def __call__(self, epoch: Epoch) -> None:
        """Write the line of a finished epoch, if it is one that gets a line."""
        if self.console is None or (epoch.epoch % self.every and epoch.epoch != self.epochs):
            return
        figures = _figures(
            epoch.loss,
            epoch.accuracy,
            epoch.validation_loss,
            epoch.validation_accuracy,
            epoch.images_per_second,
        )
        line = f"epoch {epoch.epoch:>{len(str(self.epochs))}}/{self.epochs}  {figures}"
        self.console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.console is not None:
            self._bar.stop()

    def finish(self, history: History) -> None:
        """Write where a run was interrupted."""
        if history.interrupted:
            epoch, done = self.place
            self._say(
                f"interrupted in epoch {epoch}, after batch {done} of {self.batches}: the network "
                "keeps what it has learned"
            )

    def _say(self, text: str) -> None:
        """Write a line above the bar; what would move the cursor is escaped."""
        if self.console is not None:
            from rich.text import Text

            line = Text("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))
            self.console.print(line, soft_wrap=True)


def _figures(
    loss: float,
    accuracy: float | None,
    validation_loss: float | None,
    validation_accuracy: float | None,
    images_per_second: float,
) -> str:
    parts = [f"loss {loss:.4f}"]
    if accuracy is not None:
        parts.append(f"accuracy {accuracy:7.2%}")
    if validation_accuracy is not None:
        parts.append(f"validation {validation_accuracy:7.2%}")
    elif validation_loss is not None:
        parts.append(f"validation loss {validation_loss:.4f}")
    parts.append(f"[dim]{images_per_second:>9,.0f} images/s[/dim]")
    return "  ".join(parts)


def console_of(verbose: bool | Console) -> Console | None:
    """Return what progress is shown on: standard error, a console, or nothing.

    Raises
    ------
    OptionError
        ``verbose`` is none of them.
    """
    if not isinstance(verbose, bool):
        if not hasattr(verbose, "is_terminal"):
            raise OptionError(f"verbose must be True, False or a rich Console, got {verbose!r}")
        return verbose
    if not verbose:
        return None
    from rich.console import Console

    return Console(stderr=True)
