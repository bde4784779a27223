"""Which mistake a program has, from its training step: ``diagnose_program``."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from fullback.check.arrays import to_numpy
from fullback.check.diagnose.batch import images_of, labels_of
from fullback.check.diagnose.calls import Call, calls_of
from fullback.check.diagnose.containers import arrays_in, gradients_in, is_gradient, weights_in
from fullback.check.diagnose.inferred import networks
from fullback.check.diagnose.judge import diagnose
from fullback.check.diagnose.layouts import likeness
from fullback.check.diagnose.reader import Given
from fullback.check.diagnose.report import Diagnosis
from fullback.check.diagnose.snapshot import Snapshot
from fullback.check.diagnose.submission import receive
from fullback.check.diagnose.weights import explained, named_weights, tolerance
from fullback.errors import FullbackError, OptionError
from fullback.layers.base import Array
from fullback.layers.text import layers_text
from fullback.network import Network
from fullback.options import require_number
from fullback.passes import Seed, trace_batch

Arrays = dict[str, Array]

_RATE = 0.1  # the learning rate that a step is given which takes one, where none is said
_NEW, _OTHER = 0.9, 0.5  # cosine of what was returned with the weights: new weights, and gradients
_MANY, _EVEN = 20, 0.01  # moves whose spread, relative to their mean, no gradient has
_LISTED = 6  # ways of calling in a message
_WORKING = 24  # ways of calling that run, and explain nothing, after which no more are tried


@dataclass(frozen=True)
class _Answer:
    """What a step did: ``gradients``, or the weights ``after`` it with the rate that is known."""

    call: Call
    gradients: Arrays | None = None
    after: Arrays | None = None
    rate: float | None = None
    notes: tuple[str, ...] = ()


def diagnose_program(
    step: Callable[..., Any],
    weights: Any,
    x: Any,
    y: Any,
    *,
    net: Network | None = None,
    lr: float | None = None,
    returns: Literal["weights", "gradients"] | None = None,
    reduction: Literal["mean", "sum"] | None = None,
    l2: float = 0.0,
    convolution: Literal["correlation", "true"] = "correlation",
    training: bool = True,
    seed: Seed = 0,
) -> Diagnosis:
    """Run one training step of a program and say which mistake its backward pass has, if any.

    The step may change the weights in place, put new ones in their place, return new ones, or
    return gradients. It is called with the batch, or with one image at a time from the same
    weights, in the form and order of arguments that works. All that it changed is put back.

    Parameters
    ----------
    step : the function or method: ``step(weights, x, y)``, ``step(x, y, lr)``, ``model.train``, ...
    weights : what holds the weights: a dict, a list, an object, one vector; or a function without
        arguments that returns them, where they are global variables
    x, y : images and labels, as the program takes them or as ``Network.trace`` does
    net : the network; None where the shapes of weights and images say it
    lr : the learning rate of the step; it is handed over where the step takes one
    returns : what the step returns, where that cannot be seen
    reduction, l2, convolution, training, seed : as for ``diagnose``

    Returns
    -------
    a Diagnosis, as of ``diagnose``; its notes say how the step was called and what was assumed

    Raises
    ------
    OptionError
        No way of calling works: the message lists them, and its cause is the program's exception.
        Or two calls gave different gradients, or what was returned may be weights or gradients.
    ShapeError, InputError
        The weights, images or labels do not fit the network.
    """
    if lr is not None:
        require_number("diagnose_program: lr", lr, "(0, inf)")
    if returns not in (None, "weights", "gradients"):
        raise OptionError(f"returns must be 'weights' or 'gradients', got {returns!r}")
    program = _Program(step, weights, lr, returns)
    if not program.before:
        raise OptionError(
            "weights must hold the program's arrays: a dict, a list, an object with attributes, or "
            f"a function that returns them; found none in {type(weights).__name__}"
        )
    groups = program.networks(net, to_numpy(x), y)
    options: dict[str, Any] = {"l2": l2, "convolution": convolution}
    answer, chosen, notes = _find(
        program, groups, x, y, options, assumed=net is None, training=training, seed=seed
    )
    images, _ = images_of(chosen, x)
    found = diagnose(
        chosen, images, labels_of(chosen, y, len(images)), answer.gradients,
        weights=program.before, after=answer.after, lr=answer.rate, reduction=reduction,
        training=training, seed=seed, **options,
    )  # fmt: skip
    return replace(found, notes=[f"called as {answer.call}", *answer.notes, *notes, *found.notes])


@dataclass
class _Program:
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
    ) -> _Answer:
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

    def _answer(self, call: Call, result: Any, rate: float | None) -> _Answer:
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
            return _Answer(call, after=after, rate=rate, notes=("the step changed the weights",))
        if returned is not None:
            kind = self.returns or self._kinds.get(call) or _kind(returned, self.before)
            if kind == "weights":
                return _Answer(
                    call, after=returned, rate=rate,
                    notes=("what the step returned was taken as the weights after it",),
                )  # fmt: skip
            return _Answer(
                call, returned, notes=("what the step returned was taken as its gradients",)
            )
        kept = gradients_in(self._holder())
        if any(array.any() for array in kept.values()):
            return _Answer(call, kept, notes=("the gradients are those that the program keeps",))
        raise OptionError(
            "the step neither changed the weights nor returned arrays like them; give what it "
            "changes as weights, or let it return the gradients"
        )


def _find(
    program: _Program,
    groups: list[list[Network]],
    x: Any,
    y: Any,
    options: Mapping[str, Any],
    *,
    assumed: bool,
    training: bool,
    seed: Seed,
) -> tuple[_Answer, Network, list[str]]:
    """Find the call that works, and of several networks the one that explains what it gives.

    Raises
    ------
    OptionError
        No call works, or it cannot be known which of the networks it is.
    """
    tries: dict[str, Exception] = {}
    best: tuple[float, _Answer, Network, list[str]] | None = None
    working = 0
    snapshot = Snapshot(program.step, program.weights)
    for call, images, labels in _every_call(program, groups[0][0], x, y):
        batches = list(call.batches(x, images, y, labels, groups[0][0].output_shape[0]))
        scores: list[tuple[float, Network]] = []
        try:
            answer = program.run(call, batches, snapshot)
            for group in groups:
                for net in group:
                    score = _score(
                        net, x, y, program.before, answer, options, training=training, seed=seed
                    )
                    scores.append((score, net))
                if any(score >= 1 for score, _ in scores):
                    break
        except Exception as error:  # noqa: BLE001 -- a program may raise anything
            tries.setdefault(str(call), error)
            continue
        score, net = max(scores, key=lambda pair: pair[0])
        if best is None or score > best[0]:
            alike = [_text(n) for s, n in scores if int(s) == int(score) and n is not net]
            best = score, answer, net, alike
        working += 1
        if score >= 1 or working >= _WORKING:
            break
    if best is None:
        raise _refusal(tries)
    score, answer, net, alike = best
    answer = _checked(program, net, x, y, answer, snapshot)
    notes = []
    if score < 1 and len(groups[0]) > 1:
        raise OptionError(
            "the shapes of the weights fit several networks, and none explains what the step "
            "computed; give net=, one of: " + "; ".join(map(_text, groups[0][:_LISTED]))
        )
    net = net if score >= 1 else groups[0][0]
    if assumed:
        notes.append(f"the network was assumed to be {_text(net)}; give net= where it is another")
        if score >= 1 and alike:
            notes.append(f"other networks explain as much: {'; '.join(alike[:_LISTED])}")
    return answer, net, notes


def _every_call(
    program: _Program, net: Network, x: Any, y: Any
) -> Iterator[tuple[Call, Array, Any]]:
    """Yield ways of calling, with images and labels as fullback takes them."""
    images, form = images_of(net, x)
    labels = labels_of(net, y, len(images))
    net.loss.targets(labels, len(images), net.output_shape[0])
    for call in calls_of(
        program.step, program.weights, form, net.input_shape, classifies=net.loss.classifies
    ):  # fmt: skip
        yield call, images, labels


def _score(
    net: Network,
    x: Any,
    y: Any,
    weights: Arrays,
    answer: _Answer,
    options: Mapping[str, Any],
    *,
    training: bool,
    seed: Seed,
) -> float:
    """Return how many of the gradients are right but for a factor, and how nearly the rest are."""
    images, form = images_of(net, x)
    targets = net.loss.targets(labels_of(net, y, len(images)), len(images), net.output_shape[0])
    given = Given(
        answer.gradients, weights=weights, after=answer.after, lr=answer.rate,
        channels_last=form in ("NHWC", "HWC", "HWCN"), **options,
    )  # fmt: skip
    _, trace, submission = receive(
        net.copy(dtype="float64"),
        len(images),
        given,
        lambda one: trace_batch(one, images, targets, None, training=training, seed=seed),
    )
    counts = [
        explained(m.values, trace.gradients[name], tolerance(m.values, m.dtype, m.readings[0].blur))
        for name, m in submission.gradients.items()
        if m.readings[0].mistake is None
    ]
    return sum(counts)


def _checked(
    program: _Program, net: Network, x: Any, y: Any, answer: _Answer, snapshot: Snapshot
) -> _Answer:
    """Call the step twice over: what it computes must not depend on chance or on earlier calls.

    Gradients that add up from call to call are returned as the second call leaves them.

    Raises
    ------
    OptionError
        The two calls gave different gradients.
    """
    images, _ = images_of(net, x)
    labels = labels_of(net, y, len(images))
    batches = list(answer.call.batches(x, images, y, labels, net.output_shape[0]))
    if answer.after is not None:
        before = program.before
        moves = [
            abs(after - before[name]).ravel()
            for name, after in answer.after.items()
            if name in before and before[name].shape == after.shape
        ]
        moved = np.concatenate([move[move > 0] for move in moves or [np.zeros(0)]])
        if len(moved) > _MANY and moved.std() < _EVEN * moved.mean():
            raise OptionError(
                "the step moved every weight by the same amount, as Adam and RMSprop do at first, "
                "so that the gradients cannot be told; let it return them, or use plain SGD"
            )
    again = program.run(answer.call, batches, snapshot, again="by chance")
    if _same(answer, again):
        if answer.gradients is not None:
            again = program.run(answer.call, batches, snapshot, again="in turn")
            if not _same(answer, again):
                note = "a second call gave other gradients than the first; judged are the second's"
                return replace(again, notes=(*again.notes, note))
        return answer
    raise OptionError(
        "two calls of the step from the same weights gave different gradients, so it draws random "
        "numbers, as dropout or a shuffle does; set the rate of dropout to 0 and leave out what is "
        "random, in the program and in net"
    )


def _same(one: _Answer, other: _Answer) -> bool:
    first, second = (answer.gradients or answer.after or {} for answer in (one, other))
    return first.keys() == second.keys() and all(
        np.allclose(a, second[k], rtol=1e-9, atol=0, equal_nan=True) for k, a in first.items()
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
    raise OptionError(
        "what the step returned may be new weights or gradients; say which: "
        "returns='weights' or returns='gradients'"
    )


def _mean(answers: list[_Answer]) -> _Answer:
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


def _text(net: Network) -> str:
    return f"{layers_text(net.layers)} on {net.input_shape}"


def _refusal(tries: Mapping[str, Exception]) -> OptionError:
    """Say which ways of calling were tried, and what the program said to each."""
    if not tries:
        return OptionError(
            "step cannot be called with weights, x and y: give a function like step(weights, x, y) "
            "or step(x, y, lr)"
        )
    reasons: dict[str, list[str]] = {}
    for how, raised in tries.items():
        text = str(raised) if isinstance(raised, FullbackError) else f"{_name(raised)}: {raised}"
        reasons.setdefault(text, []).append(how)
    lines = [
        hows[0] + (f", and {len(hows) - 1} more ways" if len(hows) > 1 else "") + f": {reason}"
        for reason, hows in list(reasons.items())[:_LISTED]
    ]
    more = len(reasons) - len(lines)
    first = next(iter(tries.values()))
    error = OptionError(
        "no way of calling the step works; tried\n  "
        + "\n  ".join(lines)
        + (f"\n  and others, which ended in {more} other errors" if more else "")
    )
    error.__cause__ = first
    return error


def _name(error: BaseException) -> str:
    return type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a program prints, and its warnings, from the screen."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
