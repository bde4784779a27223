"""``fullback runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fullback.cli import options
from fullback.cli.output import FAILURE, Output, fail, one_line_errors, printable
from fullback.cli.run_folder import RunFolder, read_config
from fullback.errors import FullbackError, InputError

_LOSS, _TRAINING = "training\nloss", "training\naccuracy"
_VALIDATION, _TEST = "validation\naccuracy", "test\naccuracy"


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
    as_json: options.JsonOption = False,
) -> None:
    """List training runs that were kept with `fullback train --run`, side by side.

    Loss and accuracy are of the last finished epoch; those of training are measured while the
    network learns. A narrow terminal leaves columns out; `--json` has them all.

    A run that cannot be read gets a line on standard error, and the exit code is then 1.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    output = Output(as_json=as_json)
    found = [run for folder in folders or [Path()] for run in _runs_in(folder)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", style="bold", overflow="fold")
    table.add_column("state", no_wrap=True)
    for column in ("epochs", _LOSS, _TRAINING, _VALIDATION, _TEST):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("data", overflow="fold")
    table.add_column("net", overflow="fold")
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
        planned = options.get("epochs")
        state = _state(folder, len(epochs), result)
        output.event(
            "run",
            run=str(folder.path),
            state=state,
            options=options,
            epochs=len(epochs),
            epochs_planned=planned,
            loss=last.loss if last else None,
            accuracy=last.accuracy if last else None,
            validation_loss=last.validation_loss if last else None,
            validation_accuracy=last.validation_accuracy if last else None,
            result=result or None,
        )
        table.add_row(
            Text(printable(str(folder.path))),
            state,
            f"{len(epochs)}" if planned is None else f"{len(epochs)} of {planned}",
            f"{last.loss:.4f}" if last else "",
            _share(last.accuracy if last else None),
            _share(last.validation_accuracy if last else None),
            _tested(result),
            Text(printable(str(options.get("data", "digits")))),
            Text(printable(str(options.get("net", "")))),
        )
    if table.row_count:
        output.table(table, _LOSS, _TRAINING, "data", _VALIDATION, "net", "epochs")
    elif not failures:
        where = ", ".join(str(folder) for folder in folders or [Path()])
        raise InputError(f"there are no runs in {where}; keep one with fullback train --run FOLDER")
    if failures:
        raise typer.Exit(FAILURE)


def _state(folder: RunFolder, epochs: int, result: dict[str, Any]) -> str:
    """Return "running", "finished", "failed", "interrupted" or, before the first epoch, "begun".

    It has failed where no attempt taught the network anything.
    """
    if _is_locked(folder.path / ".lock"):
        return "running"
    if result.get("epochs") == epochs:
        return "failed" if "failed" in result else "finished"
    return "interrupted" if epochs else "begun"


def _is_locked(path: Path) -> bool:
    """Whether a process trains there: it holds the lock, which is taken here for a moment."""
    from filelock import FileLock, Timeout

    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that may only be read
        return False


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _tested(result: dict[str, Any]) -> str:
    """Return the accuracy on the test images, or R^2 where there are no classes."""
    accuracy, r2 = result.get("test_accuracy"), result.get("test_r2")
    if isinstance(accuracy, float):
        return f"{accuracy:.2%}"
    return f"R² {r2:.4f}" if isinstance(r2, float) else ""


def _runs_in(folder: Path) -> list[RunFolder]:
    """Return the run in a folder, or those in the folders in it."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    if RunFolder(folder).config.is_file():
        return [RunFolder(folder)]
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    return [run for run in map(RunFolder, inner) if run.config.is_file()]
