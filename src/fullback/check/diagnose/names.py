"""A user's names, matched to the network's: "W1", "fc1.weight", "conv1_w".

A name is matched exactly; else by the words and the number in it; else by its order among names of
its kind; else by its shape, where only one of the network's can have it. Of deltas and activations,
z1 and a1 are what the first layer with weights computes, before and after its activation.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fullback.check.arrays import is_numeric, to_numpy
from fullback.errors import InputError, OptionError
from fullback.layers import LAYERS
from fullback.layers.base import Array, Shape

_WEIGHT = {"w", "weight", "weights", "kernel", "kernels", "filter", "filters", "f", "k", "theta"}
_WEIGHT |= {"coef", "coefs"}
_BIAS = {"b", "bias", "biases", "beta", "intercept", "intercepts"}
_STATE = {"vel", "mom", "vd", "sd", "md", "vw", "vb", "mw", "mb", "sw", "sb", "vdw", "vdb", "sdw"}
_STATE |= {"sdb", "adam"}
_NOISE = {"d", "grad", "grads", "gradient", "gradients", "delta", "deltas", "dl", "dloss", "g"}
_NOISE |= {"layer", "layers", "param", "params", "out", "output", "y", "a", "act", "activation"}
_DIFFERENTIAL = {"grad", "grads", "gradient", "gradients", "delta", "deltas", "dl", "dloss"}
_KINDS = {
    "conv": "conv", "convolution": "conv", "conv2d": "conv", "c": "conv", "cnn": "conv",
    "dense": "dense", "fc": "dense", "linear": "dense", "lin": "dense", "affine": "dense",
    "full": "dense", "fully": "dense", "ip": "dense",
    "relu": "relu", "r": "relu", "pool": "pool", "maxpool": "pool", "p": "pool", "mp": "pool",
    "maxpool2d": "pool", "avgpool2d": "avgpool", "avg": "avgpool", "meanpool": "avgpool",
    "flat": "flatten", "flatten": "flatten", "reshape": "flatten", "drop": "dropout",
    "bn": "batchnorm", "norm": "batchnorm", "batchnorm2d": "batchnorm", "sig": "sigmoid",
    "in": "input", "input": "input", "x": "input", "image": "input", "images": "input",
    "logits": "logits", "logit": "logits", "scores": "logits", "z": "logits", "loss": "logits",
}  # fmt: skip
_ACTIVATIONS = {kind for kind, layer in LAYERS.items() if layer.gain is not None}
_LISTED = 4  # names or guesses, at most, in one message


def as_array(name: str, value: Any) -> Array:
    """Take a user's array, of any library.

    Raises
    ------
    InputError
        It is not an array of numbers.
    """
    try:
        array = to_numpy(value)
    except (ValueError, TypeError):  # PyTorch's bfloat16 is among what NumPy does not know
        array = np.asarray(None)
    if not is_numeric(array):
        unknown = array.dtype.kind == "O"
        dtype = getattr(value, "dtype", None) if unknown else array.dtype
        kind = type(value).__name__ if dtype in (None, object) else f"an array of {dtype}"
        kind = "None" if value is None else kind
        raise InputError(f"{name} must be an array of numbers, got {kind}")
    return array


def words_of(name: str) -> list[str]:
    """Split a name into its words and numbers: "dConv1_W" is conv, 1, w."""
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    text = re.sub(r"\bd(?=[A-Z])", "d ", text)
    words = re.findall(r"[a-z]+|\d+", re.sub(r"2d\b", " ", text.lower(), flags=re.IGNORECASE))
    known = {*_KINDS, *_WEIGHT, *_BIAS, *_NOISE}
    split: list[str] = []
    for word in words:
        if word[0] == "d" and word not in known and word[1:] in known - _NOISE:
            split.append(word[1:])  # dw, db, dconv
        else:
            split.append(word)
    return split


def plain_words(name: str) -> list[str]:
    """Return the words and numbers of a name but those that every name may have: dW1 is w, 1."""
    return [word for word in words_of(name) if word not in _NOISE]


def is_weight(name: str) -> bool:
    """Whether a name is that of weights."""
    return bool(_WEIGHT & set(words_of(name)))


def is_bias(name: str) -> bool:
    """Whether a name is that of biases."""
    return bool(_BIAS & set(words_of(name)))


def is_state(name: str) -> bool:
    """Whether a name is that of an optimizer's state: v_weights, m.W1, velocity, VdW1."""
    words = [*words_of(name), ""]
    pairs = itertools.pairwise(words)
    return any(
        word in _STATE
        or word.startswith(("moment", "veloc", "cache"))
        or (word in ("v", "m", "s") and not after.isdigit())
        for word, after in pairs
    )


def _plain(name: str) -> tuple[str, ...]:
    """Return a name's words without those that only say that it is a gradient."""
    return tuple(word for word in words_of(name) if word != "d" and word not in _DIFFERENTIAL)


