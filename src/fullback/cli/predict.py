"""``fullback predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli import options
from fullback.cli.models import name_classes, split_model
from fullback.cli.output import FAILURE, Output, one_line_errors, printable, warn
from fullback.errors import OptionError

if TYPE_CHECKING:
    from fullback.cli.prediction import Answered
    from fullback.network import Network

_ROWS = 100  # that a terminal shows
_MANY = 20  # images from which on the answers are counted


ImagesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Image files of any format, folders of them, .npz, .npy or IDX files, or CSV "
        "files of pixels; a model may come first.",
        metavar="[MODEL] IMAGES",
        show_default=False,
    ),
]
TableOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Write a row an image into this file: file, label, probability.",
        metavar="CSV",
        show_default=False,
    ),
]
ProbabilitiesOption = Annotated[
    bool,
    typer.Option("--probabilities", help="With --out: also the probability of every class."),
]
KaggleOption = Annotated[
    bool,
    typer.Option(
        "--kaggle",
        help="With --out: ImageId and Label alone. Ids are those of a CSV file's id column, "
        "rows from 1, or the names of files without their ending.",
    ),
]
ComparedColumnOption = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        help="Name or number of the column of a CSV file that holds labels; they are compared.",
        metavar="NAME|NUMBER",
        show_default="recognised",
    ),
]


@one_line_errors
def predict(
    images: ImagesArgument,
    model: options.ModelOption = None,
    invert: options.InvertOption = False,
    out: TableOption = None,
    probabilities: ProbabilitiesOption = False,
    kaggle: KaggleOption = False,
    label_column: ComparedColumnOption = None,
    image_folder: options.ImageFolderOption = None,
    class_names: options.ClassNamesOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Say what is on images.

    An image is brought to the size and the colours that the network takes. One that cannot be
    read gets a line on standard error, and the exit code is then 1.
    """
    from fullback.atomic import check_writable
    from fullback.cli.answer_table import write_answers, write_kaggle
    from fullback.cli.prediction import answer, hint_at_invert
    from fullback.data.tables.delimited import is_table
    from fullback.network import load

    path, sources = split_model(images, model)
    if not sources:
        raise OptionError("no images are given; name files, a folder, or an .npz or .csv file")
    if out is None and (kaggle or probabilities):
        raise OptionError(f"--{'kaggle' if kaggle else 'probabilities'} goes with --out FILE.csv")
    if kaggle and probabilities:
        raise OptionError("--kaggle writes labels alone; leave --probabilities out")
    if out is not None:
        if out.suffix.lower() != ".csv":
            raise OptionError(f"--out writes a CSV file, got {out}; expected a name like {out}.csv")
        check_writable(out)
    for option, value in (("--label-column", label_column), ("--image-folder", image_folder)):
        if value is not None and not any(map(is_table, sources)):
            raise OptionError(f"{option} goes with CSV files, and none is given; leave it out")
    output = Output(as_json=as_json)
    network = load(path)
    if not network.loss.classifies and (probabilities or class_names is not None):
        option = "--probabilities" if probabilities else "--class-names"
        raise OptionError(f"{path} answers in numbers, not in classes; leave {option} out")
    found = answer(
        network,
        sources,
        invert=invert,
        label_column=label_column,
        image_folder=image_folder,
        class_names=name_classes(network, class_names),
        bar=not as_json,
    )
    if not found.names:
        raise typer.Exit(FAILURE)
    if out is not None and kaggle:
        write_kaggle(out, found, network)
    elif out is not None:
        write_answers(out, found, network, probabilities=probabilities)
    hint = hint_at_invert(found, network.trained_on, invert=invert)
    if hint is not None:
        warn(hint)
    _report(output, path, network, found, out)
    if found.failed:
        raise typer.Exit(FAILURE)


