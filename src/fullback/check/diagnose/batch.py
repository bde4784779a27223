"""A user's images and labels, in the network's form."""

from __future__ import annotations

from typing import Any

import numpy as np

from fullback.check.arrays import is_numeric, to_numpy
from fullback.check.axes import arranged
from fullback.errors import OptionError
from fullback.layers.base import Array, Shape
from fullback.model import Model
from fullback.options import short

FORMS = ("NCHW", "NHW", "HW", "CHW", "NHWC", "HWC", "NF", "F", "HWCN", "CHWN", "HWN", "FN")
"""The forms that programs take images in, by the letters of their axes; F is all of an image."""


def require_network(caller: str, net: object) -> None:
    """Raise OptionError unless ``net`` is a network."""
    if not isinstance(net, Model):
        raise OptionError(
            f"{caller}: net must be a network, like fb.Network.parse('conv4 relu pool flatten "
            f"dense10', (1, 28, 28)), got {short(net)}"
        )


def images_of(net: Model, x: Any) -> tuple[Array, str]:
    """Return images as (N, *input_shape), and the form that they had.

    Raises
    ------
    ShapeError, InputError
        They do not fit.
    """
    array = to_numpy(x)
    for form in FORMS if array.ndim else ():
        images = unformed(array, form, net.input_shape)
        if images is not None:
            return net.check_images(images), form
    return net.check_images(x), "NCHW" if len(net.input_shape) == 3 else "NF"


def unformed(array: Array, form: str, shape: Shape) -> Array | None:
    """Return images in a form as (N, C, H, W), or None where they cannot have it."""
    sizes = dict(zip("CHW", shape, strict=True)) if len(shape) == 3 else {}
    sizes["F"] = int(np.prod(shape))
    if len(form) != array.ndim or ("F" not in form and len(shape) != 3):
        return None
    if "C" not in form and "F" not in form and shape[0] != 1:
        return None
    if any(sizes.get(letter, n) != n for letter, n in zip(form, array.shape, strict=True)):
        return None
    images = arranged(array, form, "NF" if "F" in form else "NCHW").reshape(-1, *shape)
    return images if len(images) else None


def formed(images: Array, form: str) -> Array:
    """Return images (N, C, H, W) in a form; one without N takes a single image."""
    if "F" in form:
        return arranged(images.reshape(len(images), -1), "NF", form)
    return arranged(images, "NCHW", form)


def labels_of(net: Model, y: Any, images: int) -> Any:
    """Return labels as whole numbers, where they are one-hot, whole floats, or have an axis more.

    Targets that come as columns, (outputs, N), become rows.
    What is none of these is returned as it is, for the loss to judge.
    """
    try:
        array = to_numpy(y)
    except (ValueError, TypeError):
        return y
    classes = net.output_shape[0]
    if not is_numeric(array) and array.dtype.kind != "b":
        return y
    rows = array.T if array.shape == (classes, images) != (images, classes) else array
    if not net.loss.classifies:
        return rows
    if classes > 1 and array.size == images * classes:
        rows = rows.reshape(images, classes)
        if np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all():
            return rows.argmax(axis=1)
    if array.size == images and array.dtype.kind != "b":
        array = array.reshape(-1) if array.ndim != 1 else array
        if array.dtype.kind == "f" and (array == np.floor(array)).all():
            return array.astype(np.int64)
        return array
    return rows
