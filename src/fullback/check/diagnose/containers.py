"""The arrays in what a program keeps its weights in: dicts, lists, tuples, objects, modules.

An array's name is the way to it: ``{"conv1": {"W": ...}}`` has conv1.W, a list of (W, b) has 0.W
and 0.b, and an object's attribute is its name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from fullback.check.arrays import is_numeric, to_numpy
from fullback.check.diagnose.names import is_bias, is_state, is_weight
from fullback.layers.base import Array

_DEEP = 6  # containers in containers, at most
_GRADIENT = re.compile(r"(^|[._])(d|grads?|gradients?|nabla|delta)(?=[A-Z_.\d]|[wb]\d*$|$)|grad", 0)


def arrays_in(value: Any, *, stacked: bool = False) -> dict[str, Array]:
    """Return copies of all arrays in a container, by their names, in its order.

    Parameters
    ----------
    value : an array, a dict, a list or tuple, or an object with attributes
    stacked : read lists of arrays of one shape as one array
    """
    found: dict[str, Array] = {}
    for name, array in _walk(value, "", stacked=stacked, depth=_DEEP, doors=_doors(value)):
        found.setdefault(name, np.array(to_numpy(array)))
    return found


def weights_in(value: Any, way: int = 0) -> dict[str, Array]:
    """Return the arrays in a container that are weights.

    Parameters
    ----------
    value : the container
    way : how to read it, in ``WAYS``: all of a dict or list but gradients and an optimizer's state
        that lie beside the weights, and of an object what has a name of weights, or the shape of a
        bias of them; only what has such a name; both with lists of arrays, or of objects that are
        a filter or a unit each, read as one array; at last all of an object too, like conv1 and fc1
    """
    found = arrays_in(value, stacked=way in STACKED)
    beside = [name for name in found if is_gradient(name) or is_state(name)]
    sizes = {array.size for name, array in found.items() if name not in beside}
    kept = {n: a for n, a in found.items() if n not in beside or a.size not in sizes}
    plain = all(
        isinstance(part, Mapping | list | tuple | int | float | str) or is_array(part)
        for part in _parts(value, set())
    )
    if way == WAYS[-1] or (not way % 2 and plain):
        return kept
    return _named(kept, found, beside=not way % 2)


WAYS = range(5)
"""Ways to read weights, the likelier ones first; see ``weights_in``."""

STACKED = (2, 3)
"""Those in which lists of arrays are read as one."""


def _named(arrays: dict[str, Array], every: dict[str, Array], *, beside: bool) -> dict[str, Array]:
    """Keep what is called weights or biases, what has a gradient, and biases ``beside`` weights."""
    lacking: list[Array] = []  # weights whose biases are not found yet
    kept = {}
    for name, array in arrays.items():
        of = [w for w in lacking if array.size in (w.shape[0], w.shape[-1]) and _rank(array) < 2]
        if is_bias(name) or f"{name}.grad" in every or is_weight(name) or (beside and of):
            kept[name] = array
            if _rank(array) > 1:
                lacking.append(array)
            elif of:
                lacking = [w for w in lacking if w is not of[0]]
    return kept


def gradients_in(value: Any) -> dict[str, Array]:
    """Return the gradients that are kept beside weights."""
    found = arrays_in(value)
    return {
        name: array
        for name, array in found.items()
        if is_gradient(name)
        and (is_weight(name) or is_bias(name) or name.removesuffix(".grad") in found)
    }


def left_out(
    value: Any, found: Collection[str], name: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Yield what stands among arrays and is none, by its name: numbers, texts, arrays of those.

    ``found`` are the names of the arrays that were read. In a dict only what has a name of weights
    or biases is yielded: a loss may lie beside them. ``above`` are the ids of the
    containers around it.
    """
    if name in found or value is None or is_array(value) or hasattr(value, "__dict__"):
        return
    if id(value) in above:
        return
    parts = list(_items(value))
    for key, part in parts:
        yield from left_out(part, found, f"{name}.{key}" if name else key, (*above, id(value)))
    listed = name.split(".")[-1].isdigit()
    named = is_weight(name) or is_bias(name)
    if not parts and (named or (listed and not isinstance(value, Mapping | list | tuple))):
        yield name, value


