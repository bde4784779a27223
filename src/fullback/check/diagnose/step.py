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
from fullback.check.diagnose.containers import (
    STACKED,
    WAYS,
    arrays_in,
    gradients_in,
    is_gradient,
    put_back,
    weights_in,
)
from fullback.check.diagnose.inferred import networks
from fullback.check.diagnose.layouts import likeness
from fullback.check.diagnose.misshapen import (
    Misshapen,
    left_misshapen,
    returned_misshapen,
)
from fullback.check.diagnose.snapshot import Snapshot
from fullback.check.diagnose.weights import named_weights, require_shapes, require_weights
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

    @property
    def arrays(self) -> Arrays:
        """The gradients or the weights."""
        return self.gradients or self.after or {}

    def agrees(self, other: Answer) -> bool:
        """Whether another answer has the same numbers, but for rounding."""
        first, second = self.arrays, other.arrays
        return first.keys() == second.keys() and all(
            np.allclose(a, second[k], rtol=1e-9, atol=0, equal_nan=True) for k, a in first.items()
        )


class MisshapenError(OptionError):
    """A call of the step worked, and some arrays of its result alone have a wrong shape.

    Attributes
    ----------
    rest : what the step did, as far as the shapes are right
    told : what is wrong
    summed : whether all that is wrong is that the batch was not summed
    """

    def __init__(self, rest: Answer, found: Misshapen) -> None:
        super().__init__(f"the step was called as {rest.call}, and {found.told}")
        self.rest, self.told, self.summed = rest, found.told, found.summed


