"""What a user submits: arrays, under the network's names and in the layouts of their program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from fullback.check.arrays import is_numeric
from fullback.check.diagnose.compare import length
from fullback.check.diagnose.forward import read_activations
from fullback.check.diagnose.gradients import named_gradients
from fullback.check.diagnose.layouts import (
    Axes,
    ProgramLayout,
    Reading,
    SubmittedArray,
    axes_of,
    program_layouts,
    squeezed,
)
from fullback.check.diagnose.names import Names, as_array
from fullback.check.diagnose.reader import Given, Gradients, Reader
from fullback.check.diagnose.weights import (
    Named,
    factor,
    named_weights,
    place_weights,
    require_weights,
    tolerance,
    turn_filters,
)
from fullback.errors import OptionError, ShapeError
from fullback.layers.base import Array, Shape
from fullback.network import Network
from fullback.passes import Trace

OPEN = "the shapes of the weights leave their layout open, and nothing that was given confirms one"
"""How a note begins that says which layout was assumed."""

_MANY, _EVEN = 20, 0.01  # moves whose spread, relative to their mean, no gradient has
_SAME_RATE = 1e-4  # relative difference of learning rates that are the same


Submitted: TypeAlias = Mapping[str, tuple[Reading, ...]]
"""Gradients and deltas by name, "conv1.weight", "delta of conv1", in every likely reading."""


@dataclass(eq=False)
class Submission:
    """Everything that was submitted.

    Attributes
    ----------
    gradients, deltas, activations : by the network's names
    probabilities : the probabilities, where they were submitted
    guessed : the user's names that were matched by their shape alone
    notes : what was assumed of the program
    scale_free : whether the gradients have a factor that is not known, a learning rate
    """

    gradients: dict[str, SubmittedArray] = field(default_factory=dict)
    deltas: dict[str, SubmittedArray] = field(default_factory=dict)
    activations: dict[str, SubmittedArray] = field(default_factory=dict)
    probabilities: SubmittedArray | None = None
    guessed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scale_free: bool = False

    def every(self) -> list[tuple[str, SubmittedArray]]:
        """Return every array with the words that it is called by in a diagnosis."""
        found = list(self.gradients.items())
        found += [(f"delta of {name}", m) for name, m in self.deltas.items()]
        found += [(f"output of {name}", m) for name, m in self.activations.items()]
        if self.probabilities is not None:
            found.append(("probabilities", self.probabilities))
        return found

    def finite(self) -> tuple[dict[str, SubmittedArray], dict[str, SubmittedArray]]:
        """Return the arrays that can be judged, and those that cannot, as they are not finite."""
        usable: dict[str, SubmittedArray] = {}
        unusable: dict[str, SubmittedArray] = {}
        for name, array in self.every():
            finite = np.isfinite(array.values).all()
            (usable if finite else unusable)[name] = array
        return usable, unusable


def receive(
    net: Network, images: int, given: Given, run: Callable[[Network], Trace]
) -> tuple[Network, Trace, Submission]:
    """Return the network to judge by, its trace, and what was submitted in its names and shapes.

    Parameters
    ----------
    net, images : the network, in float64, and the images of the batch
    given : what the user gave
    run : forward and backward of a network on the batch

    Raises
    ------
    OptionError, ShapeError, InputError
        A name is not known, an array does not fit or is none, or nothing was submitted.
    """
    submission, axes = Submission(), axes_of(net)
    weights = None
    if given.weights is not None:
        weights = named_weights(net, given.weights, "weight")
        require_weights(net, weights[0])
    gradients = _gradients(net, given, weights, submission)
    maps = {
        what: _named(what, arrays, net, images, submission)
        for what, arrays in (("delta", given.deltas), ("activation", given.activations))
    }
    reader = Reader(net, given, gradients, maps, images)
    shapes = {
        known: {
            named[known][1].shape for named in (*(weights or ()), *gradients.ways) if known in named
        }
        for known in axes
    }
    usual = program_layouts(axes, shapes, channels_last=reader.channels_last)
    layouts = usual
    if weights is not None:
        layouts = program_layouts(axes, shapes, channels_last=reader.channels_last, every=True)
    unclear = {known for known, one in axes.items() if len({one.lie(p) for p in layouts}) > 1}

    def traced(net: Network) -> tuple[Network, Trace]:
        judged = turn_filters(net) if given.convolution == "true" else net
        return judged, run(judged)

    def agreement(
        judged: Network, trace: Trace, program: ProgramLayout, way: int
    ) -> tuple[float, float, bool]:
        return reader.agreement(judged, trace, program, way, unclear)

    way = 0
    if weights is not None:
        placed = place_weights(net, weights, axes, layouts, usual, traced, agreement)
        net, trace, reader.program, way = placed.net, placed.trace, placed.program, placed.way
        submission.notes += _assumed(weights[way], axes, reader.program, sure=placed.sure)
    else:
        net, trace = traced(net)
        reader.choose(net, trace, layouts)
    for known, (name, array) in gradients.way(way).items():
        submission.gradients[known] = reader.gradient(net, trace, known, name, array)
    if given.after is not None and given.lr is None:
        _take_rate(submission, net, trace, given.l2)
    if given.after is not None and given.l2 and given.decays and not submission.scale_free:
        _take_decay(submission, net, trace, given.l2)
    submission.deltas = reader.maps("delta", trace.deltas)
    outputs = reader.maps("activation", trace.activations)
    submission.activations = read_activations(net, trace, outputs)
    if given.probabilities is not None:
        if trace.probabilities is None:
            raise OptionError(f"probabilities need a classifier, but the loss is {net.loss}")
        submission.probabilities = reader.probabilities(trace.probabilities)
    if not submission.every():
        raise OptionError(
            "there is nothing to judge: give gradients, deltas, activations or probabilities"
        )
    return net, trace, submission


def _gradients(
    net: Network, given: Given, weights: Sequence[Named] | None, submission: Submission
) -> Gradients:
    """Return gradients as they were given or as they follow from a step."""
    if given.after is None:
        ways: Sequence[Named] = [{}]
        if given.gradients is not None:
            ways = named_gradients(
                net, given.gradients, weights, submission.guessed, submission.notes
            )
            submission.notes += _numbers(given.gradients, {name for name, _ in ways[0].values()})
        return Gradients(ways)
    if weights is None:
        raise OptionError("after needs weights, those before the step, to tell what it changed")
    if given.gradients is not None:
        raise OptionError("give the gradients, or the weights after a step, and not both")
    ways = named_weights(net, given.after, "weight")
    blurs, types = {}, {}
    rate = 1.0 if given.lr is None else given.lr
    found: list[dict[str, tuple[str, Array]]] = []
    for before, after in zip(weights, ways, strict=True):
        found.append({})
        for known, (name, array) in after.items():
            old = before[known][1] if known in before else None
            if old is None or squeezed(old.shape) != squeezed(array.shape):
                raise ShapeError(
                    f"{name} is in after with shape {array.shape}, but in weights "
                    + ("it is missing" if old is None else f"with {old.shape}")
                )
            if old.shape != array.shape:
                note = f"{name} has shape {array.shape} after the step where it had {old.shape}"
                submission.notes += [note] if note not in submission.notes else []
                array = array.reshape(old.shape)
            change = old.astype(np.float64) - array.astype(np.float64)
            found[-1][known] = name, change / rate
            kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
            types[known], eps = kind, float(np.finfo(kind).eps)
            blurs[known] = (
                eps * max(length(old.astype(float)), length(array.astype(float))) / abs(rate)
            )
    if not any(change.any() for _, change in found[0].values()):
        raise OptionError("weights and after are the same arrays: no step was taken between them")
    return Gradients(found, blurs, types)


def _numbers(gradients: Any, used: set[str]) -> list[str]:
    """Say which numbers lie among gradients, as a loss does, and are none."""
    if not isinstance(gradients, Mapping):
        return []
    return [
        f"{name} is a number and no gradient, and was left out"
        for name, part in gradients.items()
        if str(name) not in used and not isinstance(part, Mapping | list | tuple)
        if np.ndim(part) == 0 and is_numeric(np.asarray(part))
    ]


def refuse_even(moves: Iterable[Array]) -> None:
    """Raise OptionError where a step moved all weights by the same amount: no gradient does."""
    moved = np.concatenate([np.zeros(0), *(abs(move[move != 0]) for move in moves)])
    if len(moved) > _MANY and moved.std() < _EVEN * moved.mean():
        raise OptionError(
            "the step moved every weight by the same amount, as Adam and RMSprop do at first, so "
            "that the gradients cannot be told; let it return them, or use plain SGD"
        )


def _take_rate(submission: Submission, net: Network, trace: Trace, l2: float) -> None:
    """Divide gradients by the learning rate that makes the most of them right, if there is one.

    A penalty, which the user gave or which is to be found, is in them and is multiplied with it.
    """
    votes: list[float] = []
    for terms in (1, 2):
        for known, m in reversed(submission.gradients.items()):
            reading = m.readings[0]
            truth = trace.gradients[known] + _penalty(net, known, l2)
            beside = net.parameters[known] if terms == 2 else None
            error = tolerance(reading.values, m.dtype, reading.blur)
            times = factor(reading.values, truth, error, beside)
            if times is not None and reading.mistake is None:
                votes.append(abs(times))
        if votes:
            break
    counts = [sum(abs(one / other - 1) < _SAME_RATE for other in votes) for one in votes]
    if not votes:
        submission.scale_free = True
        return
    rate = votes[int(np.argmax(counts))]
    rounded = float(f"{rate:.3g}")
    rate = rounded if abs(rate / rounded - 1) < _SAME_RATE else rate
    for known, m in submission.gradients.items():
        penalty = _penalty(net, known, l2)
        readings = tuple(
            replace(r, values=r.values / rate - penalty, blur=r.blur / rate) for r in m.readings
        )
        submission.gradients[known] = replace(m, readings=readings)
    submission.notes.append(f"the learning rate was not given, and taken to be {rate:.6g}")


def _penalty(net: Network, known: str, l2: float) -> Array | float:
    """Return what a penalty on the weights adds to a gradient."""
    return l2 * net.parameters[known] if known.endswith(".weight") else 0.0


def _take_decay(submission: Submission, net: Network, trace: Trace, l2: float) -> None:
    """Take the penalty off the biases too, where a step decays all of them as it does weights."""
    decayed: dict[str, SubmittedArray] = {}
    for known, m in submission.gradients.items():
        if known.endswith(".weight"):
            continue
        decay, reading = l2 * net.parameters[known], m.readings[0]
        error = tolerance(reading.values, m.dtype, reading.blur) * length(reading.values)
        off = reading.values - trace.gradients[known]
        if length(off - decay) > error:
            return
        if length(decay) > error:
            decayed[known] = replace(m, readings=(replace(reading, values=reading.values - decay),))
    if decayed:
        submission.gradients.update(decayed)
        submission.notes.append(
            "the step decays the biases as it does the weights, by the same l2, which is what the "
            "weight_decay of PyTorch's optimizers does: a convention"
        )


def _named(
    what: str, arrays: Any, net: Network, images: int, submission: Submission
) -> dict[str, tuple[str, Array]]:
    """Return deltas or activations, and the user's names for them, by the network's names."""
    if arrays is None:
        return {}
    shapes: dict[str, Shape] = {"input": net.input_shape}
    shapes.update(zip(net.names, net.shapes, strict=True))
    if not isinstance(arrays, Mapping):
        raise OptionError(
            f"{what}s must be a dict of arrays by name, like {{{next(iter(shapes))!r}: ...}}, got "
            f"{type(arrays).__name__}"
        )
    arrays = {str(name): as_array(str(name), value) for name, value in arrays.items()}
    names = Names(what, shapes, images)
    found = {known: (name, arrays[name]) for name, known in names.match(arrays).items()}
    submission.guessed += [
        f"{name} as {known}" for known, (name, _) in found.items() if name in names.guessed
    ]
    return found


def _assumed(
    weights: Named, axes: Mapping[str, Axes], program: ProgramLayout, *, sure: bool
) -> list[str]:
    """Say what was assumed of a program's weights."""
    notes = []
    missing = [known for known in axes if known.endswith(".bias") and known not in weights]
    if missing:
        notes.append(f"the weights have no {', '.join(missing)}: taken as 0, and not judged")
    if not sure:
        how = [
            f"{name} {phrase}"
            for known, (name, array) in weights.items()
            if (phrase := axes[known].phrase(axes[known].order(program), array.shape))
        ]
        notes.append(f"{OPEN}; assumed: {', '.join(how) or 'that of the network'}")
    return notes
