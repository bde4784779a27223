"""What a check of gradients found: the figures, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fullback.check.printing import as_text
from fullback.layers.base import Shape

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class DirectionRow:
    """A random direction, and the slope of the loss along it.

    Attributes
    ----------
    given : the slope by the gradients
    expected : the slope by finite differences
    error : by how much they differ
    relative : the same, divided by the usual slope in such a direction
    precision : estimated error of the finite difference, divided likewise
    kink : whether the slopes forwards and backwards differ
    ok : whether the gradients are right, as far as this can tell
    """

    given: float
    expected: float
    error: float
    relative: float
    precision: float
    kink: bool
    ok: bool


@dataclass(frozen=True)
class GradientRow:
    """One array of gradients.

    Attributes
    ----------
    name, shape : of the array
    size : entries that it has
    checked : entries that were compared
    kinks : how many of them are at a kink, where the slopes to both sides differ
    unclear : how many at a kink follow no usual rule for such a point, but lie between those
    wrong : how many are wrong
    error : largest difference from the finite difference, of entries not at a kink
    relative : the same, divided by the array's largest gradient
    precision : largest estimated error of the finite differences, divided likewise
    direction : a random direction in which all entries move
    worst, given, expected : place of the entry that is most wrong, its value, and the right one;
        None where none is
    ok : whether the array is right, as far as this can tell
    """

    name: str
    shape: Shape
    size: int
    checked: int
    kinks: int
    unclear: int
    wrong: int
    error: float
    relative: float
    precision: float
    direction: DirectionRow
    worst: tuple[int, ...] | None
    given: float | None
    expected: float | None
    ok: bool


@dataclass(frozen=True)
class GradientCheck:
    """The result of ``check_gradients``; ``print`` shows it as a table.

    Attributes
    ----------
    rows : a row an array
    directional : directions in which all parameters move at once
    loss : the batch's loss
    images : how many images the batch has
    training : whether dropout and batch statistics were in force
    checked : whose gradients these are: "reference", "lanes", or "given"
    """

    rows: tuple[GradientRow, ...]
    directional: tuple[DirectionRow, ...]
    loss: float
    images: int
    training: bool
    checked: str

    @property
    def ok(self) -> bool:
        """Whether all gradients are right."""
        return all(row.ok for row in self.rows) and all(row.ok for row in self.directional)

    @property
    def relative(self) -> float:
        """The largest error of all entries, relative to their array's largest gradient."""
        return max(row.relative for row in self.rows)

    @property
    def precision(self) -> float:
        """The largest estimated error of the finite differences, likewise relative."""
        return max(row.precision for row in self.rows)

    def table(self) -> Table:
        """Return the table: a row an array, and one for all parameters at once."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("gradient of", style="bold", no_wrap=True)
        for heading in ("checked", "at kinks", "error", "relative", "known to"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for row in self.rows:
            alone = row.kinks == row.checked
            table.add_row(
                row.name,
                f"{row.checked:,}" + f" of {row.size:,}" * (row.checked < row.size),
                f"{row.kinks:,}" if row.kinks else "",
                "" if alone else f"{row.error:.1e}",
                "" if alone else f"{row.relative:.1e}",
                f"{row.precision:.1e}",
                _verdict(row.ok, row.unclear),
            )
        if self.directional:
            kinks = sum(row.kink for row in self.directional)
            table.add_row(
                "all parameters",
                _directions(len(self.directional)),
                f"{kinks:,}" if kinks else "",
                f"{max(row.error for row in self.directional):.1e}",
                f"{max(row.relative for row in self.directional):.1e}",
                f"{max(row.precision for row in self.directional):.1e}",
                _verdict(all(row.ok for row in self.directional)),
            )
        return table

    def mistakes(self) -> list[str]:
        """Return a line for every array that is wrong."""
        lines = []
        for row in self.rows:
            if row.worst is not None:
                place = f"[{', '.join(map(str, row.worst))}]" if row.worst else ""
                lines.append(
                    f"{row.name}: {row.wrong} of {row.checked} entries are wrong; {row.name}{place}"
                    f" is {row.given:.6g}, but finite differences give {row.expected:.6g}"
                )
            elif not row.ok:
                lines.append(
                    f"{row.name}: the {row.checked} entries looked at are right, but with all "
                    f"entries moved at once the slope is {row.direction.given:.6g}, where finite "
                    f"differences give {row.direction.expected:.6g}"
                )
        wrong = next((row for row in self.directional if not row.ok), None)
        if not lines and wrong is not None:
            lines.append(
                f"with all parameters moved at once the slope is {wrong.given:.6g}, but finite "
                f"differences give {wrong.expected:.6g}"
            )
        return lines

    def sentence(self) -> str:
        """Say in words what was checked, and how precisely."""
        whose = {
            "reference": "The reference engine's gradients",
            "lanes": "The lane engine's gradients",
            "given": "The gradients given",
        }[self.checked]
        checked = sum(row.checked for row in self.rows)
        where = f"{checked:,} of {sum(row.size for row in self.rows):,} entries"
        if self.directional:
            where += f", every array as a whole and {_directions(len(self.directional))} of all"
        else:
            where += " and every array as a whole"
        if not self.ok:
            wrong = [row.name for row in self.rows if not row.ok] or ["all parameters at once"]
            return f"{whose} are wrong: {', '.join(wrong)}. Looked at: {where}."
        apart = ""
        if kinks := sum(row.kinks for row in self.rows):
            are = "entry is" if kinks == 1 else "entries are"
            apart = f" {kinks:,} {are} at a kink, where the slopes to both sides differ"
            unclear = sum(row.unclear for row in self.rows)
            apart += (
                f", and {unclear:,} of them follow none of the usual rules for such a point."
                if unclear
                else ", and set apart."
            )
        return (
            f"{whose} are right: {where} agree with finite differences of the loss to "
            f"{self.relative:.0e} of the array's largest entry; the differences themselves are "
            f"good to {self.precision:.0e}.{apart}"
        )

    def __str__(self) -> str:
        lines = [line.removeprefix(" ") for line in as_text(self.table(), 120).splitlines()]
        return "\n".join([*lines, "", *self.mistakes(), self.sentence()])


def _directions(count: int) -> str:
    return f"{count} direction{'s' * (count > 1)}"


def _verdict(ok: bool, unclear: int = 0) -> str:
    if not ok:
        return "[bold red]wrong[/]"
    return "[yellow]unclear[/]" if unclear else "right"
