"""A bar on the terminal, while many images are read or written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def shown(items: Iterable[T], text: str, total: int, *, progress: bool) -> Iterable[T]:
    """Return items that move a bar as they are gone through, where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not progress or not console.is_terminal:
        return items
    return track(items, text, total=total, console=console, transient=True)
