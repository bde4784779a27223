"""A user's layouts, brought to the network's: other orders of axes, merged ones, ones of length 1.

An axis has a letter: K, C, R, S of a convolution's weights, N, C, H, W of maps, U and F of a dense
layer's units and features; behind Flatten, F is made of C, H and W. A ``ProgramLayout`` is what one
program does with all its arrays; a ``Layout`` is what that means for one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from fullback.check.axes import arranged
from fullback.check.diagnose.compare import length
from fullback.layers import Conv2D, Dense, Flatten
from fullback.layers.base import Array, Shape
from fullback.model import Model

USUAL, UNUSUAL, FOREIGN = 0.02, 0.1, 0.2  # what a way to read costs

CONV_ORDERS = ("KCRS", "KRSC", "RSCK", "CRSK", "CKRS")
"""Orders of a convolution's weights that programs have, the usual ones first."""

COLUMN_ORDERS = ("KCSR", "CSRK", "SRCK")
"""Those of filters that are flattened column by column: (R, S, C, K), its part without K, KCRS."""

FOLD_ORDERS, COLUMN_FOLDS = ("CHW", "HWC"), ("CWH", "CHW", "HWC")
"""Orders in which programs flatten maps: row by row, and where they go column by column."""

_FOLDS = {
    "KRSC": ("HWC", "CWH"), "RSCK": ("HWC", "CWH"), "KCSR": ("CWH", "HWC"),
    "CSRK": ("CWH", "HWC"),
}  # fmt: skip

MAP_ORDERS = ("NCHW", "NHWC", "HWCN", "CHWN", "CNHW", "HWNC")
"""Orders of maps that programs have."""

_WORDS = {"C": "channels", "H": "rows", "W": "columns"}


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read a submitted array.

    Attributes
    ----------
    values : in the network's shape
    layout : a phrase that says how they were read, where that is not plain
    cost : of a way that is less usual
    blur : the length (root of the sum of squares) of the rounding error of making the values
    mistake : an id of the catalogue, where it is a mistake that they lie so; ``description`` says
        how they lie
    """

    values: Array
    layout: str = ""
    cost: float = 0.0
    blur: float = 0.0
    mistake: str | None = None
    description: str = ""

    def times(self, factor: float) -> Reading:
        """Return it multiplied by a number."""
        return replace(self, values=self.values * factor, blur=self.blur * factor)


@dataclass(frozen=True, eq=False)
class SubmittedArray:
    """A submitted array under the network's name, in every likely reading, the likeliest first."""

    name: str
    user_name: str
    readings: tuple[Reading, ...]
    dtype: np.dtype[Any]

    @property
    def values(self) -> Array:
        """The values in the likeliest reading."""
        return self.readings[0].values


@dataclass(frozen=True)
class ProgramLayout:
    """How a program lays out all its weights.

    Attributes
    ----------
    conv : the order of its filters' axes
    transposed : whether its dense weights are (features, units)
    fold : the order in which it flattens maps
    """

    conv: str = "KCRS"
    transposed: bool = False
    fold: str = "CHW"

    @property
    def coherent(self) -> bool:
        """Whether maps are flattened as the filters lie."""
        usual = (*CONV_ORDERS, *COLUMN_ORDERS)
        return self.conv in usual and self.fold in _FOLDS.get(self.conv, ("CHW",))


