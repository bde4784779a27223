"""Inputs for a layer of a known kind, in the layout that its functions take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fullback.check.layer.kinds import Kind, Layout, parameters_for, reference_output
from fullback.check.layer.plain_layer import PlainLayer
from fullback.check.layer.signatures import Given
from fullback.errors import OptionError
from fullback.layers import Layer, Loss, SoftmaxCrossEntropy
from fullback.layers.base import Array


@dataclass(frozen=True)
class Probes:
    """What a layer is examined on.

    Attributes
    ----------
    given : inputs and parameters, by what they are
    reference, layout : the reference's layer, and where theirs has its axes, where they are known
    loss : the reference's loss, where it is one
    notes : what is worth knowing
    """

    given: Mapping[str, Given]
    reference: Layer | None = None
    layout: Layout | None = None
    loss: Loss | None = None
    notes: tuple[str, ...] = ()


def loss_probes(layer: PlainLayer, kind: Kind, rng: np.random.Generator) -> Probes:
    """Return logits and labels, as numbers or as rows of 0 and 1, whichever the loss takes."""
    given, hot = {}, {}
    for name, x in kind.probes(rng):
        labels = rng.integers(0, x.shape[1], len(x))
        given[name] = Given(x, {}, labels)
        hot[name] = Given(x, {}, np.eye(x.shape[1])[labels])
    try:
        layer.find_forward(next(iter(given.values())))
    except OptionError:
        layer.find_forward(next(iter(hot.values())))
        given = hot
    return Probes(given, loss=SoftmaxCrossEntropy())


def layer_probes(
    layer: PlainLayer, kind: Kind, own: Mapping[str, Array], rng: np.random.Generator
) -> Probes:
    """Find the layout and the options in which forward gives the reference's output.

    Raises
    ------
    OptionError
        Forward cannot be called in any layout, or never gives an output of the right shape.
    """
    probes = list(kind.probes(rng))
    reference, layout, agrees = _match(layer, kind, probes[0][1], own, rng)
    notes = []
    if not agrees:
        notes.append(f"forward is not that of {reference}, in any layout; see the findings")
    given = {}
    for name, x in probes:
        parameters = parameters_for(reference, x, rng)
        theirs = _theirs(parameters, layout, own)
        if theirs is None or reference_output(reference, x, parameters) is None:
            continue  # an object's own weights may fit inputs of one shape only
        one = Given(layout.image_out(x), theirs)
        try:
            layer.hold_for(theirs, own)
            layer.find_forward(one)
        except OptionError:
            notes.append(f"forward refuses {name}")
        else:
            given[name] = one
    layer.find_forward(next(iter(given.values())))
    return Probes(given, reference, layout, notes=tuple(notes))


def _match(
    layer: PlainLayer,
    kind: Kind,
    x: Array,
    own: Mapping[str, Array],
    rng: np.random.Generator,
) -> tuple[Layer, Layout, bool]:
    """Return the first reference and layout that agree with forward, or else the first to run."""
    first: tuple[Layer, Layout] | None = None
    trouble: OptionError | None = None
    for reference in kind.references():
        parameters = parameters_for(reference, x, rng)
        wanted = reference_output(reference, x, parameters)
        for layout in kind.layouts():
            theirs = _theirs(parameters, layout, own)
            if theirs is None or wanted is None:
                continue
            try:
                layer.hold_for(theirs, own)
                y = layout.image_in(layer.find_forward(Given(layout.image_out(x), theirs)).y)
            except OptionError as error:
                trouble = trouble or error
                continue
            if y.shape != wanted.shape:
                continue
            if np.abs(y - wanted).max() <= 1e-6 * np.abs(wanted).max():
                return reference, layout, True
            first = first or (reference, layout)
    if first is not None:
        return *first, False
    if trouble is not None:
        raise trouble
    raise OptionError(
        f"no input of kind={kind.name!r} fits the parameters given, or forward's output never has "
        "the shape that it should; give the kind's options, or inputs and params in place of kind"
    )


def _theirs(
    parameters: Mapping[str, Array], layout: Layout, own: Mapping[str, Array]
) -> dict[str, Array] | None:
    """Return parameters in a layout, by a user's names for them; None where shapes do not fit."""
    arrays = [layout.parameter_out(array) for array in parameters.values()]
    if not own:
        names = ["w", "b"] if set(parameters) == {"weight", "bias"} else list(parameters)
        return dict(zip(names, arrays, strict=True))
    shapes = [array.shape for array in own.values()]
    if shapes != [array.shape for array in arrays[: len(shapes)]]:
        return None
    return dict(zip(own, arrays, strict=False))
