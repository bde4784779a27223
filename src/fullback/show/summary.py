"""The table of a network's layers."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from fullback.model import Model

if TYPE_CHECKING:
    from rich.table import Table


class Row(NamedTuple):
    """A layer in the table: its name, options, output shape, parameters and multiply-adds."""

    name: str
    options: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layer_rows(net: Model) -> list[Row]:
    """Return a row for the input and for every layer."""
    rows = [Row("input", "", net.input_shape, 0, 0)]
    maps = (net.input_shape, *net.shapes)
    for name, layer, before, after in zip(net.names, net.layers, maps, net.shapes, strict=False):
        keys = [key for key in net.parameters if key.split(".")[0] == name]
        options = repr(layer) + (" frozen" if name in net.frozen else "")
        count = sum(net.parameters[key].size for key in keys)
        rows.append(Row(name, options, after, count, layer.multiply_adds(before)))
    return rows


def summary_table(net: Model) -> Table:
    """Return the table: a row a layer with its name, options, output shape and costs."""
    from rich import box
    from rich.table import Table

    rows = layer_rows(net)
    total = sum(row.parameters for row in rows)
    trained = sum(net.parameters[name].size for name in net.trainable())
    frozen = f" ({total - trained:,} frozen)" if trained != total else ""
    costs = sum(row.multiply_adds for row in rows)
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("layer", "total", style="bold")
    table.add_column("options")
    table.add_column("output", justify="right", style="cyan")
    table.add_column("parameters", f"{total:,}{frozen}", justify="right")
    table.add_column("multiply-adds", f"{costs:,}", justify="right")
    for row in rows:
        numbers = (f"{n:,}" if n else "" for n in (row.parameters, row.multiply_adds))
        table.add_row(row.name, row.options, " x ".join(map(str, row.shape)), *numbers)
    return table


def summary_text(net: Model) -> str:
    """Return the table as plain text."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(summary_table(net))
    lines = (line.removeprefix(" ").rstrip() for line in capture.get().splitlines())
    return "\n".join(lines).strip("\n")