@dataclass(frozen=True)
class Axes:
    """The axes of one of the network's arrays, unfolded: letters and sizes, and its shape."""

    letters: str
    sizes: Shape
    wanted: Shape

    def order(self, program: ProgramLayout) -> str:
        """Return the order of these axes in a program."""
        if self.letters == "KCRS":
            return program.conv
        inner = program.fold if self.letters == "UCHW" else "F"
        if self.letters[0] == "U" and len(self.letters) > 1:
            return inner + "U" if program.transposed else "U" + inner
        return self.letters

    def lie(self, program: ProgramLayout) -> str:
        """Return the order in a program of the axes that have more than one place."""
        sizes = dict(zip(self.letters, self.sizes, strict=True))
        return "".join(letter for letter in self.order(program) if sizes[letter] > 1)

    def fits(self, order: str, shape: Shape) -> bool:
        """Whether an array of this shape may lie in this order.

        Axes of length 1 may be missing or added, and axes merged: all of them, or all but the
        first of the network's, which is then the array's first or last.
        """
        sizes = [self.sizes[self.letters.index(letter)] for letter in order]
        given, full = squeezed(shape), squeezed(sizes)
        if given == full or (len(given) == 1 and given[0] == prod(sizes)):
            return True
        count = self.sizes[0]
        rest = prod(sizes) // max(count, 1)
        if given == (count, rest) and order[0] == self.letters[0]:
            return True
        if given == (rest, count) and order[-1] == self.letters[0]:
            return True
        return len(given) == 3 and _merges(full, given)

    def read(self, order: str, array: Array) -> Array:
        """Bring an array that lies in this order to the network's shape."""
        unfolded = array.reshape([self.sizes[self.letters.index(letter)] for letter in order])
        return arranged(unfolded, order, self.letters).reshape(self.wanted)

    def refusal(self, name: str, known: str, shape: Shape) -> str:
        """Say that an array of this shape, a user's ``name``, has no place in the network."""
        wanted = f"{known} of shape {self.wanted}"
        return f"{name} has shape {shape}, which cannot be read as {wanted}"

    def phrase(self, order: str, shape: Shape) -> str:
        """Say how an array of this shape lies, where that is not plain."""
        if self.letters[0] == "U" and len(self.letters) > 1:
            words = ["transposed"] * (order[-1] == "U")
            inner = order.replace("U", "")
            if inner != "F" and (inner != "CHW" or len(squeezed(shape)) > 2):
                named = ", ".join(_WORDS[letter] for letter in inner)
                words.append(f"with its features in the order ({named})")
            if not words and len(squeezed(shape)) == 1 < len(squeezed(self.wanted)):
                return "flattened"
            return ", ".join(words)
        merged = len(squeezed(shape)) < len(squeezed(self.sizes))
        if len(squeezed(shape)) == 1 and order in COLUMN_ORDERS:
            return f"in the order ({', '.join(order[::-1])}), flattened column by column"
        if order != self.letters:
            return f"in the order ({', '.join(order)})" + ", flattened" * merged
        if merged:
            return "flattened"
        return "with axes of length 1 added or left out" if shape != self.wanted else ""


def axes_of(net: Model) -> dict[str, Axes]:
    """Return the axes of every parameter."""
    found: dict[str, Axes] = {}
    folded = folds(net)
    for name, layer in zip(net.names, net.layers, strict=True):
        for key, array in net.arrays_of(name).items():
            full, shape = f"{name}.{key}", array.shape
            if full not in net.parameters and not shape:
                continue  # a statistic of all cells together
            letters, sizes = "U", shape
            if isinstance(layer, Conv2D) and key == "weight":
                letters = "KCRS"
            elif isinstance(layer, Dense) and key == "weight":
                letters = "UF"
                if full in folded:
                    letters, sizes = "UCHW", (shape[0], *folded[full])
            found[full] = Axes(letters, sizes, shape)
    return found


def folds(net: Model) -> dict[str, Shape]:
    """Return the maps that the features behind Flatten are made of, for what has them."""
    found: dict[str, Shape] = {}
    inputs = (net.input_shape, *net.shapes)
    for index, layer in enumerate(net.layers):
        if isinstance(layer, Flatten) and len(inputs[index]) == 3:
            found[net.names[index]] = inputs[index]
            for name in net.names[index + 1 :]:
                if f"{name}.weight" in net.parameters:
                    found[f"{name}.weight"] = inputs[index]
                    break
                found[name] = inputs[index]
    return found


def program_layouts(
    axes: Mapping[str, Axes],
    shapes: Mapping[str, Iterable[Shape]],
    *,
    channels_last: bool,
    every: bool = False,
) -> list[ProgramLayout]:
    """Return the layouts that a program with arrays of these shapes may have, likelier ones first.

    A usual one flattens maps as its filters lie, row by row as NumPy does, or column by column as
    MATLAB does.

    Parameters
    ----------
    axes : of the network's parameters
    shapes : of the program's arrays, weights or gradients, by the network's names
    channels_last : whether its maps are known to be so
    every : return all that the shapes allow; else the usual ones, and others only where something
        is not as in fullback: filters that all have the network's shapes are read in its order
    """
    pairs = [(axes[name], shape) for name, found in shapes.items() for shape in found]
    filters = [(a, shape) for a, shape in pairs if a.letters == "KCRS"]
    dense = [(a, shape) for a, shape in pairs if len(a.letters) > 1 and a.letters[0] == "U"]
    merged = any(len(squeezed(shape)) < len(squeezed(a.sizes)) for a, shape in filters)
    orders = list(CONV_ORDERS)
    if channels_last:
        orders = ["KRSC", "RSCK", "CRSK", "KCRS", "CKRS"]
    elif merged:
        orders = ["KCRS", "CRSK", "KRSC", "RSCK", "CKRS"]  # a matrix is rather w.reshape(K, -1).T
    possible = _fitting(list(map("".join, itertools.permutations("KCRS"))), filters)
    rows = [o for o in orders if o in possible] or ([] if every else orders)
    vectors = all(len(squeezed(shape)) < 2 for _, shape in filters + dense)
    columns = [o for o in (COLUMN_ORDERS if merged else orders) if o in possible]
    columns = columns if vectors else [o for o in columns if o != "SRCK"]
    if filters and not (every or channels_last) and all(a.wanted == s for a, s in filters):
        rows, columns = ["KCRS"], []  # nothing but the values would speak for another order
    turned = _fitting([False, True], dense)
    known = channels_last or rows[:1] != ["KCRS"] or turned[0]
    of_rows = _layouts(rows, turned if every else turned[:1], FOLD_ORDERS)
    of_columns = _layouts(columns, turned if every or vectors else turned[:1], COLUMN_FOLDS)
    found = [p for p in of_rows if p.coherent or not filters]
    found = found if known or filters else found[:1]
    found += [p for p in of_columns if p.coherent and filters]
    if known or every:
        found += [*of_rows, *of_columns]
    if every:
        folds_of = list(map("".join, itertools.permutations("CHW")))
        found += _layouts(possible, turned, folds_of)
    return list(dict.fromkeys(found or of_rows))


