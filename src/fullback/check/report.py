"""What a diagnosis answers, and how it is shown."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class Evidence:
    """The proof of a finding.

    Attributes
    ----------
    array : which of their arrays shows it first
    error_before : relative distance of it from the right one
    error_after : relative distance from the one with the mistake built in; None without a mistake
    sentence : the same in words
    """

    array: str
    error_before: float
    error_after: float | None
    sentence: str


@dataclass(frozen=True)
class Alternative:
    """Another mistake that gives the same arrays on this data.

    Attributes
    ----------
    mistake, layer : as in Finding
    message : what it would be
    separated_by : what would tell the two apart
    """

    mistake: str | None
    layer: str
    message: str
    separated_by: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    mistake : its id in the catalogue, or None
    layer : whose backward pass it is in: "conv2", "loss"
    quantity : what of that layer is wrong: "next delta", "weight gradient", ...
    exact : whether the mistake gives exactly their arrays, in their precision
    evidence : the proof
    message : what was done, in a sentence or two
    mend : the right formula; "" where no mistake is named
    hint : how that is written, in a few lines of NumPy
    expect : what to expect after the mend
    alternatives : other mistakes that give the same on this data
    """

    mistake: str | None
    layer: str
    quantity: str
    exact: bool
    evidence: Evidence
    message: str
    mend: str = ""
    hint: str = ""
    expect: str = ""
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What ``diagnose`` found.

    Attributes
    ----------
    findings : what is wrong, the most important first
    right : names of the arrays that are right, given what came to them from above
    inherited : names of the arrays that are wrong only because of a finding above them
    notes : what is worth knowing and not wrong: layouts, conventions, kinks
    precision : "float64", "float32" or "float16": the precision their arrays are judged in
    """

    findings: list[Finding] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    inherited: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    precision: str = "float64"

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def render(self) -> Group:
        """Return the diagnosis as a rich renderable."""
        from rich.console import Group
        from rich.text import Text

        parts: list[object] = []
        if self.ok:
            line = Text("nothing is wrong", "bold green")
            count = len(self.right)
            line.append(f": {count} array{'s' * (count != 1)} right to {self.precision}", "default")
            parts.append(line)
        for number, finding in enumerate(self.findings, 1):
            parts.append(_panel(finding, number, len(self.findings)))
        for name, values, style in (
            ("right", self.right, "green"),
            ("wrong only because of the above", self.inherited, "yellow"),
        ):
            if values:
                parts.append(Text().append(f"{name}  ", f"bold {style}").append(", ".join(values)))
        for note in self.notes:
            parts.append(Text().append("note  ", "bold").append(note))
        return Group(*parts)  # type: ignore[arg-type]

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=100, color_system=None, legacy_windows=False)
        with console.capture() as capture:
            console.print(self.render())
        return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def _panel(finding: Finding, number: int, count: int) -> object:
    from rich.console import Group
    from rich.panel import Panel
    from rich.syntax import Syntax
    from rich.table import Table
    from rich.text import Text

    title = Text()
    if count > 1:
        title.append(f"{number} of {count}  ", "bold")
    title.append(f"{finding.layer}: ", "bold cyan")
    title.append(finding.mistake or f"{finding.quantity} wrong", "bold red")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("proof", Text(finding.evidence.sentence))
    if finding.mend:
        table.add_row("formula", Text(finding.mend))
    if finding.hint:
        code = Syntax(finding.hint, "python", theme="ansi_light", background_color="default")
        table.add_row("code", code)
    if finding.expect:
        table.add_row("after it", Text(finding.expect))
    for other in finding.alternatives:
        table.add_row("or else", Text(f"{other.message} {other.separated_by}"))
    return Panel(
        Group(Text(finding.message), Text(), table),
        title=title,
        title_align="left",
        border_style="red" if finding.mistake else "yellow",
    )
