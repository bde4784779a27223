"""``fullback eval``."""

from __future__ import annotations

from fullback.cli.arguments import (
    DataDirOption,
    DataOption,
    JsonOption,
    ModelArgument,
    open_classifier,
    open_data,
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
    from fullback.cli.results import show_result, test

    output = Output(as_json=as_json)
    network = open_classifier(model)
    dataset = open_data(data, data_dir)
    if network.input_shape != dataset.image_shape:
        raise ShapeError(
            f"{model} takes images of shape {network.input_shape}, but {dataset.name} has images "
            f"of shape {dataset.image_shape}; give the data that it was trained on"
        )
    result = test(network, dataset.x_test, dataset.y_test)
    output.event(
        "result",
        model=str(model),
        data=dataset.name,
        test_images=len(dataset.x_test),
        test_accuracy=result.accuracy,
        test_loss=result.loss,
    )
    output.fact("model", str(model))
    output.fact("data", f"{dataset.name}, {len(dataset.x_test):,} test images")
    show_result(output, result, dataset.class_names)
