"""The look of every table here."""

from rich import box
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, width=None)
progress = Console(stderr=True)


def table(title: str, *columns: str) -> Table:
    """Return an empty table; all columns but the first are numbers."""
    made = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_style="bold", title_justify="left"
    )
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", no_wrap=True)
    return made
