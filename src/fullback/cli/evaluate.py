"""``fullback eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli import options, threshold_choice
from fullback.cli.inputs import load_dataset_for
from fullback.cli.models import labels_by_name, name_classes
from fullback.cli.output import Output, one_line_errors, printable
from fullback.cli.threshold_choice import Choice, PartName
from fullback.errors import InputError, OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.cli.results import Answers
    from fullback.data import Dataset
    from fullback.metrics import Metrics
    from fullback.network import Network

_MOST_CLASSES = 60  # of which every one has a line

PositiveOption = Annotated[
    str | None,
    typer.Option(
        help="The class for which a threshold is chosen, by name or number.",
        metavar="CLASS",
        show_default="the second of two",
    ),
]
RecallOption = Annotated[
    float | None,
    typer.Option(
        help="Choose the threshold that finds this share of the positive class's images, with "
        "the best precision.",
        metavar="SHARE",
        show_default=False,
    ),
]
CostOption = Annotated[
    str | None,
    typer.Option(
        help="Choose the threshold that costs least, where a false positive and a false "
        "negative cost this: **1:20**.",
        metavar="FP:FN",
        show_default=False,
    ),
]
ChooseOnOption = Annotated[
    PartName | None,
    typer.Option(
        help="The images on which it is chosen: **val**, **train** or **test**.",
        metavar="PART",
        show_default="val, or train where there are none",
    ),
]
StoreOption = Annotated[
    bool, typer.Option("--store", help="Keep the chosen threshold in the model's file.")
]
PlotsOption = Annotated[
    Path | None,
    typer.Option(
        help="Draw confusion, calibration, ROC and precision-recall curves, and mistakes into "
        "this folder.",
        metavar="FOLDER",
        show_default=False,
    ),
]


@one_line_errors
def evaluate(
    model: options.ModelArgument,
    data: options.DataOption = "digits",
    data_dir: options.DataDirOption = None,
    label_column: options.LabelColumnOption = None,
    image_folder: options.ImageFolderOption = None,
    class_names: options.ClassNamesOption = None,
    positive: PositiveOption = None,
    recall: RecallOption = None,
    cost: CostOption = None,
    choose_on: ChooseOnOption = None,
    store: StoreOption = False,
    plots: PlotsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Test a saved network on the test part of a data set.

    Precision is the share of a class's answers that are right, recall the share of its images that
    are, F1 their harmonic mean. AUC is the area under the ROC curve of a class against all others.
    The calibration error is how far the probabilities of answers are from the share of them that
    is right. A network that answers in numbers is tested by R^2 and its errors.
    """
    from fullback.atomic import check_writable
    from fullback.cli.results import take_test
    from fullback.export.safetensors import read_model, write_model
    from fullback.network import Network
    from fullback.plots import require_matplotlib

    output = Output(as_json=as_json)
    network, described = read_model(model, Network)
    source = (network, str(model), data, data_dir, label_column, image_folder)
    if not network.loss.classifies:
        if positive or recall is not None or cost or store or choose_on or plots or class_names:
            raise OptionError(
                f"{model} answers in numbers, not in classes: it has no threshold, no class names "
                "and no plots"
            )
        _test_numbers(output, network, model, load_dataset_for(*source))
        return
    numbers = name_classes(network, class_names)
    aim = threshold_choice.read_aim(network, positive, recall, cost)
    if aim is None and (store or choose_on is not None):
        raise OptionError("a threshold is chosen for an aim; give --recall 0.95 or --cost 1:20")
    if store:
        check_writable(model)
    if plots is not None:
        require_matplotlib()
    dataset = load_dataset_for(*source)
    choice = None
    if aim is not None:
        choice = threshold_choice.choose(network, dataset, aim, choose_on, numbers)
        if store:
            write_model(network, model, described.get("estimator"))
    labels = labels_by_name(network, dataset.name, dataset.class_names, dataset.y_test, numbers)
    answers = take_test(network, dataset.x_test, labels)
    _report(output, network, model, dataset, answers, choice, plots, store=store)
    if store:
        output.fact("stored", f"the threshold, in {model}; predict and eval apply it")


def _report(
    output: Output,
    network: Network,
    model: Path,
    dataset: Dataset,
    answers: Answers,
    choice: Choice | None,
    plots: Path | None,
    *,
    store: bool,
) -> None:
    """Write a classifier's figures and pictures."""
    from fullback.cli.results import show_answers
    from fullback.metrics import as_json as figures
    from fullback.metrics import measure

    found = measure(answers.labels, answers.probabilities, threshold=answers.threshold)
    names = network.answer_names if network.class_names else dataset.class_names
    written = []
    if plots is not None:
        from fullback.cli.pictures import draw_answers

        written = draw_answers(plots, found, answers, names)
    output.event(
        "result",
        model=str(model),
        data=dataset.name,
        test_images=len(dataset.x_test),
        test_accuracy=answers.accuracy,
        test_loss=answers.loss,
        metrics=figures(found),
        threshold=threshold_choice.as_json(network, choice, store=store),
    )
    _show_data(output, model, dataset)
    threshold_choice.show(output, network, answers, choice)
    show_answers(output, answers, names)
    output.show("")
    output.table(_classes(found, names), "AUC", "F1")
    output.fact("F1", f"{found.macro_f1:.4f} on average over the classes")
    output.fact("AUC", f"{found.macro_auc:.4f} on average over the classes, each against the rest")
    if found.k > 1:
        output.fact(f"top {found.k}", f"{found.top_k:.2%} of labels are among the {found.k} first")
    output.fact("calibration", f"error {found.calibration_error:.4f}")
    for path in written:
        output.fact("written", str(path))


def _show_data(output: Output, model: Path, dataset: Dataset) -> None:
    output.fact("model", str(model))
    output.facts("data", f"{dataset.name}, {len(dataset.x_test):,} test images", dataset.notes)


def _test_numbers(output: Output, network: Network, model: Path, dataset: Dataset) -> None:
    """Test a network that answers in numbers."""
    from fullback.cli.numbers import show_numbers, take_number_test

    if dataset.outputs != network.output_shape[0]:
        raise InputError(
            f"{dataset.name} has {dataset.outputs} numbers for an image, but the model answers "
            f"with {network.output_shape[0]}; give the data that it was trained on"
        )
    answers = take_number_test(network, dataset.x_test, dataset.y_test)
    output.event(
        "result",
        model=str(model),
        data=dataset.name,
        test_images=len(dataset.x_test),
        test_r2=answers.r2,
        test_mean_absolute_error=answers.mean_absolute_error,
        test_root_mean_squared_error=answers.root_mean_squared_error,
    )
    _show_data(output, model, dataset)
    show_numbers(output, answers)


def _classes(found: Metrics, class_names: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", style="bold", overflow="fold")
    for column in ("images", "precision", "recall", "F1", "AUC"):
        table.add_column(column, justify="right", no_wrap=True)
    for label in range(min(len(found.f1), _MOST_CLASSES)):
        name = class_names[label] if label < len(class_names) else str(label)
        table.add_row(
            Text(printable(name)),
            f"{found.support[label]:,}",
            f"{found.precision[label]:.1%}",
            f"{found.recall[label]:.1%}",
            f"{found.f1[label]:.3f}",
            f"{found.auc[label]:.4f}" if found.auc[label] == found.auc[label] else "",  # NaN
        )
    if len(found.f1) > _MOST_CLASSES:
        table.add_row(f"and {len(found.f1) - _MOST_CLASSES} more", "", "", "", "", "")
    return table
