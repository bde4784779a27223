"""``fullback program``."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from fullback.cli import options
from fullback.cli.inputs import open_network
from fullback.cli.output import Output, one_line_errors


@one_line_errors
def program(
    net: options.NetworkArgument = "question",
    input_shape: options.InputShapeOption = "1x28x28",
    classes: options.ClassesOption = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a batch.", metavar="N")] = 64,
    training: Annotated[
        bool, typer.Option("--training/--prediction", help="A training step, or a prediction.")
    ] = True,
    as_json: options.JsonOption = False,
) -> None:
    """Show the instructions that a network becomes, forward and backward side by side.

    Instructions with a * are run once a batch, the others for every block of sixteen images. For a
    prediction of few images (--prediction --batch-size 1) there is a program that takes them one
    after the other.
    """
    output = Output(as_json=as_json)
    shown = open_network(net, input_shape, classes).program(batch_size, training=training)
    for line in shown.lines:
        output.event("instruction", **dataclasses.asdict(line))
    output.event("memory", arena=shown.arena, shared=shown.shared)
    output.show(shown.table())
