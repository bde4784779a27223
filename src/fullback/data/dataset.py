"""A data set: checked images and labels, for training and for testing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.errors import InputError, ShapeError

Images: TypeAlias = NDArray[Any]  # uint8, float32 or float64
Labels: TypeAlias = NDArray[Any]  # int64; float64 where they are numbers to predict

_AT_ONCE = 2**24  # numbers that are looked at together

MAX_LABEL = 65_535  # a larger label is a mistake: it would ask for that many outputs


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with labels, in a training and a test part.

    The arrays are checked when the data set is made, and are not copied. Labels are brought to
    int64, or to float64 where they are numbers to predict (regression).

    Parameters
    ----------
    name : str
        What to call the data set in messages and reports.
    x_train : ndarray of shape (N, C, H, W)
        Training images: uint8 (0..255; stays uint8), float32 or float64.
    y_train : ndarray of shape (N,)
        Their labels: whole numbers from 0 to 65535. With ``numbers``, any finite numbers, of shape
        (N,) or (N, outputs).
    x_test : ndarray of shape (M, C, H, W)
        Test images, of the same shape and dtype as the training images.
    y_test : ndarray of shape (M,)
        Their labels.
    class_names : tuple of str, optional
        The name of each label, in order. By default ``"0"``, ``"1"``, ... up to the largest label.
        They are brought to the composed form of Unicode (NFC); classes whose names differ in that
        alone become one.
    notes : tuple of str, optional
        What was done to the images on the way, a line each.
    x_val, y_val : ndarrays, optional
        Images for validation, which are neither trained nor tested on, and their labels. None where
        the data set has none of its own.
    numbers : bool, default=False
        Whether the labels are numbers to predict; there are no classes then.
    read_with : mapping, optional
        Options of `load_data` by which the images were read when they were unpacked.

    Raises
    ------
    ShapeError
        If the images are not 4-D, are of no size, differ in shape between the parts, or are not as
        many as their labels.
    InputError
        If a dtype cannot be used, an image holds NaN or infinity, a label is not a whole number
        from 0 to 65535, there are fewer class names than classes, or any with ``numbers``.
    """

    name: str
    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    x_val: Images | None = None
    y_val: Labels | None = None
    numbers: bool = False
    read_with: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.x_val is None) != (self.y_val is None):
            raise InputError("x_val and y_val go together; give both, or neither")
        parts = ("train", "test") if self.x_val is None else ("train", "test", "val")
        for part in parts:
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            x, y = check_pair(x, y, f"_{part}", numbers=self.numbers)
            object.__setattr__(self, f"x_{part}", x)
            object.__setattr__(self, f"y_{part}", y)
            if self.x_train.shape[1:] != x.shape[1:]:
                raise ShapeError(
                    f"x_train holds images of shape {self.x_train.shape[1:]} but x_{part} of shape "
                    f"{x.shape[1:]}; both must have the same (C, H, W)"
                )
            if self.x_train.dtype != x.dtype:  # uint8 is scaled by 1/255 and floats are not
                raise InputError(
                    f"x_train is {self.x_train.dtype} but x_{part} is {x.dtype}; "
                    "bring both to the same dtype and scale"
                )
            if self.numbers and self.y_train.shape[1:] != y.shape[1:]:
                raise ShapeError(
                    f"y_train has shape {self.y_train.shape} but y_{part} {y.shape}; both must "
                    "have as many numbers an image"
                )
        if not self.numbers:
            self._name_classes(parts)
        elif self.class_names:
            raise InputError("class_names goes with classes; leave it out with numbers=True")

    def _name_classes(self, parts: Sequence[str]) -> None:
        labels = [getattr(self, f"y_{part}") for part in parts]
        count = max(int(y.max()) for y in labels) + 1
        names = tuple(self.class_names) or tuple(map(str, range(count)))
        if len(names) < count:
            raise InputError(
                f"class_names has {len(names)} names but the largest label is {count - 1}; "
                f"give one name per label, {count} or more"
            )
        names, labels = composed(names, labels)
        object.__setattr__(self, "class_names", names)
        for part, y in zip(parts, labels, strict=True):
            object.__setattr__(self, f"y_{part}", y)

    @property
    def classes(self) -> int:
        """The number of classes: the largest label + 1, or more where more are named; or 0.

        It is 0 where the labels are numbers to predict.
        """
        return len(self.class_names)

    @property
    def outputs(self) -> int:
        """How many numbers a network answers with: one a class, or as many as an image has."""
        return self.classes or math.prod(self.y_train.shape[1:])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        _, c, h, w = self.x_train.shape
        return c, h, w

    def __repr__(self) -> str:
        c, h, w = self.image_shape
        val = "" if self.x_val is None else f", {len(self.x_val)} validation"
        answers = f"{self.outputs} numbers each" if self.numbers else f"{self.classes} classes"
        return (
            f"Dataset({self.name!r}: {len(self.x_train)} training{val} and {len(self.x_test)} test "
            f"images of {c}x{h}x{w} {self.x_train.dtype}, {answers})"
        )


