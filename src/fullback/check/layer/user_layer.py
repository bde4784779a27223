"""A user's layer: two functions, or an object, run on fresh copies of all that they are given."""

from __future__ import annotations

import contextlib
import copy
import inspect
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullback.check.arrays import to_numpy
from fullback.check.layer.calls import (
    BIAS,
    OPTIONS,
    RATE,
    WEIGHT,
    CallInputs,
    CallSignature,
    Ran,
    bare,
    option_named,
    signatures,
)
from fullback.check.layer.returned import (
    UserError,
    attributes_of,
    named_gradients,
    on_object,
    plain_list,
)
from fullback.errors import OptionError
from fullback.layers.base import Array

_FORWARD = """forward forward_pass forward_propagation forward_prop feedforward feed_forward fprop
    fwd call apply loss __call__"""
_BACKWARD = """backward backward_pass backprop back_prop backward_propagation backward_prop
    backpropagation backpropagate bprop bwd gradient grad"""
_NOT_TRAINED = ("running", "moving", "mean", "var", "mask", "cache", "input", "output", "velocity")


@dataclass
class Instance:
    """A copy of the layer, for one run: its functions, and the object behind."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    object: Any


class UserLayer:
    """How a layer is called, and what it computes.

    Attributes
    ----------
    parameters : those that an object holds, or that were given, by name, in float64
    forward_signature, backward_signature : how its functions are called
    rate : learning rate that backward is handed, or that the object has
    blur : how far rounding leaves a gradient off that was a change of a parameter
    notes : what is worth knowing
    """

    def __init__(
        self, forward: Any, backward: Callable[..., Any] | None, params: Any, rate: float | None
    ) -> None:
        self.object, self._names = _methods(forward, backward)
        self._functions: Any = None if self.object is not None else (forward, backward)
        self.forward_signature = CallSignature("forward", ("x",))
        self.backward_signature = CallSignature("backward", ("dy",))
        self.notes: list[str] = []
        self.blur: dict[str, float] = {}
        self._paths: dict[str, tuple[Any, ...]] = {}
        self._originals: dict[str, Array] = {}  # arrays that functions read from outside
        if self.object is not None and params is None:
            self._paths = dict(_held(self.object))
            params = self._kept(self.object)
        values = params if params is not None else {}
        if not isinstance(values, Mapping):
            several = values if isinstance(values, list | tuple) else [values]
            values = dict(zip(("w", "b", "p3", "p4", "p5", "p6"), several, strict=False))
        elif self._functions is not None:
            self._originals = {n: a for n, a in values.items() if isinstance(a, np.ndarray)}
        self.parameters: dict[str, Array] = {str(name): value for name, value in values.items()}
        self.rate = rate if rate is not None else _rate_of(self.object)
        self._generators = _generators(*(self._functions or ()))
        self._states = [copy.deepcopy(g.bit_generator.state) for g in self._generators]

    # Running ----------------------------------------------------------------------------------

    def instance(self) -> Instance:
        """Return a fresh copy."""
        if self._functions is not None:
            return Instance(self._functions[0], self._functions[1], None)
        try:
            one = copy.deepcopy(self.object)
        except Exception:  # noqa: BLE001 -- locks, generators, handles cannot be copied
            one, note = self.object, "the object cannot be copied, and was used as it is"
            self.notes += [note] * (note not in self.notes)
        forward, backward = (getattr(one, name) for name in self._names)
        return Instance(forward, backward, one)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Bring arrays and generators that the functions share with the user back at the end."""
        shared = dict(self._kept(self.object))
        before = {name: array.copy() for name, array in shared.items()}
        try:
            yield
        finally:
            for name, array in shared.items():
                if not np.array_equal(array, before[name]):
                    array[...] = before[name]
            for generator, state in zip(self._generators, self._states, strict=True):
                generator.bit_generator.state = state

    def run(self, inputs: CallInputs, on: Instance) -> Ran:
        """Run forward; the arrays are passed as they are, and random draws start afresh."""
        np.random.seed(0)  # noqa: NPY002 -- what users' dropout draws from
        states = [*zip(self._generators, self._states, strict=True)]
        for key, value in attributes_of(on.object).items():
            if isinstance(value, np.random.Generator):
                states.append((value, copy.deepcopy(getattr(self.object, key).bit_generator.state)))
        for generator, state in states:
            generator.bit_generator.state = state
        for name, array in self._live(on).items():
            array[...] = inputs.parameters[name]
        with _users_errors():
            return _ran(self.forward_signature.call(on.forward, inputs))

    def back(self, inputs: CallInputs, ran: Ran, dy: Array, on: Instance) -> dict[str, Array]:
        """Run backward behind a forward pass, and return the gradients by name.

        Where it changes the parameters itself, their gradient is the change, divided by the rate.
        """
        before = {n: np.array(a) for n, a in {**inputs.parameters, **self._live(on)}.items()}
        handed = "rate" in self.backward_signature.takes
        rate = 1.0 if handed and self.rate is None else self.rate
        with _users_errors():
            returned = self.backward_signature.call(on.backward, inputs, ran, dy, rate or 1.0)
        found = named_gradients(returned, inputs.x, inputs.parameters)
        if on.object is not None:
            found = {**on_object(on.object, inputs.parameters), **found}
        after = {**inputs.parameters, **self._live(on)}
        changed = {n for n, array in after.items() if not np.array_equal(array, before[n])}
        if changed and rate is None:
            note = f"backward changes {', '.join(changed)} at a rate that is not known: give lr=..."
            self.notes += [note] * (note not in self.notes)
        elif rate is not None and (handed or (changed and self._paths)):
            for name, array in after.items():
                if name in changed or f"d{name}" not in found:
                    found[f"d{name}"] = (before[name] - array) / rate
                    size = max(np.abs(before[name]).max(), np.abs(array).max())
                    self.blur[f"d{name}"] = float(2 * np.finfo(array.dtype).eps * size / rate)
        return {name: np.array(value, np.float64) for name, value in found.items()}

    def output(self, inputs: CallInputs) -> Array:
        """Run forward on copies."""
        return self.run(inputs.copy(), self.instance()).y

    def gradients(self, inputs: CallInputs, dy: Array) -> dict[str, Array]:
        """Run forward and backward on copies."""
        handed, on = inputs.copy(), self.instance()
        return self.back(handed, self.run(handed, on), np.array(dy), on)

    @property
    def updates(self) -> bool:
        """Whether backward changes parameters."""
        return "rate" in self.backward_signature.takes or self.rate is not None

    def allocate(self, inputs: CallInputs) -> bool:
        """Run forward on an object that makes its weights then; return whether it did."""
        on = self.instance()
        self.run(inputs.copy(), on)
        self._paths = dict(_held(on.object)) if on.object is not None else {}
        if self._paths:
            self.object = on.object
            kept = self._kept(self.object)
            self.parameters = {n: np.array(a, np.float64) for n, a in kept.items()}
        return bool(self._paths)

    def keep(self, names: Collection[str]) -> None:
        """Forget parameters of other names: the kind has none of them."""
        for held in (self.parameters, self._paths, self._originals):
            for name in held.keys() - names:
                del held[name]

    @property
    def has_parameters(self) -> bool:
        """Whether forward is handed parameters, or reads some."""
        return self._handed or bool(self._paths) or bool(self._originals)

    @property
    def _handed(self) -> bool:
        """Whether forward is handed parameters."""
        return any(slot.startswith("parameter") for slot in self.forward_signature.takes)

    def _kept(self, layer: Any) -> dict[str, Array]:
        """Return the parameters that an object keeps, or else those that functions read outside."""
        if layer is None:
            return self._originals
        return {name: _at(layer, path) for name, path in self._paths.items()}

    def _live(self, on: Instance) -> dict[str, Array]:
        """Return the arrays that the functions read their parameters from, if not handed them."""
        return {} if self._handed else self._kept(on.object)

    # Finding out how ----------------------------------------------------------------------------

    def find_forward(self, inputs: CallInputs) -> Ran:
        """Find how forward is called, and run it.

        Raises
        ------
        OptionError
            No way of calling it works; the message lists what was tried.
        """
        tried: list[str] = []
        function = self.instance().forward
        for signature in signatures("forward", function, inputs):
            self.forward_signature = signature
            try:
                return self.run(inputs.copy(), self.instance())
            except UserError as error:
                tried.append(f"{signature}: {error}")
        raise OptionError(_not_callable("forward", function, tried))

    def backward_signatures(self, inputs: CallInputs) -> list[CallSignature]:
        """Return every way of calling backward that works.

        Raises
        ------
        OptionError
            There is none; the message lists what was tried.
        """
        tried, working = [], []
        ran, function = self.run(inputs.copy(), self.instance()), self.instance().backward
        for signature in signatures("backward", function, inputs, ran):
            self.backward_signature = signature
            try:
                found = self.gradients(inputs, np.ones_like(ran.y))
            except UserError as error:
                if signature.certain and not isinstance(
                    error.__cause__, TypeError | AttributeError
                ):
                    return [signature]  # it is called rightly: the error is the function's
                tried.append(f"{signature}: {error}")
                continue
            if found and signature.certain:
                return [signature]
            working += [signature] if found else []
            tried += [] if found else [f"{signature}: returned no gradients"]
        if not working:
            raise OptionError(_not_callable("backward", function, tried))
        return working


