"""The table of a network's layers."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.network import Network


def summary_table(net: Network) -> Table:
    """Return the table: a row a layer with its name, options, output shape and costs."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    parameters = dict.fromkeys(net.names, 0)
    for key, array in net.parameters.items():
        parameters[key.split(".")[0]] += array.size
    costs = {
        name: layer.multiply_adds(given)
        for name, layer, given in zip(
            net.names, net.layers, (net.input_shape, *net.shapes), strict=False
        )
    }
    trained = sum(net.parameters[name].size for name in net.trainable())
    total = sum(parameters.values())
    frozen = f" ({total - trained:,} frozen)" if trained != total else ""
    table.add_column("layer", "total", style="bold")
    table.add_column("options")
    table.add_column("output", justify="right", style="cyan")
    table.add_column("parameters", f"{total:,}{frozen}", justify="right")
    table.add_column("multiply-adds", f"{sum(costs.values()):,}", justify="right")
    table.add_row("input", "", _shape(net.input_shape), "", "")
    for name, layer, shape in zip(net.names, net.layers, net.shapes, strict=True):
        table.add_row(
            name,
            repr(layer) + (" frozen" if name in net.frozen else ""),
            _shape(shape),
            f"{parameters[name]:,}" if parameters[name] else "",
            f"{costs[name]:,}" if costs[name] else "",
        )
    return table


def summary_text(net: Network) -> str:
    """Return the table as plain text."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(summary_table(net))
    lines = (line.removeprefix(" ").rstrip() for line in capture.get().splitlines())
    return "\n".join(lines).strip("\n")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
