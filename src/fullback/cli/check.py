"""``fullback check``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli import options
from fullback.cli.inputs import (
    build,
    is_model,
    load_dataset,
    load_dataset_for,
    open_classifier,
)
from fullback.cli.output import FAILURE, Output, fail, one_line_errors

if TYPE_CHECKING:
    from fullback.check.gradients.report import GradientRow


@one_line_errors
def check(
    net: options.NetworkArgument = "question",
    data: options.DataOption = "digits",
    data_dir: options.DataDirOption = None,
    label_column: options.LabelColumnOption = None,
    images: Annotated[
        int, typer.Option(min=1, help="Training images that the loss is taken of.", metavar="N")
    ] = 4,
    engine: options.EngineOption = "reference",
    samples: Annotated[
        int, typer.Option(min=1, help="Entries to check of each array.", metavar="N")
    ] = 50,
    training: options.TrainingOption = True,
    seed: Annotated[
        int,
        typer.Option(
            min=0, help="Fixes the weights of a new network, and what is looked at.", metavar="N"
        ),
    ] = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Compare a network's gradients with finite differences of its loss.

    A few entries of every array are looked at one by one, and all of them at once along random
    directions. The exit code is 1 where a gradient is wrong.
    """
    from fullback.check.gradients import check_gradients

    output = Output(as_json=as_json)
    if is_model(net):
        network = open_classifier(Path(net))
        dataset = load_dataset_for(network, net, data, data_dir, label_column)
    else:
        dataset = load_dataset(data, data_dir, label_column=label_column)
        network = build(net, dataset.image_shape, dataset.classes, seed)
    x, y = dataset.x_train[:images], dataset.y_train[:images]
    result = check_gradients(
        network, x, y, samples=samples, training=training, seed=seed, engine=engine
    )
    for row in result.rows:
        whole = {f"whole_{key}": value for key, value in dataclasses.asdict(row.direction).items()}
        output.event("array", **_fields(row), **whole)
    for direction in result.directional:
        output.event("direction", **dataclasses.asdict(direction))
    output.event(
        "result",
        net=net,
        data=dataset.name,
        images=result.images,
        engine=engine,
        training=training,
        loss=result.loss,
        ok=result.ok,
        relative_error=result.relative,
        precision=result.precision,
    )
    output.fact("network", f"{net}, {engine} engine")
    output.fact("data", f"{dataset.name}, {result.images:,} training images")
    output.show(result.table())
    for line in result.mistakes():
        output.fact("wrong", line)
    if result.ok:
        output.fact("result", result.sentence())
    else:
        fail(result.sentence())
        raise typer.Exit(FAILURE)


def _fields(row: GradientRow) -> dict[str, object]:
    """Return a row's own figures, without those of its direction."""
    fields = dataclasses.asdict(row)
    del fields["direction"]
    return fields
