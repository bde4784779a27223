"""A user's training step: run so that nothing is changed for good, and what it did told apart."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fullback.check.diagnose.calls import Call
from fullback.check.diagnose.containers import arrays_in, gradients_in, is_gradient, weights_in
from fullback.check.diagnose.inferred import networks
from fullback.check.diagnose.layouts import likeness
from fullback.check.diagnose.snapshot import Snapshot
from fullback.check.diagnose.weights import named_weights
from fullback.errors import FullbackError, OptionError
from fullback.layers.base import Array
from fullback.network import Network

Arrays = dict[str, Array]

_RATE = 0.1  # the learning rate that a step is given which takes one, where none is said
_NEW, _OTHER = 0.9, 0.5  # cosine of what was returned with the weights: new weights, and gradients


class UnclearError(OptionError):
    """What a step returned may be weights or gradients."""


@dataclass(frozen=True)
class Answer:
    """What a step did: ``gradients``, or the weights ``after`` it with the rate that is known."""

    call: Call
    gradients: Arrays | None = None
    after: Arrays | None = None
    rate: float | None = None
    notes: tuple[str, ...] = ()

    def agrees(self, other: Answer) -> bool:
        """Whether another answer has the same numbers, but for rounding."""
        first, second = (answer.gradients or answer.after or {} for answer in (self, other))
        return first.keys() == second.keys() and all(
            np.allclose(a, second[k], rtol=1e-9, atol=0, equal_nan=True) for k, a in first.items()
        )


@dataclass
class Step:
    """A step, what holds its weights, and how to run it so that nothing is changed for good."""

    step: Callable[..., Any]
    weights: Any
    lr: float | None
    returns: str | None
    before: Arrays = field(default_factory=dict)
    stacked: bool = False  # whether lists of arrays are read as one
    _kinds: dict[Call, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.getter = callable(self.weights) and not arrays_in(self.weights)
        self.before = self.now()

    def networks(self, net: Network | None, x: Array, y: Any) -> list[list[Network]]:
        """Return the network, or those that the weights may belong to; see ``inferred``.

        Lists of arrays are read as one array where only that makes a network.
        """

        def fitting() -> list[list[Network]]:
            if net is None:
                return networks(self.before, x, y)
            named_weights(net, self.before, "weight")
            return [[net]]

        try:
            return fitting()
        except FullbackError:
            before = self.before
            self.stacked, self.before = True, weights_in(self._holder(), stacked=True)
            with contextlib.suppress(FullbackError):
                return fitting()
            self.stacked, self.before = False, before
            raise

    def now(self) -> Arrays:
        """Return copies of the weights as they are."""
        return weights_in(self._holder(), stacked=self.stacked)

    def _holder(self) -> Any:
        return self.weights() if self.getter else self.weights

    def run(
        self, call: Call, batches: list[tuple[Any, Any]], snapshot: Snapshot, *, again: str = ""
    ) -> Answer:
        """Call the step for every batch, always from the same weights.

        ``again`` calls it twice: with other random numbers the second time, or, where it leaves the
        weights alone, with the same ones and with all that the first call left behind.

        Raises
        ------
        Exception
            Whatever the step raises; OptionError where its effect cannot be told.
        """
        rate = call.rate if self.lr is None else self.lr
        given = _RATE if rate is None else rate
        answers = []
        if call.takes_rate and self.returns is None and call not in self._kinds:
            self._kinds[call] = self._kind_by_rate(call, batches[0], given, snapshot)
        for x, y in batches:
            try:
                with _quiet():
                    holder = self._holder()
                    result = call.run(self.step, holder, x, y, given, len(x))
                    if again == "by chance":
                        snapshot.restore(random_numbers=False)
                    elif again == "in turn":
                        snapshot.restore_random_numbers()
                    if again:
                        result = call.run(self.step, holder, x, y, given, len(x))
                answers.append(self._answer(call, result, given if call.takes_rate else rate))
            finally:
                snapshot.restore()
        return _mean(answers)

    def _kind_by_rate(
        self, call: Call, batch: tuple[Any, Any], rate: float, snapshot: Snapshot
    ) -> str | None:
        """Say what a step returns: new weights depend on its rate, gradients do not."""
        found = []
        for lr in (rate, rate / 2):
            try:
                with _quiet():
                    holder = self._holder()
                    x, y = copy.deepcopy(batch)
                    result = call.run(self.step, holder, x, y, lr, len(x))
                found.append(_returned(result, self.before))
            finally:
                snapshot.restore()
        first, second = found
        if first is None or second is None or not any(a.any() for a in first.values()):
            return None
        same = all(np.array_equal(a, second[k], equal_nan=True) for k, a in first.items())
        return "gradients" if same else "weights"

    def _answer(self, call: Call, result: Any, rate: float | None) -> Answer:
        """Tell what a step did from the weights after it and what it returned."""
        after = self.now()
        moved = after.keys() == self.before.keys() and any(
            a.shape == self.before[k].shape
            and not np.array_equal(a, self.before[k], equal_nan=True)
            for k, a in after.items()
        )
        returned = _returned(result, self.before)
        if moved and returned is not None and self.returns != "gradients":
            stays = {k: a for k, a in returned.items() if k in after and a.shape == after[k].shape}
            same = all(np.array_equal(a, after[k]) for k, a in stays.items())
            returned = None if same or not _named_gradients(returned) else returned
        if moved and returned is None:
            return Answer(call, after=after, rate=rate, notes=("the step changed the weights",))
        if returned is not None:
            kind = self.returns or self._kinds.get(call) or _kind(returned, self.before)
            if kind == "weights":
                return Answer(
                    call, after=returned, rate=rate,
                    notes=("what the step returned was taken as the weights after it",),
                )  # fmt: skip
            return Answer(
                call, returned, notes=("what the step returned was taken as its gradients",)
            )
        kept = gradients_in(self._holder())
        if any(array.any() for array in kept.values()):
            return Answer(call, kept, notes=("the gradients are those that the program keeps",))
        raise OptionError(
            "the step neither changed the weights nor returned arrays like them; give what it "
            "changes as weights, or let it return the gradients"
        )


def _returned(result: Any, before: Mapping[str, Array]) -> Arrays | None:
    """Return the part of what a step returned that is like the weights, if there is one."""
    wanted = sorted(array.size for array in before.values())
    parts = [result]
    if isinstance(result, list | tuple):
        parts += [part for part in result if not np.isscalar(part)]
        parts += [result[1:], result[:-1]]
    elif isinstance(result, Mapping):
        parts += [part for part in result.values() if isinstance(part, Mapping | list | tuple)]
    for part in parts:
        found = arrays_in(part)
        if isinstance(part, Mapping):
            found = {k: a for k, a in found.items() if a.size in wanted}
        for arrays in (found, arrays_in(part, stacked=True)):
            if arrays and sorted(array.size for array in arrays.values()) == wanted:
                return _renamed(arrays, before)
    return None


def _renamed(arrays: Arrays, before: Mapping[str, Array]) -> Arrays:
    """Return arrays under the weights' names, where they stand in the same order."""
    pairs = zip(arrays.values(), before.values(), strict=True)
    unnamed = arrays.keys() != before.keys() and not _tell(arrays)
    if unnamed and all(a.size == b.size for a, b in pairs):
        return dict(zip(before, arrays.values(), strict=True))
    return arrays


