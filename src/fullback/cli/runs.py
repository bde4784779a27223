"""``fullback runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fullback.cli.arguments import JsonOption
from fullback.cli.output import FAILURE, Output, fail, one_line_errors, printable
from fullback.cli.run_folder import RunFolder, read_config
from fullback.errors import FullbackError, InputError


@one_line_errors
def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Runs, or folders of runs.",
            metavar="FOLDER",
            show_default="the working directory",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List training runs that were kept with `fullback train --run`, side by side.

    A run that cannot be read gets a line on standard error, and the exit code is then 1.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    output = Output(as_json=as_json)
    found = [run for folder in folders or [Path()] for run in _runs_in(folder)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", style="bold", overflow="fold")
    table.add_column("data", overflow="fold")
    table.add_column("net", overflow="fold")
    for column in ("epochs", "loss", "accuracy", "test accuracy"):
        table.add_column(column, justify="right", no_wrap=True)
    failures = 0
    for folder in found:
        try:
            options, epochs = read_config(folder.config), folder.epochs()
        except FullbackError as error:
            fail(str(error))
            failures += 1
            continue
        result = folder.read_result()
        last = epochs[-1] if epochs else None
        accuracy = result.get("test_accuracy")
        output.event(
            "run",
            run=str(folder.path),
            options=options,
            epochs=len(epochs),
            loss=last.loss if last else None,
            accuracy=last.accuracy if last else None,
            result=result or None,
        )
        table.add_row(
            Text(printable(str(folder.path))),
            Text(printable(str(options.get("data", "")))),
            Text(printable(str(options.get("net", "")))),
            f"{len(epochs)} of {options.get('epochs', '?')}",
            f"{last.loss:.4f}" if last else "",
            f"{last.accuracy:.2%}" if last and last.accuracy is not None else "",
            f"{accuracy:.2%}" if isinstance(accuracy, float) else "not ended",
        )
    if table.row_count:
        output.show(table)
    elif not failures:
        where = ", ".join(str(folder) for folder in folders or [Path()])
        raise InputError(f"there are no runs in {where}; keep one with fullback train --run FOLDER")
    if failures:
        raise typer.Exit(FAILURE)


def _runs_in(folder: Path) -> list[RunFolder]:
    """Return the run in a folder, or those in the folders in it."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    if RunFolder(folder).config.is_file():
        return [RunFolder(folder)]
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    return [run for run in map(RunFolder, inner) if run.config.is_file()]
