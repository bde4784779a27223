"""What a step returned, or made of the weights, that is like the weights but for some shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullback.check.diagnose.containers import is_array, is_gradient, leaves
from fullback.check.diagnose.layouts import squeezed
from fullback.check.diagnose.names import plain_words
from fullback.layers.base import Array, Shape

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Misshapen:
    """Arrays that stand for the weights, some of them in a wrong shape.

    Attributes
    ----------
    told : what is wrong with which
    rest : those in the right shape, by the names of the weights
    summed : whether all that is wrong is an axis of the images too many, in every array told of
    gradients : whether all have names of gradients
    """

    told: str
    rest: dict[str, Array]
    summed: bool
    gradients: bool = False


def left_misshapen(after: Arrays, before: Arrays, images: int) -> Misshapen | None:
    """Return what is wrong with the shapes of the weights after a step, if anything is."""
    wrong = {
        key: array
        for key, array in after.items()
        if key in before and squeezed(array.shape) != squeezed(before[key].shape)
    }
    if not wrong:
        return None
    told = [
        f"{key} has shape {array.shape} after it where it had {before[key].shape}"
        for key, array in wrong.items()
    ]
    summed = [_extended(array.shape, before[key].shape, images) for key, array in wrong.items()]
    rest = {key: array for key, array in after.items() if key in before and key not in wrong}
    return Misshapen(_listed(told, summed), rest, all(summed))


def returned_misshapen(result: Any, before: Arrays, images: int) -> Misshapen | None:
    """Return the part of what a step returned that is likest to the weights, if one nearly is."""
    parts = [result]
    if isinstance(result, list | tuple):
        parts += [*(part for part in result if isinstance(part, Mapping | list | tuple))]
        parts += [result[1:], result[:-1]]
    elif isinstance(result, Mapping):
        parts += [part for part in result.values() if isinstance(part, Mapping | list | tuple)]
    found = [one for part in parts if (one := _compared(part, before, images)) is not None]
    return max(found, key=lambda one: len(one.rest), default=None)


def _compared(part: Any, before: Arrays, images: int) -> Misshapen | None:
    if len(before) < 2 or not isinstance(part, Mapping | list | tuple):
        return None
    pairs = _pairs(list(leaves(part)), before)
    rest: dict[str, Array] = {}
    told: list[str] = []
    summed: list[bool] = []
    for key, (name, value) in pairs.items():
        shape = before[key].shape
        if is_array(value) and np.size(value) == before[key].size:
            rest[key] = np.array(value)
            continue
        told.append(_fault(name, value, key, shape))
        summed.append(is_array(value) and _extended(np.shape(value), shape, images))
    if not told or 2 * (len(rest) + sum(summed)) < len(before):
        return None
    gradients = all(is_gradient(name) for name, _ in pairs.values() if name)
    return Misshapen(_listed(told, summed), rest, all(summed), gradients)


def _pairs(found: list[tuple[str, Any]], before: Arrays) -> dict[str, tuple[str, Any]]:
    """Return what stands for each weight, by its name or else by its place; "" where nothing is."""
    named = {}
    for key in before:
        words = plain_words(key)
        alike = [one for one in found if words and plain_words(one[0])[-len(words) :] == words]
        if alike and any(word.isalpha() for word in words):
            named[key] = min(alike, key=lambda one: len(one[0]))
    if named:
        return {key: named.get(key, ("", None)) for key in before}
    if len(found) == len(before):
        return dict(zip(before, found, strict=True))
    return {}


def _fault(name: str, value: Any, key: str, shape: Shape) -> str:
    if not name:
        return f"nothing stands for {key} of shape {shape}"
    name = name if any(c.isalpha() for c in name) else f"what stands for {key}"
    if value is None:
        return f"{name} is None where {key} has shape {shape}"
    number = (
        " is one number, of shape ()," if np.ndim(value) == 0 else f" has shape {_shape(value)}"
    )
    return f"{name}{number} where {key} has {shape}"


def _shape(value: Any) -> Shape:
    return tuple(np.shape(value))


def _extended(shape: Shape, wanted: Shape, images: int) -> bool:
    """Whether a shape is that which is wanted and an axis of the images."""
    return images > 1 and any(
        n == images and squeezed((*shape[:i], *shape[i + 1 :])) == squeezed(wanted)
        for i, n in enumerate(shape)
    )


def _listed(told: list[str], summed: list[bool]) -> str:
    if not any(summed):
        return ", ".join(told)
    hint = "the sum over the batch is missing? If it takes one image at a time, give x and y of one"
    return f"{', '.join(told)}: {hint}"
