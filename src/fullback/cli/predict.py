"""``fullback predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fullback.cli.arguments import InvertOption, JsonOption, load_image_for, open_classifier
from fullback.cli.output import FAILURE, Output, fail, one_line_errors, printable


@one_line_errors
def predict(
    images: Annotated[
        list[Path],
        typer.Argument(help="Image files, of any format.", metavar="IMAGE", show_default=False),
    ],
    model: Annotated[
        Path, typer.Option(help="The saved model that answers.", metavar="MODEL")
    ] = Path("model.safetensors"),
    invert: InvertOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is on images.

    An image is brought to the size and the colours that the network takes. One that cannot be
    read gets a line on standard error, and the exit code is then 1.
    """
    import numpy as np
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fullback.errors import DataError

    output = Output(as_json=as_json)
    network = open_classifier(model)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", style="bold", overflow="fold")
    table.add_column("format", style="dim", no_wrap=True)
    table.add_column("predicted", justify="right", style="bold")
    table.add_column("probability", justify="right")
    table.add_column("else", style="dim", no_wrap=True)
    names = network.class_names

    def name_of(label: int) -> str:
        return printable(names[label]) if label < len(names) else str(label)

    failures = 0
    for path in images:
        try:
            image = load_image_for(network, path, invert=invert)
        except DataError as error:
            fail(str(error))
            failures += 1
            continue
        p = network.predict_proba(image.pixels[None])[0]
        best = np.argsort(-p, kind="stable")[:3]
        output.event(
            "prediction",
            image=str(path),
            label=int(best[0]),
            name=name_of(best[0]),
            probabilities=[round(float(value), 6) for value in p],
        )
        table.add_row(
            Text(printable(str(path))),
            f"{image.mode} {image.size[0]}x{image.size[1]}",
            Text(name_of(best[0])),
            f"{p[best[0]]:.1%}",
            Text(", ".join(f"{name_of(k)} {p[k]:.1%}" for k in best[1:])),
        )
    if table.row_count:
        output.fact("model", f"{model}, for images of {' x '.join(map(str, network.input_shape))}")
        output.show(table)
    if failures:
        raise typer.Exit(FAILURE)
