"""Mistakes in a layer's gradients that show whatever the layer does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fullback.check.layer.plain_layer import PlainLayer
from fullback.check.layer.signatures import CallInputs
from fullback.check.layer.slopes import Measured, Slopes
from fullback.layers.base import Array


def plain_mistake(
    layer: PlainLayer,
    name: str,
    gradient: Array,
    inputs: CallInputs,
    dy: Array,
    axis: int,
    slopes: Slopes,
    measured: Sequence[Measured],
) -> tuple[str, str] | None:
    """Name the mistake in a wrong gradient.

    Parameters
    ----------
    layer : the layer
    name, gradient : "dx", or a parameter's; and what backward returned
    inputs, dy : what it was called with
    axis : which axis of x and y counts the images
    slopes, measured : the truth

    Returns
    -------
    mistake : the catalogue's id and a sentence, or None
    """

    def right(other: Array) -> bool:
        return slopes.verdict(other, measured).wrong is None

    if right(-gradient):
        return "sign-flipped", f"{name} has the wrong sign"
    count = inputs.x.shape[axis] if inputs.x.ndim else 1
    if count < 2:
        return None
    if right(gradient / count):
        return "batch-scale", f"{name} is {count} times too large: a sum over the batch for a mean"
    if right(gradient * count):
        return "batch-scale", f"{name} is {count} times too small: divided by the batch once more"
    if inputs.labels is not None or dy.ndim < inputs.x.ndim or dy.shape[axis] != count:
        return None
    alone = _one_by_one(layer, name, inputs, dy, axis)
    if alone is None:
        return None
    last = np.zeros_like(dy)
    at = _image(axis, count - 1)
    last[at] = dy[at]
    of_last = Slopes(layer, inputs, last, layer.run(inputs.copy()).y)
    places = [one.place for one in measured if one.place is not None]
    if (
        of_last.verdict(gradient, of_last.measure(name, places, np.random.default_rng(0))).wrong
        is None
    ):
        return "last-sample-only", f"{name} is that of the batch's last image alone"
    if right(alone):
        return (
            "images-mixed",
            f"{name} is right for every image alone, and wrong for the batch of them",
        )
    return None


def _one_by_one(
    layer: PlainLayer, name: str, inputs: CallInputs, dy: Array, axis: int
) -> Array | None:
    """Return a gradient made of the images' own; None where an image does not stand alone."""
    y = layer.run(inputs.copy()).y
    gradients = []
    for n in range(inputs.x.shape[axis]):
        at = _image(axis, n)
        image = CallInputs(inputs.x[at], inputs.parameters)
        try:
            alone = layer.run(image.copy()).y
            if alone.shape != y[at].shape or not np.allclose(alone, y[at], rtol=1e-6, atol=1e-9):
                return None
            gradients.append(layer.fresh(image, dy[at])[name])
        except Exception:  # noqa: BLE001 -- a layer may want batches
            return None
    whole = np.concatenate(gradients, axis=axis) if name == "dx" else np.sum(gradients, axis=0)
    shape = (inputs.x if name == "dx" else inputs.parameters[name[1:]]).shape
    return whole.reshape(shape) if whole.size == np.prod(shape, dtype=int) else None


def _image(axis: int, n: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(n, n + 1))