def leaves(value: Any, name: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield all that stands in dicts and lists, by its name: arrays, as copies, numbers, None.

    ``above`` are the ids of the containers around it.
    """
    listed = isinstance(value, list | tuple)
    whole = _as_one(value, stacked=False) if listed else None
    if is_array(value) or whole is not None:
        yield name, np.array(to_numpy(value) if whole is None else whole)
    elif not isinstance(value, Mapping) and not listed:
        yield name, value
    elif id(value) not in above and len(above) < _DEEP:
        for key, part in _items(value):
            yield from leaves(part, f"{name}.{key}" if name else key, (*above, id(value)))


def put_back(value: Any, arrays: Mapping[str, Array]) -> None:
    """Write arrays into those of a container that have their names and can be written to."""
    for name, array in _walk(value, "", stacked=False, depth=_DEEP, doors=_doors(value)):
        old = to_numpy(array)
        if name in arrays and old.shape == arrays[name].shape and old.flags.writeable:
            old[...] = arrays[name]


def is_gradient(name: str) -> bool:
    """Whether a name is that of a gradient: dW1, grad_b, W.grad."""
    return bool(_GRADIENT.search(name))


def of_pytorch(value: Any) -> bool:
    """Whether something is a module of PyTorch, or holds tensors of it."""
    if hasattr(value, "named_parameters"):
        return True
    parts = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list | tuple) and any(
        hasattr(part, "new_tensor") for part in parts
    )


def is_container(value: Any) -> bool:
    """Whether something holds arrays, and is none itself."""
    if isinstance(value, list | tuple):
        return any(is_array(part) or isinstance(part, Mapping) for part in value)
    return isinstance(value, Mapping)


def is_array(value: Any) -> bool:
    """Whether something is an array of a library, of real numbers."""
    if not isinstance(value, np.ndarray) and not hasattr(value, "__array__"):
        return False
    try:
        return is_numeric(to_numpy(value)) and bool(np.ndim(to_numpy(value)))
    except (TypeError, ValueError, RuntimeError):
        return False


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield a container, and those in it that are dicts and lists, each once."""
    yield value
    if id(value) in seen or not isinstance(value, Mapping | list | tuple):
        return
    seen.add(id(value))
    for part in value.values() if isinstance(value, Mapping) else value[:64]:
        yield from _parts(part, seen)


_Doors = Mapping[int, tuple[int, int]]


def _doors(root: Any) -> _Doors:
    """Return for each container, by its id, the one and the place in it by which it is entered.

    It is that of the shortest name: containers may refer to each other, and in a circle.
    """
    doors = {id(root): (0, 0)}
    level: list[Any] = [root]
    for _ in range(_DEEP):
        inner = []
        for value in level:
            for place, (_, part) in enumerate(_items(value)):
                if _holds(part) and id(part) not in doors:
                    doors[id(part)] = id(value), place
                    inner.append(part)
        level = inner
    return doors


def _holds(value: Any) -> bool:
    """Whether something may hold arrays and is none."""
    plain = value is None or isinstance(value, str | bytes | int | float | complex | np.generic)
    return not plain and not hasattr(value, "__array__")


def _walk(
    value: Any,
    name: str,
    *,
    stacked: bool,
    depth: int,
    doors: _Doors,
    door: tuple[int, int] = (0, 0),
) -> Iterator[tuple[str, Any]]:
    """Yield the arrays in a container with their names, not copied where they are arrays."""
    number = isinstance(value, float | np.floating | np.ndarray) and is_numeric(np.asarray(value))
    if is_array(value) or (number and is_bias(name.split(".")[-1].replace("beta", ""))):
        yield name, value
        return
    whole = _as_one(value, stacked) if isinstance(value, list | tuple) else None
    if depth and whole is not None:
        yield name, whole
    elif depth and _holds(value) and doors.get(id(value), door) == door:
        inner = partial(_walk, stacked=stacked, depth=depth - 1, doors=doors)
        parts = [(key, part, (id(value), place)) for place, (key, part) in enumerate(_items(value))]
        if stacked and isinstance(value, list | tuple):
            rows = [dict(inner(part, "", door=way)) for _, part, way in parts]
            whole_ones = _stack(rows)
            if whole_ones:
                yield from ((f"{name}.{key}".lstrip("."), a) for key, a in whole_ones.items())
                return
        for key, part, way in parts:
            path = f"{name}.{key}" if name and key else name or key
            yield from inner(part, path, door=way)


def _stack(rows: list[dict[str, Any]]) -> dict[str, Array]:
    """Return what objects that are a filter or a unit each have, as one array; else nothing."""
    rows = [{k: to_numpy(a) for k, a in row.items() if is_weight(k) or is_bias(k)} for row in rows]
    first = rows[0] if rows else {}
    layers = any(array.ndim > (0 if is_bias(key) else 3) for key, array in first.items())
    shapes = [[(key, array.shape) for key, array in row.items()] for row in rows]
    if not first or layers or any(one != shapes[0] for one in shapes):
        return {}
    return {key: np.stack([row[key] for row in rows]) for key in first}


def _as_one(value: list[Any] | tuple[Any, ...], stacked: bool) -> Array | None:
    """Return a list of numbers as an array; of arrays too, where they are to be one."""
    parts = len({np.shape(part) for part in value if is_array(part)})
    if not value or (parts and not (stacked and parts == 1)):
        return None
    try:
        array = np.array(value)
    except (ValueError, TypeError):  # a list of lists of several lengths
        return None
    return array if is_numeric(array) and array.ndim else None


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            keys = list(value._fields)
        elif (
            len(value) == 2 and all(map(is_array, value)) and _rank(value[0]) > 1 >= _rank(value[1])
        ):
            keys = ["W", "b"]
        else:
            keys = [str(index) for index in range(len(value))]
        yield from zip(keys, value, strict=True)
    elif hasattr(value, "named_parameters"):  # a module of PyTorch
        for name, parameter in value.named_parameters():
            yield name, parameter
            yield f"{name}.grad", parameter.grad
    elif hasattr(value, "data") and hasattr(value, "grad"):  # a parameter and its gradient
        yield from (("", value.data), ("grad", value.grad))
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable_only(value):
        yield from vars(value).items()


def _rank(array: Any) -> int:
    return len([n for n in np.shape(array) if n != 1])


def callable_only(value: Any) -> bool:
    """Whether something is a function, or a module of a library, and keeps no weights."""
    if isinstance(value, ModuleType):
        return not hasattr(value, "__file__") or "site-packages" in str(value.__file__)
    return hasattr(value, "__code__") or hasattr(value, "__func__")
