"""Wrong usage of options, as typer finds it."""

from __future__ import annotations

from typing import Any

import typer

UsageError: Any = typer.BadParameter.__bases__[0]
"""What typer raises for wrong usage, which it has no public name for."""


def usage_message(error: Any) -> str:
    """Return what is wrong with an option, in typer's words, with the value that was given."""
    message: str = error.format_message().removesuffix(".").replace(": Value error, ", ": ")
    # Pydantic's errors, whose texts leave the value out.
    refused: list[Any] = getattr(error.__cause__, "errors", list)()
    if refused and "Input should be" in message:
        message += f", got {refused[0]['input']!r}"
    return message
