"""The pictures of a run."""

from __future__ import annotations

from pathlib import Path

from fullback import plots
from fullback.cli.results import Answers
from fullback.metrics import measure
from fullback.network import Network
from fullback.training.history import History


def draw_run(
    folder: Path, network: Network, before: Network, answers: Answers, history: History
) -> list[str]:
    """Draw curves, confusion, calibration, filters and mistakes; return the files' paths."""
    names = network.class_names
    found = measure(answers.labels, answers.probabilities)
    figures = {
        "training": plots.training(history.epochs),
        "confusion": plots.confusion(found, names),
        "calibration": plots.calibration(found),
        "filters": plots.filters(before, network),
        "mistakes": plots.mistakes(answers.images, answers.labels, answers.probabilities, names),
    }
    folder.mkdir(exist_ok=True)
    written = []
    for name, figure in figures.items():
        if figure is not None:
            plots.write(figure, folder / f"{name}.png")
            written.append(str(folder / f"{name}.png"))
    return written
