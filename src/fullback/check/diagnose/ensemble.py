"""The forward passes that a diagnosis is made in: the true one, noisy ones, an absolute one.

A sum of n rounded terms is usually off by half an eps times the sum of the terms' absolute values,
and, where they have one sign, by that times the square root of n / 3 (Higham, Accuracy and
Stability of Numerical Algorithms, 2002, section 4.2: rounding errors add up like random ones). The
noisy worlds carry that through the network, so that what comes out of them says how far another
right program, in that precision, may be off.

Where a ReLU's input is so close to 0, or a window's two largest cells so close to each other, that
rounding decides, a right program may decide either way: a *kink*. The noisy worlds decide
differently there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullback.check.mistakes.layer_pass import LossScene, Scene, World, hashed
from fullback.layers import (
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    Layer,
    LeakyReLU,
    MaxPool2D,
    Normalize,
    ReLU,
    Sigmoid,
    Tanh,
)
from fullback.layers.base import Array
from fullback.layers.window import pad, windows
from fullback.network import Network
from fullback.passes import Seed, random_key, scaled, softmax

NOISY = 4
"""Noisy worlds: enough that an error measured in them is right within a factor of two."""

_CLOSE = 4.0  # deviations of the noise within which a kink may be decided either way


@dataclass(frozen=True, eq=False)
class Worlds:
    """The true world, the noisy ones and the absolute one.

    Attributes
    ----------
    true, absolute : a World
    noisy : the worlds with rounding errors of ``eps``
    eps : twice their unit roundoff
    kinks : how many units of each layer rounding decides about, by name, where there are any
    """

    true: World
    noisy: tuple[World, ...]
    absolute: World
    eps: float
    kinks: dict[str, int]


def build_worlds(
    net: Network,
    x: Array,
    targets: Array,
    eps: float,
    activations: Mapping[str, Array],
    probabilities: Array | None,
    *,
    training: bool,
    seed: Seed,
    noisy: bool = True,
    deltas: Mapping[str, Array] | None = None,
) -> Worlds:
    """Run checked images forward through a float64 network, in every world.

    ``activations`` are theirs, of some layers: from there on the pass goes on with them. So are
    ``deltas``: which of the cells that tie in a pooling window gets its delta is as in them.
    """
    parameters = {name: net.arrays_of(name) for name in net.names}
    coarse = {key: _rough(value, eps) for key, value in net.parameters.items()}
    images = scaled(x, np.dtype(np.float64))
    given = [np.asarray(activations.get("input", images), np.float64)]
    given += [
        _noise(given[0], eps * abs(given[0]) * _rough(given[0], eps), r)
        for r in range(NOISY * noisy)
    ]
    outputs = [{"input": values} for values in given]
    scenes: list[dict[str, Scene]] = [{} for _ in outputs]
    absolute: dict[str, Scene] = {}
    kinks: dict[str, int] = {}
    before = "input"
    for index, (name, layer) in enumerate(zip(net.names, net.layers, strict=True)):
        active = training and name not in net.frozen
        key = random_key(seed, index) if layer.random else 0
        given, undecided = _with_kinks(layer, given) if noisy else (given, 0)
        if undecided:
            kinks[name] = undecided
        made = []
        for r, values in enumerate(given):
            own = parameters[name]
            if r:
                own = {
                    short: _noise(p, eps / 2 * abs(p) * coarse.get(f"{name}.{short}", 0.0), r + 31)
                    for short, p in own.items()
                }
            y, kept = layer.forward(values, own, training=active, key=key)
            if isinstance(layer, MaxPool2D):
                kept = _as_theirs(layer, given[0], kept, _delta_below(net, index, deltas or {}))
                if r:
                    y, kept = _decided(layer, given, r, y, kept)
            made.append(y)
            scenes[r][name] = Scene(name, layer, values, y, kept, own, outputs[r], before)
        exact = scenes[0][name]
        absolute[name] = _absolute(exact)
        if name in activations:
            given = [np.asarray(activations[name], np.float64)] * len(made)
        else:
            amplitude = forward_noise(absolute[name], made[0], eps)
            given = [made[0]]
            given += [
                y if amplitude is None else _noise(y, amplitude, 7 * r + index, made[0])
                for r, y in enumerate(made[1:])
            ]
        for r, y in enumerate(given):
            outputs[r][name] = y
        before = name
    losses = [
        _loss_scene(net, logits, targets, None if r else probabilities, probabilities)
        for r, logits in enumerate(given)
    ]
    worlds = [
        World(own, loss, passed) for own, loss, passed in zip(scenes, losses, outputs, strict=True)
    ]
    sizes = {name: abs(values) for name, values in outputs[0].items()}
    absolute = {
        name: Scene(
            s.name, s.layer, s.x, s.y, s.kept, s.parameters, sizes, s.before, s.rate, s.decay
        )
        for name, s in absolute.items()
    }
    return Worlds(worlds[0], tuple(worlds[1:]), World(absolute, losses[0], sizes), eps, kinks)


def _loss_scene(
    net: Network, logits: Array, targets: Array, own: Array | None, given: Array | None
) -> LossScene:
    """Return the loss's scene; with probabilities that were given in place of the softmax."""
    _, kept = net.loss.forward(logits, targets)
    if not net.loss.classifies:
        difference, share = kept
        return LossScene(net.loss, logits, targets, logits, logits - difference, share)
    _, t, share = kept
    p = given if given is not None else softmax(logits)
    return LossScene(net.loss, logits, targets, np.asarray(own if own is not None else p), t, share)


