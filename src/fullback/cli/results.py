"""What a test looks like on a terminal: accuracy, confusion matrix, the worst mistakes."""

from __future__ import annotations

import functools
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fullback.cli.output import printable
from fullback.layers.loss import class_probabilities
from fullback.metrics import most_wrong
from fullback.network import Network
from fullback.passes import evaluate_logits
from fullback.threshold import Threshold, answers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.columns import Columns
    from rich.table import Table

    from fullback.cli.output import Output

_SHADES = " .:-=+*#%@"  # from dark to light, in any font and on any background
_MOST_CLASSES = 16  # of which a confusion matrix fits on a terminal
_MISTAKES = 3
_CONFUSED = 8  # pairs of classes that are listed in place of a matrix


@dataclass(frozen=True, eq=False)
class Answers:
    """A network's answers to a set of labelled images.

    Attributes
    ----------
    images, labels : the set, of shapes (N, C, H, W) and (N,)
    probabilities : of every class, of shape (N, classes)
    loss, accuracy : over the set
    threshold : from which probability on a class is answered; None for the most probable class
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    probabilities: NDArray[Any]
    loss: float
    accuracy: float
    threshold: Threshold | None = None

    @functools.cached_property
    def predicted(self) -> NDArray[np.int64]:
        """What is answered to every image, of shape (N,)."""
        return answers(self.probabilities, self.threshold)

    @property
    def right(self) -> int:
        """How many images were predicted right."""
        return int((self.predicted == self.labels).sum())

    def worst(self) -> list[int]:
        """Return the images with the least probability for their label, if it was not first."""
        return most_wrong(self.labels, self.probabilities, self.threshold)[:_MISTAKES]


def take_test(net: Network, images: NDArray[Any], labels: NDArray[np.int64]) -> Answers:
    """Let a network answer a test set."""
    logits = net.logits(images)
    found = evaluate_logits(net.loss, logits, labels)
    p, threshold = class_probabilities(net.loss, logits), net.threshold
    accuracy = found.score
    if threshold is not None:
        accuracy = float((threshold.answers(p) == labels).mean())
    return Answers(images, labels, p, found.loss, accuracy, threshold)


def show_answers(output: Output, answers: Answers, class_names: tuple[str, ...]) -> None:
    """Write the accuracy, the confusion matrix and the worst mistakes."""
    output.fact(
        "test",
        (f"{answers.accuracy:.2%}", "bold green"),
        f" right: {answers.right:,} of {len(answers.labels):,} images, loss {answers.loss:.4f}",
    )
    unnamed = range(len(class_names), int(answers.predicted.max()) + 1)
    names = tuple(map(printable, (*class_names, *map(str, unnamed))))
    matrix = _confusion_table(answers, names) if len(names) <= _MOST_CLASSES else None
    if matrix is not None and output.fits(matrix):
        output.show("", matrix)
    elif answers.right < len(answers.labels):
        output.show("", _confused(answers, names))
    mistakes = answers.worst()
    if mistakes:
        output.show("most wrong about", _mistakes(answers, mistakes, names))


def _confusion_table(answers: Answers, class_names: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    classes = range(len(class_names))
    pairs = answers.labels * len(classes) + answers.predicted
    counts = np.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), -1)
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title="label / predicted",
        title_style="dim",
        title_justify="left",
    )
    table.add_column("", justify="right", style="bold")
    for name in class_names:
        table.add_column(Text(name), justify="right", min_width=3)
    table.add_column("right", justify="right", style="dim")
    for label in classes:
        cells = []
        for predicted, count in enumerate(counts[label]):
            style = "bold" if label == predicted else "magenta"
            cells.append(f"[{style}]{count}[/{style}]" if count else "[dim].[/dim]")
        total = counts[label].sum()
        share = f"{counts[label, label] / total:.0%}" if total else ""
        table.add_row(Text(class_names[label]), *cells, share)
    return table


def _confused(answers: Answers, class_names: tuple[str, ...]) -> Table:
    """Return which classes are confused most often, where there is no room for a matrix."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("label", "taken for"):
        table.add_column(column, overflow="fold", style="bold")
    table.add_column("images", justify="right", no_wrap=True)
    wrong = answers.predicted != answers.labels
    pairs = np.stack([answers.labels[wrong], answers.predicted[wrong]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    for (label, guess), count in zip(found[order], counts[order], strict=True):
        if table.row_count == _CONFUSED:
            rest = int(counts[order][_CONFUSED:].sum())
            table.add_row("others", "", f"{rest:,}")
            break
        table.add_row(Text(class_names[label]), Text(class_names[guess]), f"{count:,}")
    return table


def _mistakes(answers: Answers, mistakes: list[int], class_names: tuple[str, ...]) -> Columns:
    from rich.columns import Columns
    from rich.text import Text

    shown = []
    for index in mistakes:
        label, guess = answers.labels[index], answers.predicted[index]
        p = answers.probabilities[index]
        caption = Text.assemble(
            f"image {index}: ",
            (class_names[label], "bold"),
            f" ({p[label]:.1%})\ntaken for ",
            (class_names[guess], "bold magenta"),
            f" ({p[guess]:.1%})\n",
            no_wrap=True,
        )
        shown.append(caption.append(picture(answers.images[index])))
    return Columns(shown, padding=(1, 3))


def picture(image: NDArray[Any]) -> str:
    """Draw an image of shape (C, H, W) in characters, two rows a line, at most 32 across.

    A dark margin is left out.
    """
    grey = image.mean(axis=0)
    step = -(-grey.shape[1] // 32)
    rows, columns = grey.shape[0] // (2 * step), grey.shape[1] // step
    if not rows or not columns:
        return ""
    cells = grey[: rows * 2 * step, : columns * step]
    cells = cells.reshape(rows, 2 * step, columns, step).mean(axis=(1, 3))
    low, high = cells.min(), cells.max()
    levels = (cells - low) / (high - low or 1) * (len(_SHADES) - 1)
    lines = ("".join(_SHADES[round(float(v))] for v in row).rstrip() for row in levels)
    return textwrap.dedent("\n".join(lines)).strip("\n")
