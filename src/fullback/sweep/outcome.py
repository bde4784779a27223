"""What a trial came to, which trials were better than others, and a file of all of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fullback.training.history import Monitor

State = Literal["waiting", "running", "finished", "failed", "not trained"]


@dataclass(frozen=True)
class Outcome:
    """What one training of a trial came to, or how far it is.

    Attributes
    ----------
    state : "failed" where nothing was learned or the loss was no longer finite, which is final;
        "not trained" where something came between, like a full disk, and it can be tried again
    epochs : how many are finished
    value : the metric of its best epoch, on images for validation
    best_epoch : which that was
    test : what it was worth on the test images, by name
    seconds : the time of its epochs, which depends on the machine
    reason : why it is not finished
    """

    state: State
    epochs: int = 0
    value: float | None = None
    best_epoch: int | None = None
    test: Mapping[str, float] | None = None
    seconds: float = 0.0
    reason: str = ""

    @property
    def final(self) -> bool:
        """Whether training it again would bring nothing else."""
        return self.state in ("finished", "failed")


@dataclass(frozen=True, eq=False)
class Trial:
    """One training of one combination of options.

    Attributes
    ----------
    number : which combination, from 1; in every round of halving the same
    name : of its folder
    varied : the options in which trials differ
    options : all options of the run, as its config.toml has them
    round : in which round of halving, from 0
    """

    number: int
    name: str
    varied: Mapping[str, Any]
    options: Mapping[str, Any]
    round: int = 0

    @property
    def epochs(self) -> int:
        """How many epochs it has in the end."""
        return int(self.options["epochs"])


def is_better_low(metric: Monitor) -> bool:
    """Whether a smaller value is better."""
    return metric == "loss"


def ranked(
    outcomes: Mapping[Trial, Outcome] | Iterable[tuple[Trial, Outcome]], metric: Monitor
) -> list[tuple[Trial, Outcome]]:
    """Return trials with their outcomes, the best first.

    A later round comes before an earlier one, and of equal values the trial with the lower number;
    those without a value come last.
    """
    pairs = outcomes.items() if isinstance(outcomes, Mapping) else outcomes
    sign = 1 if is_better_low(metric) else -1

    def place(pair: tuple[Trial, Outcome]) -> tuple[bool, int, float, int]:
        trial, outcome = pair
        found = outcome.state == "finished" and outcome.value is not None
        value = sign * (outcome.value or 0.0) if found else 0.0
        return not found, -trial.round, value, trial.number

    return sorted(pairs, key=place)


def shown_value(value: Any) -> str:
    """Return the value of an option, as tables have it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(map(shown_value, value)) or "none"
    return str(value) if value != "" else "none"


def cut(text: str, longest: int = 24) -> str:
    """Return a text without its middle, where it is longer: networks differ at their ends, too."""
    end = longest // 2
    return text if len(text) <= longest else f"{text[: longest - end - 1]}…{text[-end:]}"


def as_csv(rows: Sequence[tuple[Trial, Outcome]], varied: Sequence[str], metric: Monitor) -> bytes:
    """Return a table of trials; it is the same whatever trained them, and so has no times."""
    tests = sorted({name for _, outcome in rows for name in outcome.test or {}})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    header = ("trial", "state", "epochs", *varied, f"validation_{metric}", "best_epoch", *tests)
    table.writerow((*header, "reason"))
    for trial, outcome in rows:
        options = [trial.varied.get(name) for name in varied]
        plain = [json.dumps(v) if isinstance(v, list | bool) else v for v in options]
        figures = [(outcome.test or {}).get(name) for name in tests]
        fixed = (trial.name, outcome.state, trial.epochs, *plain)
        table.writerow((*fixed, outcome.value, outcome.best_epoch, *figures, outcome.reason))
    return text.getvalue().encode()
