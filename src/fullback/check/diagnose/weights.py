"""A program's weights, in a network: under which names and in which layout they lie.

Where their shapes can be read in several ways, the forward pass decides: only with the weights in
their places can the gradients, activations or probabilities that the program computed be right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fullback.check.diagnose import compare
from fullback.check.diagnose.compare import length
from fullback.check.diagnose.containers import WAYS, arrays_in, is_container, leaves, weights_in
from fullback.check.diagnose.layouts import Axes, ProgramLayout, axes_of, likeness, readable
from fullback.check.diagnose.names import Names, as_array
from fullback.errors import InputError, OptionError, ShapeError
from fullback.layers import Conv2D, Dense
from fullback.layers.base import Array
from fullback.network import Network
from fullback.passes import Trace

Named = Mapping[str, tuple[str, Array]]
"""Arrays with the user's names, by the network's."""

_USUAL, _HALF = 2e-5, 5e-3  # relative error of a right array, in single and half precision
_ENOUGH = 8  # numbers that are not a sum of multiples of two other arrays by chance
_SOME = 3  # numbers that are not another array's, but for a factor, by chance
SPANNED = 0.4  # what a gradient counts that is a sum over the right inputs
_MOST, _FEW = 64, 6  # layouts to try; of large networks and batches fewer
_VALUES = 4 * 10**6  # of activations in all of them together


def read_whole(net: Network, value: Any, what: str) -> list[dict[str, tuple[str, Array]]] | None:
    """Return arrays that were given as none, or as one vector; None where they have names.

    Raises
    ------
    OptionError, InputError
        There are no arrays, or other things among them.
    """
    if isinstance(value, Mapping):
        if not value:
            return [{}]
        for name, part in value.items():
            holds = is_container(part) or hasattr(part, "__dict__")
            if hasattr(part, "__array__") or not holds:
                as_array(str(name), part)
    found = arrays_in(value)
    total = sum(array.size for array in net.parameters.values())
    if len(found) == 1 < len(net.parameters):
        ((name, vector),) = found.items()
        if vector.size == total:
            return _split(net, name or what, vector)
    if not found or "" in found:
        for place, part in leaves(value) if isinstance(value, Mapping | list | tuple) else ():
            as_array(f"{what}s: {place}", part)  # says what it is that cannot be read
        raise OptionError(
            f"{what}s must be a dict of arrays by name, like {{{next(iter(net.parameters))!r}: "
            f"...}}, a list of arrays, an object that has them, or one vector of all {total} "
            f"numbers, got {type(value).__name__}"
        )
    return None


def named_weights(net: Network, value: Any, what: str) -> list[dict[str, tuple[str, Array]]]:
    """Return a program's weights by the network's names.

    Where they are one vector, it can be cut in several ways.

    Raises
    ------
    OptionError, InputError
        There are no arrays, or names that are not known.
    """
    whole = read_whole(net, value, what)
    if whole is not None:
        return whole
    shapes = {name: array.shape for name, array in net.parameters.items()}
    names = Names(what, shapes, None)
    sizes = {int(np.prod(shape)) for shape in shapes.values()}
    refusals: list[OptionError] = []
    partial: tuple[dict[str, str], dict[str, Array]] | None = None
    for way in WAYS:
        every = weights_in(value, way - way % 2)
        found = weights_in(value, way)
        if not is_container(value):  # an object has other arrays too
            found = {name: array for name, array in found.items() if array.size in sizes} or found
        try:
            matched = names.match(found)
            left = {array.size for name, array in every.items() if name not in found}
            free = [known for known in shapes if known not in matched.values()]
            if found and not any(int(np.prod(shapes[known])) in left for known in free):
                if not any(known.endswith(".weight") for known in free):
                    break
                partial = partial or (matched, found)
        except OptionError as error:
            refusals.append(error)
    else:
        if partial is None:
            raise refusals[0]
        matched, found = partial
    return [{known: (name, found[name]) for name, known in matched.items()}]


def _split(net: Network, name: str, vector: Array) -> list[dict[str, tuple[str, Array]]]:
    """Cut a vector into the parameters: layer by layer, or all weights and then all biases."""
    vector = vector.reshape(-1)
    names = list(net.parameters)
    weights_first = sorted(names, key=lambda known: known.endswith(".bias"))
    found = []
    for order in (names, weights_first):
        ends = np.cumsum([net.parameters[known].size for known in order])
        parts = np.split(vector, ends[:-1])
        found.append(
            {known: (f"{name}[{known}]", p) for known, p in zip(order, parts, strict=True)}
        )
    return found if names != weights_first else found[:1]


def _placed(
    net: Network, named: Named, axes: Mapping[str, Axes], program: ProgramLayout
) -> dict[str, Array] | None:
    """Return the network's parameters as a program has them, or None where they cannot lie so.

    Biases that the program lacks are 0.
    """
    found = {}
    for known, own in net.parameters.items():
        if known not in named:
            found[known] = np.zeros_like(own) if known.endswith(".bias") else own
            continue
        array, order = named[known][1], axes[known].order(program)
        if not axes[known].fits(order, array.shape):
            return None
        found[known] = axes[known].read(order, array.astype(np.float64))
    return found


def turn_filters(net: Network) -> Network:
    """Return a copy whose filters are turned by 180 degrees: those of a true convolution."""
    copy = net.copy(dtype="float64")
    for name, layer in zip(net.names, net.layers, strict=True):
        if isinstance(layer, Conv2D):
            copy.parameters[f"{name}.weight"] = net.parameters[f"{name}.weight"][:, :, ::-1, ::-1]
    return copy


def require_weights(net: Network, named: Named) -> None:
    """Raise unless every weight of the network is there, and is finite."""
    layers = zip(net.names, net.layers, strict=True)
    wanted = [f"{name}.weight" for name, layer in layers if isinstance(layer, Conv2D | Dense)]
    missing = [known for known in wanted if known not in named]
    if missing:
        raise OptionError(
            f"weights must hold every weight of the network, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; there are "
            f"{', '.join(name for name, _ in named.values())}"
        )
    for name, array in named.values():
        if not np.isfinite(array).all():
            raise InputError(f"the weights {name} hold values that are not finite")


def require_shapes(net: Network, ways: Sequence[Named]) -> None:
    """Raise ShapeError unless weights have shapes that can be read as the network's."""
    axes = axes_of(net)
    for named in ways:
        if not all(readable(axes[known], array.shape) for known, (_, array) in named.items()):
            raise _unfitting(axes, named)


