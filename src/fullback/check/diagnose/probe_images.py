"""A batch on which the catalogue's mistakes differ, ``probe``; what a batch cannot distinguish."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.diagnose.compare import length
from fullback.check.diagnose.ensemble import forward_pass
from fullback.check.mistakes import BackwardPass, ForwardPass, backward, every_mutant
from fullback.layers.base import Array
from fullback.network import Network
from fullback.options import require_whole

_TRIES = 4
_RATE, _DECAY = 0.1, 0.01  # of an early update, and of an L2 term
_SAME = 1e-6  # relative difference below which two results are one, in float32 at the latest


class Place(NamedTuple):
    """A mistake in a layer; an empty mistake is the right backward pass."""

    mistake: str
    layer: str


def probe(net: Network, seed: int = 0) -> tuple[Array, Array]:
    """Return a batch designed to separate the catalogue's mistakes on this network.

    It has several images with different labels, but not as many as there are classes, filters or
    cells in a window, so that no factor 1 / N looks like another; a flat background of zeros, on
    which pooling has ties; strokes of distinct values, of several magnitudes, that no transpose or
    turn leaves as they are.

    Parameters
    ----------
    net : the network, with the weights that it is to be probed with
    seed : fixes the batch

    Returns
    -------
    x : ndarray of shape (N, *input_shape), of the network's dtype
    y : labels of shape (N,), or targets of shape (N, outputs) for MeanSquaredError

    Raises
    ------
    OptionError
        The seed is not a whole number of at least 0.
    """
    require_whole("seed", seed, 0)
    best: tuple[int, Array, Array] | None = None
    for attempt in range(_TRIES):
        rng = np.random.default_rng([seed, attempt, 1])
        x, y = _draw(net, rng)
        left = len(coincidences(net, x, y))
        if best is None or left < best[0]:
            best = (left, x, y)
        if not left:
            break
    assert best is not None  # noqa: S101 -- the loop ran
    return best[1], best[2]


def _draw(net: Network, rng: np.random.Generator) -> tuple[Array, Array]:
    classes = net.output_shape[0]
    avoided = {classes, 4, 8, 9}
    for shape in net.shapes:
        avoided |= {shape[0], int(np.prod(shape[1:]))}
    images = next(n for n in (5, 6, 7, 10, 11, 13, 17, 19, 23, *range(25, 99)) if n not in avoided)
    magnitude = 10.0 ** rng.uniform(-1, 0.3, (images,) + (1,) * len(net.input_shape))
    x = magnitude * rng.uniform(0.2, 1.0, (images, *net.input_shape))
    if len(net.input_shape) == 3:
        _, rows, columns = net.input_shape
        drawn = np.zeros((images, 1, rows, columns), bool)
        for n in range(images):
            # two bars, one lying and one standing, at places of this image's own
            top, left = rng.integers(0, max(rows // 2, 1)), rng.integers(0, max(columns // 2, 1))
            drawn[n, 0, top : top + max(rows // 3, 2), left : left + max(2 * columns // 3, 3)] = (
                True
            )
            side = rng.integers(0, columns)
            drawn[n, 0, rows // 3 :, side : side + 2] = True
        x *= drawn & (rng.random(x.shape) < 0.9)
    if not net.loss.classifies:
        return x.astype(net.dtype), rng.normal(size=(images, classes))
    return x.astype(net.dtype), np.resize(rng.permutation(classes), images)


def coincidences(
    net: Network, x: ArrayLike, y: ArrayLike, *, deltas: bool = True
) -> list[tuple[Place, Place]]:
    """Return the pairs of mistakes that these images and labels cannot distinguish.

    Parameters
    ----------
    net, x, y : as for ``diagnose``
    deltas : whether deltas are submitted to ``diagnose`` as well, or parameter gradients only

    Returns
    -------
    pairs of places (mistake, layer); ("", "") is the right backward pass, from which the other
    place of the pair does not differ
    """
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    forward = forward_pass(net.copy(dtype="float64"), images, targets)
    results = _results(forward, deltas=deltas)
    pairs: dict[tuple[Place, Place], None] = {}
    right = results[0][1]
    for index, (place, own) in enumerate(results[1:], 1):
        if _equal(own, right):
            pairs[Place("", ""), place] = None
            continue
        for other, rest in results[index + 1 :]:
            alike = {place.mistake, other.mistake} == {"bias-averaged", "batch-scale"}
            if other.mistake != place.mistake and not alike and _equal(own, rest):
                pairs[place, other] = None
    return list(pairs)


def _equal(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return all(
        one[name] is other[name]
        or length(one[name] - other[name]) <= _SAME * max(length(one[name]), length(other[name]))
        for name in one
    )


def _results(forward: ForwardPass, *, deltas: bool) -> list[tuple[Place, dict[str, Array]]]:
    """Return what the right backward pass, and each with one mistake, computes."""

    def arrays(result: BackwardPass) -> dict[str, Array]:
        every = {f"delta of {name}": delta for name, delta in result.deltas.items() if deltas}
        return result.gradients | every

    right = backward(forward, {}, rate=_RATE, decay=_DECAY)
    found = [(Place("", ""), arrays(right))]
    for layer, mutant in every_mutant(forward):
        if mutant.mistake is not None:
            wrong = {layer: [mutant]}
            result = backward(forward, wrong, rate=_RATE, decay=_DECAY, right=right)
            found.append((Place(mutant.mistake, layer), arrays(result)))
    return found
