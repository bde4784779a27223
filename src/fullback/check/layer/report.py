"""What a check of a user's layer found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fullback.check.printing import listed


@dataclass(frozen=True)
class LayerFinding:
    """Something that is wrong with a layer.

    Attributes
    ----------
    mistake : the catalogue's id, like "sign-flipped"; None where the check cannot name it
    quantity : what is wrong: "dx", "dw", "y", ...
    probe : the input on which it shows
    error : relative size of the error; 0 where there is no figure
    message : what is wrong, in a sentence
    mend : the right formula, where the layer's kind and the mistake are known, else ""
    hint : how that is written, in a few lines of NumPy
    """

    mistake: str | None
    quantity: str
    probe: str
    error: float
    message: str
    mend: str = ""
    hint: str = ""

    def __str__(self) -> str:
        name = f" ({self.mistake})" if self.mistake else ""
        lines = [f"{self.quantity}{name}, on {self.probe}: {self.message}"]
        if self.mend:
            lines += [
                "  right is",
                *(f"    {line}" for line in (self.mend, *self.hint.split("\n"))),
            ]
        return "\n".join(lines)


@dataclass(frozen=True)
class LayerRow:
    """One gradient on one probe.

    Attributes
    ----------
    quantity, probe : which
    checked : entries and directions compared with finite differences
    kinks : how many of them are at a kink, and were set apart
    error : largest difference, relative to the largest entry
    precision : largest estimated error of the differences, likewise
    """

    quantity: str
    probe: str
    checked: int
    kinks: int
    error: float
    precision: float


@dataclass(frozen=True)
class LayerCheck:
    """The result of ``check_layer``.

    Attributes
    ----------
    findings : what is wrong; empty where nothing is
    rows : every gradient on every probe, with its figures
    notes : what is worth knowing and not wrong: how the functions were called, what was left out
    """

    findings: tuple[LayerFinding, ...]
    rows: tuple[LayerRow, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        lines = [f"- {finding}" for finding in self.findings]
        names = list(dict.fromkeys(row.quantity for row in self.rows))
        probes = len(dict.fromkeys(row.probe for row in self.rows))
        if self.ok:
            worst = max((row.error for row in self.rows), default=0.0)
            precision = max((row.precision for row in self.rows), default=0.0)
            kinks = sum(row.kinks for row in self.rows)
            agree = "agrees" if len(names) == 1 else "agree"
            head = (
                f"The layer is right: {listed(names)} {agree} with finite differences to "
                f"{worst:.0e} of the largest entry on {probes} input{'s' * (probes != 1)}; the "
                f"differences are good to {precision:.0e}."
            )
            if kinks:
                head += f" {kinks:,} comparisons at kinks were set apart."
        else:
            wrong = list(dict.fromkeys(finding.quantity for finding in self.findings))
            right = [name for name in names if name not in wrong]
            head = f"The layer is wrong: {listed(wrong)}."
            if right:
                head += f" Right: {listed(right)}."
        return "\n".join([head, *lines, *(f"  note: {note}" for note in self.notes)])


def merged(findings: Sequence[LayerFinding]) -> tuple[LayerFinding, ...]:
    """Put together what shows on several probes: the first finding of each, named ones first."""
    groups: dict[tuple[str, str], list[LayerFinding]] = {}
    named = {(finding.quantity, finding.probe) for finding in findings if finding.mistake}
    quantities = {quantity for quantity, _ in named}
    for finding in sorted(findings, key=lambda finding: finding.mistake is None):
        if finding.mistake is None and finding.error and finding.quantity in quantities:
            continue  # the same error on another probe, which was not looked into
        groups.setdefault((finding.mistake or "", finding.quantity), []).append(finding)
    result = []
    for group in groups.values():
        first, probes = group[0], {finding.probe for finding in group}
        others = len(probes) - 1
        more = f", and on {others} more input{'s' * (others > 1)}" if others else ""
        result.append(replace(first, message=f"{first.message}{more}"))
    return tuple(result)
