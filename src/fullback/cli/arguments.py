"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fullback import zoo
from fullback.data import Dataset, load_data
from fullback.network import Network

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="[bold]digits[/bold] (built in), [bold]mnist[/bold], an .npz file, an IDX images "
        "file, or a folder of IDX files.",
        metavar="NAME|PATH",
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the four MNIST files, for --data mnist; without it FULLBACK_DATA, or a "
        "download.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write one JSON object a line, and nothing else.")
]
ModelArgument = Annotated[
    Path, typer.Argument(help="A model that was saved, .safetensors.", show_default=False)
]


def open_data(name: str, data_dir: Path | None) -> Dataset:
    """Load what ``--data`` and ``--data-dir`` name."""
    return load_data(name, data_dir)


def build(net: str, input_shape: tuple[int, ...], classes: int, seed: int) -> Network:
    """Build what ``--net`` names: a network of the zoo, or one in text form."""
    if net in zoo.NETWORKS:
        return zoo.NETWORKS[net](input_shape, classes, seed=seed)
    return Network.parse(net, input_shape, seed=seed)
