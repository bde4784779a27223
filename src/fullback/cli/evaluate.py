"""``fullback eval``."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullback.cli.models import (
    ClassNamesOption,
    label_of,
    labels_by_name,
    name_classes,
    names_of,
)
from fullback.cli.options import (
    DataDirOption,
    DataOption,
    ImageFolderOption,
    JsonOption,
    LabelColumnOption,
    ModelArgument,
    load_dataset_for,
)
from fullback.cli.output import Output, one_line_errors, printable, warn
from fullback.errors import InputError, OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.cli.results import Answers
    from fullback.data import Dataset
    from fullback.metrics import Metrics
    from fullback.network import Network

_HARDLY = 0.6  # the area under the ROC curve below which a threshold is of little use
_MOST_CLASSES = 60  # of which every one has a line


class Part(str, Enum):
    """The parts of a data set that ``--choose-on`` takes."""

    val = "val"
    train = "train"
    test = "test"


_CALLED = {Part.val: "validation", Part.train: "training", Part.test: "test"}


@one_line_errors
def evaluate(
    model: ModelArgument,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    label_column: LabelColumnOption = None,
    image_folder: ImageFolderOption = None,
    class_names: ClassNamesOption = None,
    positive: Annotated[
        str | None,
        typer.Option(
            help="The class for which a threshold is chosen, by name or number.",
            metavar="CLASS",
            show_default="the second of two",
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Choose the threshold that finds this share of the positive class's images, with "
            "the best precision.",
            metavar="SHARE",
            show_default=False,
        ),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            help="Choose the threshold that costs least, where a false positive and a false "
            "negative cost this: **1:20**.",
            metavar="FP:FN",
            show_default=False,
        ),
    ] = None,
    choose_on: Annotated[
        Part | None,
        typer.Option(
            help="The images on which it is chosen: **val**, **train** or **test**.",
            metavar="PART",
            show_default="val, or train where there are none",
        ),
    ] = None,
    store: Annotated[
        bool,
        typer.Option("--store", help="Keep the chosen threshold in the model's file."),
    ] = False,
    plots: Annotated[
        Path | None,
        typer.Option(
            help="Draw confusion, calibration, ROC and precision-recall curves, and mistakes into "
            "this folder.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Test a saved network on the test part of a data set.

    Precision is the share of a class's answers that are right, recall the share of its images that
    are, F1 their harmonic mean. AUC is the area under the ROC curve of a class against all others.
    The calibration error is how far the probabilities of answers are from the share of them that
    is right. A network that answers in numbers is tested by R^2 and its errors.
    """
    from fullback.atomic import check_writable
    from fullback.cli.results import show_answers, take_test
    from fullback.export.safetensors import read_model, write_model
    from fullback.metrics import as_json as figures
    from fullback.metrics import measure
    from fullback.network import Network
    from fullback.plots import require_matplotlib

    output = Output(as_json=as_json)
    network, described = read_model(model, Network)
    if not network.loss.classifies:
        if positive or recall is not None or cost or store or choose_on or plots or class_names:
            raise OptionError(
                f"{model} answers in numbers, not in classes: it has no threshold, no class names "
                "and no plots"
            )
        dataset = load_dataset_for(network, str(model), data, data_dir, label_column, image_folder)
        _test_numbers(output, network, model, dataset)
        return
    numbers = name_classes(network, class_names)
    aim = _aim(network, positive, recall, cost)
    if store or choose_on is not None:
        if aim is None:
            raise OptionError("a threshold is chosen for an aim; give --recall 0.95 or --cost 1:20")
        if store:
            check_writable(model)
    if plots is not None:
        require_matplotlib()
    dataset = load_dataset_for(network, str(model), data, data_dir, label_column, image_folder)
    choice = None
    if aim is not None:
        choice = _choose(network, dataset, aim, choose_on, numbers)
        if store:
            write_model(network, model, described.get("estimator"))
    labels = labels_by_name(network, dataset.name, dataset.class_names, dataset.y_test, numbers)
    names = names_of(network) if network.class_names else dataset.class_names
    answers = take_test(network, dataset.x_test, labels)
    found = measure(answers.labels, answers.probabilities, threshold=answers.threshold)
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
        threshold=_threshold_as_json(network, choice, store=store),
    )
    output.fact("model", str(model))
    output.fact("data", f"{dataset.name}, {len(dataset.x_test):,} test images")
    for note in dataset.notes:
        output.fact("", note)
    _show_threshold(output, network, answers, found, choice)
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
    if store:
        output.fact("stored", f"the threshold, in {model}; predict and eval apply it")


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
    output.fact("model", str(model))
    output.fact("data", f"{dataset.name}, {len(dataset.x_test):,} test images")
    for note in dataset.notes:
        output.fact("", note)
    show_numbers(output, answers)


