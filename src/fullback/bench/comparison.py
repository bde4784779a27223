"""Training steps, checked and timed: fullback's beside every rival's."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fullback.bench.children import ChildError, Children, Handle
from fullback.bench.functional import Jax, TensorFlow
from fullback.bench.problem import Problem, training_flops
from fullback.bench.pytorch import PyTorch
from fullback.bench.rival import Lanes, Rival
from fullback.errors import FullbackError
from fullback.layers.base import Array

RIVALS: dict[str, type[Rival]] = {
    kind.framework.lower(): kind for kind in (PyTorch, TensorFlow, Jax)
}
"""What fullback is compared with, by the names on the command line."""

GRADIENTS_APART = 1e-2
"""How far gradients may lie apart: the norm of the difference over the norm.

float32 numbers carry 6e-8, and sums of a million of them some 1e-6. But such a rounding can turn a
ReLU, or the choice of a maximum, and so move one cell's delta: of M cells whose deltas have random
signs, as they have for random labels, that is 1 / sqrt(M) of the sum, some 4e-3 for 64 images of
28x28. A mistake moves whole arrays.
"""

STEPS_APART = 1e-2
"""Likewise for what two steps change in the weights, rounded to the size of the weights."""

_FAR = 10.0  # a rival this many times slower than the fastest one is timed once, not in rounds


class WrongError(FullbackError):
    """Gradients or steps are not those of the network."""


@dataclass(eq=False)
class Entry:
    """A row of the comparison.

    Attributes
    ----------
    framework, variant, threads : who trains
    style : what it chose among its styles
    seconds : of a step, in every round
    ratios : its seconds over fullback's, which ran just before, in every round
    error : how far its gradients are from fullback's; fullback's, from the reference's
    refused : why it is not compared, or ""
    wrong : whether that is because it computes something else
    """

    framework: str
    variant: str
    threads: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    error: float = float("nan")
    refused: str = ""
    wrong: bool = False

    @property
    def step(self) -> float:
        """Seconds of a step: the median of all rounds."""
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> float:
        """How many times as fast fullback is: the median of all rounds."""
        return statistics.median(self.ratios)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was measured of one problem.

    Attributes
    ----------
    problem : the problem
    ours : fullback, given what the rivals are given
    others : fullback in other ways: from uint8 pixels, and with one thread
    rivals : the rivals
    """

    problem: Problem
    ours: Entry
    others: Sequence[Entry]
    rivals: Sequence[Entry]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them."""
        return (self.ours, *self.others, *self.rivals)

    @property
    def flops(self) -> int:
        """Operations of a step."""
        return self.problem.batch * training_flops(self.problem.net)

    @property
    def best(self) -> Entry | None:
        """The fastest rival, if any was measured."""
        measured = [entry for entry in self.rivals if entry.ratios]
        return min(measured, key=lambda entry: entry.ratio, default=None)


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure.

    Attributes
    ----------
    rounds : how often fullback and each rival take turns
    seconds : of a turn, at least
    threads : that fullback uses; rivals are measured with one and with so many
    compiler : whether PyTorch's compiler takes part, which takes its time
    """

    rounds: int = 5
    seconds: float = 0.25
    threads: int = 1
    compiler: bool = True


def installed(rivals: Mapping[str, type[Rival]]) -> tuple[list[type[Rival]], list[type[Rival]]]:
    """Divide rivals into those that can be imported and those that cannot."""
    there = {
        name: importlib.util.find_spec(kind.module) is not None for name, kind in rivals.items()
    }
    return (
        [kind for name, kind in rivals.items() if there[name]],
        [kind for name, kind in rivals.items() if not there[name]],
    )


