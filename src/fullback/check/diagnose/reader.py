"""Reads what was submitted: gradients in a program's layout, deltas and activations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.layouts import (
    MAP_ORDERS,
    UNUSUAL,
    USUAL,
    Axes,
    ProgramLayout,
    Reading,
    SubmittedArray,
    axes_of,
    folds,
    likeness,
    read_maps,
    squeezed,
)
from fullback.check.diagnose.memory_order import memory_orders, misplaced
from fullback.check.diagnose.names import as_array
from fullback.check.diagnose.weights import Named, explained, tolerance
from fullback.errors import OptionError, ShapeError
from fullback.layers.base import Array, Shape
from fullback.network import Network
from fullback.options import require_flag, require_number, short
from fullback.passes import Seed, Trace, scaled

_RIGHT = 1 - 1e-9  # cosine from which on another order is not looked for


Reduction: TypeAlias = Literal["mean", "sum"]


@dataclass(frozen=True)
class Given:
    """What a user gives to ``diagnose``, beside the network and the batch; see there.

    ``channels_last`` is whether the images came so; ``decays`` whether a penalty may be on biases
    too, which it is by convention in PyTorch's optimizers and a mistake in what is written by hand.
    """

    gradients: Any = None
    deltas: Any = None
    activations: Any = None
    probabilities: Any = None
    weights: Any = None
    after: Any = None
    lr: float | None = None
    reduction: Reduction | None = None
    l2: float = 0.0
    convolution: str = "correlation"
    training: bool = True
    seed: Seed = 0
    channels_last: bool = False
    decays: bool = False

    def __post_init__(self) -> None:
        if self.reduction not in (None, "mean", "sum"):
            raise OptionError(
                f"diagnose: reduction must be 'mean' or 'sum', got {short(self.reduction)}"
            )
        if self.lr is not None:
            require_number("diagnose: lr", self.lr, "(0, inf)")
        require_number("diagnose: l2", self.l2, "[0, inf)")
        require_flag("diagnose: training", self.training)
        if self.convolution not in ("correlation", "true"):
            raise OptionError(
                "diagnose: convolution must be 'correlation' or 'true', got "
                f"{short(self.convolution)}"
            )


@dataclass(frozen=True)
class Gradients:
    """Gradients under the network's names, in a program's layout.

    Attributes
    ----------
    ways : the gradients; more than one way to cut a vector into them is possible
    blurs : by name, the length of the rounding error that computing them from a step brought
    types : by name, the type of the weights that they were computed from
    """

    ways: Sequence[Named] = ({},)
    blurs: Mapping[str, float] = field(default_factory=dict)
    types: Mapping[str, np.dtype[Any]] = field(default_factory=dict)

    def way(self, number: int) -> Named:
        """Return the gradients in one of the ways."""
        return self.ways[min(number, len(self.ways) - 1)]

    def tolerance(self, known: str, array: Array) -> float:
        """Return the relative error that a right one may have."""
        return tolerance(array, self.types.get(known, array.dtype), self.blurs.get(known, 0.0))


class Reader:
    """Reads the arrays of one program.

    Parameters
    ----------
    net, images : the network, and the number of images
    given, gradients : what the user gave, and the gradients in it
    named : deltas and activations, as "delta" and "activation", by the network's names

    Attributes
    ----------
    program : the layout of its weights
    channels_last : whether its maps are known to be so
    """

    def __init__(
        self,
        net: Network,
        given: Given,
        gradients: Gradients,
        named: Mapping[str, Named],
        images: int,
    ) -> None:
        self.gradients = gradients
        self._rateless = given.after is not None and given.lr is None
        self.axes, self.given, self.named = axes_of(net), given, named
        folded, outputs = folds(net), zip(net.names, net.shapes, strict=True)
        self._outputs = {
            name: _map_axes(images, shape, folded.get(name))
            for name, shape in (("input", net.input_shape), *outputs)
        }
        self._before = dict(zip(net.names, ("input", *net.names), strict=False))
        whole = [
            (self._outputs[known], array.shape)
            for arrays in named.values()
            for known, (_, array) in arrays.items()
            if len(self._outputs[known].wanted) == 4
        ]
        orders = [o for o in MAP_ORDERS if all(a.fits(o, shape) for a, shape in whole)]
        orders = orders or list(MAP_ORDERS)
        if given.channels_last:
            orders.sort(key=lambda order: order != "NHWC")
        elif orders[0] == "NCHW":
            orders = orders[:1]
        self._orders = orders
        self._batch_last = _lie_batch_last(
            [
                (self._outputs[k], a.shape)
                for arrays in named.values()
                for k, (_, a) in arrays.items()
            ],
            bool(whole) and any(order[-1] == "N" for order in orders),
        )
        self.program, self._possible = ProgramLayout(), list[ProgramLayout]()
        self.channels_last = orders[0] in ("NHWC", "HWCN", "HWNC")

    def agreement(
        self, net: Network, trace: Trace, program: ProgramLayout, way: int, unclear: Collection[str]
    ) -> tuple[float, float, bool]:
        """Return how many arrays a trace explains, in a layout.

        Counted are those that the layout does not concern, then the ``unclear`` ones, which it
        does; last is whether it is all of them.
        """
        counts = self._gradients_explained(net, trace, program, way)
        outputs = self.nearest("activation", trace.activations)
        truths = {f"output of {k}": (m, trace.activations[k]) for k, m in outputs.items()}
        if self.given.probabilities is not None and trace.probabilities is not None:
            read = self.probabilities(trace.probabilities)
            truths["probabilities"] = read, trace.probabilities
        for known, (m, truth) in truths.items():
            counts[known] = explained(m.values, truth, tolerance(m.values, m.dtype, 0.0))
        clear = sum(count >= 1 for known, count in counts.items() if known not in unclear)
        rest = sum(count for known, count in counts.items() if known in unclear or count < 1)
        return clear, rest, bool(counts) and min(counts.values()) >= 1

    def choose(self, net: Network, trace: Trace, layouts: Sequence[ProgramLayout]) -> None:
        """Set the layout, without the program's weights, to the one in which most are right.

        Others in which the same are right, and more, stay possible for the rest.
        """
        counts = {p: self._gradients_explained(net, trace, p, 0) for p in layouts}
        right = {p: {k for k, count in c.items() if count >= 1} for p, c in counts.items()}
        self.program = max(layouts, key=lambda p: (len(right[p]), sum(counts[p].values())))
        self._possible = [p for p in layouts if right[p] >= right[self.program]]

    def _gradients_explained(
        self, net: Network, trace: Trace, program: ProgramLayout, way: int
    ) -> dict[str, float]:
        """Return how much of each gradient a trace explains, in a layout."""
        counts: dict[str, float] = {}
        for known, (_, array) in self.gradients.way(way).items():
            axes = self.axes[known]
            order = axes.order(program)
            if axes.fits(order, array.shape):
                values = self._judged(net, known, axes.read(order, array.astype(np.float64)))
                inputs = trace.activations[self._before[known.split(".")[0]]]
                error = self.gradients.tolerance(known, array)
                beside = net.parameters[known] if self._rateless else None
                counts[known] = explained(values, trace.gradients[known], error, inputs, beside)
        return counts

    def gradient(
        self, net: Network, trace: Trace, known: str, name: str, array: Array
    ) -> SubmittedArray:
        """Read a gradient in the program's layout, or as one that lies in another order by mistake.

        Parameters
        ----------
        net, trace : the network with the program's weights, and the truth
        known, name, array : the network's name, the user's, and the array

        Raises
        ------
        ShapeError
            It has another number of values, or axes in no order.
        """
        axes, values = self.axes[known], array.astype(np.float64)
        order, truth = axes.order(self.program), trace.gradients[known]
        readings: list[Reading] = []
        for other in dict.fromkeys([order, *(axes.order(p) for p in self._possible)]):
            if axes.fits(other, array.shape):
                plain = other == axes.letters and array.shape == axes.wanted
                cost = 0.0 if plain or self.given.weights is not None else USUAL
                cost += UNUSUAL * (other != order)
                phrase = axes.phrase(other, array.shape)
                readings.append(Reading(axes.read(other, values), phrase, cost))
        raw = self._unjudged(net, known, truth)
        alike = max((likeness(reading.values, raw) for reading in readings), default=0.0)
        if len(axes.letters) > 1 and alike < _RIGHT:
            readings += memory_orders(axes, order, values, raw)
            readings = readings or misplaced(axes, order, values)
        if not readings:
            refusal = axes.refusal(name, known, array.shape)
            raise ShapeError(f"{refusal}; give it in that order of axes")
        blur = self.gradients.blurs.get(known, 0.0)
        found = [replace(r, values=self._judged(net, known, r.values), blur=blur) for r in readings]
        kind = self.gradients.types.get(known, array.dtype)
        return SubmittedArray(known, name, tuple(found), kind)

    def maps(self, what: str, truths: Mapping[str, Array]) -> dict[str, SubmittedArray]:
        """Read deltas or activations, each in every likely order, the likeliest first.

        Raises
        ------
        ShapeError
            One has axes in no likely order.
        """
        return {
            known: self._read(known, name, array, truths[known], self._outputs[known])
            for known, (name, array) in self.named[what].items()
        }

    def nearest(self, what: str, truths: Mapping[str, Array]) -> dict[str, SubmittedArray]:
        """Read deltas or activations, each in the order in which it is nearest to the truth."""
        return {known: _nearest(m, truths[known]) for known, m in self.maps(what, truths).items()}

    def probabilities(self, truth: Array) -> SubmittedArray:
        """Read the probabilities, in the order in which they are nearest to the truth."""
        array = as_array("probabilities", self.given.probabilities)
        axes = Axes("NU", truth.shape, truth.shape)
        return _nearest(self._read("probabilities", "probabilities", array, truth, axes), truth)

    def _read(
        self, known: str, name: str, array: Array, truth: Array, axes: Axes
    ) -> SubmittedArray:
        orders = self._orders
        merged = len(squeezed(array.shape)) < len(squeezed(axes.sizes))
        features = len(axes.wanted) == 2
        if merged if not features else self.program != ProgramLayout() or array.ndim > 2:
            orders = [*orders, *(o for o in MAP_ORDERS if o not in orders)]
        elif features:  # maps that lie otherwise may be flattened in the network's order
            orders = [*orders, *(o for o in ("NCHW", "CHWN") if o not in orders)]
        found: list[Reading] = []
        values = array.astype(np.float64)
        if known == "input" and array.dtype == np.uint8:  # images that the network scales itself
            both = values, scaled(array, values.dtype)
            values = min(both, key=lambda v: abs(length(v) - length(truth)))
        for reading in read_maps(axes, values, orders, batch_last=self._batch_last):
            if not any(np.array_equal(reading.values, other.values) for other in found):
                found.append(reading)
        if not found:
            refusal = axes.refusal(name, known, array.shape)
            raise ShapeError(f"{refusal}; give it in that order of axes")
        # where two readings cost the same, the one that is more like the truth comes first
        found.sort(key=lambda reading: reading.cost - 0.5 * likeness(reading.values, truth))
        return SubmittedArray(known, name, tuple(found), array.dtype)

    def _judged(self, net: Network, known: str, values: Array) -> Array:
        """Turn a filter's gradient, and take off what the penalty adds, where it is so.

        What a step at an unknown rate adds is not known yet.
        """
        letters = self.axes[known].letters
        if letters == "KCRS" and self.given.convolution == "true":
            values = values[:, :, ::-1, ::-1]
        if len(letters) > 1 and self.given.l2 and not self._rateless:
            values = values - self.given.l2 * net.parameters[known]
        return values

    def _unjudged(self, net: Network, known: str, truth: Array) -> Array:
        """Return what the program computes where the truth is this."""
        letters = self.axes[known].letters
        if len(letters) > 1 and self.given.l2:
            truth = truth + self.given.l2 * net.parameters[known]
        if letters == "KCRS" and self.given.convolution == "true":
            truth = truth[:, :, ::-1, ::-1]
        return truth


def _map_axes(images: int, shape: Shape, folded: Shape | None) -> Axes:
    wanted = (images, *shape)
    if len(shape) == 3 or folded:
        return Axes("NCHW", (images, *(folded or shape)), wanted)
    return Axes("NU", wanted, wanted)


def _lie_batch_last(pairs: Sequence[tuple[Axes, Shape]], maps: bool) -> bool:
    """Whether the images are the last axis of maps, or of rows as their shapes say."""
    rows = [(a.wanted, shape) for a, shape in pairs if len(a.wanted) == 2]
    return maps or any(shape == wanted[::-1] != wanted for wanted, shape in rows)


def _nearest(matched: SubmittedArray, truth: Array) -> SubmittedArray:
    """Keep the reading that is nearest to the truth."""
    with np.errstate(all="ignore"):
        errors = [length(reading.values - truth) for reading in matched.readings]
    best = int(np.argmin([e if np.isfinite(e) else np.inf for e in errors]))
    return replace(matched, readings=(matched.readings[best],))