def _rough(array: Array, eps: float) -> float:
    """Return 1.0 where the array's numbers are not numbers of that precision, else 0.0."""
    if eps < 1e-12:
        return 0.0
    narrow = np.float32 if eps < 1e-5 else np.float16
    with np.errstate(all="ignore"):
        return float((array.astype(narrow) != array).any())


def _noise(values: Array, amplitude: Array, seed: int, by: Array | None = None) -> Array:
    noisy: Array = values + amplitude * hashed(values if by is None else by, seed)
    return noisy


def count_terms(layer: Layer, x: Array, y: Array) -> dict[str, int]:
    """Count what is added up in one cell of the output, the next delta, and a gradient."""
    everywhere = int(np.prod(y.shape)) // y.shape[1]
    counts = {"output": 1, "delta": 1, "gradient": everywhere}
    if isinstance(layer, Conv2D):
        cells = int(np.prod(layer.parameter_shapes(x.shape[1:])["weight"][2:]))
        counts["output"] = x.shape[1] // layer.groups * cells + 1
        counts["delta"] = layer.filters // layer.groups * cells
    elif isinstance(layer, Dense):
        counts["output"], counts["delta"] = x.shape[1] + 1, layer.units
    elif isinstance(layer, AvgPool2D | GlobalAvgPool2D):
        counts["output"] = max(x[0].size // y[0].size, 1)
    elif isinstance(layer, BatchNorm2D):
        counts["output"] = counts["delta"] = everywhere
    return counts


def amplitude_of(size: Array, result: Array, terms: int, eps: float) -> Array:
    """Return how far a sum is usually off, from the sum of absolute values and the sum itself."""
    amplitude: Array = eps / 2 * (abs(size) + abs(result) * (terms / 3 + 1) ** 0.5)
    return amplitude


def forward_noise(absolute: Scene, y: Array, eps: float) -> Array | None:
    """Return the usual error of a layer's output; None where it only chooses or rearranges."""
    layer, x = absolute.layer, absolute.x
    if isinstance(layer, Sigmoid | Tanh):
        return np.full(y.shape, 2 * eps)
    if isinstance(layer, BatchNorm2D | Normalize):
        return 4 * eps * np.broadcast_to(abs(absolute.y), y.shape)
    if isinstance(layer, Conv2D | Dense | AvgPool2D | GlobalAvgPool2D):
        size, _ = layer.forward(x, absolute.parameters)
        return amplitude_of(size, y, count_terms(layer, x, y)["output"], eps)
    return None


def _absolute(scene: Scene) -> Scene:
    """Return the scene with absolute values; what only chooses keeps what it chooses by."""
    layer, x = scene.layer, abs(scene.x)
    parameters = {name: abs(p) for name, p in scene.parameters.items()}
    kept, y = scene.kept, abs(scene.y)
    if isinstance(layer, Conv2D):
        kept = (abs(scene.kept[0]), scene.kept[1])
    elif isinstance(layer, Dense):
        kept = x
    elif isinstance(layer, BatchNorm2D):
        z, scale, batch = kept
        shift = abs(scene.x).mean(axis=(0, 2, 3), keepdims=True) if batch else 0.0
        size = abs(z) + 2 * (shift + x) * scale[:, None, None]
        kept = (size, scale, batch)
        y = parameters["weight"][:, None, None] * size + parameters["bias"][:, None, None]
    elif isinstance(layer, Normalize):
        tail = (1,) * (x.ndim - 2)
        mean, spread = (parameters[k].reshape(-1, *tail) for k in ("mean", "deviation"))
        y = (x + mean) / spread
    return Scene(scene.name, layer, x, y, kept, parameters, {}, scene.before)


# Kinks ------------------------------------------------------------------------------------------


def _with_kinks(layer: Layer, given: list[Array]) -> tuple[list[Array], int]:
    """Let the noisy inputs of a rectifier fall on either side of 0 where rounding decides."""
    if not isinstance(layer, ReLU | LeakyReLU):
        return given, _ties(layer, given) if isinstance(layer, MaxPool2D) else 0
    spread = np.max([abs(x - given[0]) for x in given[1:]], axis=0)
    undecided = (abs(given[0]) <= _CLOSE * spread) & (spread > 0)
    if not undecided.any():
        return given, 0
    tiny = np.maximum(abs(given[0]), spread / _CLOSE)
    sides = [np.where(given[0] > 0, -1.0, 1.0)]
    sides += [np.sign(hashed(given[0], 100 + r)) for r in range(len(given) - 2)]
    noisy = [np.where(undecided, side * tiny, x) for side, x in zip(sides, given[1:], strict=True)]
    return [given[0], *noisy], int(undecided.sum())


def _cells(layer: MaxPool2D, x: Array, around: tuple[tuple[int, int], tuple[int, int]]) -> Array:
    seen = windows(pad(x, around, -np.inf), layer.size, layer.step)
    return seen.reshape(*seen.shape[:4], -1)  # (N, C, P, Q, R S)


def _rivals(layer: MaxPool2D, given: list[Array]) -> tuple[Array, Array]:
    """Return which windows rounding decides about, and each window's second-largest place."""
    _, (_, _, around) = layer.forward(given[0][:1], {})
    cells = _cells(layer, given[0], around)
    spread = np.max([abs(x - given[0]) for x in given[1:]], axis=0)
    noise = np.where(np.isfinite(cells), _cells(layer, spread, around), 0).max(axis=-1)
    best = cells.max(axis=-1, keepdims=True)
    others = np.where(cells == best, -np.inf, cells)
    second = others.max(axis=-1)
    close = (best[..., 0] - second <= _CLOSE * noise) & np.isfinite(second)
    return close, others.argmax(axis=-1)


def _ties(layer: MaxPool2D, given: list[Array]) -> int:
    return int(_rivals(layer, given)[0].sum())


def _delta_below(net: Network, index: int, deltas: Mapping[str, Array]) -> Array | None:
    """Return their delta of a pooling's input, or of what lies below it but for activations."""
    for name, layer in zip(net.names[:index][::-1], net.layers[:index][::-1], strict=True):
        if name in deltas:
            return deltas[name]
        if not isinstance(layer, ReLU | LeakyReLU | Sigmoid | Tanh):
            return None
    return deltas.get("input")


def _as_theirs(
    layer: MaxPool2D, x: Array, kept: tuple[Array, object, Any], theirs: Array | None
) -> tuple[Array, object, Any]:
    """Let that cell of several equal ones win which alone has a delta in theirs.

    Windows of equal cells give equal sums, but not in every program to the last digit.
    """
    winner, shape, around = kept
    if theirs is None:
        return kept
    cells = _cells(layer, x, around)
    equal = cells == cells.max(axis=-1, keepdims=True)
    has = equal & (_cells(layer, theirs, around) != 0)
    alone = (equal.sum(axis=-1) > 1) & (has.sum(axis=-1) == 1)
    return np.where(alone, has.argmax(axis=-1), winner), shape, around


def _decided(
    layer: MaxPool2D, given: list[Array], r: int, y: Array, kept: tuple[Array, object, Any]
) -> tuple[Array, tuple[Array, object, Any]]:
    """Let the other of two nearly tied cells win: all of them in the first noisy world."""
    close, second = _rivals(layer, given)
    if not close.any():
        return y, kept
    winner, shape, around = kept
    chosen = close if r == 1 else close & (hashed(y, 200 + r) > 0)
    return y, (np.where(chosen, second, winner), shape, around)