def _report(
    output: Output, model: Path, network: Network, found: Answered, out: Path | None
) -> None:
    from fullback.predicting import rounded

    names = network.answer_names
    classes = network.loss.classifies
    if output.as_json:
        if not classes:
            for name, values in zip(found.names, found.probabilities, strict=True):
                output.event("prediction", image=name, values=[float(value) for value in values])
        every = rounded(found.probabilities)
        for name, label, p in zip(found.names, found.labels, every, strict=classes):
            output.event(
                "prediction",
                image=name,
                label=int(label),
                name=printable(names[label]),
                probabilities=p,
            )
        if out is not None:
            output.event("written", out=str(out), images=len(found.names), failed=len(found.failed))
        return
    output.fact("model", f"{model}, for images of {' x '.join(map(str, network.input_shape))}")
    threshold = network.threshold
    if threshold is not None:
        name = names[threshold.label]
        output.fact("threshold", f"{name} is answered from {threshold.value:.4f} on")
    for note in found.notes:
        output.fact("data", note)
    if out is None:
        (_show_rows if classes else _show_numbers)(output, found, names)
    if len(found.names) > _MANY and classes:
        _show_counts(output, found, names)
    if found.labelled and not classes:
        off = f"{found.error / found.labelled:.4g}"
        output.fact("labels", f"mean absolute error {off} on {found.labelled:,} images")
    elif found.labelled:
        share = found.agreeing / found.labelled
        output.fact(
            "labels", f"{share:.2%} of {found.labelled:,} answers are those of the data's labels"
        )
    if out is not None:
        rows = len(found.names) + len(found.failed)
        output.fact("written", f"{out}, {rows:,} rows")


def _show_rows(output: Output, found: Answered, names: tuple[str, ...]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", style="bold", overflow="fold")
    table.add_column("answer", style="bold", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("next", style="dim", no_wrap=True)
    table.add_column("format", style="dim", no_wrap=True)
    shown = _shown(output, found)
    for n, name in enumerate(found.names[:shown]):
        p, label = found.probabilities[n], found.labels[n]
        others = [k for k in (-p).argsort(kind="stable")[:3] if k != label][:2]
        table.add_row(
            Text(printable(name)),
            Text(printable(names[label])),
            f"{p[label]:.1%}",
            Text(", ".join(f"{printable(names[k])} {p[k]:.1%}" for k in others)),
            found.formats[n],
        )
    output.table(table, "format", "next")
    _say_how_many_more(output, found, shown)


def _show_numbers(output: Output, found: Answered, names: tuple[str, ...]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", style="bold", overflow="fold")
    headers = [f"value {name}" for name in names] if len(names) > 1 else ["value"]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    shown = _shown(output, found)
    for name, values in zip(found.names[:shown], found.probabilities, strict=False):
        table.add_row(Text(printable(name)), *(f"{value:.6g}" for value in values))
    output.table(table, *headers[:0:-1])
    _say_how_many_more(output, found, shown)


def _shown(output: Output, found: Answered) -> int:
    """Return how many images a table has: a page full on a terminal, else all."""
    return min(_ROWS, len(found.names)) if output.console.is_terminal else len(found.names)


def _say_how_many_more(output: Output, found: Answered, shown: int) -> None:
    if shown < len(found.names):
        more = len(found.names) - shown
        output.show(f"and {more:,} more; --out answers.csv writes all of them")


def _show_counts(output: Output, found: Answered, names: tuple[str, ...]) -> None:
    import numpy as np
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("answer", style="bold", overflow="fold")
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("mean probability", justify="right", no_wrap=True)
    counts = np.bincount(found.labels, minlength=len(names))
    sure = found.probabilities[np.arange(len(found.labels)), found.labels]
    sums = np.bincount(found.labels, weights=sure, minlength=len(names))
    for label in np.flatnonzero(counts):
        table.add_row(
            Text(printable(names[label])),
            f"{counts[label]:,}",
            f"{sums[label] / counts[label]:.1%}",
        )
    output.table(table, "mean probability")