def _tell(arrays: Arrays) -> bool:
    """Whether the names of arrays are words, and not places in a list."""
    return all(any(c.isalpha() for c in name) for name in arrays)


def _named_gradients(arrays: Arrays) -> bool:
    return all(is_gradient(name) for name in arrays)


def _kind(returned: Arrays, before: Arrays) -> str:
    """Say whether arrays are new weights or gradients.

    Raises
    ------
    OptionError
        They may be either.
    """
    if _named_gradients(returned):
        return "gradients"
    pairs = [(a, before[k]) for k, a in returned.items() if k in before]
    if len(pairs) < len(returned):
        pairs = list(zip(returned.values(), before.values(), strict=False))
    if all(a.size == b.size for a, b in pairs):
        one, other = (np.concatenate([np.ravel(p[i]) for p in pairs]) for i in (0, 1))
        alike = likeness(one, other)
        if alike > _NEW:
            return "weights"
        if alike < _OTHER and other.any():
            return "gradients"
    raise UnclearError(
        "what the step returned may be new weights or gradients; say which: "
        "returns='weights' or returns='gradients'"
    )


def _mean(answers: list[Answer]) -> Answer:
    """Return what the calls for single images come to together: the mean of them."""
    first = answers[0]
    if len(answers) == 1:
        return first
    kept = [one.gradients or one.after or {} for one in answers]
    mean = {
        name: np.mean([arrays[name] for arrays in kept], axis=0).astype(array.dtype)
        for name, array in kept[0].items()
    }
    notes = (*first.notes, f"judged is the mean of {len(answers)} calls, one an image")
    if first.gradients is not None:
        return replace(first, gradients=mean, notes=notes)
    return replace(first, after=mean, notes=notes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a program prints, and its warnings, from the screen."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