def _layouts(
    conv: Sequence[str], turned: Sequence[bool], folds_of: Sequence[str]
) -> list[ProgramLayout]:
    return [ProgramLayout(*one) for one in itertools.product(conv, turned, folds_of)]


def readable(axes: Axes, shape: Shape) -> list[str]:
    """Return the orders in which an array of this shape may lie, the network's first."""
    every = map("".join, itertools.permutations(axes.letters))
    return [order for order in every if axes.fits(order, shape)]


def _fitting(orders: Sequence[Any], pairs: Sequence[tuple[Axes, Shape]]) -> list[Any]:
    """Return the orders, or transpositions, in which the most arrays fit."""
    counts = []
    for one in orders:
        program = ProgramLayout(one) if isinstance(one, str) else ProgramLayout(transposed=one)
        counts.append(sum(_fits(a, program, shape) for a, shape in pairs))
    return [one for one, count in zip(orders, counts, strict=True) if count == max(counts)]


def _fits(axes: Axes, program: ProgramLayout, shape: Shape) -> bool:
    return any(
        axes.fits(axes.order(replace(program, fold=fold)), shape)
        for fold in map("".join, itertools.permutations("CHW"))
    )


def read_maps(
    axes: Axes, array: Array, orders: Sequence[str], *, batch_last: bool
) -> Iterator[Reading]:
    """Yield the readings of a delta or an activation.

    Parameters
    ----------
    axes : N and the axes of the output; unfolded, where it comes from Flatten
    array : the array
    orders : the orders that maps may lie in, the likelier ones first
    batch_last : whether other arrays have the images as their last axis, so that a square one may
    """
    if len(axes.letters) == 2:
        orders = ["NU", "UN"] if axes.sizes[0] != axes.sizes[1] or batch_last else ["NU"]
    flat = len(axes.wanted) == 2 < len(axes.letters)
    for order in orders:
        if not axes.fits(order, array.shape):
            continue
        plain = order == axes.letters
        cost = 0.0 if plain and array.shape == axes.wanted else USUAL
        phrase = axes.phrase(order, array.shape)
        if flat:
            inner = order.replace("N", "")
            named = ", ".join(_WORDS[letter] for letter in inner)
            phrase = (
                "transposed, " * (order[-1] == "N") + f"with its features in the order ({named})"
            )
            if order == "NCHW":
                phrase = ""
            elif inner != "CHW":
                cost = FOREIGN
        elif len(axes.letters) == 2:
            phrase = "transposed" if order == "UN" else phrase
        yield Reading(axes.read(order, array), phrase, cost)


def squeezed(shape: Iterable[int]) -> Shape:
    """Return a shape without its axes of length 1."""
    return tuple(n for n in shape if n != 1)


def _merges(sizes: Shape, shape: Shape) -> bool:
    """Whether neighbouring axes of ``sizes`` merge into ``shape``."""
    rest = list(sizes)
    for n in shape:
        product = 1
        while product < n and rest:
            product *= rest.pop(0)
        if product != n:
            return False
    return not rest


def likeness(array: Array, truth: Array) -> float:
    """Return the cosine between two arrays, without its sign; 0 where it is not a number."""
    with np.errstate(all="ignore"):
        product = float(abs((array * truth).sum()))
        sizes = length(array) * length(truth)
    return product / sizes if np.isfinite(sizes) and sizes > 0 and np.isfinite(product) else 0.0
