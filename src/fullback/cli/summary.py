"""``fullback summary``."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from fullback.cli.arguments import JsonOption, build
from fullback.cli.output import Output, one_line_errors
from fullback.errors import OptionError


@one_line_errors
def summary(
    net: Annotated[
        str,
        typer.Argument(
            help="A network of the zoo, layers in text form, or a saved model.",
            metavar="NAME|LAYERS|MODEL",
        ),
    ] = "question",
    input_shape: Annotated[
        str, typer.Option(help="Shape of an image: channels x rows x columns.", metavar="CxHxW")
    ] = "1x28x28",
    classes: Annotated[
        int, typer.Option(min=1, help="Classes, for a network of the zoo.", metavar="N")
    ] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show a network's layers with their shapes, parameters and multiply-adds."""
    from fullback.export.safetensors import load
    from fullback.summary import summary_table

    output = Output(as_json=as_json)
    if net.endswith(".safetensors") or os.path.isfile(net):  # noqa: PTH113 -- any text may come
        network = load(net)
    else:
        if not re.fullmatch(r"\d{1,6}(x\d{1,6}x\d{1,6})?", input_shape):
            raise OptionError(f"--input-shape must be like 1x28x28, got {input_shape!r}")
        network = build(net, tuple(map(int, input_shape.split("x"))), classes, seed=0)
    for name, layer, shape in zip(network.names, network.layers, network.shapes, strict=True):
        output.event("layer", name=name, layer=repr(layer), output_shape=shape)
    output.event(
        "network",
        input_shape=network.input_shape,
        parameters=sum(array.size for array in network.parameters.values()),
        frozen=sorted(network.frozen),
    )
    output.show(summary_table(network))