def composed(
    names: Sequence[str], labels: Sequence[Labels]
) -> tuple[tuple[str, ...], list[Labels]]:
    """Bring class names to Unicode's composed form (NFC), and renumber classes that become one."""
    forms = [unicodedata.normalize("NFC", name) for name in names]
    if len(set(forms)) == len(set(names)):
        return tuple(forms), list(labels)
    kept = list(dict.fromkeys(forms))
    place = np.array([kept.index(form) for form in forms])
    return tuple(kept), [place[y] for y in labels]


def check_pair(x: Any, y: Any, suffix: str = "", *, numbers: bool = False) -> tuple[Images, Labels]:
    """Check images (N, C, H, W) and labels (N,); `suffix` completes their names in messages."""
    x = as_array(x, f"x{suffix}")
    if x.ndim != 4 or 0 in x.shape:
        raise ShapeError(
            f"x{suffix} has shape {x.shape}; expected (N, C, H, W), each at least 1: "
            "images, channels, rows, columns"
        )
    if x.dtype not in (np.uint8, np.float32, np.float64):
        raise InputError(
            f"x{suffix} has dtype {x.dtype}; expected uint8 (0..255), float32 or float64: "
            f"{_conversion(x)}"
        )
    if x.dtype != np.uint8:
        step = max(1, _AT_ONCE // x[0].size)  # a memory map may not fit into memory
        parts = [np.isfinite(x[n : n + step]).all(axis=(1, 2, 3)) for n in range(0, len(x), step)]
        bad = np.flatnonzero(~np.concatenate(parts))
        if bad.size:
            raise InputError(
                f"x{suffix} holds NaN or infinity in {bad.size} of {len(x)} images, the first at "
                f"index {bad[0]}; correct those values or leave the images out"
            )
    y = check_numbers(y, f"y{suffix}") if numbers else check_labels(y, f"y{suffix}")
    if len(x) != len(y):
        raise ShapeError(
            f"x{suffix} has {len(x)} images but y{suffix} has {len(y)} labels; "
            "give one label per image"
        )
    return x, y


def as_array(values: Any, what: str) -> NDArray[Any]:
    """Return values as an array; `what` names them in messages."""
    try:
        array: NDArray[Any] = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, tensors with a gradient
        reason = " ".join(str(error).split())
        raise InputError(
            f"{what} cannot be read as an array ({reason}); give it as one array of numbers, whose "
            "rows are as long as each other"
        ) from None
    return array


def without_column(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels of shape (N, 1) as (N,); others as they are."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _conversion(x: NDArray[Any]) -> str:
    """Say how to convert an array of a dtype that is not taken, so that no value is changed."""
    if x.dtype.kind == "b":
        return "convert it with .astype('float32'), to 0 and 1"
    if x.dtype.kind == "f":
        dtype = "float32" if x.dtype == np.float16 else "float64"
        return f"convert it with .astype('{dtype}')"
    if x.dtype.kind not in "iu":
        return "give an array of numbers"
    low, high = int(x.min()), int(x.max())
    if low >= 0 and high <= 255:
        return f"its values, from {low} to {high}, fit: convert it with .astype('uint8')"
    dtype = "float32" if max(-low, high) <= 2**24 else "float64"
    return (
        f"its values, from {low} to {high}, do not fit into uint8: convert it with "
        f".astype('{dtype}'), and bring it to 0..1 or train a network that begins with normalize"
    )


def check_labels(y: Any, what: str) -> Labels:
    """Check labels of shape (N,) and return them as int64; `what` names them in messages."""
    y = as_array(y, what)
    if y.ndim != 1:
        code = y.ndim == 2 and y.shape[1] > 1
        raise ShapeError(
            f"{what} has shape {y.shape}; expected (N,), one label per image"
            + f": of a one-hot code give {what}.argmax(axis=1)" * code
        )
    if y.dtype.kind not in "biuf":
        raise InputError(f"{what} has dtype {y.dtype}; expected whole numbers, such as int64")
    bad = np.flatnonzero((y < 0) | (y > MAX_LABEL) | (y != np.trunc(y)))
    if bad.size:
        raise InputError(
            f"{what} holds {y[bad[0]]} at index {bad[0]}; labels are whole numbers from 0 to "
            f"{MAX_LABEL}: number the classes 0, 1, 2, ..."
        )
    return np.asarray(y, np.int64)


def check_numbers(y: Any, what: str) -> Labels:
    """Check numbers to predict, (N,) or (N, outputs), and return them as float64."""
    y = as_array(y, what)
    if y.ndim not in (1, 2) or 0 in y.shape:
        raise ShapeError(
            f"{what} has shape {y.shape}; expected (N,) or (N, outputs), the numbers of each image"
        )
    if y.dtype.kind not in "biuf":
        raise InputError(f"{what} has dtype {y.dtype}; expected numbers, such as float64")
    bad = np.flatnonzero(~np.isfinite(y.reshape(len(y), -1)).all(axis=1))
    if bad.size:
        raise InputError(
            f"{what} holds NaN or infinity in {bad.size} of {len(y)} rows, the first at index "
            f"{bad[0]}; correct those values or leave the images out"
        )
    return np.asarray(y, np.float64)
