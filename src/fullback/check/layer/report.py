"""What a check of a user's layer found."""

from __future__ import annotations

from dataclasses import dataclass, field

from fullback.check.printing import listed

DIFFERENCES, REFERENCE = "finite differences", "the reference"
"""What gradients are compared with."""


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
    """One gradient on one input.

    Attributes
    ----------
    quantity, probe : which
    checked : entries and directions that were compared
    kinks : how many of them are at a kink, and were set apart
    error : largest difference, relative to the largest entry
    precision : largest estimated error of what it was compared with, likewise
    sure : whether a wrong gradient could not have passed
    wrong : the largest mistake, in words; None where there is none
    """

    quantity: str
    probe: str
    checked: int
    kinks: int
    error: float
    precision: float
    sure: bool = True
    wrong: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LayerCheck:
    """The result of ``check_layer``.

    Attributes
    ----------
    findings : what is wrong; empty where nothing is
    rows : every gradient on every input, with its figures
    notes : what is worth knowing and not wrong: how the functions were called, conventions
    judged : the gradients that were judged, right or wrong
    not_judged : gradients and inputs that could not be, with the reason
    truth : what gradients were compared with
    whole : whether every gradient that backward gave was judged
    """

    findings: tuple[LayerFinding, ...]
    rows: tuple[LayerRow, ...]
    notes: tuple[str, ...]
    judged: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()
    whole: bool = True
    truth: str = DIFFERENCES

    @property
    def ok(self) -> bool:
        """Whether all gradients that backward gave were judged, and are right."""
        return self.whole and not self.findings

    def __str__(self) -> str:
        names = list(dict.fromkeys(row.quantity for row in self.rows))
        wrong = list(dict.fromkeys(finding.quantity for finding in self.findings))
        right = [name for name in self.judged if name not in wrong]
        if not self.ok:
            head = "The layer could not be judged on these inputs."
            head = f"The layer is wrong: {listed(wrong)}." if wrong else head
            head += f" Right: {listed(right)}." if right else ""
        else:
            probes = len(dict.fromkeys(row.probe for row in self.rows))
            worst = max((row.error for row in self.rows), default=0.0)
            precision = max((row.precision for row in self.rows), default=0.0)
            are = "is" if self.truth == REFERENCE else "are"
            agree = "agrees" if len(names) == 1 else "agree"
            where = " where it was judged" if self.not_judged else ""
            head = (
                f"The layer is right{where}: {listed(names)} {agree} with {self.truth} to "
                f"{worst:.0e} of the largest entry on {probes} input{'s' * (probes != 1)}, which "
                f"{are} good to {precision:.0e}."
            )
            if kinks := sum(row.kinks for row in self.rows):
                head += f" {kinks:,} comparisons at kinks were set apart."
        lines = [f"- {finding}" for finding in self.findings]
        lines += [f"  not judged: {what}" for what in self.not_judged]
        return "\n".join([head, *lines, *(f"  note: {note}" for note in self.notes)])
