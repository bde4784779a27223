"""Options and arguments that several commands take, each declared once; see train_options, too.

A command takes one by its annotation, ``data: DataOption = "digits"``, and says what it is by
default. What it names is loaded by ``inputs.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="**digits** (built in), **mnist**, a folder of images with a folder a class, a folder "
        "of IDX, .npy or .parquet files, an IDX images file, or an .npz, .csv or .parquet file; a "
        "CSV file has an image's pixels or the name of its file in each row.",
        metavar="NAME|PATH",
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the four MNIST files, for --data mnist; without it FULLBACK_DATA, or a "
        "download.",
        metavar="FOLDER",
        show_default=False,
    ),
]
ImageSizeOption = Annotated[
    str | None,
    typer.Option(
        help="What the images of a folder are brought to, or a CSV file's pixels make: rows x "
        "columns, or channels x rows x columns.",
        metavar="[C x]HxW",
        show_default="one that fits most of the images",
    ),
]


ResizeOption = Annotated[
    Literal["stretch", "pad", "crop"],
    typer.Option(
        help="How image files of other proportions get their size: **stretch**; **pad**, with "
        "black; or **crop**.",
        metavar="NAME",
    ),
]
NestedOption = Annotated[
    bool,
    typer.Option(
        "--nested",
        help="Take the images of all folders inside of a class folder for that class.",
    ),
]
TestShareOption = Annotated[
    float | None,
    typer.Option(
        help="Share of each class to keep for testing, of data without test images.",
        metavar="SHARE",
        show_default="0.2",
    ),
]
SplitSeedOption = Annotated[
    int | None,
    typer.Option(min=0, help="Fixes which images that are.", metavar="N", show_default="0"),
]
LabelColumnOption = Annotated[
    str | None,
    typer.Option(
        help="The label column of a CSV file, by its name or its number, from 0 and, from the end, "
        "-1; of numbers to predict several: x,y.",
        metavar="NAME|NUMBER",
        show_default="recognised",
    ),
]
ImageFolderOption = Annotated[
    Path | None,
    typer.Option(
        help="The folder of the images that a CSV file names.",
        metavar="FOLDER",
        show_default="the file's own",
    ),
]
InvertOption = Annotated[
    bool,
    typer.Option(
        "--invert",
        help="Swap dark and light. Digits and MNIST are light on dark: give this for ink on paper.",
    ),
]
NetworkArgument = Annotated[
    str,
    typer.Argument(
        help="A network of the zoo, layers in text form, or a saved model.",
        metavar="NAME|LAYERS|MODEL",
    ),
]
InputShapeOption = Annotated[
    str, typer.Option(help="Shape of an image: channels x rows x columns.", metavar="CxHxW")
]
ClassesOption = Annotated[
    int, typer.Option(min=1, help="Classes, for a network of the zoo.", metavar="N")
]


EngineOption = Annotated[
    Literal["lanes", "reference"],
    typer.Option(
        help="What computes: **lanes**, the fast one, or **reference**, the layers' own pages.",
        metavar="NAME",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write one JSON object a line, and nothing else.")
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="A model that was saved, .safetensors.", metavar="MODEL", show_default=False
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="The saved model; it may also be given before the images.",
        metavar="MODEL",
        show_default="model.safetensors",
    ),
]
ClassNamesOption = Annotated[
    str | None,
    typer.Option(
        help="What classes 0, 1, 2, ... are called, where the model or the data has numbers alone "
        "and the other names: zero,one,two.",
        metavar="NAME,NAME,...",
        show_default="by their names",
    ),
]
TrainingOption = Annotated[
    bool,
    typer.Option("--training/--prediction", help="With dropout and batch statistics, or without."),
]
