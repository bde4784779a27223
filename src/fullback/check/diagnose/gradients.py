"""The gradients in what a user submits, told from weights and an optimizer's state beside them.

Nothing is left out in silence: what is not judged is told in a note, and two names of one array are
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fullback.check.diagnose.containers import (
    arrays_in,
    is_array,
    is_container,
    is_gradient,
    left_out,
    weights_in,
)
from fullback.check.diagnose.names import Names, is_bias, is_state, is_weight
from fullback.check.diagnose.weights import Named, read_whole
from fullback.errors import InputError, OptionError
from fullback.layers.base import Array
from fullback.network import Network
from fullback.options import listed, short

_SAME = 1e-5  # relative difference of weights that another precision makes
_DEEP = 6  # containers in containers, at most
_TOLD = 4  # names, at most, in a note


def named_gradients(
    net: Network,
    value: Any,
    weights: Sequence[Named] | None,
    guessed: list[str],
    notes: list[str],
) -> Sequence[Named]:
    """Return gradients by the network's names.

    Where they are one vector, it can be cut in several ways.

    Parameters
    ----------
    net, value, weights : the network, what was submitted, and the program's weights if they were
    guessed, notes : appended to: names that were matched by their shape alone, and what was not
        taken for gradients

    Raises
    ------
    OptionError, InputError
        There are no arrays, or names that are not known, or two names of one array.
    """
    whole = read_whole(net, value, "gradient")
    if whole is not None:
        return whole
    names = Names("gradient", {name: a.shape for name, a in net.parameters.items()}, None)
    refusal: OptionError | None = None
    for stacked in (False, True):
        found = _candidates(net, value, stacked=stacked)
        state = _state(found)
        found = {name: array for name, array in found.items() if name not in state}
        if not found:
            continue
        try:
            matched, beside = _matched(net, names, found, weights, whole=is_container(value))
            break
        except OptionError as error:
            refusal = refusal or error
    else:
        raise refusal or OptionError("no array among the gradients has the name of one")
    for name, part in left_out(value, {*matched, *beside, *state}):
        hint = "; a layer with one unit has biases of shape (1,)" * isinstance(part, float)
        raise InputError(f"gradients: {name} must be an array of numbers, got {short(part)}{hint}")
    guessed += [f"{name} as {known}" for name, known in matched.items() if name in names.guessed]
    if beside:
        called = [name for name in found if name in matched]
        notes.append(
            f"{listed(called, _TOLD)} were taken for the gradients; {listed(beside, _TOLD)} beside "
            "them, for the weights, which are not judged"
        )
    if state:
        notes.append(
            f"{listed(state, _TOLD)} beside the gradients: taken for an optimizer's state, and not "
            "judged"
        )
    return [{known: (name, found[name]) for name, known in matched.items()}]


def _candidates(net: Network, value: Any, *, stacked: bool) -> dict[str, Array]:
    """Return what may be gradients: all of a dict or list, of an object what has their names."""
    every = arrays_in(value, stacked=stacked)
    if _is_plain(value):
        return every
    chosen = weights_in(value, 2 * stacked)
    found = {
        name: array
        for name, array in every.items()
        if name in chosen
        or (is_gradient(name) and (is_weight(name) or is_bias(name) or name.endswith("grad")))
    }
    if is_container(value):
        return found
    sizes = {array.size for array in net.parameters.values()}  # an object has other arrays too
    return {name: array for name, array in found.items() if array.size in sizes} or found


def _is_plain(value: Any, deep: int = _DEEP) -> bool:
    """Whether there are only arrays, numbers, texts and gaps in a container."""
    if isinstance(value, Mapping | list | tuple):
        parts = value.values() if isinstance(value, Mapping) else value
        return deep > 0 and all(_is_plain(part, deep - 1) for part in parts)
    return value is None or isinstance(value, int | float | str) or is_array(value)


def _state(found: Mapping[str, Array]) -> list[str]:
    """Return the names of an optimizer's state that lies beside arrays of its shapes."""
    sizes = {array.size for name, array in found.items() if not is_state(name)}
    return [name for name, array in found.items() if is_state(name) and array.size in sizes]


def _matched(
    net: Network,
    names: Names,
    found: Mapping[str, Array],
    weights: Sequence[Named] | None,
    *,
    whole: bool,
) -> tuple[dict[str, str], list[str]]:
    """Return the network's name for each gradient, and the names of the weights beside them."""
    try:
        return names.match(found), []
    except OptionError:
        called = {name: array for name, array in found.items() if is_gradient(name)}
        others = {name: array for name, array in found.items() if name not in called}
        if not called or not others:
            raise
        try:
            theirs, matched = names.match(others), names.match(called)
        except OptionError:
            theirs = matched = {}
        needed = {known for known in net.parameters if known.endswith(".weight")}
        both_whole = needed and needed <= {*theirs.values()} & {*matched.values()}
        if matched and (both_whole or _are_weights(net, weights, theirs, others)):
            return matched, list(others)
        if whole:
            raise
        return names.match(called), list(others)  # an object may keep any other arrays


def _are_weights(
    net: Network,
    weights: Sequence[Named] | None,
    names: Mapping[str, str],
    arrays: Mapping[str, Array],
) -> bool:
    """Whether arrays hold the values of the program's weights, in any order."""
    own: dict[str, Array] = dict(net.parameters)
    if weights is not None:
        own |= {known: array for known, (_, array) in weights[0].items()}
    pairs = [(np.sort(arrays[n], axis=None), np.sort(own[k], axis=None)) for n, k in names.items()]
    return any(array.any() for array, _ in pairs) and all(
        np.allclose(array, values, rtol=_SAME, atol=_SAME * float(abs(values).max()))
        for array, values in pairs
    )
