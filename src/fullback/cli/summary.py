"""``fullback summary``."""

from __future__ import annotations

from fullback.cli import options
from fullback.cli.inputs import open_network
from fullback.cli.output import Output, one_line_errors


@one_line_errors
def summary(
    net: options.NetworkArgument = "question",
    input_shape: options.InputShapeOption = "1x28x28",
    classes: options.ClassesOption = 10,
    as_json: options.JsonOption = False,
) -> None:
    """Show a network's layers with their shapes, parameters and multiply-adds."""
    from fullback.show.summary import summary_table

    output = Output(as_json=as_json)
    network = open_network(net, input_shape, classes)
    for name, layer, shape in zip(network.names, network.layers, network.shapes, strict=True):
        output.event("layer", name=name, layer=repr(layer), output_shape=shape)
    output.event(
        "network",
        input_shape=network.input_shape,
        parameters=sum(array.size for array in network.parameters.values()),
        frozen=sorted(network.frozen),
    )
    output.show(summary_table(network))
