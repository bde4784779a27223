"""What the commands write: pages for people, or one JSON object a line for machines."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, cast

import typer

from fullback.cli.interrupt import INTERRUPTED
from fullback.errors import FullbackError, FullbackWarning, OptionError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

P = ParamSpec("P")

FAILURE, USAGE = 1, 2  # exit codes


class Output:
    """Standard output of one command, in one of its two forms.

    Parameters
    ----------
    as_json : whether it is JSON, for machines
    keep_going : whether a command goes on where nothing more can be written, as its reader has gone
        or the disk is full; ``close`` tells of it in the end
    """

    def __init__(self, *, as_json: bool, keep_going: bool = False) -> None:
        from rich.console import Console

        self.as_json = as_json
        self._file = _KeepGoing(sys.stdout) if keep_going else None
        self.console: Console = Console(highlight=False, file=cast("TextIO | None", self._file))

    def event(self, event: str, **fields: Any) -> None:
        """Write a JSON line, where that is wanted; numbers that are not finite become null."""
        if self.as_json:
            line = json.dumps(_finite({"event": event, **fields}), allow_nan=False)
            print(line, file=self._file, flush=True)

    def close(self, done: str) -> None:
        """Raise an error where something could not be written; ``done`` says what was done.

        Raises
        ------
        typer.Exit
            It could not; a line on standard error says so.
        """
        if self._file is not None and self._file.error is not None:
            reason = self._file.error.strerror or str(self._file.error)
            fail(f"standard output could not be written ({reason}); {done}")
            raise typer.Exit(FAILURE)

    def show(self, *parts: RenderableType) -> None:
        """Write for people, where that is wanted."""
        if not self.as_json:
            for part in parts:
                self.console.print(part)

    def fact(self, name: str, *text: str | tuple[str, str]) -> None:
        """Write a line with a name in front; a part of it may come with a style."""
        from rich.text import Text

        if not self.as_json:
            line = Text().append(f"{name:<10} ", "bold")
            for part in text:
                words, style = (part, "") if isinstance(part, str) else part
                line.append(printable(words), style)
            self.console.print(line, soft_wrap=True)

    @property
    def progress(self) -> Console | bool:
        """What ``fit`` takes as ``verbose``."""
        return False if self.as_json else self.console


class _KeepGoing:
    """A text stream that takes what it is given also where it can no longer be written."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        if self.error is None:
            try:
                return self.stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it."""
        if self.error is None:
            try:
                self.stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.error = error
        with contextlib.suppress(OSError, ValueError):  # else Python's exit would try it once more
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    """Escape what would move the cursor or cannot be written, as the name of a file can hold it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def fail(message: str) -> None:
    """Write an error's line to standard error."""
    _line("error", "bold red", message)


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a user can cause into one line and an exit code, and warnings into one line."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("always", FullbackWarning)
            try:
                command(*args, **kwargs)
            except BrokenPipeError:
                raise  # the reader has gone; Typer ends quietly
            except OptionError as error:
                fail(str(error))
                raise typer.Exit(USAGE) from None
            except FullbackError as error:
                fail(str(error))
                raise typer.Exit(FAILURE) from None
            except OSError as error:
                reason = error.strerror or str(error)
                fail(f"{error.filename}: {reason}" if error.filename else reason)
                raise typer.Exit(FAILURE) from None
            except MemoryError:
                fail("there is not enough memory; use a smaller network, batch or data set")
                raise typer.Exit(FAILURE) from None
            except KeyboardInterrupt:
                fail("interrupted")
                raise typer.Exit(INTERRUPTED) from None

    return guarded


def _show_warning(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001 -- the signature of warnings.showwarning
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    _line("warning", "bold yellow", str(message))


def _line(kind: str, style: str, message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text().append(f"{kind}: ", style).append(printable(" ".join(message.split())))
    console = Console(stderr=True, highlight=False)
    with console.capture() as capture:
        console.print(text, soft_wrap=True)
    # While a progress bar runs it stands in for sys.stderr, and writes above itself; but a line
    # that goes to a file must not end on the terminal.
    file = (
        sys.stderr if console.is_terminal else getattr(sys.stderr, "rich_proxied_file", sys.stderr)
    )
    with contextlib.suppress(OSError):  # where standard error cannot be written
        print(capture.get(), end="", file=file, flush=True)