# Thresholds -------------------------------------------------------------------------------------


def _aim(
    network: Network, positive: str | None, recall: float | None, cost: str | None
) -> dict[str, Any] | None:
    """Return what ``choose_threshold`` is to choose for; None where no threshold is."""
    if recall is not None and cost is not None:
        raise OptionError("a threshold is chosen for --recall or for --cost; leave one out")
    if recall is None and cost is None:
        if positive is not None:
            raise OptionError("--positive goes with --recall or --cost, which choose a threshold")
        return None
    outputs = network.output_shape[0]
    if positive is None and outputs != 2:
        raise OptionError(f"--positive CLASS is needed: the model knows {outputs} classes")
    label = 1 if positive is None else label_of(network, positive, "--positive")
    if recall is not None:
        if not 0 < recall <= 1:
            raise OptionError(f"--recall must be a share above 0 and up to 1, got {recall:g}")
        return {"label": label, "recall": recall}
    number = r"\d+(?:\.\d+)?"
    if not re.fullmatch(f"{number}:{number}", str(cost)):
        raise OptionError(f"--cost must be like 1:20, false positive : false negative, got {cost}")
    return {"label": label, "cost": tuple(map(float, str(cost).split(":")))}


def _choose(
    network: Network,
    dataset: Dataset,
    aim: dict[str, Any],
    part: Part | None,
    numbers: tuple[str, ...],
) -> dict[str, Any]:
    """Choose a threshold, give it to the network, and return how it was chosen."""
    from fullback.metrics import choose_threshold, measure

    chosen_by_hand = part is not None
    if part is None:
        part = Part.train if dataset.x_val is None else Part.val
    x, y = getattr(dataset, f"x_{part.value}"), getattr(dataset, f"y_{part.value}")
    if x is None:
        raise OptionError(
            f"--choose-on val: {dataset.name} has no images for validation; put some into a folder "
            "val, or give --choose-on train"
        )
    labels = labels_by_name(network, dataset.name, dataset.class_names, y, numbers)
    p = network.predict_proba(x)
    network.threshold = choose_threshold(labels, p, **aim)
    area = measure(labels, p).auc[aim["label"]]
    if area < _HARDLY:
        warn(
            f"the model hardly tells {names_of(network)[aim['label']]} from other images (AUC "
            f"{area:.2f}, and 0.5 is chance), and a threshold does not change that; train it better"
        )
    if part is Part.test:
        warn(
            "the threshold is chosen on the test images, so that their figures at it are too good; "
            "choose it on images that are not tested on"
        )
    elif part is Part.train and not chosen_by_hand:
        warn(
            f"the threshold is chosen on the training images, as {dataset.name} has none for "
            "validation; a model is surer of images that it has learned than of others, so look at "
            "the figures of the test images"
        )
    return {**aim, "part": part, "images": len(x)}


def _threshold_as_json(
    network: Network, choice: dict[str, Any] | None, *, store: bool
) -> dict[str, Any] | None:
    threshold = network.threshold
    if threshold is None:
        return None
    return {
        "label": threshold.label,
        "name": printable(names_of(network)[threshold.label]),
        "value": threshold.value,
        "chosen_on": None if choice is None else choice["part"].value,
        "stored": store or choice is None,
    }


def _show_threshold(
    output: Output,
    network: Network,
    answers: Answers,
    found: Metrics,
    choice: dict[str, Any] | None,
) -> None:
    from fullback.metrics import measure

    threshold = network.threshold
    if threshold is None:
        return
    label = threshold.label
    how = "as stored in the model"
    if choice is not None:
        if "cost" in choice:
            aim = "the costs {:g}:{:g}".format(*choice["cost"])
        else:
            aim = f"a recall of {choice['recall']:.2%}"
        how = f"chosen on {choice['images']:,} {_CALLED[choice['part']]} images for {aim}"
    name = names_of(network)[label]
    output.fact("threshold", f"{name} is answered from probability {threshold.value:.4g} on, {how}")
    usual = measure(answers.labels, answers.probabilities)
    for figures, when in ((found, "with it"), (usual, "without")):
        counts = figures.confusion
        false = int(counts[:, label].sum() - counts[label, label])
        missed = int(counts[label].sum() - counts[label, label])
        cost = ""
        if choice is not None and "cost" in choice:
            cost = f", cost {false * choice['cost'][0] + missed * choice['cost'][1]:,g}"
        output.fact(
            when,
            f"recall {figures.recall[label]:.1%}, precision {figures.precision[label]:.1%}; "
            f"{false:,} false positives, {missed:,} missed{cost}",
        )


# Figures ----------------------------------------------------------------------------------------


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
