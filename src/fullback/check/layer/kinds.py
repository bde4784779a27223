"""Kinds of layers: their reference, the layouts and settings that people use, and inputs.

A layout says for each array which axes the user's has, in order: "nhwc", "chw" for one image,
"hw" for one image of one channel; "1" is an axis of length 1. Layout and settings are found by
comparing outputs of forward with the reference's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fullback import layers
from fullback.check.layer.calls import option_named
from fullback.check.mistakes.base import Mistake, Mutants, delta
from fullback.errors import OptionError
from fullback.layers import Layer
from fullback.layers.base import Array, Parameters, Shape
from fullback.layers.window import pair
from fullback.passes import softmax

# Layouts ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The axes of a user's arrays; ``turned`` where forward turns the filters, by 180 degrees."""

    x: str
    y: str
    weight: str = ""
    bias: str = ""
    turned: bool = False

    @property
    def weight_axes(self) -> str:
        """The axes of the reference's weights."""
        return "kcrs" if "r" in self.weight else "kc" if "c" in self.weight else "k"

    @property
    def bias_axes(self) -> str:
        """The axes of the bias: one a filter, or one an output cell."""
        return "kpq" if "p" in self.bias else "k"

    @property
    def batch(self) -> int | None:
        """Which axis of x and y counts the images; None where there is one image."""
        return self.x.index("n") if "n" in self.x else None


_IMAGES = "nchw"
_BIASES = ("k", "k1", "1k", "111k", "1k11", "k11", "11k", "")


def _conv_layouts() -> Iterator[Layout]:
    pairs = [
        *itertools.product(["nchw", "chw"], ["kcrs", "rsck", "ckrs"]),
        *itertools.product(["nhwc", "hwc"], ["rsck", "krsc", "rskc", "kcrs"]),
        *itertools.product(["hwcn", "cnhw"], ["rsck", "kcrs"]),
    ]
    alike = [(x, x, w) for x, w in pairs]
    flat = [("hw", y, w) for y, w in (("hwc", "krs"), ("chw", "krs"), ("hwc", "rsk"), ("hw", "rs"))]
    for turned in (False, True):
        for x, y, weight in (*alike, *flat):
            biases = ("", "1", "11") if weight == "rs" else _BIASES
            biases = (*biases, y.replace("c", "k").replace("h", "p").replace("w", "q"))
            for bias in biases if "n" not in x else biases[:-1]:
                yield Layout(x, y, weight, bias, turned)


_ROWS = (("nc", "nc"), ("cn", "cn"), ("c", "c"), ("c1", "c1"), ("1c", "1c"))
_ANY = tuple(Layout(x, x) for x in ("nc", "nchw", "c", "c1"))
_POOLED = tuple(Layout(x, x) for x in ("nchw", "nhwc", "chw", "hwc", "hw", "hwcn"))
_DENSE = tuple(
    Layout(x, y, weight, bias)
    for (x, y), weight in itertools.product((*_ROWS, ("c1", "c")), ("kc", "ck"))
    for bias in ("k", "1k", "k1", "")
)
_LABELLED = tuple(  # y: the axes of the labels, which are numbers, or rows of 0 and 1
    Layout(x, y) for x, _ in _ROWS for y in ("n" if "n" in x else "", x)
)
_NORMED = tuple(
    Layout(x, x, weight, weight)
    for x in ("nchw", "nhwc", "nc", "cn")
    for weight in ("k", "1k", "k1", "1k11", "111k", "k11")
)


# References ---------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Softmax(Layer):
    """p[n,k] = exp(x[n,k]) / sum over j of exp(x[n,j]);  dx = p (dy - sum over j of dy[j] p[j])."""

    kind: ClassVar[str] = "softmax"

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(
        self, x: Array, parameters: Parameters, *, training: bool = False, rng_key: int = 0
    ) -> tuple[Array, Any]:
        p = softmax(x)
        return p, p

    def backward(
        self, dy: Array, cache: Any, parameters: Parameters
    ) -> tuple[Array, dict[str, Array]]:
        return cache * (dy - (dy * cache).sum(axis=1, keepdims=True)), {}


