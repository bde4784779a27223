"""Ways of calling a user's forward and backward functions.

Names of arguments are looked at first; where they say nothing, the usual orders are tried.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fullback.check.layer.words import (
    BIAS,
    CACHE,
    DELTA,
    DICT,
    INPUT,
    LABELS,
    OPTIONS,
    OUTPUT,
    WEIGHT,
)
from fullback.layers.base import Array


@dataclass(frozen=True)
class CallInputs:
    """What a layer is called with: its input, its parameters by name, and labels for a loss."""

    x: Array
    parameters: Mapping[str, Array]
    labels: Array | None = None

    def copy(self) -> CallInputs:
        """Return copies, which may be written to."""
        parameters = {name: array.copy() for name, array in self.parameters.items()}
        return CallInputs(
            self.x.copy(), parameters, None if self.labels is None else self.labels.copy()
        )


@dataclass(frozen=True)
class Ran:
    """What a forward function returned."""

    y: Array
    cache: Any
    has_cache: bool


@dataclass(frozen=True)
class CallSignature:
    """A way of calling: a word for every argument, in order."""

    name: str
    words: tuple[str, ...]
    keywords: tuple[tuple[str, str], ...] = ()
    certain: bool = False  # an argument's name says that it takes what forward kept

    def __str__(self) -> str:
        words = [word.removeprefix("parameter:") for word in self.words]
        return f"{self.name}({', '.join([*words, *(f'{key}=...' for key, _ in self.keywords)])})"

    def fits(self, function: Callable[..., Any]) -> bool:
        """Whether a function takes so many arguments."""
        if "*cache" in self.words:
            return True  # it shows when it is called
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # a built-in function may have none
            return True
        try:
            signature.bind(*self.words, **dict(self.keywords))
        except TypeError:
            return False
        return True

    def call(
        self,
        function: Callable[..., Any],
        inputs: CallInputs,
        ran: Ran | None,
        dy: Array | None,
        options: Mapping[str, Any],
    ) -> Any:
        """Call a function in this way."""
        arguments: list[Any] = []
        for word in self.words:
            if word == "*cache" and ran is not None:
                arguments.extend(ran.cache)
            else:
                arguments.append(_value(word, inputs, ran, dy, options))
        named = {key: _value(word, inputs, ran, dy, options) for key, word in self.keywords}
        return function(*arguments, **named)


def _value(
    word: str, inputs: CallInputs, ran: Ran | None, dy: Array | None, options: Mapping[str, Any]
) -> Any:
    if word.startswith("parameter:"):
        return inputs.parameters[word.removeprefix("parameter:")]
    if word.startswith("option:"):
        return options[word.removeprefix("option:")]
    values: dict[str, Any] = {"x": inputs.x, "labels": inputs.labels, "dy": dy}
    values["parameters"] = dict(inputs.parameters)
    if ran is not None:
        values |= {"y": ran.y, "cache": ran.cache}
    value = values[word]
    return value[()] if word in ("dy", "y") and value.ndim == 0 else value


def forward_signatures(
    function: Callable[..., Any], inputs: CallInputs, options: Mapping[str, Any]
) -> Iterator[CallSignature]:
    """Yield ways of calling a forward function, the likelier ones first."""
    parameters = tuple(f"parameter:{name}" for name in inputs.parameters)
    labels = ("labels",) if inputs.labels is not None else ()
    orders: list[tuple[str, ...]] = [("x", *labels, *parameters)]
    if parameters:
        orders += [("x", *labels, "parameters"), ("x", *labels)]
    yield from _signatures("forward", function, orders, inputs, False, options)


def backward_signatures(
    function: Callable[..., Any], inputs: CallInputs, ran: Ran, options: Mapping[str, Any]
) -> Iterator[CallSignature]:
    """Yield ways of calling a backward function, the likelier ones first."""
    parameters = tuple(f"parameter:{name}" for name in inputs.parameters)
    orders: list[tuple[str, ...]] = []
    if inputs.labels is not None:
        orders += [(), ("x", "labels"), ("y", "labels"), ("dy", "x", "labels")]
    if ran.has_cache:
        orders += [("dy", "cache"), ("cache",) if inputs.labels is not None else ("cache", "dy")]
        if isinstance(ran.cache, tuple | list):
            orders += [("dy", "*cache"), ("*cache",)]
        if parameters:
            orders += [("dy", "cache", *parameters), ("dy", "cache", "parameters")]
        if inputs.labels is not None:
            orders += [("cache", "labels"), ("dy", "cache", "labels")]
    if parameters:
        orders += [("dy", "x", *parameters), ("dy", "x", parameters[0]), ("dy", "x", "parameters")]
        orders += [("x", *parameters, "dy"), ("x", parameters[0], "dy")]
    orders += [("dy",), ("dy", "x"), ("dy", "y"), ("x", "dy"), ("y", "dy"), ("dy", "x", "y")]
    yield from _signatures("backward", function, orders, inputs, ran.has_cache, options)


def _signatures(
    name: str,
    function: Callable[..., Any],
    orders: Sequence[tuple[str, ...]],
    inputs: CallInputs,
    has_cache: bool,
    options: Mapping[str, Any],
) -> Iterator[CallSignature]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a built-in function may have none
        yield from (CallSignature(name, words) for words in orders)
        return
    seen = set()
    for call in (
        _by_name(name, signature, inputs, has_cache, options),
        *(CallSignature(name, words, _keywords(signature, options)) for words in orders),
    ):
        if call is None or call in seen:
            continue
        seen.add(call)
        yield call


def _keywords(
    signature: inspect.Signature, options: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """Return the options that a function takes, by its own name for each."""
    accepted = []
    for name, parameter in signature.parameters.items():
        word = _option(name, options)
        if word is not None and parameter.default is not parameter.empty:
            accepted.append((name, f"option:{word}"))
    return tuple(accepted)


def _option(name: str, options: Mapping[str, Any]) -> str | None:
    name = name.lower()
    for word in (
        name,
        OPTIONS.get(name, name),
        "size" if name == "kernel_size" else name,
    ):
        if word in options:
            return word
    return None


def _by_name(
    name: str,
    signature: inspect.Signature,
    inputs: CallInputs,
    has_cache: bool,
    options: Mapping[str, Any],
) -> CallSignature | None:
    """Return the way that the names of a function's arguments tell, if all of them do."""
    words: list[str] = []
    known = {argument.lower(): argument for argument in inputs.parameters}
    weights = [argument for argument, array in inputs.parameters.items() if array.ndim > 1]
    biases = [argument for argument, array in inputs.parameters.items() if array.ndim == 1]
    for position, (argument, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return None
        if parameter.default is not parameter.empty:
            continue
        lower = argument.lower()
        if inputs.labels is not None and lower in LABELS and not (name == "backward" and not words):
            word = "labels"
        elif name == "forward" and position == 0:
            word = "x"
        elif lower in known:
            word = f"parameter:{known[lower]}"
        elif lower in DICT:
            word = "parameters"
        elif lower in WEIGHT and len(inputs.parameters) > 0:
            word = f"parameter:{(weights or list(inputs.parameters))[0]}"
        elif lower in BIAS and biases:
            word = f"parameter:{biases[-1]}"
        elif name == "backward" and lower in DELTA:
            word = "dy"
        elif name == "backward" and lower in CACHE and has_cache:
            word = "cache"
        elif name == "backward" and lower in INPUT:
            word = "x"
        elif name == "backward" and lower in OUTPUT:
            word = "y"
        elif (option := _option(lower, options)) is not None:
            word = f"option:{option}"
        else:
            return None
        words.append(word)
    if name == "backward" and inputs.labels is None and "dy" not in words:
        return None
    return CallSignature(name, tuple(words), _keywords(signature, options), "cache" in words)
