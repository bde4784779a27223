"""What the commands write: pages for people, or one JSON object a line for machines."""

from __future__ import annotations

import functools
import json
import math
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO

import typer

from fullback.cli.interrupt import INTERRUPTED
from fullback.errors import FullbackError, FullbackWarning, OptionError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

P = ParamSpec("P")

FAILURE, USAGE = 1, 2  # exit codes


class Output:
    """Standard output of one command, in one of its two forms."""

    def __init__(self, *, as_json: bool) -> None:
        from rich.console import Console

        self.as_json = as_json
        self.console: Console = Console(highlight=False)

    def event(self, event: str, **fields: Any) -> None:
        """Write a JSON line, where that is wanted; numbers that are not finite become null."""
        if self.as_json:
            line = json.dumps(_finite({"event": event, **fields}), allow_nan=False)
            print(line, flush=True)

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
    print(capture.get(), end="", file=file, flush=True)
