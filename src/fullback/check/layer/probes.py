"""Inputs for a layer of a known kind, in the layout that its functions take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fullback.check.layer.kinds import Kind, Layout, parameters_for, reference_output
from fullback.check.layer.plain_layer import PlainLayer
from fullback.check.layer.signatures import CallInputs
from fullback.errors import OptionError
from fullback.layers import Layer, Loss, SoftmaxCrossEntropy
from fullback.layers.base import Array


@dataclass(frozen=True)
class Probes:
    """What a layer is examined on.

    Attributes
    ----------
    inputs : inputs and parameters, by what they are
    reference, layout : the reference's layer, and where the user's arrays have its axes, where
        they are known
    loss : the reference's loss, where it is one
    notes : what is worth knowing
    """

    inputs: Mapping[str, CallInputs]
    reference: Layer | None = None
    layout: Layout | None = None
    loss: Loss | None = None
    notes: tuple[str, ...] = ()


def loss_probes(layer: PlainLayer, kind: Kind, rng: np.random.Generator) -> Probes:
    """Return logits and labels, as numbers or as rows of 0 and 1, whichever the loss takes."""
    inputs, hot = {}, {}
    for name, x in kind.probes(rng):
        labels = rng.integers(0, x.shape[1], len(x))
        inputs[name] = CallInputs(x, {}, labels)
        hot[name] = CallInputs(x, {}, np.eye(x.shape[1])[labels])
    try:
        layer.find_forward(next(iter(inputs.values())))
    except OptionError:
        layer.find_forward(next(iter(hot.values())))
        inputs = hot
    return Probes(inputs, loss=SoftmaxCrossEntropy())


def layer_probes(
    layer: PlainLayer, kind: Kind, users: Mapping[str, Array], rng: np.random.Generator
) -> Probes:
    """Find the layout and the options in which forward gives the reference's output.

    Raises
    ------
    OptionError
        Forward cannot be called in any layout, or never gives an output of the right shape.
    """
    probes = list(kind.probes(rng))
    reference, layout, agrees = _match(layer, kind, probes[0][1], users, rng)
    notes = []
    if not agrees:
        notes.append(f"forward is not that of {reference}, in any layout; see the findings")
    inputs = {}
    for name, x in probes:
        parameters = parameters_for(reference, x, rng)
        arranged = _arranged(parameters, layout, users)
        if arranged is None or reference_output(reference, x, parameters) is None:
            continue  # an object's own weights may fit inputs of one shape only
        one = CallInputs(layout.image_out(x), arranged)
        try:
            layer.hold_for(arranged, users)
            layer.find_forward(one)
        except OptionError:
            notes.append(f"forward refuses {name}")
        else:
            inputs[name] = one
    layer.find_forward(next(iter(inputs.values())))
    return Probes(inputs, reference, layout, notes=tuple(notes))


def _match(
    layer: PlainLayer,
    kind: Kind,
    x: Array,
    users: Mapping[str, Array],
    rng: np.random.Generator,
) -> tuple[Layer, Layout, bool]:
    """Return the first reference and layout that agree with forward, or else the first to run."""
    first: tuple[Layer, Layout] | None = None
    trouble: OptionError | None = None
    for reference in kind.references():
        parameters = parameters_for(reference, x, rng)
        expected = reference_output(reference, x, parameters)
        for layout in kind.layouts():
            arranged = _arranged(parameters, layout, users)
            if arranged is None or expected is None:
                continue
            try:
                layer.hold_for(arranged, users)
                y = layout.image_in(layer.find_forward(CallInputs(layout.image_out(x), arranged)).y)
            except OptionError as error:
                trouble = trouble or error
                continue
            if y.shape != expected.shape:
                continue
            if np.abs(y - expected).max() <= 1e-6 * np.abs(expected).max():
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


def _arranged(
    parameters: Mapping[str, Array], layout: Layout, users: Mapping[str, Array]
) -> dict[str, Array] | None:
    """Return parameters in a layout, by a user's names for them; None where shapes do not fit."""
    arrays = [layout.parameter_out(array) for array in parameters.values()]
    if not users:
        names = ["w", "b"] if set(parameters) == {"weight", "bias"} else list(parameters)
        return dict(zip(names, arrays, strict=True))
    shapes = [array.shape for array in users.values()]
    if shapes != [array.shape for array in arrays[: len(shapes)]]:
        return None
    return dict(zip(users, arrays, strict=False))
