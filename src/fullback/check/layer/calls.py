"""Ways of calling a user's forward and backward functions: by the names of arguments, or by trying.

What an argument takes is its *slot*: "x", "dy", "cache", "y", "labels", "rate" (a learning rate),
"training", "parameter:w", "parameters" (all by name), "parameter list", "option:stride", "options"
(all by name), and "*cache" for what forward kept, unpacked.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fullback.layers.base import Array


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names without underscores, without digits at their end, in lower case.
DELTA = _words(
    "d dy dout g gy dz da dh upstream dldy dldout dlogits doutput dloss dvalues dldt dldz"
)
INPUT = _words("x xs input inputs inp image images aprev a data xin features logits z prev")
CACHE = _words("cache ctx context kept memory saved state cached stash tape residuals res")
WEIGHT = _words("w weight weights kernel kernels filter filters gamma f theta k")
BIAS = _words("b bias biases beta")
DICT = _words("params parameters param")
OUTPUT = _words("y a out output outputs p probs probabilities s yhat ypred")
LABELS = _words("labels label t target targets ytrue y onehot yonehot truth gt")
RATE = _words("lr learningrate learnrate learningr alpha eta rate stepsize lrate")
TRAINING = _words("training train istraining istrain trainflg trainflag trainmode trainingmode")
OPTIONS = {
    "padding": "padding pad p pads padsize",
    "stride": "stride s strides step",
    "size": "size f k kernelsize poolsize pool ksize filtersize poolh poolw poolheight poolwidth",
    "epsilon": "epsilon eps e",
    "rate": "rate p droprate dropprob dropoutratio dropout dropoutrate ratio prob",
    "keep": "keepprob keep keeprate pkeep",
    "mode": "mode",
    "slope": "slope alpha negativeslope leak leakiness a",
    "axis": "axis",
}
"""Names of options, by the names that the kinds have."""
_SPELLINGS = {
    "padding": "pad padding p",
    "stride": "stride s",
    "size": "f size pool_size kernel_size k pool_height pool_width pool_h pool_w",
    "epsilon": "eps epsilon",
    "rate": "p rate dropout_rate dropout_ratio",
    "keep": "keep_prob",
}  # under which a dict of options holds each
_MOST = 60  # ways that are tried


def bare(name: str) -> str:
    """Return a name without underscores, without digits at its end, in lower case."""
    return re.sub(r"(?<=.)\d+$", "", name.lower().replace("_", ""))


@dataclass(frozen=True)
class CallInputs:
    """What a layer is called with: x, parameters by name, labels, options by the kinds' names."""

    x: Array
    parameters: Mapping[str, Array]
    labels: Array | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def copy(self) -> CallInputs:
        """Return copies, which may be written to."""
        parameters = {name: array.copy() for name, array in self.parameters.items()}
        labels = None if self.labels is None else self.labels.copy()
        return CallInputs(self.x.copy(), parameters, labels, self.options)


@dataclass(frozen=True)
class Ran:
    """What a forward function returned."""

    y: Array
    cache: Any = None
    has_cache: bool = False


@dataclass(frozen=True)
class CallSignature:
    """A way of calling: a slot for every argument in order, and for every keyword."""

    name: str
    slots: tuple[str, ...]
    keywords: tuple[tuple[str, str], ...] = ()
    certain: bool = False  # every argument's name says what it takes

    def __str__(self) -> str:
        words = [slot.partition(":")[2] or slot for slot in self.slots]
        return f"{self.name}({', '.join([*words, *(f'{key}=...' for key, _ in self.keywords)])})"

    @property
    def takes(self) -> frozenset[str]:
        """The slots in use."""
        return frozenset([*self.slots, *(slot for _, slot in self.keywords)])

    def options(self, known: Collection[str]) -> set[str]:
        """Return which options a function is handed, of those that are known."""
        if "options" in self.takes:
            return set(known)
        return {slot.partition(":")[2] for slot in self.takes if slot.startswith("option:")}

    def call(
        self,
        function: Callable[..., Any],
        inputs: CallInputs,
        ran: Ran | None = None,
        dy: Array | None = None,
        rate: float = 1.0,
    ) -> Any:
        """Call a function in this way, with copies of nothing."""
        arguments: list[Any] = []
        for slot in self.slots:
            if slot == "*cache" and ran is not None:
                arguments.extend(ran.cache)
            else:
                arguments.append(_value(slot, inputs, ran, dy, rate))
        named = {key: _value(slot, inputs, ran, dy, rate) for key, slot in self.keywords}
        return function(*arguments, **named)


def _value(slot: str, inputs: CallInputs, ran: Ran | None, dy: Array | None, rate: float) -> Any:
    kind, _, name = slot.partition(":")
    if kind == "parameter":
        return inputs.parameters[name]
    if kind == "option":
        return inputs.options[name]
    if slot == "options":
        spelled = {
            word: value
            for name, value in inputs.options.items()
            for word in (name, *_SPELLINGS.get(name, "").split())
        }
        return {"mode": "train", **spelled}
    if slot == "parameters":
        return _spelled(inputs.parameters)
    values: dict[str, Any] = {"x": inputs.x, "labels": inputs.labels, "dy": dy, "rate": rate}
    values |= {"training": True, "parameter list": list(inputs.parameters.values())}
    if ran is not None:
        values |= {"y": ran.y, "cache": ran.cache}
    value = values[slot]
    return value[()] if slot in ("dy", "y", "labels") and value.ndim == 0 else value


