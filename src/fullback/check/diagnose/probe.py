"""A batch on which the catalogue's mistakes differ: ``probe``; and what a batch cannot tell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fullback.check.diagnose.chain import Chain, gradient_in
from fullback.check.diagnose.compare import length
from fullback.check.diagnose.ensemble import Worlds, build_worlds
from fullback.check.mistakes import Mutant, mutants_of
from fullback.layers.base import Array
from fullback.network import Network
from fullback.options import require_whole

_TRIES = 4
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
    taken = {classes, 4, 8, 9}
    for shape in net.shapes:
        taken |= {shape[0], int(np.prod(shape[1:]))}
    images = next(n for n in (5, 6, 7, 10, 11, 13, 17, 19, 23, *range(25, 99)) if n not in taken)
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
    """Return the pairs of mistakes that these images and labels cannot tell apart.

    Parameters
    ----------
    net, x, y : as for ``diagnose``
    deltas : whether deltas are given to ``diagnose`` as well, or parameter gradients only

    Returns
    -------
    pairs of places (mistake, layer); ("", "") is the right backward pass, from which the other
    place of the pair does not differ
    """
    images = net.check_images(x)
    targets = net.loss.targets(y, len(images), net.output_shape[0])
    double = net.copy(dtype="float64")
    worlds = build_worlds(
        double, images, targets, 2.0**-52, {}, None, training=True, seed=0, noisy=False
    )
    results = _results(worlds, net.names, deltas=deltas)
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


def _results(
    worlds: Worlds, names: tuple[str, ...], *, deltas: bool
) -> list[tuple[Place, dict[str, Array]]]:
    """Return what the right backward pass, and each with one mistake, computes."""
    loss = mutants_of(worlds.true.loss)
    places: list[tuple[str, Mutant]] = [("loss", mutant) for mutant in loss]
    for name in reversed(names):
        places += [(name, mutant) for mutant in mutants_of(worlds.true.scenes[name])]
    chains, right = _backward(worlds, names, None, None, None)
    found = [(Place("", ""), _arrays(right, chains, names, deltas=deltas))]
    for layer, mutant in places:
        if mutant.mistake is None:
            continue
        own_chains, own = _backward(worlds, names, (layer, mutant), chains, right)
        place = Place(mutant.mistake, layer)
        found.append((place, _arrays(own, own_chains, names, deltas=deltas)))
    return found


def _arrays(
    gradients: dict[str, Array],
    chains: dict[str, Chain],
    names: tuple[str, ...],
    *,
    deltas: bool,
) -> dict[str, Array]:
    every = dict(gradients)
    if deltas:
        every |= {f"delta of {name}": chains[name].at(0) for name in ("input", *names)}
    return every


def _backward(
    worlds: Worlds,
    names: tuple[str, ...],
    wrong: tuple[str, Mutant] | None,
    right_chains: dict[str, Chain] | None,
    right: dict[str, Array] | None,
) -> tuple[dict[str, Chain], dict[str, Array]]:
    """Run one backward pass; above the mistake everything is the right one's."""

    def own(layer: str, target: str) -> tuple[Mutant, ...]:
        hit = wrong is not None and wrong[0] == layer and wrong[1].target == target
        return (wrong[1],) if hit and wrong is not None else ()

    chains: dict[str, Chain] = {}
    gradients: dict[str, Array] = {}
    same = right_chains is not None and wrong is not None and wrong[0] != "loss"
    chain = (
        right_chains[names[-1]]
        if same and right_chains is not None
        else Chain(worlds, None, "loss", own("loss", "delta"))
    )
    for name in reversed(names):
        chains[name] = chain
        scene = worlds.true.scenes[name]
        for target in scene.layer.parameter_shapes(scene.x.shape[1:]):
            mutants = own(name, target)
            key = f"{name}.{target}"
            if same and not mutants and right is not None:
                gradients[key] = right[key]
            else:
                made = gradient_in(chain, name, target, mutants, 1.0, 0.01)  # type: ignore[arg-type]
                gradients[key] = made(0)
        mutants = own(name, "delta")
        if same and not mutants and right_chains is not None:
            chain = right_chains[scene.before]
        else:
            same = False
            chain = Chain(worlds, chain, name, mutants, rate=0.1)
    chains["input"] = chain
    return chains, gradients
