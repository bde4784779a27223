"""What a user's backward function returned, or left on its object, by name: "dx", "dw", ..."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fullback.check.arrays import is_numeric, to_numpy
from fullback.check.layer.calls import BIAS, INPUT, WEIGHT, bare
from fullback.layers.base import Array

_CONTAINERS = ("grads", "gradients", "grad", "dparams", "d")


class UserError(Exception):
    """A user's function raised something, or returned what is no array, in one line."""


def named_gradients(returned: Any, x: Array, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Name the arrays that a backward function returned.

    Raises
    ------
    UserError
        What was returned cannot be the gradients of this layer.
    """
    found: dict[str, Array] = {}
    loose: list[Array] = []
    _collect(returned, parameters, found, loose)
    names = ["dx", *(f"d{name}" for name in parameters)]
    shapes = {"dx": x.shape, **{f"d{name}": array.shape for name, array in parameters.items()}}
    free = [name for name in names if name not in found]
    if len(loose) > len(free):
        raise UserError(f"returned {len(loose)} arrays, but there are {len(free)} gradients")
    others = [name for name in free if name != "dx"]
    last = [*others, *(name for name in free if name == "dx")]
    orders = [free[: len(loose)], last[: len(loose)]]
    orders += map(list, itertools.islice(itertools.permutations(free, len(loose)), 120))

    def misfits(order: list[str]) -> int:
        return sum(shapes[name] != array.shape for name, array in zip(order, loose, strict=True))

    best = min(orders, key=misfits)
    if loose and misfits(best) == len(loose) and len(loose) > 1:
        raise UserError(f"returned arrays of shapes {[array.shape for array in loose]}")
    return {**found, **dict(zip(best, loose, strict=True))}


def attributes_of(layer: Any) -> dict[str, Any]:
    """Return what an object holds, by name."""
    slots = getattr(type(layer), "__slots__", ())
    held = {name: getattr(layer, name) for name in slots if hasattr(layer, name)}
    return {**held, **getattr(layer, "__dict__", {})}


def on_object(layer: Any, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Return the gradients that a layer's object keeps: as attributes, in a dict, as ``w.grad``."""
    found: dict[str, Array] = {}
    attributes = attributes_of(layer)
    for key, value in list(attributes.items()):
        if isinstance(getattr(value, "grad", None), np.ndarray):
            attributes[f"d{key}"] = value.grad
    for container in _CONTAINERS:
        if isinstance(inside := attributes.get(container), Mapping):
            attributes.update({f"d{key}": value for key, value in inside.items()})
            attributes.update({key: value for key, value in inside.items() if _marked(str(key))})
        elif isinstance(inside, list | tuple) and len(inside) == len(parameters):
            attributes.update({f"d{n}": array for n, array in zip(parameters, inside, strict=True)})
    for key, value in attributes.items():
        name = _named(str(key), parameters) if _marked(str(key)) else None
        number = isinstance(value, np.ndarray | np.floating | float) or hasattr(value, "detach")
        if name and name != "dx" and number:
            found[name] = to_numpy(value)
    return found


def plain_list(value: Any) -> Any:
    """Return a list of numbers, or of such lists, as an array; anything else as it is."""
    if not isinstance(value, list) or not value:
        return value
    inner = [plain_list(one) if isinstance(one, list) else one for one in value]
    if all(isinstance(one, float | int | np.number) for one in inner):
        return np.array(inner)
    if all(isinstance(one, np.ndarray) and isinstance(was, list)
           for one, was in zip(inner, value, strict=True)):  # fmt: skip
        return np.array(inner)
    return value


def _collect(
    returned: Any, parameters: Mapping[str, Array], found: dict[str, Array], loose: list[Array]
) -> None:
    returned = plain_list(returned)
    if returned is None:
        return
    if isinstance(returned, Mapping):
        for key, value in returned.items():
            name = _named(str(key), parameters)
            if name is not None and value is not None:
                found[name] = _array(value)
    elif isinstance(returned, tuple | list):
        for value in returned:
            _collect(value, parameters, found, loose)
    else:
        loose.append(_array(returned))


def _array(value: Any) -> Array:
    array = to_numpy(value)
    if not is_numeric(array):
        raise UserError(f"returned {type(value).__name__}, not arrays of numbers")
    return array


def _marked(key: str) -> bool:
    """Whether a name says that it is a gradient's."""
    return bool(re.match(r"(?i)_?((grad|d)_?\w|\w+_?grad(ient|s)?$)", key))


def _named(key: str, parameters: Mapping[str, Array]) -> str | None:
    """Return the name of a gradient that is called so: "dW", "grad_w", "weight_grad", "w"."""
    known = {bare(name): name for name in parameters}
    weights = [name for name, array in parameters.items() if array.ndim > 1] or list(parameters)
    whole = bare(key)
    ends = r"^(d[lejc]?/?d|gradient|grad|d)(?=.)|(?<=.)(gradient|grad)s?$"
    stripped = re.sub(ends, "", whole)
    for word in (stripped, stripped.removesuffix("s"), whole):
        if word in known:
            return f"d{known[word]}"
        if word in INPUT:
            return "dx"
        if word in WEIGHT and weights:
            return f"d{weights[0]}"
        if word in BIAS and len(parameters) > 1:
            return f"d{list(parameters)[-1]}"
    return None
