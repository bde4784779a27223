"""A batch on which the catalogue's mistakes differ, ``probe``; what a batch cannot distinguish."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import fields
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.diagnose.batch import require_network
from fullback.check.diagnose.compare import length
from fullback.check.diagnose.ensemble import forward_pass
from fullback.check.mistakes import (
    ForwardPass,
    Memo,
    backward,
    every_mutant,
    first_delta,
    named_arrays,
    propagate,
)
from fullback.layers.base import Array
from fullback.network import Network
from fullback.options import require_whole

_TRIES = 8  # draws, at most
_WORK = 1e6  # cells of all layers and images together, in all draws but the first
_NUMBERS = {"rate": 0.1, "decay": 0.01, "threshold": 1e-9, "factor": 0.37}
"""The numbers of mistakes that have one, by what it is."""
_ALIKE = (
    # mistakes that are one: of a bias alone; where the stride leaves rows or columns over
    {"bias-averaged", "batch-scale"},
    {"stride-leftover", "full-convolution-cropped"},
)
_SAME = 1e-6  # relative difference below which two results are one, in float32 at the latest


class Place(NamedTuple):
    """A mistake in a layer; an empty mistake is the right backward pass."""

    mistake: str
    layer: str


_SHOWN = 12  # remarks, at most, in the batch's own words


class Probe(tuple[Array, Array]):
    """A batch, ``x, y = probe(net)``, and what it cannot show; ``print`` says both.

    Attributes
    ----------
    hidden : remarks about what does not show on these images and with these parameters
    """

    hidden: tuple[str, ...]

    def __new__(cls, x: Array, y: Array, hidden: tuple[str, ...]) -> Probe:
        """Pair images with their labels."""
        batch = super().__new__(cls, (x, y))
        batch.hidden = hidden
        return batch

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.hidden)

    def __repr__(self) -> str:
        x, _ = self
        lines = [f"{len(x)} images of {x.shape[1:]}, {x.dtype}, and what belongs to each"]
        lines += self.hidden[:_SHOWN] or [
            "every mistake of the catalogue shows, each by other numbers"
        ]
        if len(self.hidden) > _SHOWN:
            lines.append(f"and {len(self.hidden) - _SHOWN} more, in its attribute hidden")
        return "\n- ".join(lines)


def probe(net: Network, seed: int = 0) -> Probe:
    """Return a batch designed to separate the catalogue's mistakes on this network.

    Its number of images is a prime that divides no number of the network: classes, filters,
    channels, cells of a window or a map. So no factor that a mistake brings looks like another. In
    every third image a flat background that is not 0 gives pooling ties; what is drawn there, and
    all of the others, has distinct values of several magnitudes and both signs, which no transpose
    or turn leaves as they are.

    Parameters
    ----------
    net : the network, with the weights that it is to be probed with
    seed : fixes the batch

    Returns
    -------
    a pair, ``x, y = probe(net)``, with the attribute ``hidden``: what the batch cannot show
    x : ndarray of shape (N, *input_shape), of the network's dtype
    y : labels of shape (N,), or targets of shape (N, outputs) for MeanSquaredError

    Raises
    ------
    OptionError
        The seed is not a whole number of at least 0, or ``net`` is no network.
    """
    require_network("probe", net)
    require_whole("seed", seed, 0)
    best: tuple[list[tuple[Place, Place]], Array, Array] | None = None
    cells = images_for(net) * net.pass_values
    for attempt in range(min(_TRIES, 1 + int(_WORK / cells))):
        x, y = _draw(net, np.random.default_rng([seed, attempt, 1]))
        left = coincidences(net, x, y)
        settled = best is not None and left == best[0]  # another draw hardly helps
        if best is None or len(left) < len(best[0]):
            best = left, x, y
        if settled or not left:
            break
    assert best is not None  # noqa: S101 -- the loop ran
    left, x, y = best
    return Probe(x, y, (*_without_bias(net), *map(_remark, left)))


# Images -------------------------------------------------------------------------------------------


def images_for(net: Network) -> int:
    """Return how many images a batch needs so that no factor of a mistake looks like another.

    Factors are products and quotients of the numbers of the network, of 2 and of 3. A prime that
    divides none of them, to whichever power, is none of these, nor is a product with it.
    """
    numbers = {2, 3}
    for shape in (net.input_shape, *net.shapes):
        numbers |= {*shape}
    for layer in net.layers:
        for field in fields(layer):  # type: ignore[arg-type]
            value = getattr(layer, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int):
                    numbers.add(number)
                elif isinstance(number, float):  # the share that dropout leaves, for one
                    for part in (Fraction(number), 1 - Fraction(number)):
                        near = part.limit_denominator(100)
                        numbers |= {near.numerator, near.denominator}
    primes = (n for n in itertools.count(5, 2) if all(n % d for d in range(3, n, 2)))
    return next(n for n in primes if all(number % n or not number for number in numbers))


def _draw(net: Network, rng: np.random.Generator) -> tuple[Array, Array]:
    images, outputs = images_for(net), net.output_shape[0]
    magnitude = 10.0 ** rng.uniform(-1, 0.3, (images,) + (1,) * len(net.input_shape))
    x = rng.uniform(0.2, 1.0, (images, *net.input_shape))
    x *= np.where(rng.random(x.shape) < 0.3, -1, 1)  # so that a ReLU has something to cut off
    if len(net.input_shape) == 3:
        flat = rng.uniform(0.1, 0.3, (images, net.input_shape[0], 1, 1))
        flat[::6] *= -1
        drawn = _strokes(images, *net.input_shape[1:], rng) & (rng.random(x.shape) < 0.9)
        drawn[np.arange(images) % 3 > 0] = True  # more ties would leave too much undecided
        x = np.where(drawn, x, flat)
    x = (magnitude * x).astype(net.dtype)
    if not net.loss.classifies:
        return x, rng.normal(size=(images, outputs))
    return x, np.resize(rng.permutation(max(outputs, 2)), images)


def _strokes(images: int, rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Return where images are drawn on: a bar that lies, one that stands, and a corner of each."""
    drawn = np.zeros((images, 1, rows, columns), bool)
    for n in range(images):
        top, left = rng.integers(0, max(rows // 2, 1)), rng.integers(0, max(columns // 2, 1))
        drawn[n, 0, top : top + max(rows // 3, 2), left : left + max(2 * columns // 3, 3)] = True
        side = rng.integers(0, columns)
        drawn[n, 0, rows // 3 :, side : side + 2] = True
        high, wide = max(rows // 4, 2), max(columns // 4, 2)  # in a corner: a window may be alone
        drawn[n, 0][(slice(high), slice(-high, None))[n % 2]][
            :, (slice(wide), slice(-wide, None))[n // 2 % 2]
        ] = True
    return drawn


# What a batch cannot show -------------------------------------------------------------------------


def coincidences(net: Network, x: ArrayLike, y: ArrayLike) -> list[tuple[Place, Place]]:
    """Return the pairs of mistakes that these images and labels cannot distinguish.

    Parameters
    ----------
    net, x, y : as for ``diagnose``, which is given all gradients and deltas

    Returns
    -------
    pairs of places (mistake, layer); ("", "") is the right backward pass, from which the other
    place of the pair does not differ
    """
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    forward = forward_pass(net.copy(dtype="float64"), images, targets)
    pairs: dict[tuple[Place, Place], None] = {}
    for right, results in _results(forward).values():
        of_right = _sketch(right)
        sketches = np.array([_sketch(array) for _, array in results]).reshape(-1, len(of_right))
        for n, (place, array) in enumerate(results):
            if _near(of_right, sketches[n : n + 1])[0] and _equal(array, right):
                pairs[Place("", ""), place] = None
                continue
            for m in n + 1 + np.flatnonzero(_near(sketches[n], sketches[n + 1 :])):
                other, rest = results[m]
                alike = other.mistake == place.mistake or {place.mistake, other.mistake} in _ALIKE
                if not alike and rest.any() and _equal(array, rest):  # zeros tell of no mistake
                    pairs[place, other] = None
    return list(pairs)


def _results(forward: ForwardPass) -> dict[str, tuple[Array, list[tuple[Place, Array]]]]:
    """Return the right arrays by name, and each with what every mistake that is next to it makes.

    A mistake differs from the right pass in the array that it is made in, or nowhere.
    """
    right = backward(forward, {}, rate=0.0, decay=0.0)
    found: dict[str, tuple[Array, list[tuple[Place, Array]]]]
    found = {name: (array, []) for name, array in named_arrays(right).items()}
    last, memos = next(reversed(forward.layers)), dict[str, Memo]()
    for layer, mutant in every_mutant(forward):
        if mutant.mistake is None:
            continue
        if layer == "loss":
            name, array = f"delta of {last}", first_delta(forward.loss, (mutant,))
        else:
            number = _NUMBERS[mutant.unknown or "decay"]
            p = forward.layers[layer].with_rates(_NUMBERS["rate"], number)
            below = f"delta of {p.before}" if mutant.target == "delta" else ""
            name = below or f"{layer}.{mutant.target}"
            memo = memos.setdefault(layer, {})
            array = propagate(p, mutant.target, right.deltas[layer], (mutant,), memo)
        found[name][1].append((Place(mutant.mistake, layer), array))
    return found


def _sketch(array: Array) -> Array:
    """Return a few numbers that differ where arrays do: the length, and places along lines."""
    return np.array([length(array), *(_lines(array.size) @ array.ravel())])


@functools.lru_cache(maxsize=4)
def _lines(size: int) -> Array:
    """Return two lines through a space of so many numbers, (2, size)."""
    turns = np.arange(size) * (0.5 + 5**0.5 / 2)
    lines: Array = np.cos(np.array([[1.0], [2.0]]) * turns)
    return lines


def _near(one: Array, others: Array) -> Array:
    """Return which others are so near that their arrays may be equal."""
    reach = 10 * _SAME * np.maximum(one[0], others[:, 0])
    near: Array = (abs(others - one) <= reach[:, None]).all(axis=1)
    return near


def _equal(one: Array, other: Array) -> bool:
    return length(one - other) <= _SAME * max(length(one), length(other))


def _without_bias(net: Network) -> Iterator[str]:
    """Say which biases are all 0."""
    named = {name: p for name, p in net.parameters.items() if name.endswith(".bias")}
    zero = [name for name, p in named.items() if not p.any()]
    if zero:
        yield (
            f"{', '.join(zero)} {'is' if len(zero) == 1 else 'are'} all 0: what is done with the "
            "numbers of a bias, as an L2 term on it, does not show. Others can be assigned to "
            "net.parameters before both programs run"
        )


def _remark(pair: tuple[Place, Place]) -> str:
    one, other = pair
    if not one.mistake:
        return f"{other.mistake} in {other.layer} changes nothing here"
    return (
        f"{one.mistake} in {one.layer} and {other.mistake} in {other.layer} give the same numbers"
    )
