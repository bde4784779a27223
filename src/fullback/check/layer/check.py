"""A layer that a user wrote as plain functions, checked on inputs on which no mistake hides."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.arrays import is_numeric, to_numpy
from fullback.check.layer.examination import Examination
from fullback.check.layer.kinds import Kind
from fullback.check.layer.plain_layer import PlainLayer
from fullback.check.layer.probes import Probes, layer_probes, loss_probes
from fullback.check.layer.report import LayerCheck, merged
from fullback.check.layer.returned import own_parameters
from fullback.check.layer.signatures import CallInputs
from fullback.errors import InputError, OptionError
from fullback.layers.base import Array
from fullback.options import require_whole


def check_layer(
    forward: Any,
    backward: Callable[..., Any] | None = None,
    inputs: ArrayLike | Sequence[ArrayLike] | None = None,
    *,
    params: Mapping[str, Array] | Sequence[Array] | Array | None = None,
    labels: ArrayLike | None = None,
    kind: str | None = None,
    samples: int = 24,
    seed: int = 0,
    **options: Any,
) -> LayerCheck:
    """Check the backward pass of a layer that is two functions, or an object with two methods.

    How the functions are called is found out by trying: ``forward(x)``, ``forward(x, w, b)`` or
    ``forward(x, params)`` returns y, or (y, cache); ``backward(dy)``, ``backward(dy, cache)``,
    ``backward(dy, x, w, b)`` and the like returns dx, (dx, dw, db) in any nesting, or a dict; an
    object may leave dw and db as attributes, or in a dict ``grads``. Names of arguments are looked
    at first.

    Compared with finite differences in float64 are single entries and directions in which all
    move. Beside that, backward must be linear in dy, give the same when it is called again, and
    neither function may write to what it is given.

    Parameters
    ----------
    forward, backward : the functions; or an object with these two methods as ``forward`` alone
    inputs : x, or a list of several; None where ``kind`` is given, for inputs that bring out ties,
        rows that a stride leaves over, single images, rows that are not columns
    params : the layer's parameters: an array, a list, or a dict by name; an object's own are found
    labels : labels, where the layer is a loss
    kind : "conv2d", "dense", "relu", "maxpool2d", "avgpool2d", "batchnorm" or
        "softmax_cross_entropy": then forward is compared with the reference layer's as well, and a
        wrong gradient with those that the catalogue's mistakes give, one at a time and in pairs
    samples : entries to check of each array on each input
    seed : fixes everything that is drawn
    options : of the kind: ``stride``, ``padding``, ``kernel_size``, ``groups``, ``size``; the
        functions are handed those that they have arguments for

    Raises
    ------
    OptionError
        No way of calling a function works (the message lists what was tried), or an option does
        not fit the kind.
    InputError
        Inputs that are not numbers, or not finite.
    """
    require_whole("samples", samples, 1)
    require_whole("seed", seed, 0)
    if kind is None and options:
        raise OptionError(f"check_layer: {next(iter(options))} goes with kind=..., or is no option")
    known = None if kind is None else Kind.named(kind, options)
    layer = PlainLayer(
        forward, backward, options if known is None else {**known.options, **options}
    )
    users = _named(params, layer)
    held = list(_held(params, layer))
    before = [array.copy() for array in held]
    try:
        probes = _arranged(layer, known, inputs, users, labels, np.random.default_rng(seed))
        layer.hold(users, params)
        return _judged(layer, probes, samples, seed, users_shapes=bool(users))
    finally:
        for array, value in zip(held, before, strict=True):
            array[...] = value


def _arranged(
    layer: PlainLayer,
    kind: Kind | None,
    inputs: ArrayLike | Sequence[ArrayLike] | None,
    users: dict[str, Array],
    labels: ArrayLike | None,
    rng: np.random.Generator,
) -> Probes:
    """Return what the layer is examined on; how its forward function is called is then known."""
    if inputs is not None:
        call_inputs = _call_inputs(inputs, users, labels)
        layer.find_forward(next(iter(call_inputs.values())))
        return Probes(call_inputs)
    if kind is None:
        raise OptionError(
            "check_layer needs inputs, or the layer's kind, like kind='conv2d', to make its own"
        )
    if kind.name == "softmax_cross_entropy":
        return loss_probes(layer, kind, rng)
    return layer_probes(layer, kind, users, rng)


def _judged(
    layer: PlainLayer,
    probes: Probes,
    samples: int,
    seed: int,
    *,
    users_shapes: bool,
) -> LayerCheck:
    """Examine a layer in every way that it can be called, and return the best result."""
    best = LayerCheck((), (), ())
    for signature in layer.backward_signatures(next(iter(probes.inputs.values()))):
        layer.backward_signature = signature
        examination = Examination(layer, probes, samples, seed, users_shapes)
        for name, call_inputs in probes.inputs.items():
            examination.probe(name, call_inputs)
        examination.name_mistakes()
        called = f"called as {layer.forward_signature} and {signature}"
        result = LayerCheck(
            merged(examination.findings),
            tuple(examination.rows),
            (called, *probes.notes, *dict.fromkeys(examination.notes)),
        )
        if not best.rows or len(result.findings) < len(best.findings):
            best = result
        if result.ok:
            break
    return best


def _held(
    params: Mapping[str, Array] | Sequence[Array] | Array | None, layer: PlainLayer
) -> Iterator[Array]:
    """Return the arrays of the user that the check may write to, for a while."""
    values: Any = own_parameters(layer.object) if layer.object is not None else params
    if isinstance(values, Mapping):
        values = list(values.values())
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, np.ndarray) and value.flags.writeable:
            yield value


def _named(
    params: Mapping[str, Array] | Sequence[Array] | Array | None, layer: PlainLayer
) -> dict[str, Array]:
    """Return parameters by name, in float64."""
    if params is None:
        params = own_parameters(layer.object) if layer.object is not None else {}
    if isinstance(params, Mapping):
        named = dict(params)
    else:
        values: list[Any] = list(params) if isinstance(params, list | tuple) else [params]
        names = _argument_names(layer.forward)[1 : len(values) + 1]
        if len(names) < len(values):
            names = ["w", "b"] if len(values) <= 2 else [f"p{n + 1}" for n in range(len(values))]
        named = dict(zip(names, values, strict=False))
    return {str(name): _floats(f"params: {name}", value) for name, value in named.items()}


def _argument_names(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in positional]


def _call_inputs(
    inputs: ArrayLike | Sequence[ArrayLike], users: dict[str, Array], labels: ArrayLike | None
) -> dict[str, CallInputs]:
    """Return the inputs that a user gave."""
    several = isinstance(inputs, list | tuple) and all(hasattr(x, "shape") for x in inputs)
    arrays: Any = inputs if several else [inputs]
    call_inputs: dict[str, CallInputs] = {}
    for number, array in enumerate(arrays):
        x = _floats("inputs", array)
        name = f"x{number + 1}" * (len(arrays) > 1) or "x"
        array_labels = None if labels is None else np.asarray(labels)
        call_inputs[f"{name} of {' x '.join(map(str, x.shape)) or 'one number'}"] = CallInputs(
            x, users, array_labels
        )
    if not call_inputs:
        raise InputError("inputs holds no arrays")
    return call_inputs


def _floats(what: str, value: Any) -> Array:
    array = to_numpy(value)
    if not is_numeric(array):
        raise InputError(f"{what} must hold numbers, got an array of {array.dtype}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds NaN or infinity")
    return array