SOFTMAX_MUTANTS = Mutants()
SOFTMAX_MUTANTS.add(
    Mistake("softmax-diagonal",
        "Only the diagonal of the softmax's Jacobian was used.",
        "dx[n,k] = p[n,k] (dy[n,k] - sum over j of dy[n,j] p[n,j])",
        "dx = p * (dy - (dy * p).sum(axis=1, keepdims=True))"),
    delta("rule", "only the diagonal of the Jacobian, p (1 - p), was used",
          lambda p, v, dy: dy * p.y * (1 - p.y)),
    delta("rule", "only a factor p was used in place of the whole Jacobian",
          lambda p, v, dy: dy * p.y),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of layer.

    Attributes
    ----------
    reference : returns the layer for a setting, the number of filters and the filter's cells
    axes : those of x and y
    layouts : that are in use
    every : whether any shape will do, so that it is examined in every layout that runs
    told : settings that are tried on functions which take them
    assumed : settings that functions may have which do not
    options : what a user may give
    """

    reference: Callable[[Mapping[str, Any], int, Shape], Layer] | None
    axes: str = "nc"
    layouts: tuple[Layout, ...] = _ANY
    every: bool = False
    told: tuple[dict[str, Any], ...] = ({},)
    assumed: tuple[dict[str, Any], ...] = ({},)
    options: frozenset[str] = frozenset()


def _elementwise(layer: type[Layer], *assumed: dict[str, Any], **told: Any) -> Kind:
    fields = getattr(layer, "__dataclass_fields__", {})
    return Kind(
        lambda setting, k, cells: layer(**{n: setting[n] for n in fields if n in setting}),
        _IMAGES,
        every=True,
        told=(told,),
        assumed=assumed or ({},),
        options=frozenset(told),
    )


def _conv(setting: Mapping[str, Any], filters: int, cells: Shape) -> Layer:
    options = {"padding": 0, **setting, "kernel_size": cells}
    options.pop("size", None)
    return layers.Conv2D(filters, **options)


_POOLS = ((2, 2), (3, 2), (2, 1), (3, 3), (3, 1), (2, 3), (4, 4))  # size and stride


def _pool(layer: Callable[..., Layer], *modes: str) -> Kind:
    def reference(setting: Mapping[str, Any], filters: int, cells: Shape) -> Layer:
        return layer(**{n: setting[n] for n in ("size", "stride", "padding") if n in setting})

    told, assumed = (
        tuple({"size": size, "stride": stride, "mode": m} for m in modes for size, stride in steps)
        for steps in (_POOLS[:3], _POOLS)
    )
    options = frozenset({"size", "stride", "padding", "mode"})
    return Kind(reference, _IMAGES, _POOLED, False, told, assumed, options)


_STEPS = tuple({"stride": s, "padding": p} for s, p in ((1, 1), (1, 0), (2, 1), (2, 0)))
_SLOPES = (0.01, 0.2, 0.1, 0.3, 0.05, 0.001)
_EPSILONS = tuple({"epsilon": e} for e in (1e-5, 1e-8, 1e-7, 1e-3, 1e-6, 1e-4, 1e-10, 1e-12))
KINDS: dict[str, Kind] = {
    "conv2d": Kind(
        _conv,
        _IMAGES,
        tuple(_conv_layouts()),
        told=_STEPS,
        assumed=tuple(
            {"stride": s, "padding": p} for s in (1, 2, 3) for p in ("valid", 1, 2, "same")
        ),
        options=frozenset({"size", "stride", "padding", "dilation", "groups"}),
    ),
    "dense": Kind(lambda setting, k, cells: layers.Dense(k), "nc", _DENSE),
    "relu": _elementwise(layers.ReLU),
    "leaky_relu": _elementwise(layers.LeakyReLU, *({"slope": a} for a in _SLOPES), slope=0.1),
    "sigmoid": _elementwise(layers.Sigmoid),
    "tanh": _elementwise(layers.Tanh),
    "softmax": Kind(
        lambda setting, k, cells: Softmax(), "nc", tuple(Layout(x, y) for x, y in _ROWS)
    ),
    "dropout": _elementwise(layers.Dropout, rate=0.4, keep=0.6, mode="train"),
    "maxpool2d": _pool(layers.MaxPool2D, "max"),
    "avgpool2d": _pool(layers.AvgPool2D, "average", "avg", "mean"),
    "batchnorm": Kind(
        lambda setting, k, cells: layers.BatchNorm2D(epsilon=setting.get("epsilon", 1e-5)),
        _IMAGES,
        _NORMED,
        told=tuple({**one, "mode": "train"} for one in _EPSILONS[:1]),
        assumed=_EPSILONS,
        options=frozenset({"epsilon", "mode"}),
    ),
    "softmax_cross_entropy": Kind(None, "nc", _LABELLED),
}
"""Every kind by its name."""


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kind's options by the names that it has for them.

    Raises
    ------
    OptionError
        There is no such kind, or it has no such option.
    """
    if name not in KINDS:
        raise OptionError(f"kind must be one of {', '.join(KINDS)}, got {name!r}")
    known, checked = KINDS[name].options, {}
    for key, value in options.items():
        word = option_named(key, dict.fromkeys(known))
        if word not in known:
            takes = ", ".join(sorted(known)) or "no options"
            raise OptionError(f"kind={name!r} takes {takes}, got {key}={value!r}")
        checked[str(word)] = tuple(value) if isinstance(value, list) else value
    reference, groups = KINDS[name].reference, checked.get("groups", 1)
    if reference is not None:
        reference(checked, 3 * groups if isinstance(groups, int) else 3, checked.get("size", 3))
    return checked


# Inputs -------------------------------------------------------------------------------------------


def lengths(shape: Sequence[int], order: str, known: Mapping[str, int]) -> dict[str, int] | None:
    """Return the lengths of axes that a user's array has, with those known; None if they differ."""
    if len(shape) != len(order):
        return None
    found = dict(known)
    for axis, length in zip(order, shape, strict=True):
        if found.setdefault(axis, length if axis != "1" else 1) != length:
            return None
    return found


def spans(setting: Mapping[str, Any], known: Mapping[str, int]) -> tuple[int, int, int, int]:
    """Return the rows and columns that a window reaches over, and its steps down and across."""
    rows, columns = pair(setting.get("size", 3 if "k" in known else 2))
    rows, columns = known.get("r", rows), known.get("s", columns)
    down, across = pair(setting.get("stride") or 1)
    below, right = pair(setting.get("dilation", 1))
    return (rows - 1) * below + 1, (columns - 1) * right + 1, down, across


def values(rng: np.random.Generator, images: int, shape: Shape) -> Iterator[tuple[str, Array]]:
    """Yield batches of a shape, with what each is."""
    whole = (images, *shape)
    cells = int(np.prod(shape))
    places = rng.permuted(np.tile(np.arange(cells), (images, 1)), axis=1) - cells // 3
    spread = ((places + 0.5 + rng.uniform(-0.25, 0.25, places.shape)) * 4 / cells).reshape(whole)
    yield "", spread  # about -1.3 to 2.7, in each image apart from each other and from 0
    flat = np.where(rng.random(whole) < 0.7, 0.0, rng.choice([-1.0, 1.0, 2.0], whole))
    yield "a zero background", flat
    yield "large values", 100 * spread
    yield "small values", 0.01 * spread