class Names:
    """Finds the network's name among ``shapes`` for each of a user's.

    Parameters
    ----------
    what : what the arrays are, for messages: "gradient", "delta", "activation"
    shapes : the network's names and shapes, in the order of the network
    images : N, where shapes come with a batch axis, else None
    """

    def __init__(self, what: str, shapes: Mapping[str, Shape], images: int | None) -> None:
        self.what = what
        self.shapes = dict(shapes)
        self.images = images
        self.guessed: list[str] = []  # a user's names, matched by their shape alone

    def match(self, arrays: Mapping[str, Array]) -> dict[str, str]:
        """Return the network's name for each of a user's.

        Raises
        ------
        OptionError
            A name is not recognised, or two of them are the same one of the network's.
        """
        self.guessed.clear()
        self._parts = {name: self._parts_of(name) for name in arrays}
        found = {name: name for name in arrays if name in self.shapes}
        by_name = (self._by_suffix, self._by_stage, self._by_words, self._by_order)
        for rule in (*by_name, self._by_shape, self._by_place):
            rest = {k: v for k, v in arrays.items() if k not in found}
            if rule == self._by_shape:
                self._refuse_twins(rest, found)
            free = [known for known in self.shapes if known not in found.values()]
            for name, known in rule(rest, free).items():
                if known not in found.values() and self._fits(known, arrays[name]):
                    found[name] = known
        unknown = {name: array for name, array in arrays.items() if name not in found}
        if unknown:
            for rule in by_name:
                self._refuse_second(rule(unknown, list(self.shapes)), unknown, found)
            raise OptionError(self._unknown(list(unknown), arrays, list(found.values())))
        return found

    def _fits(self, known: str, array: Array) -> bool:
        return array.size == int(np.prod(self.shapes[known])) * (self.images or 1)

    def _refuse_twins(self, rest: Mapping[str, Array], found: Mapping[str, str]) -> None:
        """Raise OptionError where a name is another one but for a gradient's prefix: dW1 and W1."""
        known_by = {_plain(name): known for name, known in found.items()}
        claims = self._by_stage(rest, list(self.shapes))
        claims |= {name: known_by[_plain(name)] for name in rest if _plain(name) in known_by}
        self._refuse_second(claims, rest, found)

    def _refuse_second(
        self, claims: Mapping[str, str], rest: Mapping[str, Array], found: Mapping[str, str]
    ) -> None:
        """Raise OptionError where a name claims what another one has been found to be."""
        names = {known: name for name, known in found.items()}
        for name, known in claims.items():
            if known in names and self._fits(known, rest[name]):
                raise OptionError(
                    f"both {name} and {names[known]} are {known}: give one {self.what} of it alone"
                )

    def _by_suffix(self, rest: Mapping[str, Array], free: list[str]) -> dict[str, str]:
        found = {}
        for name in rest:
            ends = [
                known
                for known in free
                if name.lower().endswith((f".{known}", f"_{known}", f"/{known}"))
            ]
            if len(ends) == 1:
                found[name] = ends[0]
        return found

    def _by_words(self, rest: Mapping[str, Array], free: list[str]) -> dict[str, str]:
        """Match the kind and the number; numbers may count from 0, or over all layers of a kind."""
        found = {}
        for name in rest:
            kind, number, role = self._parts[name]
            if kind is None:
                continue
            same = [
                known
                for known in self.shapes
                if self._kind(known) == kind and role in (None, self._role(known))
            ]
            if kind == "logits":
                same = [list(self.shapes)[-1]]
            same_kind = {n for k, n, r in self._parts.values() if k == kind and r == role}
            if None in same_kind and len(same_kind) > 1 and 0 not in same_kind:
                # dense, dense_1, dense_2
                same_kind = {n or 0 for n in same_kind}
                number = number or 0
            numbers = sorted(n for n in same_kind if n is not None)
            if number is None:
                chosen = same if len(same) == 1 else []
            else:
                direct = [known for known in same if self._number(known) == number]
                if 0 in numbers or not direct or max(numbers) > len(same):
                    places = sorted({self._number(known) for known in same})
                    direct_places = 0 in numbers and max(numbers) < len(places)
                    place = number if direct_places else numbers.index(number)
                    wanted = places[place] if place < len(places) else None
                    direct = [known for known in same if self._number(known) == wanted]
                chosen = direct
            if len(chosen) == 1 and chosen[0] in free:
                found[name] = chosen[0]
        return found

    def _by_stage(self, rest: Mapping[str, Array], free: list[str]) -> dict[str, str]:
        """Match z1 and a1, before and after the activation of the first layer with weights."""
        if self.images is None:
            return {}
        places: dict[str, tuple[str, int]] = {}
        for name in self._parts:
            match words_of(name.removeprefix("delta").removeprefix("grad")):
                case ["d", "z" | "a" as what, number] | ["z" | "a" as what, number]:
                    if number.isdigit():
                        places[name] = what, int(number)
        stages = self._stages()
        first = 0 if ("z", 0) in places.values() else 1
        found = {}
        for name, (stage, place) in places.items():
            known = stages.get((stage, place - first)) or ("input" if place == 0 else "")
            if name in rest and known in free:
                found[name] = known
        return found

    def _stages(self) -> dict[tuple[str, int], str]:
        """Return what z and a of each layer with weights are, counted from 0."""
        stages: dict[tuple[str, int], str] = {}
        count = -1
        for known in self.shapes:
            if self._kind(known) in ("conv", "dense"):
                count += 1
                stages["z", count] = known
            elif self._kind(known) in _ACTIVATIONS:
                stages.setdefault(("a", count), known)
        return stages

    def _by_order(self, rest: Mapping[str, Array], free: list[str]) -> dict[str, str]:
        """Match W1, W2, ... with the layers that have weights, in order."""
        found = {}
        numbered = {name: (n, r) for name, (_, n, r) in self._parts.items() if n is not None}
        everything = sorted({n for n, _ in numbered.values()})
        for role in ("weight", "bias"):
            mine = {name: n for name, (n, r) in numbered.items() if name in rest and r == role}
            known = [name for name in self.shapes if self._role(name) == role]
            numbers = sorted(set(mine.values()))
            for name, number in mine.items():
                if len(numbers) == len(known):
                    place = numbers.index(number)
                elif len(everything) == len(known):
                    place = everything.index(number)
                else:
                    place = number - (0 if 0 in numbers else 1)
                if 0 <= place < len(known) and known[place] in free:
                    found[name] = known[place]
        return found

    def _by_shape(self, rest: Mapping[str, Array], free: list[str]) -> dict[str, str]:
        """Match what can only be one: no other has as many cells, or its role."""
        found: dict[str, str] = {}
        left = dict(rest)
        while True:  # each match may leave only one possibility for another name
            used = set(found.values())
            sure: dict[str, str] = {}
            for name, array in left.items():
                role = self._parts[name][2]
                fitting = [
                    known
                    for known in free
                    if known not in used
                    and self._fits(known, array)
                    and role in (None, self._role(known))
                ]
                if len(fitting) == 1 and fitting[0] not in sure.values():
                    sure[name] = fitting[0]
            if not sure:
                break
            found |= sure
            left = {name: array for name, array in left.items() if name not in found}
        self.guessed += list(found)
        return found

    def _by_place(self, rest: Mapping[str, Array], free: list[str]) -> dict[str, str]:
        """Match what stands in the network's order, forwards or backwards, and fits throughout."""
        weights = [known for known in free if self._role(known) != "bias"]
        biases = [known for known in free if self._role(known) == "bias"]
        for order in (free, weights + biases, weights):
            for known in (order, order[::-1]):
                pairs = dict(zip(rest, known, strict=False))
                if len(rest) == len(known) and all(
                    self._fits(known, rest[name]) for name, known in pairs.items()
                ):
                    self.guessed += list(pairs)
                    return pairs
        return {}

    def _parts_of(self, name: str) -> tuple[str | None, int | None, str | None]:
        """Return (kind, number, role) as far as a name says them."""
        kind = number = role = None
        for word in words_of(name):
            if word.isdigit():
                number = int(word) if number is None else number
            elif word in _WEIGHT and self.images is None:
                role = "weight"
            elif word in _BIAS and self.images is None:
                role = "bias"
            elif word in _KINDS:
                kind = kind or _KINDS[word]
            elif any(self._kind(known) == word for known in self.shapes):
                kind = kind or word
        return kind, number, role

    @staticmethod
    def _kind(known: str) -> str:
        return re.sub(r"\d+$", "", known.split(".")[0])

    @staticmethod
    def _number(known: str) -> int:
        return int((re.findall(r"\d+$", known.split(".")[0]) or ["1"])[0])

    @staticmethod
    def _role(known: str) -> str:
        return known.split(".")[-1] if "." in known else ""

    def _unknown(
        self, names: Sequence[str], arrays: Mapping[str, Array], used: Sequence[str]
    ) -> str:
        """Say which names are not recognised, and what each may be."""
        free = [known for known in self.shapes if known not in used]
        lines = []
        for name in names[:_LISTED]:
            fitting = [known for known in free if self._fits(known, arrays[name])]
            likeness = {
                known: difflib.SequenceMatcher(None, name, known).ratio()
                for known in fitting or self.shapes
            }
            top = max(likeness.values())
            alike = top >= (0.4 if fitting else 0.6)
            near = (
                [known for known, ratio in likeness.items() if ratio == top] if alike else fitting
            )
            guess = f": did you mean {' or '.join(map(repr, near))}?" if 0 < len(near) <= 2 else ""
            lines.append(f"{name!r} (shape {arrays[name].shape}){guess}")
        more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return (
            f"no {self.what} is called {', nor '.join(lines)}{more}. Use the network's names: "
            f"{', '.join(self.shapes)}"
        )
