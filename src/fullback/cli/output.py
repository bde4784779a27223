"""What the commands write: pages for people, or one JSON object a line for machines."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, cast

import typer

from fullback.cli.interrupt import INTERRUPTED, NO_MEMORY, can_start_threads
from fullback.errors import FullbackError, FullbackWarning, OptionError
from fullback.memory import is_limited

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

P = ParamSpec("P")

FAILURE, USAGE = 1, 2  # exit codes
_WIDEST = 10_000  # characters of a table that no terminal limits
_FOLDED = 16  # characters to which names are folded before columns are left out


class Output:
    """Standard output of one command, in one of its two forms.

    Where what reads it has gone (``| head``), both forms raise ``BrokenPipeError``, unless
    ``keep_going``.

    Parameters
    ----------
    as_json : whether it is JSON, for machines
    keep_going : whether a command goes on where nothing more can be written, as its reader has gone
        or the disk is full; ``close`` reports it in the end
    """

    def __init__(self, *, as_json: bool, keep_going: bool = False) -> None:
        from rich.console import Console

        class Page(Console):
            def on_broken_pipe(self) -> None:
                raise  # the error that is being handled, where Rich's own method would exit

        self.as_json = as_json
        self._file = _KeepGoing(sys.stdout) if keep_going else None
        self.console: Console = Page(highlight=False, file=cast("TextIO | None", self._file))

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

    def table(self, table: Table, *optional: str) -> None:
        """Write a table for people, as wide as it is where no terminal limits it.

        On a terminal that is too narrow, long cells of the first column are folded, and the
        ``optional`` columns are left out, the first ones first, until the others fit.
        """
        if self.as_json:
            return
        console = self.console
        if not console.is_terminal and "COLUMNS" not in os.environ:
            limit = console.width
            console.width = max(limit, self._width(table, _WIDEST))  # what print takes at most
            console.print(table)
            console.width = limit
            return
        console.print(self.narrowed(table, *optional))

    def narrowed(self, table: Table, *optional: str) -> Table:
        """Return a table without ``optional`` columns, the first ones first, until it fits."""
        for header in optional:
            if self._width(table, _FOLDED) <= self.console.width:
                break
            table = _without(table, header)
        return table

    def fits(self, table: Table) -> bool:
        """Whether a table is shown whole."""
        limited = self.console.is_terminal or "COLUMNS" in os.environ
        return not limited or self._width(table, _WIDEST) <= self.console.width

    def _width(self, table: Table, first: int) -> int:
        """Return the characters that a table takes, with at most ``first`` for its first column."""
        unlimited = self.console.options.update(width=_WIDEST)
        whole = self.console.measure(table, options=unlimited).maximum
        cells = [self.console.measure(cell, options=unlimited) for cell in table.columns[0].cells]
        longest = max((cell.maximum for cell in cells), default=0)
        return whole - max(0, longest - first)

    def fact(self, name: str, *text: str | tuple[str, str]) -> None:
        """Write a line with a name in front; a part of it may come with a style."""
        from rich.text import Text

        if not self.as_json:
            line = Text().append(f"{name:<10} ", "bold")
            for part in text:
                words, style = (part, "") if isinstance(part, str) else part
                line.append(printable(words), style)
            self.console.print(line, soft_wrap=True)

    def facts(self, name: str, text: str, notes: Sequence[str]) -> None:
        """Write a line with a name in front, and notes in lines below it."""
        self.fact(name, text)
        for note in notes:
            self.fact("", note)

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
        drop_output(self.stream)


def drop_output(stream: TextIO) -> None:
    """Send to nowhere what a stream still holds, so that Python's flush at its end cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _without(table: Table, header: str) -> Table:
    """Return a table that lacks a column."""
    from rich.table import Table

    less = Table(box=table.box, pad_edge=table.pad_edge)
    columns = [column for column in table.columns if column.header != header]
    for column in columns:
        less.add_column(
            column.header,
            justify=column.justify,
            style=column.style,
            no_wrap=column.no_wrap,
            overflow=column.overflow,
        )
    for row in zip(*(list(column.cells) for column in columns), strict=True):
        less.add_row(*row)
    return less


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


def warn(message: str) -> None:
    """Write a warning's line to standard error."""
    _line("warning", "bold yellow", message)


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a user can cause into one line and an exit code, and warnings into one line."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("always", FullbackWarning)
            try:
                command(*args, **kwargs)
            except (OSError, *_IN_ONE_LINE) as error:
                raise typer.Exit(report(error)) from None
            except KeyboardInterrupt:
                if not can_start_threads():  # a signal that OpenBLAS sent
                    fail(NO_MEMORY)
                    raise typer.Exit(FAILURE) from None
                fail("interrupted")
                raise typer.Exit(INTERRUPTED) from None

    return guarded


_IN_ONE_LINE = (
    FullbackError,
    MemoryError,
    RecursionError,
    UnicodeError,
    ImportError,
    RuntimeError,
    SystemError,
)
_OUT_OF_MEMORY = ("cannot allocate memory", "failed to map segment", "can't start new thread")


def report(error: Exception) -> int:
    """Write an error's line, and return the exit code that it ends with.

    A closed pipe ends without a line: what read the output has gone, and did not fail.
    """
    if isinstance(error, BrokenPipeError):
        return FAILURE
    reason = str(error)
    if _is_of_memory(error):
        fail(NO_MEMORY)
        return FAILURE
    if isinstance(error, FullbackError):
        fail(reason)
        return USAGE if isinstance(error, OptionError) else FAILURE
    if isinstance(error, RuntimeError | SystemError) and not isinstance(error, RecursionError):
        raise error  # a mistake of fullback itself
    if isinstance(error, OSError):
        reason = error.strerror or reason
        reason = f"{_text(error.filename)}: {reason}" if error.filename else reason
    elif isinstance(error, RecursionError):
        reason = "the input is nested too deeply"
    elif isinstance(error, UnicodeError):
        reason = f"a text cannot be written or read as {error}; rename it with plain characters"
    else:
        reason = f"a part of the installation cannot be imported ({reason}); install fullback anew"
    fail(reason)
    return FAILURE


def _is_of_memory(error: BaseException | None) -> bool:
    """Whether an error comes of too little memory; libraries hide that behind other errors."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
            return True
        if isinstance(error, SystemError) and is_limited():
            return True  # compiled code that did not look whether it got its memory
        error = error.__cause__ or error.__context__
    return False


def _text(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)


def _show_warning(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001 -- the signature of warnings.showwarning
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    warn(str(message))


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
    with contextlib.suppress(OSError, ValueError):  # standard error is closed
        print(capture.get(), end="", file=file, flush=True)
