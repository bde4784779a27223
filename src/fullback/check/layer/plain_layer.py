"""How somebody's forward and backward functions want to be called, found out by trying.

Names of arguments are looked at first; where they say nothing, the usual orders are tried.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fullback.check.layer.returned import ReturnedError, named_gradients, on_object, own_parameters
from fullback.check.layer.signatures import Given, Ran, Way, backward_ways, forward_ways
from fullback.errors import OptionError
from fullback.layers.base import Array


class PlainLayer:
    """Somebody's layer: two functions, or an object with two methods, and how they are called."""

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
        self.forward_way = Way("forward", ("x",))
        self.backward_way = Way("backward", ("dy",))
        self.live: dict[str, Array] = {}  # parameters that are not handed over, but held by them

    @property
    def takes_cache(self) -> bool:
        """Whether backward is handed what forward kept."""
        return bool({"cache", "*cache"} & set(self.backward_way.words))

    def hold(self, own: Mapping[str, Array], params: Any) -> None:
        """Note where the parameters lie that forward is not handed."""
        handed = any(word.startswith("parameter") for word in self.forward_way.words)
        self.live = {} if handed else _originals(own, params, self.object)

    def hold_for(self, theirs: Mapping[str, Array], own: Mapping[str, Array]) -> None:
        """Note where an object's parameters lie, before it is known how forward is called."""
        if own and self.object is not None:
            self.live = _originals(theirs, None, self.object)

    def run(self, given: Given) -> Ran:
        """Run forward; the arrays are handed over as they are."""
        self._place(given)
        return _ran(self.forward_way.call(self.forward, given, None, None, self.options))

    def _place(self, given: Given) -> None:
        for name, array in self.live.items():
            array[...] = given.parameters[name]

    def fresh(self, given: Given, dy: Array) -> dict[str, Array]:
        """Run forward and backward on copies; what backward adds to is taken off again."""
        first = {n: np.array(a) for n, a in self.gradients(given.copy(), dy.copy()).items()}
        second = {n: np.array(a) for n, a in self.gradients(given.copy(), dy.copy()).items()}
        return {
            name: value if np.array_equal(value, second[name]) else second[name] - value
            for name, value in first.items()
        }

    def gradients(self, given: Given, dy: Array) -> dict[str, Array]:
        """Run forward and backward; the arrays are handed over as they are."""
        return self.back(given, self.run(given), dy)

    def back(self, given: Given, ran: Ran, dy: Array) -> dict[str, Array]:
        """Run backward behind a forward pass."""
        returned = self.backward_way.call(self.backward, given, ran, dy, self.options)
        found = named_gradients(returned, given.x, given.parameters)
        if self.object is not None:
            found = {**on_object(self.object, given.parameters), **found}
        return found

    def find_forward(self, given: Given) -> Ran:
        """Find how forward is called, and run it.

        Raises
        ------
        OptionError
            No way of calling it works; the message lists what was tried.
        """
        tried = []
        for way in forward_ways(self.forward, given, self.options):
            if not way.fits(self.forward):
                tried.append(f"{way}: it takes other arguments")
                continue
            try:
                with np.errstate(all="ignore"):
                    self._place(given)
                    ran = _ran(way.call(self.forward, given.copy(), None, None, self.options))
            except Exception as error:  # noqa: BLE001 -- whatever their function raises
                tried.append(f"{way}: {_short(error)}")
            else:
                self.forward_way = way
                return ran
        raise OptionError(_no_way("forward", self.forward, tried))

    def backward_ways(self, given: Given) -> list[Way]:
        """Return every way of calling backward that works.

        Raises
        ------
        OptionError
            There is none; the message lists what was tried.
        """
        tried, working = [], []
        for way in backward_ways(self.backward, given, self.run(given.copy()), self.options):
            if not way.fits(self.backward):
                continue
            own = given.copy()
            ran = self.run(own)
            dy = np.ones_like(ran.y)
            self.backward_way = way
            try:
                with np.errstate(all="ignore"):
                    found = self.back(own, ran, dy)
            except Exception as error:  # noqa: BLE001 -- whatever their function raises
                tried.append(f"{way}: {_short(error)}")
            else:
                if found and way.certain:
                    return [way]
                working += [way] if found else []
                tried += [] if found else [f"{way}: returned no gradients"]
        if not working:
            raise OptionError(_no_way("backward", self.backward, tried))
        return working


def _originals(own: Mapping[str, Array], params: Any, layer: Any) -> dict[str, Array]:
    """Return the arrays that a function or an object reads its parameters from."""
    if layer is not None:
        held = own_parameters(layer)
    elif isinstance(params, Mapping):
        held = dict(params)
    else:
        values = list(params) if isinstance(params, list | tuple) else [params]
        held = dict(zip(own, values, strict=False))
    return {
        name: array
        for name, array in held.items()
        if name in own and isinstance(array, np.ndarray) and array.dtype.kind == "f"
    }


def _ran(returned: Any) -> Ran:
    cache, has_cache = None, False
    if isinstance(returned, tuple | list) and len(returned) > 1:
        cache, has_cache = (returned[1] if len(returned) == 2 else tuple(returned[1:])), True
        returned = returned[0]
    y = np.asarray(returned.detach().cpu() if hasattr(returned, "detach") else returned)
    if y.dtype.kind != "f":
        raise ReturnedError(f"returned {_described(returned)}, not an array of floats")
    return Ran(y, cache, has_cache)


def _no_way(name: str, function: Callable[..., Any], tried: Sequence[str]) -> str:
    try:
        own = f"{getattr(function, '__name__', name)}{inspect.signature(function)}"
    except (TypeError, ValueError):
        own = repr(function)
    attempts = "; ".join(tried) or "no usual order of arguments fits"
    usual = (
        "forward(x), forward(x, w, b) or forward(x, params), returning y or (y, cache)"
        if name == "forward"
        else "backward(dy), backward(dy, cache) or backward(dy, x, w, b), returning dx, (dx, dw, "
        "db) or a dict"
    )
    return f"cannot call {own}: {attempts}. The usual forms are {usual}"


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:100]}" if lines else type(error).__name__


def _described(value: Any) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
