"""What training shows: a bar for the epoch that runs, and lines for those that are done."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from fullback.training.history import Epoch

if TYPE_CHECKING:
    from rich.console import Console


MOST_EPOCHS = 10**7
"""Epochs of a run; the figures of each are kept."""

_MOST_LINES = 12  # epochs that get a line; of more, every second or third gets one


class TrainingProgress:
    """A context in which ``fit`` reports batches and epochs; without a console it is silent.

    On a terminal the running epoch has a bar with loss, accuracy and images a second. Elsewhere
    only the lines of the finished epochs are written.
    """

    def __init__(self, console: Console | None, epochs: int, batches: int) -> None:
        self.console = console
        self.epochs = epochs
        self.every = -(-epochs // _MOST_LINES)
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

    def __enter__(self) -> TrainingProgress:
        if self.console is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.console is not None:
            self._bar.stop()

    def batch(
        self, epoch: int, done: int, loss: float, accuracy: float | None, images_per_second: float
    ) -> None:
        """Show how far the running epoch is, with its figures so far."""
        if self.console is None:
            return
        figures = _figures(loss, accuracy, None, None, images_per_second)
        self._bar.update(self._task, completed=done, epoch=epoch, figures=figures)

    def epoch(self, row: Epoch) -> None:
        """Write the line of a finished epoch, if it is one that gets a line."""
        if self.console is None or (row.epoch % self.every and row.epoch != self.epochs):
            return
        figures = _figures(
            row.loss,
            row.accuracy,
            row.validation_loss,
            row.validation_accuracy,
            row.images_per_second,
        )
        line = f"epoch {row.epoch:>{len(str(self.epochs))}}/{self.epochs}  {figures}"
        self.console.print(line, soft_wrap=True)

    def say(self, text: str) -> None:
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