def _methods(forward: Any, backward: Any) -> tuple[Any, tuple[str, str]]:
    """Return the object behind the functions, or None, and the names of its methods."""
    if backward is None:
        found = [
            next((n for n in names.split() if callable(getattr(forward, n, None))), "")
            for names in (_FORWARD, _BACKWARD)
        ]
        if inspect.isclass(forward):
            raise OptionError(
                f"check_layer takes an object, not the class: give {forward.__name__}(...)"
            )
        if not all(found) or isinstance(forward, types.FunctionType):
            raise OptionError(
                "check_layer takes two functions, forward and backward, or an object with methods "
                f"of these names, got {forward!r} alone"
            )
        return forward, (found[0], found[1])
    for name, function in (("forward", forward), ("backward", backward)):
        if not callable(function):
            raise OptionError(f"{name} must be a function, got {function!r}")
    owner = getattr(forward, "__self__", None)
    if owner is not None and owner is getattr(backward, "__self__", None):
        return owner, (forward.__name__, backward.__name__)
    return None, ("", "")


def _held(layer: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the parameters that a layer's object keeps: name, and the path that leads there."""
    places: list[tuple[str, tuple[Any, ...]]] = []
    for key, value in attributes_of(layer).items():
        if bare(key) in ("params", "parameters", "weights") and isinstance(value, Mapping):
            places += [(str(inner), (key, inner)) for inner in value]
        elif bare(key) in ("params", "parameters") and isinstance(value, list):
            names = ("w", "b", "p3", "p4")
            places += [(n, (key, m)) for m, n in zip(range(len(value)), names, strict=False)]
        elif hasattr(value, "grad") and isinstance(getattr(value, "data", None), np.ndarray):
            places.append((key, (key, "data")))
        else:
            places.append((key, (key,)))
    arrays = [(n, p) for n, p in places if isinstance(a := _at(layer, p), np.ndarray)
              and a.dtype.kind == "f" and a.ndim > 0]  # fmt: skip
    named = [(n, p) for n, p in arrays if bare(n) in WEIGHT | BIAS]
    if not named:
        named = [(n, p) for n, p in arrays if not any(w in bare(n) for w in _NOT_TRAINED)]
        named = [(n, p) for n, p in named if not n.lower().startswith(("d", "grad"))]
    yield from sorted(named, key=lambda one: bare(one[0]) in BIAS)


def _at(layer: Any, path: Sequence[Any]) -> Any:
    value = getattr(layer, path[0])
    for step in path[1:]:
        value = getattr(value, step) if step == "data" else value[step]
    return value


def _rate_of(layer: Any) -> float | None:
    """Return the learning rate that an object keeps."""
    held = list(attributes_of(layer).items())
    for _, value in list(held):  # an optimizer's
        held += attributes_of(value).items() if hasattr(value, "__dict__") else []
    found = [v for k, v in held if bare(k) in RATE - {"rate"}]
    rates = [float(v) for v in found if isinstance(v, int | float) and v > 0]
    return rates[0] if rates else None


def options_of(layer: Any) -> dict[str, Any]:
    """Return the options that an object keeps as attributes: stride, padding, size, ..."""
    named = [(option_named(k, OPTIONS), v) for k, v in attributes_of(layer).items() if len(k) > 1]
    return {n: tuple(v) if isinstance(v, list) else v for n, v in reversed(named) if n in OPTIONS}


def _generators(*functions: Any) -> list[np.random.Generator]:
    """Return the random generators that functions draw from: global ones, and those around."""
    values: list[Any] = []
    for function in functions:
        with contextlib.suppress(TypeError, ValueError):  # a built-in function has none
            outside = inspect.getclosurevars(function)
            values += [*outside.nonlocals.values(), *outside.globals.values()]
    return list({id(v): v for v in values if isinstance(v, np.random.Generator)}.values())


def _ran(returned: Any) -> Ran:
    cache, has_cache = None, False
    returned = plain_list(returned)
    if isinstance(returned, tuple | list) and len(returned) > 1:
        cache, has_cache = (returned[1] if len(returned) == 2 else tuple(returned[1:])), True
        returned = returned[0]
    y = to_numpy(returned)
    if y.dtype.kind != "f":
        kind = f"an array of {y.dtype}" if isinstance(returned, np.ndarray) else None
        raise UserError(f"returned {kind or type(returned).__name__}, not an array of floats")
    return Ran(y, cache, has_cache)


def _not_callable(name: str, function: Callable[..., Any], tried: Sequence[str]) -> str:
    try:
        called = f"{getattr(function, '__name__', name)}{inspect.signature(function)}"
    except (TypeError, ValueError):
        called = repr(function)
    attempts = "; ".join(tried[:6]) or "no usual order of arguments fits"
    usual = (
        "forward(x), forward(x, w, b) or forward(x, params), returning y or (y, cache)"
        if name == "forward"
        else "backward(dy), backward(dy, cache), backward(dy, x, w, b) or backward(dy, lr), "
        "returning dx, (dx, dw, db) or a dict"
    )
    return f"cannot call {called}: {attempts}. The usual forms are {usual}"


@contextlib.contextmanager
def _users_errors() -> Iterator[None]:
    """Turn whatever a user's function raises into a UserError of one line."""
    try:
        yield
    except (UserError, OptionError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        name = type(error).__name__
        raise UserError(f"{name}: {lines[0][:100]}" if lines else name) from error