def _spelled(parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Return parameters by name; where they are "w" and "b", under every usual one."""
    named = dict(parameters)
    for name, words in (("w", "W weight weights kernel W1"), ("b", "B bias biases b1")):
        if name in parameters and set(parameters) <= {"w", "b"}:
            named |= dict.fromkeys(words.split(), parameters[name])
    return named


def option_named(argument: str, options: Mapping[str, Any]) -> str | None:
    """Return the option that an argument's or attribute's name means, of those that there are."""
    for option, words in OPTIONS.items():
        if option in options and bare(argument) in words.split():
            return option
    return argument if argument in options else None


def signatures(
    name: str, function: Callable[..., Any], inputs: CallInputs, ran: Ran | None = None
) -> Iterator[CallSignature]:
    """Yield ways of calling, the likelier ones first: "forward", or, behind a pass, "backward"."""
    free = _slots(inputs, ran)
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a built-in function may have none
        yield from (CallSignature(name, tuple(free[:count])) for count in (1, 2, 3))
        return
    plain = [a for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    required = [a.name for a in plain if a.default is a.empty]
    needed = [a.name for a in arguments if a.kind is a.KEYWORD_ONLY and a.default is a.empty]
    meanings = {a.name: _meanings(name, a.name, inputs, ran) for a in arguments}
    optional = [a.name for a in arguments if a.default is not a.empty]
    keywords = tuple((a, meanings[a][0]) for a in (*optional, *needed) if meanings[a])
    keywords = tuple(
        (a, slot) for a, slot in keywords if a in needed or slot not in ("x", "dy", "y", "cache")
    )
    seen: set[tuple[str, ...]] = set()
    several = any(a.kind is a.VAR_POSITIONAL for a in arguments)
    certain = all(len(meanings[a]) == 1 for a in required) and not several
    for by_name in (True, False) if ran is not None or not certain else (True,):
        choices = [(by_name and meanings[a]) or _other(free, meanings[a]) for a in required]
        for slots in _distinct(choices):
            if slots not in seen and len(seen) < _MOST * (2 - by_name):
                seen.add(slots)
                if several:
                    more = tuple(p for p in free if p.startswith("parameter:") and p not in slots)
                    yield CallSignature(name, (*slots, *more), keywords)
                yield CallSignature(name, slots, keywords, certain and by_name)
    if ran is not None and isinstance(ran.cache, tuple | list):
        if len(ran.cache) + 1 == len(required) or several:
            yield CallSignature(name, ("dy", "*cache"), keywords)
        if len(ran.cache) == len(required):
            yield CallSignature(name, ("*cache",), keywords)


def _slots(inputs: CallInputs, ran: Ran | None) -> list[str]:
    """Return what an argument can take whose name says nothing, the likelier first."""
    parameters = [f"parameter:{name}" for name in inputs.parameters]
    labels = ["labels"] if inputs.labels is not None else []
    rest = ["parameters", "parameter list"] if parameters else []
    if ran is None:
        return ["x", *labels, *parameters, *rest]
    cache = ["cache"] if ran.has_cache else []
    if labels:
        return [*cache, "x", *labels, "y", *parameters, *rest, "dy"]
    return ["dy", *cache, "x", *parameters, "y", *rest]


def _other(free: Sequence[str], meant: Sequence[str]) -> list[str]:
    """Return what an argument can take against its name: no output for x, and no input for y.

    A formula that is wrong of its own argument would be right of the other.
    """
    return [slot for slot in free if {slot, *meant} != {"x", "y"}]


def _distinct(choices: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Yield one slot an argument, no slot twice."""
    if not choices:
        yield ()
        return
    for slot in choices[0]:
        rest = [[s for s in choice if s != slot] for choice in choices[1:]]
        yield from ((slot, *others) for others in _distinct(rest))


def _meanings(name: str, argument: str, inputs: CallInputs, ran: Ran | None) -> list[str]:
    """Return the slots that an argument's name can mean; none where it says nothing."""
    word, parameters = bare(argument), inputs.parameters
    known = {bare(p): p for p in parameters} | {p.lower(): p for p in parameters}
    weights = [p for p, a in parameters.items() if a.ndim > 1 or p == "w"] or list(parameters)
    backward, found = name == "backward", []
    if inputs.labels is not None and word in LABELS:
        found.append("labels")
    if argument.lower() in known or word in known:
        found.append(f"parameter:{known.get(argument.lower(), known.get(word))}")
    elif option_named(argument, inputs.options) is not None:
        found.append(f"option:{option_named(argument, inputs.options)}")
    elif word in DICT and parameters:
        found += ["parameters", "parameter list"]
    elif word in WEIGHT and weights:
        found.append(f"parameter:{weights[0]}")
    elif word in BIAS and len(parameters) > 1:
        found.append(f"parameter:{list(parameters)[-1]}")
    elif re.search(r"^hparam|hyper|(conv|pool|bn|drop|dropout|batchnorm)param|^config|^opt", word):
        found.append("options")
    elif word in TRAINING:
        found.append("training")
    elif backward and word in RATE:
        found.append("rate")
    elif backward and word in CACHE and ran is not None and ran.has_cache:
        found.append("cache")
    elif backward and (word in DELTA or re.search("grad|delta|err|^d[lejc]?d?(out|y|z|a)", word)):
        found.append("dy")
    if not found or (found == ["labels"] and backward):
        found += ["x"] * (word in INPUT)
        found += ["y"] * (backward and word in OUTPUT and inputs.labels is None)
        found += ["parameters", "parameter list"] * (word == "p" and bool(parameters))
    return found
