"""Options of a command that come from a file: ``--config``, and ``--resume`` of a run."""

from __future__ import annotations

import difflib
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from fullback.cli.run_folder import RunFolder, read_config
from fullback.errors import FullbackError, OptionError

_OF_ONE_CALL = {"run", "resume", "config", "as_json", "out", "compare"}
_ON_THE_COMMAND_LINE = "COMMANDLINE"


def take_config(context: typer.Context, file: Path | None) -> Path | None:
    """Take a TOML file's options for the command's defaults."""
    if file is not None:
        _take(context, file)
    return file


def take_resumed(context: typer.Context, folder: Path | None) -> Path | None:
    """Take the options that a run was started with."""
    if folder is not None:
        if not RunFolder(folder).config.is_file():
            raise typer.BadParameter(f"{folder} holds no run: there is no config.toml in it")
        _take(context, RunFolder(folder).config)
    return folder


def started_with(context: typer.Context) -> dict[str, Any]:
    """Return a command's options, as a configuration holds them.

    Raises
    ------
    OptionError
        An option was given beside ``--resume``, which has them all.
    """
    given = {
        name: value
        for name, value in context.params.items()
        if name not in _OF_ONE_CALL and value is not None
    }
    if context.params["resume"] is not None:
        for name in (*given, "run", "config"):
            source = context.get_parameter_source(name)
            if source is not None and source.name == _ON_THE_COMMAND_LINE:
                raise OptionError(
                    f"--resume goes on with the options of the run; leave --{_dashed(name)} out"
                )
    for name in ("data", "data_dir"):
        if name in given and Path(given[name]).exists():  # also from another working directory
            given[name] = Path(given[name]).resolve()
    return {name: _plain(value) for name, value in given.items()}


def _take(context: typer.Context, file: Path) -> None:
    known = {parameter.name for parameter in context.command.params} - _OF_ONE_CALL
    try:
        options = read_config(file)
    except FullbackError as error:
        raise typer.BadParameter(str(error)) from None
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, [str(own) for own in known], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise typer.BadParameter(f"{file} has the unknown option {name!r}{hint}")
    context.default_map = {**(context.default_map or {}), **options}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return [_plain(own) for own in value] if isinstance(value, list | tuple) else value


def _dashed(name: str) -> str:
    return name.replace("_", "-")
