"""``fullback eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli.arguments import (
    DataDirOption,
    DataOption,
    JsonOption,
    ModelArgument,
    load_dataset_for,
    open_classifier,
)
from fullback.cli.output import Output, one_line_errors, printable

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.metrics import Metrics

_MOST_CLASSES = 60  # of which every one has a line


@one_line_errors
def evaluate(
    model: ModelArgument,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            help="Draw confusion, calibration and mistakes into this folder.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Test a saved network on the test part of a data set.

    Precision is the share of a class's answers that are right, recall the share of its images that
    are, F1 their harmonic mean. The calibration error is how far the probabilities of answers are
    from the share of them that is right.
    """
    from fullback.cli.results import show_answers, take_test
    from fullback.metrics import as_json as figures
    from fullback.metrics import measure

    output = Output(as_json=as_json)
    network = open_classifier(model)
    dataset = load_dataset_for(network, str(model), data, data_dir)
    answers = take_test(network, dataset.x_test, dataset.y_test)
    found = measure(answers.labels, answers.probabilities)
    output.event(
        "result",
        model=str(model),
        data=dataset.name,
        test_images=len(dataset.x_test),
        test_accuracy=answers.accuracy,
        test_loss=answers.loss,
        metrics=figures(found),
    )
    output.fact("model", str(model))
    output.fact("data", f"{dataset.name}, {len(dataset.x_test):,} test images")
    show_answers(output, answers, dataset.class_names)
    output.show("", _classes(found, dataset.class_names))
    output.fact("F1", f"{found.macro_f1:.4f} on average over the classes")
    output.fact(f"top {found.k}", f"{found.top_k:.2%} of labels are among the {found.k} first")
    output.fact("calibration", f"error {found.calibration_error:.4f}")
    if plots is not None:
        from fullback.cli.pictures import draw_answers

        for path in draw_answers(plots, found, answers, dataset.class_names):
            output.fact("written", str(path))


def _classes(found: Metrics, class_names: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", style="bold", overflow="fold")
    for column in ("images", "precision", "recall", "F1"):
        table.add_column(column, justify="right", no_wrap=True)
    for label in range(min(len(found.f1), _MOST_CLASSES)):
        name = class_names[label] if label < len(class_names) else str(label)
        table.add_row(
            Text(printable(name)),
            f"{found.support[label]:,}",
            f"{found.precision[label]:.1%}",
            f"{found.recall[label]:.1%}",
            f"{found.f1[label]:.3f}",
        )
    if len(found.f1) > _MOST_CLASSES:
        table.add_row(f"and {len(found.f1) - _MOST_CLASSES} more", "", "", "", "")
    return table
