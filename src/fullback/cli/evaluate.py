"""``fullback eval``."""

from __future__ import annotations

from fullback.cli.arguments import (
    DataDirOption,
    DataOption,
    JsonOption,
    ModelArgument,
    load_dataset,
    open_classifier,
)
from fullback.cli.output import Output, one_line_errors
from fullback.errors import ShapeError


@one_line_errors
def evaluate(
    model: ModelArgument,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test a saved network on the test part of a data set."""
    from fullback.cli.results import show_answers, take_test

    output = Output(as_json=as_json)
    network = open_classifier(model)
    dataset = load_dataset(data, data_dir, network.input_shape)
    if network.input_shape != dataset.image_shape:
        raise ShapeError(
            f"{model} takes images of shape {network.input_shape}, but {dataset.name} has images "
            f"of shape {dataset.image_shape}; give the data that it was trained on"
        )
    answers = take_test(network, dataset.x_test, dataset.y_test)
    output.event(
        "result",
        model=str(model),
        data=dataset.name,
        test_images=len(dataset.x_test),
        test_accuracy=answers.accuracy,
        test_loss=answers.loss,
    )
    output.fact("model", str(model))
    output.fact("data", f"{dataset.name}, {len(dataset.x_test):,} test images")
    show_answers(output, answers, dataset.class_names)
