"""Mistakes in a dense layer and in Flatten.

Stages: "delta", "weight" (which weights the delta meets) and "out" for the next delta; "delta",
"input" (which activations it meets) and "out" for the weights; "delta", "rule", "out" for the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fullback.check.mistakes.base import Change, Mutant, Stages, same
from fullback.check.mistakes.common import delta_mutants, gradient_mutants, last_for_all
from fullback.check.mistakes.layer_pass import Scene
from fullback.layers.base import Array


def _product(scene: Scene, dy: Array, _: Array) -> Array:
    product: Array = dy @ scene.parameters["weight"]
    return product


def _outer(scene: Scene, dy: Array, _: Array) -> Array:
    product: Array = dy.T @ scene.x
    return product


DELTA: Stages = (("delta", same), ("weight", _product), ("out", same))
WEIGHT: Stages = (("delta", same), ("input", _outer), ("out", same))
BIAS: Stages = (("delta", same), ("rule", lambda s, v, dy: v.sum(axis=0)), ("out", same))


def _early(scene: Scene, dy: Array, _: Array) -> Array:
    weight = scene.parameters["weight"] - scene.rate * (dy.T @ scene.x)
    product: Array = dy @ weight
    return product


def _not_transposed(scene: Scene, dy: Array, _: Array) -> Array:
    product: Array = dy @ scene.parameters["weight"].T
    return product


def mutants(scene: Scene) -> Iterator[Mutant]:
    """Yield the mutants of a dense layer."""
    units, features = scene.parameters["weight"].shape
    if units == features and units > 1:
        yield Mutant(
            "rows-columns-swapped",
            "delta",
            "weight",
            _not_transposed,
            "the weight matrix was transposed where it must not be, or the other way round",
        )
        yield Mutant(
            "rows-columns-swapped",
            "weight",
            "out",
            lambda s, v, dy: v.T,
            "the gradient is transposed",
        )
    yield Mutant(
        "weights-updated-early",
        "delta",
        "weight",
        _early,
        "the delta was taken through weights that had been updated already",
        "rate",
    )
    yield from delta_mutants(scene)
    yield from inputs(scene, _with_input)
    yield from gradient_mutants(scene, "weight")
    if "bias" in scene.parameters:
        if scene.images > 1:
            yield Mutant(
                "bias-averaged",
                "bias",
                "out",
                lambda s, v, dy: v / s.images,
                "it was averaged over the batch, where the delta already holds 1 / N",
            )
        yield from gradient_mutants(scene, "bias")


def _with_input(scene: Scene, x: Array, dy: Array) -> Array:
    return _outer(replace(scene, x=x), dy, dy)


def inputs(scene: Scene, product: Callable[[Scene, Array, Any], Any]) -> Iterator[Mutant]:
    """Yield weight gradients from other inputs; ``product`` makes one from scene, x and delta."""

    def met(name: str, order: tuple[int, ...] | None = None) -> Change:
        def change(s: Scene, v: Any, dy: Array) -> Any:
            x = s.activations[name]
            x = x if order is None else x.transpose(order)
            return product(s, x if x.ndim == s.x.ndim else x.reshape(len(s.x), -1), v)

        return change

    for name, other in scene.activations.items():
        if name != scene.before and other.shape[1:] == scene.x.shape[1:]:
            yield Mutant(
                "wrong-cached-input",
                "weight",
                "input",
                met(name),
                f"the delta met the output of {name} in place of that of {scene.before}",
            )
    for name, other in scene.activations.items():
        reordered = other.ndim == 4 and scene.x.ndim == 2 and other[0].size == scene.x[0].size
        if not reordered:
            continue
        if min(other.shape[1], max(other.shape[2:])) > 1 and np.array_equal(
            other.reshape(len(other), -1), scene.x
        ):
            yield Mutant(
                "flatten-order",
                "weight",
                "input",
                met(name, (0, 2, 3, 1)),
                "the features it met were flattened in the order row, column, channel",
            )
        elif not np.array_equal(other.reshape(len(other), -1), scene.x):
            yield Mutant(
                "wrong-cached-input",
                "weight",
                "input",
                met(name),
                f"the delta met the output of {name} in place of that of {scene.before}",
            )
    if scene.images > 1:
        yield Mutant(
            "cache-overwritten",
            "weight",
            "input",
            lambda s, v, dy: product(s, last_for_all(s.x), v),
            "the last image's input stood in the cache for every image",
        )


# Flatten ----------------------------------------------------------------------------------------

FLATTEN: Stages = (("rule", lambda s, v, dy: v.reshape(s.x.shape)), ("out", same))


def _channels_last(scene: Scene, dy: Array, _: Array) -> Array:
    n, c, h, w = scene.x.shape
    return dy.reshape(n, h, w, c).transpose(0, 3, 1, 2)


def _as_channels_last(scene: Scene, dy: Array, _: Array) -> Array:
    n, c, h, w = scene.x.shape
    return dy.reshape(n, c, h, w).transpose(0, 2, 3, 1).reshape(n, c, h, w)


def _columns_first(scene: Scene, dy: Array, _: Array) -> Array:
    n, c, h, w = scene.x.shape
    return dy.reshape(n, c, w, h).swapaxes(2, 3)


def _images_last(scene: Scene, dy: Array, _: Array) -> Array:
    return np.moveaxis(dy.reshape(*scene.x.shape[1:], -1), -1, 0)


def _images_inside(scene: Scene, dy: Array, _: Array) -> Array:
    return np.ascontiguousarray(dy.T).reshape(scene.x.shape)


def flatten_mutants(scene: Scene) -> Iterator[Mutant]:
    """Yield the mutants of Flatten, whose right way back is a reshape."""
    if scene.x.ndim == 4:
        if scene.x.shape[1] > 1:
            yield Mutant(
                "flatten-order",
                "delta",
                "rule",
                _channels_last,
                "it was folded back as row, column, channel, and not as channel, row, column",
            )
            yield Mutant(
                "flatten-order",
                "delta",
                "rule",
                _as_channels_last,
                "it was reordered from channels first to channels last, and not moved back",
            )
        yield Mutant(
            "flatten-order",
            "delta",
            "rule",
            _columns_first,
            "it was folded back column by column, and not row by row",
        )
        if scene.images > 1:
            yield Mutant(
                "images-mixed",
                "delta",
                "rule",
                _images_last,
                "it was folded back with the images as the last axis",
            )
            yield Mutant(
                "images-mixed",
                "delta",
                "rule",
                _images_inside,
                "features by images were folded back as if they were images by features",
            )