def compare(
    problem: Problem,
    rivals: Sequence[type[Rival]],
    plan: Plan,
    children: Children,
    report: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Check and time fullback and its rivals on one problem.

    Raises
    ------
    WrongError
        fullback's own gradients are not the reference's.
    """
    runner = _Runner(problem, plan, children, report)
    ours = runner.prepare(Lanes, "float32", plan.threads)
    others = [runner.prepare(Lanes, "uint8", plan.threads)]
    counts = sorted({1, plan.threads})
    others += [runner.prepare(Lanes, "float32", count) for count in counts[:-1]]
    for entry in (ours, *others):
        if entry.refused:
            raise WrongError(f"{problem.name}: {entry.framework} {entry.variant}: {entry.refused}")
    entries = [
        runner.prepare(kind, variant, threads)
        for kind in rivals
        for variant in kind.variants
        for threads in counts
        if variant != "compile" or plan.compiler
    ]
    runner.take_turns(ours, [*others, *entries])
    children.clear()
    return Comparison(problem, ours, others, entries)


class _Runner:
    def __init__(
        self, problem: Problem, plan: Plan, children: Children, report: Callable[[str], None]
    ) -> None:
        self.problem, self.plan, self.children, self.report = problem, plan, children, report
        self.handles: dict[int, tuple[Handle, int, float]] = {}  # handle, steps, seconds of a step
        report(f"{problem.name}, batch {problem.batch}: reference gradients")
        self.gradients = reference_gradients(problem)
        self.changes: dict[str, Array] = {}

    def prepare(self, kind: type[Rival], variant: str, threads: int) -> Entry:
        """Make, check and tune an entry."""
        problem, entry = self.problem, Entry(kind.framework, variant, threads)
        words = (kind.framework, variant, f"{threads} thread{'s' * (threads > 1)}")
        self.report(f"{problem.name}, batch {problem.batch}: checking {' '.join(words)}")
        try:
            handle = self.children.get(kind.framework, threads).make(
                kind, problem, variant, threads
            )
            entry.error = self._check(handle, ours=kind is Lanes)
            step = handle.call("settle", self.plan.seconds / 2)
        except (ChildError, WrongError) as error:
            entry.refused, entry.wrong = str(error), isinstance(error, WrongError)
            return entry
        steps = max(1, round(self.plan.seconds / step))
        self.handles[id(entry)] = handle, steps, step
        return entry

    def _check(self, handle: Handle, *, ours: bool) -> float:
        """Compare gradients and first steps with fullback's, and return the gradients' error."""
        gradients = handle.call("gradients")
        error = require_close("the gradient of {}", gradients, self.gradients, GRADIENTS_APART)
        if ours and not self.changes:
            self.gradients = gradients  # the rivals are compared with these
        handle.call("train", 2)
        before = self.problem.net.parameters
        changes = {name: p - before[name] for name, p in handle.call("parameters").items()}
        self.changes = self.changes or changes
        given, wanted = ({"the weights": _joined(c, self.changes)} for c in (changes, self.changes))
        require_close("the change of {} in two steps", given, wanted, STEPS_APART)
        return error

    def take_turns(self, ours: Entry, others: Sequence[Entry]) -> None:
        """Time fullback and every other entry by turns."""
        timed = [entry for entry in others if id(entry) in self.handles]
        of_rivals = [self.handles[id(e)][2] for e in timed if e.framework != ours.framework]
        fastest = min(of_rivals, default=0.0)
        for turn in range(self.plan.rounds):
            self.report(
                f"{self.problem.name}, batch {self.problem.batch}: round {turn + 1} of "
                f"{self.plan.rounds}"
            )
            for entry in timed:
                if turn and self.handles[id(entry)][2] > _FAR * fastest:
                    continue
                seconds = self._time(ours)
                entry.ratios.append(self._time(entry) / seconds)

    def _time(self, entry: Entry) -> float:
        handle, steps, _ = self.handles[id(entry)]
        seconds = handle.seconds("train", steps) / steps
        entry.seconds.append(seconds)
        return seconds


def reference_gradients(problem: Problem) -> dict[str, Array]:
    """Return the gradients of the first batch by the reference engine, in float64."""
    net = problem.net
    twin = net.copy(dtype="float64")
    first = problem.first
    return twin.loss_and_gradients(problem.floats[first], problem.labels[first])[1]


def require_close(
    what: str, given: Mapping[str, Array], wanted: Mapping[str, Array], apart: float
) -> float:
    """Return the largest error of an array, or raise WrongError where it is more than allowed.

    A bias before a batch normalisation has no gradient but rounding: an array is also measured by
    a thousandth of all arrays together.
    """
    if set(given) != set(wanted):
        raise WrongError(f"there are {sorted(given)}, but there should be {sorted(wanted)}")
    largest = 0.0
    least = 1e-3 * float(np.linalg.norm(_joined(wanted, wanted)))
    for name, desired in wanted.items():
        if given[name].shape != desired.shape:
            shapes = f"has shape {given[name].shape}, not {desired.shape}"
            raise WrongError(f"{what.format(name)} {shapes}")
        size = float(np.linalg.norm(desired)) + least
        error = float(np.linalg.norm(given[name] - desired)) / size
        if not error <= apart:
            raise WrongError(f"{what.format(name)} is off by {error:.1e}, more than {apart:g}")
        largest = max(largest, error)
    return largest


def _joined(arrays: Mapping[str, Array], names: Mapping[str, Array]) -> Array:
    return np.concatenate([arrays[name].ravel() for name in names])
