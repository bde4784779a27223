"""The pictures of a run, and of answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fullback import plots
from fullback.cli.results import Answers
from fullback.metrics import Metrics, curves, measure
from fullback.network import Network
from fullback.training.history import History

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure


def draw_run(
    folder: Path, network: Network, before: Network, answers: Answers, history: History
) -> list[Path]:
    """Draw curves, filters and a test's answers; return the files."""
    pictures = {
        "training": plots.training(history.epochs),
        "filters": plots.filters(before, network),
    }
    found = measure(answers.labels, answers.probabilities, threshold=answers.threshold)
    return [*_write(folder, pictures), *draw_answers(folder, found, answers, network.class_names)]


def draw_answers(
    folder: Path, found: Metrics, answers: Answers, class_names: Sequence[str]
) -> list[Path]:
    """Draw confusion, calibration, curves and mistakes; return the files."""
    labelled = (answers.images, answers.labels, answers.probabilities)
    lines = curves(answers.labels, answers.probabilities)
    if found.confusion.shape[0] == 2:  # the two curves say the same
        shown = 1 if answers.threshold is None else answers.threshold.label
        lines = [line for line in lines if line.label == shown]
    return _write(
        folder,
        {
            "confusion": plots.confusion(found, class_names),
            "calibration": plots.calibration(found),
            "roc": plots.roc(lines, class_names, found),
            "precision_recall": plots.precision_recall(lines, class_names, found),
            "mistakes": plots.mistakes(*labelled, class_names, answers.threshold),
        },
    )


def _write(folder: Path, figures: Mapping[str, Figure | None]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        if figure is not None:
            written.append(folder / f"{name}.png")
            plots.write(figure, written[-1])
    return written
