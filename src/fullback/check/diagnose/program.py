"""Which mistake a program has, from its training step: ``diagnose_program``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fullback.check.arrays import to_numpy
from fullback.check.diagnose.batch import images_of, labels_of, require_network
from fullback.check.diagnose.calls import Call, calls_of
from fullback.check.diagnose.containers import of_pytorch
from fullback.check.diagnose.judge import case_of, judged
from fullback.check.diagnose.reader import Given
from fullback.check.diagnose.report import Diagnosis
from fullback.check.diagnose.step import Answer, MisshapenError, Step, UnclearError
from fullback.check.diagnose.submission import refuse_even
from fullback.check.diagnose.weights import SPANNED, explained, tolerance
from fullback.errors import FullbackError, OptionError
from fullback.layers.text import layers_text
from fullback.network import Network
from fullback.options import require_number
from fullback.passes import Seed

_LISTED = 6  # ways of calling in a message
_TRIED = 3  # networks that are judged by, where nothing confirms one
_WORKING, _LIKELY = 16, 4  # ways of calling that run after which no more are tried, where none of
# them explains anything, and where one explains what the gradients are made of


UNCONFIRMED = (
    "nothing that the step computed confirms a network of the kind that the shapes of its weights "
    "allow"
)


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
    if not callable(step):
        raise OptionError(
            "step must be a function or a method, like step(weights, x, y), got "
            f"{type(step).__name__}"
        )
    if net is not None:
        require_network("diagnose_program", net)
    given = Given(
        lr=lr, reduction=reduction, l2=l2, convolution=convolution, training=training, seed=seed
    )
    program = Step(step, weights, lr, returns)
    if not program.before:
        raise OptionError(
            "weights must hold the program's arrays: a dict, a list, an object with attributes, or "
            f"a function that returns them; found none in {type(weights).__name__}"
        )
    trial = _Trial(program, program.networks(net, to_numpy(x), y), x, y, given)
    answer, likely, sure = trial.find()
    finite = all(np.isfinite(array).all() for array in answer.arrays.values())
    sure = sure or not finite  # no network explains NaN
    for chosen in likely if sure else likely[:_TRIED]:
        try:
            found = judged(chosen, x, y, trial.shown_by(answer))
        except FullbackError:
            if net is not None or sure:
                raise
            continue
        if net is not None or sure or all(finding.mistake for finding in found.findings):
            break
    else:
        raise OptionError(
            f"{UNCONFIRMED}; give net= with the loss, and x as the convolutions see it, where the "
            "program scales it itself. net= may be " + "; ".join(map(_text, likely[:_LISTED]))
        )
    if trial.refused and "N" in answer.call.form and not found.findings:
        raise OptionError(
            f"what the step computes of one image is right, called as {answer.call}, but "
            f"{trial.refused}; if it is to take one image at a time, give x and y of one"
        )
    notes = [f"called as {answer.call}", *answer.notes]
    notes += [trial.refused] if trial.refused else []
    if net is None:
        notes.append(
            f"the network was assumed to be {_text(chosen)}; give net= where it is another"
        )
        if sure and len(likely) > 1:
            alike = "; ".join(map(_text, likely[1 : _LISTED + 1]))
            notes.append(f"other networks explain as much: {alike}")
    return replace(found, notes=[*notes, *found.notes])


@dataclass
class _Trial:
    """Tries ways of calling a step, and what they show against networks.

    Attributes
    ----------
    program, groups : the step, and the networks that it may have, the likelier group first
    x, y : the batch
    given : what else the user gave
    refused : what it said to the batch, where it is called once an image
    """

    program: Step
    groups: list[list[Network]]
    x: Any
    y: Any
    given: Given
    refused: str = ""

    def __post_init__(self) -> None:
        net = self.groups[0][0]
        self.images, self.form = images_of(net, self.x)
        self.labels = labels_of(net, self.y, len(self.images))
        net.loss.targets(self.labels, len(self.images), net.output_shape[0])

    def find(self) -> tuple[Answer, list[Network], bool]:
        """Find the call that works, and the networks that explain what it gives, or are likely.

        Last is whether they do explain something.

        Raises
        ------
        OptionError
            No call works.
        """
        tries: dict[str, Exception] = {}
        raised: list[tuple[Call, Exception]] = []  # by calls with the batch
        misshapen: MisshapenError | None = None
        best: tuple[float, Answer, list[Network]] | None = None
        working, batched = 0, False
        net = self.groups[0][0]
        for call in calls_of(
            self.program.step, self.program.weights, self.form, net.input_shape,
            classifies=net.loss.classifies, numbers=np.ndim(self.y) == 1,
        ):  # fmt: skip
            if call.each and "N" in call.form and batched:
                continue  # it takes batches, and what is wrong with them one image cannot show
            batches = self._batches(call)
            try:
                answer = self.program.run(call, batches)
                scores = self._scores(answer)
            except UnclearError:
                raise
            except MisshapenError as error:
                if (error.summed and not call.each) or self._confirmed(error.rest):
                    raise
                misshapen, batched = misshapen or error, batched or not call.each
                if not call.each:
                    raised.append((call, error))
                continue
            except Exception as error:  # noqa: BLE001 -- a program may raise anything
                tries.setdefault(str(call), error)
                if not call.each:
                    raised.append((call, error))
                continue
            score, net = max(scores, key=lambda pair: pair[0])
            if best is None or score > best[0]:
                alike = [n for s, n in scores if int(s) == int(score) and n is not net]
                best = score, answer, [net, *alike]
            working, batched = working + 1, batched or not best[1].call.each
            if score >= 1 or working >= (_WORKING if best[0] < SPANNED else _LIKELY):
                break
        if misshapen is not None and (best is None or (best[0] < 1 and best[1].call.each)):
            raise misshapen
        if best is None:
            raise _refusal(tries)
        score, answer, nets = best
        self.refused = _refused(answer.call, raised)
        return self._checked(answer), nets if score >= 1 else self.groups[0], score >= 1

    def _confirmed(self, answer: Answer) -> bool:
        """Whether something that the step computed is right, so that it was called as is meant."""
        try:
            return bool(answer.arrays) and any(score >= 1 for score, _ in self._scores(answer))
        except FullbackError:
            return False

    def shown_by(self, answer: Answer) -> Given:
        """Return what the step gives to ``diagnose``."""
        return replace(
            self.given, gradients=answer.gradients, weights=self.program.before,
            after=answer.after, lr=answer.rate, decays=of_pytorch(self.program.weights),
        )  # fmt: skip

    def _batches(self, call: Call) -> list[tuple[Any, Any]]:
        classes = self.groups[0][0].output_shape[0]
        return list(call.batches(self.x, self.images, self.y, self.labels, classes))

    def _scores(self, answer: Answer) -> list[tuple[float, Network]]:
        """Return how much the networks explain, group by group until one explains something.

        Raises
        ------
        FullbackError
            The weights, or what the step did to them, fit none.
        """
        scores: list[tuple[float, Network]] = []
        unfit: FullbackError | None = None
        for group in self.groups:
            for net in group:
                try:
                    scores.append((self._score(net, answer), net))
                except FullbackError as error:
                    unfit = error
            if any(score >= 1 for score, _ in scores):
                break
        if unfit is not None and not scores:
            raise OptionError(f"{UNCONFIRMED}; give net=") if self.program.assumes else unfit
        return scores

    def _score(self, net: Network, answer: Answer) -> float:
        """Return how many of the gradients are right but for a factor, and how nearly the rest."""
        case, _ = case_of(net, self.x, self.y, self.shown_by(answer))
        trace, names = case.trace, case.net.names
        before = dict(zip(names, ("input", *names), strict=False))
        return sum(
            explained(
                m.values,
                trace.gradients[name],
                tolerance(m.values, m.dtype, m.readings[0].blur),
                trace.activations[before[name.split(".")[0]]],
            )
            for name, m in case.submission.gradients.items()
            if m.readings[0].mistake is None
        )

    def _checked(self, answer: Answer) -> Answer:
        """Call the step twice over: it must not depend on chance or on earlier calls.

        Gradients that add up from call to call are returned as the second call leaves them.

        Raises
        ------
        OptionError
            The two calls gave different gradients.
        """
        if answer.after is not None:
            before = self.program.before
            moves = [
                after - before[name]
                for name, after in answer.after.items()
                if name in before and before[name].shape == after.shape
            ]
            refuse_even(moves)
        batches = self._batches(answer.call)
        again = self.program.run(answer.call, batches, again="by chance")
        if answer.agrees(again):
            if answer.gradients is not None:
                again = self.program.run(answer.call, batches, again="in turn")
                if not answer.agrees(again):
                    note = "a second call gave other gradients than the first"
                    return replace(again, notes=(*again.notes, f"{note}; judged are the second's"))
            return answer
        raise OptionError(
            "two calls of the step from the same weights gave different gradients, so it draws "
            "random numbers, as dropout or a shuffle does; set the rate of dropout to 0 and leave "
            "out what is random, in the program and in net"
        )


def _text(net: Network) -> str:
    return f"{layers_text(net.layers)} on {net.input_shape}"


def _refused(call: Call, raised: Sequence[tuple[Call, Exception]]) -> str:
    """Return what a step said to the batch that is called once an image, if it did."""
    batch = replace(call, each=False)
    alike = [one for one in raised if one[0] == batch]
    alike += [one for one in raised if one[0].form == f"N{call.form}"]
    if not call.each or not raised:
        return ""
    how, error = (alike or raised)[0]
    said = error.told if isinstance(error, MisshapenError) else _said(error)
    verb = "failed:" if isinstance(error, FullbackError) else "raised"
    return f"the batch, x as ({', '.join(how.form)}), {verb} {said}"


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, FullbackError) else f"{_name(error)}: {error}"


def _refusal(tries: Mapping[str, Exception]) -> OptionError:
    """Say which ways of calling were tried, and what the program said to each."""
    if not tries:
        return OptionError(
            "step cannot be called with weights, x and y: give a function like step(weights, x, y) "
            "or step(x, y, lr)"
        )
    reasons: dict[str, list[str]] = {}
    for how, raised in tries.items():
        reasons.setdefault(_said(raised), []).append(how)
    lines = [
        hows[0] + (f", and {len(hows) - 1} more ways" if len(hows) > 1 else "") + f": {reason}"
        for reason, hows in reasons.items()
    ]
    first = next(iter(tries.values()))
    if str(first).startswith(UNCONFIRMED):
        return OptionError(str(first))
    others = "".join(f"\n  {line}" for line in lines[1:_LISTED])
    error = OptionError(
        f"no way of calling the step works: {lines[0]}" + ("\ntried too:" + others) * bool(others)
    )
    error.__cause__ = first
    return error


def _name(error: BaseException) -> str:
    return type(error).__name__
