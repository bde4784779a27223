"""What a diagnosis answers, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fullback.check.printing import as_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_QUANTITIES = ("probabilities", "output", "delta", "weight", "bias")


@dataclass(frozen=True)
class Evidence:
    """The proof of a finding.

    Attributes
    ----------
    array : which of the submitted arrays shows it first
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
    separated_by : what would distinguish the two
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
    exact : whether the mistake gives exactly the submitted arrays, in their precision
    evidence : the proof
    message : what was done, in a sentence or two
    mend : the right formula; "" where no mistake is named
    hint : how that is written, in a few lines of NumPy
    expect : what to expect after the fix
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
class Condition:
    """A remark about the network or its data: what a right backward pass does not help.

    Attributes
    ----------
    layer, quantity : what it is about: "relu1", "output"
    message : what it is, and what follows
    mend, hint : what helps, in a formula and in NumPy
    """

    layer: str
    quantity: str
    message: str
    mend: str
    hint: str


@dataclass(frozen=True)
class Diagnosis:
    """What ``diagnose`` found.

    Attributes
    ----------
    findings : what is wrong, the most important first
    right : names of the arrays that are right
    inherited : names of the arrays that are wrong only because of a finding above them
    wrong : names of the arrays that are wrong themselves
    not_judged : names of the arrays that cannot be judged on this batch; the notes say why
    conditions : remarks about the network and its data, such as a dead layer
    layers : the layers' names from the loss down, ending in "input"
    notes : what is worth knowing and not wrong: layouts, conventions, undecided units
    precision : "float64", "float32" or "float16": the precision that the arrays are judged in
    """

    findings: list[Finding] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    inherited: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    precision: str = "float64"

    @property
    def ok(self) -> bool:
        """Whether everything that was submitted was judged, and is right."""
        return not self.findings and not self.not_judged

    @property
    def judged(self) -> list[str]:
        """The names of the arrays that were judged: right, wrong, or wrong by inheritance."""
        return [*self.right, *self.inherited, *self.wrong]

    def render(self) -> Group:
        """Return the diagnosis as a rich renderable."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[object] = []
        if not self.findings:
            parts.append(self._verdict())
        for number, finding in enumerate(self.findings, 1):
            parts.append(_panel(finding, number, len(self.findings)))
        parts += [Text(), self._walk()]
        if self.inherited:
            parts.append(
                Text("follows: wrong, but only because of what it was computed from", "dim")
            )
        if self.notes or self.conditions:
            parts.append(Text())
        notes = Table.grid(padding=(0, 2))
        for note in self.notes:
            notes.add_row(Text("note", "bold"), note)
        for one in self.conditions:
            notes.add_row(Text("remark", "bold"), f"{one.message} It helps: {one.mend}")
        return Group(*parts, notes)  # type: ignore[arg-type]

    def _verdict(self) -> Text:
        """Return the line that stands where there are no findings."""
        from rich.text import Text

        right, unknown = len(self.right), len(self.not_judged)
        count = f"{right} array{'s' * (right != 1)} right to {self.precision}"
        if not unknown:
            return Text("nothing is wrong", "bold green").append(f": {count}", "default")
        head = "what was judged is right" if right else "nothing could be judged"
        line = Text(head, "bold yellow")
        return line.append(f": {count}, {unknown} not judged", "default")

    def _walk(self) -> Table:
        """Return what was judged, from the loss down: a row a layer, a column a quantity."""
        from rich.table import Table
        from rich.text import Text

        verdicts: dict[str, dict[str, Text]] = {"loss": {}, **{name: {} for name in self.layers}}
        quantities: list[str] = []
        for word, style, names in (
            ("right", "green", self.right),
            ("follows", "yellow", self.inherited),
            ("wrong", "bold red", self.wrong),
            ("not judged", "dim", self.not_judged),
        ):
            for name in names:
                layer, quantity = place_of(name)
                verdicts[layer][quantity] = Text(word, style)
                quantities.append(quantity)
        columns = [q for q in _QUANTITIES if q in quantities]
        columns += sorted({*quantities} - {*columns})
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("from the loss down", no_wrap=True, style="bold")
        for quantity in columns:
            table.add_column(quantity)
        for layer, row in verdicts.items():
            if row:
                table.add_row(layer, *(row.get(quantity, "") for quantity in columns))
        return table

    def __str__(self) -> str:
        return as_text(self.render(), 100)


def place_of(name: str) -> tuple[str, str]:
    """Split an array's name into its layer and its quantity: "delta of conv1", "conv1.weight"."""
    if name == "probabilities":
        return "loss", name
    quantity, of, layer = name.partition(" of ")
    if of:
        return layer, quantity
    layer, _, quantity = name.partition(".")
    return layer, quantity


def _row(label: str, words: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", width=8)
    table.add_row(label, Text(words))
    return table


def _panel(finding: Finding, number: int, count: int) -> object:
    from rich.console import Group, RenderableType
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.syntax import Syntax
    from rich.text import Text

    title = Text()
    if count > 1:
        title.append(f"{number} of {count}  ", "bold")
    title.append(f"{finding.layer}: ", "bold cyan")
    title.append(finding.mistake or f"{finding.quantity} wrong", "bold red")
    parts: list[RenderableType] = [Text(finding.message), Text()]
    parts.append(_row("proof", finding.evidence.sentence))
    if finding.mend or finding.hint:
        parts += [Text(), Text("right is", "bold")]
    if finding.mend:
        parts.append(Padding(Text(finding.mend), (0, 2)))
    if finding.hint:
        code = Syntax(finding.hint, "python", theme="ansi_light", background_color="default")
        parts.append(Padding(code, (0, 0, 0, 2)))
    if finding.expect or finding.alternatives:
        parts.append(Text())
    if finding.expect:
        parts.append(_row("after it", finding.expect))
    for other in finding.alternatives:
        parts.append(_row("or else", f"{other.message} {other.separated_by}"))
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        border_style="red" if finding.mistake else "yellow",
    )
