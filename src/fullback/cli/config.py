"""Options of a command that come from a file: ``--config``, and ``--resume`` of a run."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from fullback.cli.run_folder import RunFolder, read_config
from fullback.errors import FullbackError, OptionError

_OF_ONE_CALL = {"run", "resume", "config", "as_json", "out", "compare", "pictures"}
_BESIDE_RESUME = {"epochs"}  # a run may be given more of them
_PATHS = (
    "data",
    "data_dir",
    "start",
    "image_folder",
    "unpack",
)  # held whole, for other working folders
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
            raise typer.BadParameter(f"{folder} holds no run: it has no config.toml")
        _take(context, RunFolder(folder).config)
    return folder


def started_with(context: typer.Context, **chosen: Any) -> dict[str, Any]:
    """Return a command's options, as a configuration holds them.

    Parameters
    ----------
    chosen : values of options that were left to the command

    Raises
    ------
    OptionError
        An option was given beside ``--resume``, which has them all.
    """
    given = {
        name: value
        for name, value in {**context.params, **chosen}.items()
        if name not in _OF_ONE_CALL and value is not None
    }
    names = _names(context)
    if context.params["resume"] is not None:
        for name in (*given, "run", "config"):
            source = context.get_parameter_source(name)
            on_command_line = source is not None and source.name == _ON_THE_COMMAND_LINE
            if on_command_line and name not in _BESIDE_RESUME:
                raise OptionError(
                    "--resume goes on with the options of the run, and only --epochs may be "
                    f"another; leave --{names[name].replace('_', '-')} out"
                )
    for name in _PATHS:
        if name in given and (name != "data" or Path(given[name]).exists()):  # which may be a name
            given[name] = Path(given[name]).resolve()
    return {names[name]: _plain(value) for name, value in given.items()}


def _names(context: typer.Context) -> dict[str, str]:
    """Return what every option is called in a configuration, by the name of its parameter."""
    return {
        str(parameter.name): parameter.opts[0].lstrip("-").replace("-", "_")
        for parameter in context.command.params
    }


def _take(context: typer.Context, file: Path) -> None:
    try:
        taken = by_parameter(context, read_config(file), str(file))
    except FullbackError as error:
        raise typer.BadParameter(str(error)) from None
    context.default_map = {**(context.default_map or {}), **taken}


def by_parameter(context: typer.Context, options: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the options of a configuration by the names of the command's parameters.

    Raises
    ------
    OptionError
        One is unknown, or is true or false but no flag; the message begins with ``source``.
    """
    from fullback.options import did_you_mean

    known = {
        name: parameter
        for parameter, name in _names(context).items()
        if parameter not in _OF_ONE_CALL
    }
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            raise OptionError(f"{source} has the unknown option {name!r}{hint}")
    flags = {p.name for p in context.command.params if getattr(p, "is_flag", False)}
    for name, value in options.items():
        if isinstance(value, bool) and known[name] not in flags:  # it would be taken for 1 or 0
            raise OptionError(f"{source} has {name} = {str(value).lower()}, which is no flag")
    return {known[name]: value for name, value in options.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
