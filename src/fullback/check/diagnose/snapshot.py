"""What a program can change, kept and put back: its weights, its globals, its random numbers.

A step is run on the user's own objects, so that views and references between them hold, and what it
changed is undone afterwards, in place.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_MOST = 200_000  # objects that are followed


class Snapshot:
    """The state of everything that is reachable from some objects.

    Arrays, tensors, lists, dicts, sets, objects with attributes, what a function refers to, and the
    random numbers of ``random`` and NumPy. What lives in installed libraries is not followed.

    Parameters
    ----------
    roots : the objects
    """

    def __init__(self, *roots: Any) -> None:
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[int, Any] = {}  # holds them, so that no id is given twice
        self._random = random.getstate(), np.random.get_state()  # noqa: NPY002
        stack = list(roots)
        while stack and len(self._seen) < _MOST:
            value = stack.pop()
            if id(value) not in self._seen:
                self._seen[id(value)] = value
                stack.extend(self._keep(value))

    def restore(self, *, random_numbers: bool = True) -> None:
        """Put everything back."""
        for undo in reversed(self._undo):
            undo()
        if random_numbers:
            self.restore_random_numbers()

    def restore_random_numbers(self) -> None:
        """Put back what ``random`` and NumPy draw next."""
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])  # noqa: NPY002

    def _keep(self, value: Any) -> Iterator[Any]:
        """Note how one object is put back, and yield what it refers to."""
        if isinstance(value, np.ndarray):
            if value.dtype == object:
                yield from value.ravel()
            if value.flags.writeable:
                self._note(value, value.copy(), _fill)
        elif isinstance(value, list):
            self._note(value, list(value), lambda old, kept: old.__setitem__(slice(None), kept))
            yield from value
        elif isinstance(value, dict):
            self._note(value, dict(value), _refill)
            yield from value.values()
        elif isinstance(value, set):
            self._note(value, set(value), lambda old, kept: (old.clear(), old.update(kept)))
        elif isinstance(value, tuple):
            yield from value
        elif isinstance(value, MethodType):
            yield from (value.__self__, value.__func__)
        elif isinstance(value, FunctionType):
            yield from self._keep_function(value)
        elif isinstance(value, np.random.Generator):
            state = value.bit_generator.state
            self._note(value, state, lambda old, kept: setattr(old.bit_generator, "state", kept))
        elif isinstance(value, np.random.RandomState):
            self._note(value, value.get_state(), lambda old, kept: old.set_state(kept))
        elif isinstance(value, random.Random):
            self._note(value, value.getstate(), lambda old, kept: old.setstate(kept))
        elif isinstance(value, ModuleType | BuiltinFunctionType | CodeType):
            return
        elif hasattr(value, "detach") and hasattr(value, "clone"):  # a tensor of PyTorch
            grad = value.grad if getattr(value, "is_leaf", True) else None
            kept = value.detach().clone(), None if grad is None else grad.detach().clone()
            self._note(value, kept, _fill_tensor)
        elif isinstance(value, type):
            if _is_users(value.__module__):
                yield from self._keep_class(value)
        else:
            yield from self._keep_attributes(value)

    def _note(self, value: Any, kept: Any, put: Callable[[Any, Any], Any]) -> None:
        self._undo.append(lambda: put(value, kept))

    def _keep_function(self, function: FunctionType) -> Iterator[Any]:
        yield function.__defaults__
        yield function.__kwdefaults__
        yield from vars(function).values()
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            self._note(cell, content, lambda old, kept: setattr(old, "cell_contents", kept))
            yield content
        names = function.__globals__
        if _is_users(function.__module__):
            for name in _global_names(function.__code__):
                if name in names:
                    self._note(names, (name, names[name]), lambda old, kept: old.update([kept]))
                    yield names[name]
                else:  # a global that the step may be the first to set
                    self._note(names, name, lambda old, kept: old.pop(kept, None))

    def _keep_class(self, cls: type) -> Iterator[Any]:
        for name, value in list(vars(cls).items()):
            if isinstance(value, FunctionType | staticmethod | classmethod | property):
                yield getattr(value, "__func__", getattr(value, "fget", value))
            elif not name.startswith("__"):
                self._note(cls, (name, value), lambda old, kept: setattr(old, *kept))
                yield value

    def _keep_attributes(self, value: Any) -> Iterator[Any]:
        yield type(value)
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._note(attributes, dict(attributes), _refill)
            yield from attributes.values()
        for name in getattr(type(value), "__slots__", ()):
            if isinstance(name, str) and hasattr(value, name):
                self._note(
                    value, (name, getattr(value, name)), lambda old, kept: setattr(old, *kept)
                )
                yield getattr(value, name)


def _fill(array: np.ndarray[Any, Any], kept: np.ndarray[Any, Any]) -> None:
    if array.shape == kept.shape and array.flags.writeable:
        array[...] = kept


def _fill_tensor(tensor: Any, kept: tuple[Any, Any]) -> None:
    values, grad = kept
    tensor.data.copy_(values)
    if getattr(tensor, "is_leaf", True):
        tensor.grad = grad


def _refill(old: dict[Any, Any], kept: Mapping[Any, Any]) -> None:
    old.clear()
    old.update(kept)


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _global_names(part)


def _is_users(module: str | None) -> bool:
    """Whether a module is a program's and not an installed library."""
    found = sys.modules.get(module or "")
    file = str(getattr(found, "__file__", "") or "")
    installed = "site-packages" in file or "dist-packages" in file or "/lib/python" in file
    return (
        not installed
        and not (module or "").startswith("fullback.")
        and (bool(file) or module in ("__main__", None) or found is None)
    )