@dataclass(frozen=True)
class Placed:
    """The network with a program's weights, how they lie in the program, and a trace of it.

    ``sure`` is whether something that the program computed, or the network's own weights, confirms
    the layout, or no other one was possible.
    """

    net: Network
    trace: Trace
    program: ProgramLayout
    way: int
    sure: bool


def place_weights(
    net: Network,
    ways: Sequence[Named],
    axes: Mapping[str, Axes],
    layouts: Sequence[ProgramLayout],
    usual: Sequence[ProgramLayout],
    traced: Callable[[Network], tuple[Network, Trace]],
    agreement: Callable[[Network, Trace, ProgramLayout, int], tuple[float, float, bool]],
) -> Placed:
    """Find the layout in which a program's weights give what it computed.

    Parameters
    ----------
    net, axes : the network, and the axes of its parameters
    ways : the weights; more than one way to cut a vector into them is possible
    layouts, usual : the layouts that may be, the likelier ones first, and those that programs have
    traced : the network as it is to be judged, and its trace
    agreement : how many of the submitted arrays such a trace explains, in a layout and a way: of
        those that the layout does not concern, of the others; and whether all

    Raises
    ------
    ShapeError
        The shapes fit no layout.
    """
    best: tuple[float, Placed] | None = None
    others = 0  # usual layouts, each in each way
    seen: list[Mapping[str, Array]] = []
    most = _MOST
    for program, way in itertools.product(layouts, range(len(ways))):
        parameters = _placed(net, ways[way], axes, program)
        if parameters is None or any(_same(parameters, other) for other in seen):
            continue
        seen.append(parameters)
        candidate = net.copy(dtype="float64")
        candidate.parameters.update(parameters)
        judged, trace = traced(candidate)
        clear, rest, whole = agreement(judged, trace, program, way)
        count = clear or rest / 1000  # what the layout does not concern says more
        exported = _same(parameters, net.parameters)
        sure = max(clear, rest) >= SPANNED or exported
        others += program in usual
        if best is None or exported or (count > best[0] and (sure or program in usual)):
            best = (count, Placed(judged, trace, program, way, sure))
        if whole or exported:
            return best[1]
        most = min(most, max(_FEW, _VALUES // sum(a.size for a in trace.activations.values())))
        if len(seen) >= most:
            break
    if best is None:
        raise _unfitting(axes, ways[0])
    return replace(best[1], sure=True) if len(seen) == 1 or others == 1 else best[1]


def _same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return all(np.allclose(array, other[name], rtol=1e-6, atol=0.0) for name, array in one.items())


def _unfitting(axes: Mapping[str, Axes], named: Named) -> ShapeError:
    """Say which weights have a shape that does not fit."""
    for known, (name, array) in named.items():
        if not readable(axes[known], array.shape):
            return ShapeError(axes[known].refusal(name, known, array.shape))
    told = ", ".join(f"{name} {array.shape}" for name, array in named.values() if array.ndim > 1)
    return ShapeError(f"the weights have no order of axes in common: {told}")


def tolerance(values: Array, dtype: np.dtype[Any], blur: float) -> float:
    """Return the relative error that an array may have from its type and from how it was made."""
    usual = _HALF if dtype == np.float16 else _USUAL
    return max(usual, 4 * blur / (length(values) or 1.0))


def factor(
    array: Array, truth: Array, tolerance: float, beside: Array | None = None
) -> float | None:
    """Return what an array is the truth times, or None where it is not that.

    Any multiple of what is ``beside`` may be added to it, where there are numbers enough to tell.
    """
    if array.size < _SOME or not np.isfinite(array).all():
        return None
    rest = array
    if beside is not None:
        if array.size < _ENOUGH:
            return None
        terms = np.stack([truth.ravel(), beside.ravel()], axis=1)
        (_, added), *_ = np.linalg.lstsq(terms, array.ravel())
        rest = array - added * beside
    return compare.factor(rest, truth, tolerance)


def explained(
    array: Array,
    truth: Array,
    tolerance: float,
    inputs: Array | None = None,
    beside: Array | None = None,
) -> float:
    """Return 1 where an array is right but for a factor, and otherwise less.

    A multiple of what is ``beside``, its weight, may be added to it, as by a penalty.

    A dense layer's gradient is a sum over the layer's ``inputs`` (N, features), whatever its delta;
    that shows where there are fewer images than features, and is worth a part.
    """
    if factor(array, truth, tolerance) is not None:
        return 1.0
    if beside is not None and factor(array, truth, tolerance, beside) is not None:
        return 1.0
    if inputs is not None and inputs.ndim == 2 and array.shape[1:] == inputs.shape[1:]:
        used = np.linalg.matrix_rank(inputs)
        if used < min(inputs.shape[1], np.count_nonzero(inputs.any(axis=0))):
            shares = np.linalg.lstsq(inputs.T, array.T, rcond=None)[0]
            if array.any() and length(inputs.T @ shares - array.T) <= tolerance * length(array):
                return SPANNED
    return likeness(array, truth) / 1000