@dataclass
class Step:
    """A step, what holds its weights, and how to run it so that nothing is changed for good."""

    step: Callable[..., Any]
    weights: Any
    lr: float | None
    returns: str | None
    before: Arrays = field(default_factory=dict)
    way: int = 0  # how the weights are read; see containers.WAYS
    used: frozenset[str] = frozenset()  # names of those that are the network's
    assumes: bool = False  # whether the network follows from the weights' shapes
    _kinds: dict[Call, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.getter = callable(self.weights) and not arrays_in(self.weights)
        self.before = weights_in(self._holder())
        self.snapshot = Snapshot(self.step, self.weights)

    def networks(self, net: Network | None, x: Array, y: Any) -> list[list[Network]]:
        """Return the network, or those that the weights may belong to; see ``inferred``.

        Of the ways to read the weights, it is the first that makes a network.
        """
        self.assumes = net is None
        refusals: list[FullbackError] = []
        for self.way in WAYS:
            self.before = weights_in(self._holder(), self.way)
            self.used = frozenset(self.before)
            try:
                if net is None:
                    return networks(self.before, x, y)
                ways = named_weights(net, self.before, "weight")
                require_shapes(net, ways)
                require_weights(net, ways[0])
                self.used &= {name for name, _ in ways[0].values()}
            except FullbackError as error:
                refusals.append(error)
            else:
                return [[net]]
        raise refusals[0]

    def now(self) -> Arrays:
        """Return copies of the weights as they are, without what a step put beside them."""
        found = weights_in(self._holder(), self.way)
        if not self.before.keys() <= found.keys():  # with another shape one may not look like any
            found = arrays_in(self._holder(), stacked=self.way in STACKED) | found
        return {k: found[k] for k in self.before} if self.before.keys() <= found.keys() else found

    def _holder(self) -> Any:
        return self.weights() if self.getter else self.weights

    def run(self, call: Call, batches: list[tuple[Any, Any]], *, again: str = "") -> Answer:
        """Call the step for every batch, always from the same weights.

        ``again`` says how it differs from a first run: "by chance", with other random numbers, or
        "in turn", after a call that left behind all that it changed.

        Raises
        ------
        Exception
            Whatever the step raises; OptionError where its effect cannot be told.
        """
        rate = call.rate if self.lr is None else self.lr
        given = _RATE if rate is None else rate
        answers = []
        for batch in batches:
            try:
                if again == "by chance":
                    self.snapshot.shake()
                elif again == "in turn":
                    self._call(call, batch, given)
                    put_back(self._holder(), self.before)
                    if not self._unmoved(self.now()):
                        self.snapshot.restore()
                    self.snapshot.restore_random_numbers()
                result = self._call(call, batch, given)
                returned, after = _returned(result, self.before), self.now()
                images = call.images(batch[0])
                near = returned_misshapen(result, self.before, images) if returned is None else None
            finally:
                kept = gradients_in(self._holder())
                self.snapshot.restore()
            known = given if call.takes_rate else rate
            answer = self._answer(call, batch, returned, after, kept, known)
            if answer is None and near is not None:
                raise MisshapenError(self._near(call, near, known), near)
            if answer is None:
                raise OptionError(
                    "the step neither changed the weights nor returned arrays like them; give what "
                    "it changes as weights, or let it return the gradients"
                )
            answers.append(answer)
        return _mean(answers)

    def _near(self, call: Call, near: Misshapen, rate: float | None) -> Answer:
        """Return what is right in shape of what a step returned as its answer."""
        try:
            kind = self.returns or (
                "gradients" if near.gradients else _kind(near.rest, self.before)
            )
        except UnclearError:
            kind = "gradients"
        if kind == "gradients":
            return Answer(call, near.rest)
        return Answer(call, after=near.rest, rate=rate)

    def _call(self, call: Call, batch: tuple[Any, Any], rate: float) -> Any:
        """Call the step, with copies of images and labels."""
        x, y = copy.deepcopy(batch)
        with _quiet():
            return call.run(self.step, self._holder(), x, y, rate, len(x))

    def _answer(
        self,
        call: Call,
        batch: tuple[Any, Any],
        returned: Arrays | None,
        after: Arrays,
        kept: Arrays,
        rate: float | None,
    ) -> Answer | None:
        """Tell what a step did: from what it returned, the weights after it, and gradients kept.

        None where it did nothing that could be told.

        Raises
        ------
        OptionError
            What it did is not clear, or it left weights in another shape.
        """
        images = call.images(batch[0])
        used = {key: self.before[key] for key in self.used} or self.before
        wrong = left_misshapen(after, used, images)
        known = after.keys() == self.before.keys()
        moved = known and (wrong is not None or not self._unmoved(after))
        if moved and returned is not None and self.returns != "gradients":
            stays = {k: a for k, a in returned.items() if k in after and a.shape == after[k].shape}
            same = all(np.array_equal(a, after[k]) for k, a in stays.items())
            returned = None if same or not _named_gradients(returned) else returned
        if moved and returned is None and wrong is not None:
            raise MisshapenError(Answer(call, after=wrong.rest, rate=rate), wrong)
        if moved and returned is None:
            return Answer(call, after=after, rate=rate, notes=("the step changed the weights",))
        if returned is not None:
            if call not in self._kinds:
                self._kinds[call] = self.returns or self._kind(call, batch, returned)
            if self._kinds[call] == "weights":
                note = "what the step returned was taken as the weights after it"
                return Answer(call, after=returned, rate=rate, notes=(note,))
            note = "what the step returned was taken as its gradients"
            return Answer(call, returned, notes=(note,))
        if any(array.any() for array in kept.values()):
            return Answer(call, kept, notes=("the gradients are those that the program keeps",))
        return None

    def _unmoved(self, after: Arrays) -> bool:
        """Whether the weights are those before the step, as far as their shapes are."""
        return all(
            a.shape != self.before[k].shape or np.array_equal(a, self.before[k], equal_nan=True)
            for k, a in after.items()
            if k in self.before
        )

    def _kind(self, call: Call, batch: tuple[Any, Any], returned: Arrays) -> str:
        """Say what a step returns: new weights depend on its rate, gradients do not.

        Raises
        ------
        OptionError
            It takes no rate, and the numbers may be either.
        """
        if not call.takes_rate or _named_gradients(returned):
            return _kind(returned, self.before)
        try:
            rate = (call.rate if self.lr is None else self.lr) or _RATE
            other = _returned(self._call(call, batch, rate / 2), self.before)
        finally:
            self.snapshot.restore()
        same = other is not None and all(
            k in other and np.array_equal(a, other[k], equal_nan=True) for k, a in returned.items()
        )
        return "gradients" if same else "weights"


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
    words = all(any(c.isalpha() for c in name) for name in arrays)  # and no places in a list
    if arrays.keys() != before.keys() and not words and all(a.size == b.size for a, b in pairs):
        return dict(zip(before, arrays.values(), strict=True))
    return arrays


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
    mean = {
        name: np.mean([one.arrays[name] for one in answers], axis=0).astype(array.dtype)
        for name, array in first.arrays.items()
    }
    notes = (*first.notes, f"judged is the mean of {len(answers)} calls, one an image")
    if first.gradients is None:
        return replace(first, after=mean, notes=notes)
    return replace(first, gradients=mean, notes=notes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a program prints, and its warnings, from the screen."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
