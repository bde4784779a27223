"""A layer that a user wrote, checked on inputs on which no mistake hides."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.arrays import numbers
from fullback.check.layer.calls import CallInputs
from fullback.check.layer.cases import Case, CaseMaker, Cases
from fullback.check.layer.examination import Examination
from fullback.check.layer.kinds import checked_options
from fullback.check.layer.report import LayerCheck
from fullback.check.layer.user_layer import UserLayer
from fullback.errors import InputError, OptionError
from fullback.layers.base import Array
from fullback.options import require_number, require_whole


def check_layer(
    forward: Any,
    backward: Callable[..., Any] | None = None,
    inputs: ArrayLike | Sequence[ArrayLike] | None = None,
    *,
    params: Mapping[str, Array] | Sequence[Array] | Array | None = None,
    labels: ArrayLike | None = None,
    kind: str | None = None,
    lr: float | None = None,
    samples: int = 24,
    seed: int = 0,
    **options: Any,
) -> LayerCheck:
    """Check the backward pass of a layer that is two functions, or an object with two methods.

    How the functions are called is found out, by the names of their arguments and else by trying:
    ``forward(x)``, ``forward(x, w, b)``, ``forward(params, x)`` or
    ``forward(x, w, b, hparameters)`` returns y, or (y, cache); ``backward(dy)``,
    ``backward(dy, cache)``, ``backward(dy, x, w, b)`` and the like returns dx, (dx, dw, db) in any
    nesting, or a dict. An object may leave dw and db as attributes, in a dict ``grads`` or as
    ``w.grad``, or change its weights itself, as in ``backward(dy, lr)``: the gradient is then the
    change, divided by the rate. Every try has a fresh copy of the object.

    Where the kind is known and forward gives the reference's output, gradients are compared with
    the reference's; else with finite differences in float64, of single entries and in directions
    in which all move. Beside that, backward must be linear in dy, give the same when it is called
    again, and neither function may write to what it is given.

    Parameters
    ----------
    forward, backward : the functions; or an object with these two methods as ``forward`` alone
    inputs : x, or a list of several; with ``kind`` the shape of inputs that the layer takes
    params : the parameters: an array, a list, or a dict by name; those of an object are found
    labels : labels, where the layer is a loss
    kind : "conv2d", "dense", "relu", "leaky_relu", "sigmoid", "tanh", "softmax", "dropout",
        "maxpool2d", "avgpool2d", "batchnorm" or "softmax_cross_entropy": then inputs are drawn that
        bring out ties, rows that a stride leaves over, single images, rows that are not columns, in
        the layout and the settings that forward takes; and wrong gradients are named
    lr : the learning rate at which backward changes the parameters itself, if it is not handed one
    samples : entries to check of each array on each input, by finite differences
    seed : fixes everything that is drawn
    options : of the kind: ``stride``, ``padding``, ``kernel_size``, ``groups``, ``size``, ...; the
        functions are handed those that they have arguments for, and without them several are tried

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
    if lr is not None:
        require_number("check_layer: lr", lr, "(0, inf)")
    known = {} if kind is None else checked_options(kind, options)
    if backward is None and isinstance(forward, types.FunctionType):
        backward = _from_forward
    layer = UserLayer(forward, backward, params, lr)
    layer.parameters = {n: _floats(f"params: {n}", a) for n, a in layer.parameters.items()}
    state = np.random.get_state()  # noqa: NPY002 -- what users' dropout draws from
    try:
        with layer.restored():
            rng = np.random.default_rng(seed)
            if kind is None:
                return _judged(layer, _given(layer, inputs, labels), samples, seed).result()
            shape = None if inputs is None else np.shape(_several(inputs)[0])
            maker = CaseMaker(layer, kind, known, shape, rng)
            examination = _judged(layer, maker.make(), samples, seed)
            why = examination.fails_on_batches()
            if why or (examination.cases.batch is None and examination.count):
                for cases in maker.make_single():
                    cases.refused += [f"several images at once: {why}"] * bool(why)
                    single = _judged(layer, cases, samples, seed)
                    examination = min(examination, single, key=lambda one: one.count)
            return examination.result()
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _from_forward(dy: Any, cache: Any) -> Any:
    """Backward of a function that returns (y, its backward function), or, of a loss, (loss, dx)."""
    if not callable(cache) and np.ndim(dy):
        raise OptionError(
            "check_layer takes two functions, forward and backward, or an object with methods of "
            "these names, or one function that returns y and its backward function"
        )
    return cache(dy) if callable(cache) else cache


def _given(layer: UserLayer, inputs: Any, labels: ArrayLike | None) -> Cases:
    """Return a user's inputs; how the forward function is called is then known."""
    if inputs is None:
        raise OptionError(
            "check_layer needs inputs, or the layer's kind, like kind='conv2d', to draw some"
        )
    arrays = [_floats("inputs", array) for array in _several(inputs)]
    cases = []
    for number, x in enumerate(arrays):
        name = f"x{number + 1}" * (len(arrays) > 1) or "x"
        name += f" of {' x '.join(map(str, x.shape)) or 'one number'}"
        array_labels = None if labels is None else np.asarray(labels)
        cases.append(Case(name, CallInputs(x, layer.parameters, array_labels)))
    layer.find_forward(cases[0].inputs)
    return Cases(cases)


def _judged(layer: UserLayer, cases: Cases, samples: int, seed: int) -> Examination:
    """Examine the layer in the way of calling backward in which the least is wrong."""
    if not cases.cases:
        texts = "; ".join(cases.crashes) or "; ".join(cases.refused)
        raise OptionError(f"forward fails on every input: {texts}")
    ways = []
    for signature in layer.backward_signatures(cases.cases[0].inputs):
        layer.backward_signature = signature
        examination = Examination(layer, cases, samples, seed)
        examination.examine(cases.cases[0])
        ways.append((examination.count, signature, examination))
    _, layer.backward_signature, examination = min(ways, key=lambda way: way[0])
    layer.notes.clear()
    for case in cases.cases[1:]:
        examination.examine(case)
    examination.examine_beside_kinks()
    return examination


def _several(inputs: Any) -> list[Any]:
    """Return the inputs as a list of arrays."""
    several = isinstance(inputs, list | tuple) and all(hasattr(x, "shape") for x in inputs)
    if several and not inputs:
        raise InputError("inputs holds no arrays")
    return list(inputs) if several else [inputs]


def _floats(what: str, value: Any) -> Array:
    array = numbers(what, value)
    if not array.size:
        raise InputError(f"{what} holds no numbers: it has shape {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds NaN or infinity")
    return array
