"""How a user's forward and backward functions want to be called, found out by trying.

Names of arguments are looked at first; where they say nothing, the usual orders are tried.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fullback.check.arrays import to_numpy
from fullback.check.layer.returned import ReturnedError, named_gradients, on_object, own_parameters
from fullback.check.layer.signatures import (
    CallInputs,
    CallSignature,
    Ran,
    backward_signatures,
    forward_signatures,
)
from fullback.errors import OptionError
from fullback.layers.base import Array


class PlainLayer:
    """A user's layer: two functions, or an object with two methods, and how they are called."""

    def __init__(
        self, forward: Any, backward: Callable[..., Any] | None, options: Mapping[str, Any]
    ) -> None:
        self.object: Any = None
        if backward is None:
            if not (hasattr(forward, "forward") and hasattr(forward, "backward")):
                raise OptionError(
                    "check_layer takes two functions, forward and backward, or an object with "
                    f"methods of these names, got {forward!r} alone"
                )
            if inspect.isclass(forward):
                raise OptionError(
                    f"check_layer takes an object, not the class: give {forward.__name__}(...)"
                )
            self.object, forward, backward = forward, forward.forward, forward.backward
        for name, function in (("forward", forward), ("backward", backward)):
            if not callable(function):
                raise OptionError(f"{name} must be a function, got {function!r}")
        self.forward, self.backward, self.options = forward, backward, dict(options)
        self.forward_signature = CallSignature("forward", ("x",))
        self.backward_signature = CallSignature("backward", ("dy",))
        # parameters that are not passed, but held by the functions
        self.live: dict[str, Array] = {}

    @property
    def takes_cache(self) -> bool:
        """Whether backward is handed what forward kept."""
        return bool({"cache", "*cache"} & set(self.backward_signature.words))

    def hold(self, users: Mapping[str, Array], params: Any) -> None:
        """Note where the parameters lie that forward is not handed."""
        handed = any(word.startswith("parameter") for word in self.forward_signature.words)
        self.live = {} if handed else _originals(users, params, self.object)

    def hold_for(self, parameters: Mapping[str, Array], users: Mapping[str, Array]) -> None:
        """Note where an object's parameters lie, before it is known how forward is called."""
        if users and self.object is not None:
            self.live = _originals(parameters, None, self.object)

    def run(self, inputs: CallInputs) -> Ran:
        """Run forward; the arrays are passed as they are."""
        self._place(inputs)
        return _ran(self.forward_signature.call(self.forward, inputs, None, None, self.options))

    def _place(self, inputs: CallInputs) -> None:
        for name, array in self.live.items():
            array[...] = inputs.parameters[name]

    def fresh(self, inputs: CallInputs, dy: Array) -> dict[str, Array]:
        """Run forward and backward on copies; what backward adds to is subtracted again."""
        first = {n: np.array(a) for n, a in self.gradients(inputs.copy(), dy.copy()).items()}
        second = {n: np.array(a) for n, a in self.gradients(inputs.copy(), dy.copy()).items()}
        return {
            name: value if np.array_equal(value, second[name]) else second[name] - value
            for name, value in first.items()
        }

    def gradients(self, inputs: CallInputs, dy: Array) -> dict[str, Array]:
        """Run forward and backward; the arrays are passed as they are."""
        return self.back(inputs, self.run(inputs), dy)

    def back(self, inputs: CallInputs, ran: Ran, dy: Array) -> dict[str, Array]:
        """Run backward behind a forward pass."""
        returned = self.backward_signature.call(self.backward, inputs, ran, dy, self.options)
        found = named_gradients(returned, inputs.x, inputs.parameters)
        if self.object is not None:
            found = {**on_object(self.object, inputs.parameters), **found}
        return found

    def find_forward(self, inputs: CallInputs) -> Ran:
        """Find how forward is called, and run it.

        Raises
        ------
        OptionError
            No way of calling it works; the message lists what was tried.
        """
        tried = []
        for signature in forward_signatures(self.forward, inputs, self.options):
            if not signature.fits(self.forward):
                tried.append(f"{signature}: it takes other arguments")
                continue
            try:
                with np.errstate(all="ignore"):
                    self._place(inputs)
                    ran = _ran(
                        signature.call(self.forward, inputs.copy(), None, None, self.options)
                    )
            except Exception as error:  # noqa: BLE001 -- whatever the user's function raises
                tried.append(f"{signature}: {_short(error)}")
            else:
                self.forward_signature = signature
                return ran
        raise OptionError(_not_callable("forward", self.forward, tried))

    def backward_signatures(self, inputs: CallInputs) -> list[CallSignature]:
        """Return every way of calling backward that works.

        Raises
        ------
        OptionError
            There is none; the message lists what was tried.
        """
        tried, working = [], []
        for signature in backward_signatures(
            self.backward, inputs, self.run(inputs.copy()), self.options
        ):
            if not signature.fits(self.backward):
                continue
            handed = inputs.copy()
            ran = self.run(handed)
            dy = np.ones_like(ran.y)
            self.backward_signature = signature
            try:
                with np.errstate(all="ignore"):
                    found = self.back(handed, ran, dy)
            except Exception as error:  # noqa: BLE001 -- whatever the user's function raises
                tried.append(f"{signature}: {_short(error)}")
            else:
                if found and signature.certain:
                    return [signature]
                working += [signature] if found else []
                tried += [] if found else [f"{signature}: returned no gradients"]
        if not working:
            raise OptionError(_not_callable("backward", self.backward, tried))
        return working


def _originals(names: Mapping[str, Array], params: Any, layer: Any) -> dict[str, Array]:
    """Return the arrays that a function or an object reads its parameters from."""
    if layer is not None:
        held = own_parameters(layer)
    elif isinstance(params, Mapping):
        held = dict(params)
    else:
        values = list(params) if isinstance(params, list | tuple) else [params]
        held = dict(zip(names, values, strict=False))
    return {
        name: array
        for name, array in held.items()
        if name in names and isinstance(array, np.ndarray) and array.dtype.kind == "f"
    }


def _ran(returned: Any) -> Ran:
    cache, has_cache = None, False
    if isinstance(returned, tuple | list) and len(returned) > 1:
        cache, has_cache = (returned[1] if len(returned) == 2 else tuple(returned[1:])), True
        returned = returned[0]
    y = to_numpy(returned)
    if y.dtype.kind != "f":
        raise ReturnedError(f"returned {_described(returned)}, not an array of floats")
    return Ran(y, cache, has_cache)


def _not_callable(name: str, function: Callable[..., Any], tried: Sequence[str]) -> str:
    try:
        called = f"{getattr(function, '__name__', name)}{inspect.signature(function)}"
    except (TypeError, ValueError):
        called = repr(function)
    attempts = "; ".join(tried) or "no usual order of arguments fits"
    usual = (
        "forward(x), forward(x, w, b) or forward(x, params), returning y or (y, cache)"
        if name == "forward"
        else "backward(dy), backward(dy, cache) or backward(dy, x, w, b), returning dx, (dx, dw, "
        "db) or a dict"
    )
    return f"cannot call {called}: {attempts}. The usual forms are {usual}"


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:100]}" if lines else type(error).__name__


def _described(value: Any) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
