"""Mistakes in max and average pooling.

Stages: "delta", "rule" (who gets how much, in the padded map), "crop", "out".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fullback.check.mistakes.base import Change, Mutant, Stages, same
from fullback.check.mistakes.common import last_for_all
from fullback.check.mistakes.layer_pass import Scene
from fullback.layers import MaxPool2D
from fullback.layers.base import Array
from fullback.layers.window import crop, pad, windows


def taps(scene: Scene, canvas: Array, counts: tuple[int, ...]) -> Iterator[tuple[int, Array]]:
    """For every place in a window, the cells of the canvas there: one a window."""
    (rows, columns), (down, across) = scene.window, scene.stride
    for tap in range(rows * columns):
        r, s = divmod(tap, columns)
        yield tap, canvas[:, :, r::down, s::across][:, :, : counts[0], : counts[1]]


def share_out(scene: Scene, dy: Array, shares: Array | float, *, adds: bool = True) -> Array:
    """Give every tap of a window its share (N, C, P, Q, R S) of the window's delta."""
    canvas = np.zeros((*scene.x.shape[:2], *scene.padded))
    for tap, cells in taps(scene, canvas, dy.shape[2:]):
        share = shares if isinstance(shares, float) else shares[..., tap]
        if adds:
            cells += dy * share
        else:
            cells[...] = np.where(share != 0, dy * share, cells)
    return canvas


def seen(scene: Scene) -> Array:
    """The windows' cells (N, C, P, Q, R S), with minus infinity for padding."""
    x = pad(scene.x, scene.around, -np.inf)
    every = windows(x, scene.window, scene.stride)
    return every.reshape(*every.shape[:4], -1)


def winners(scene: Scene) -> Array:
    """1 where a window's winner is, else 0; for an average, 1 / (R S) everywhere."""
    size = scene.window[0] * scene.window[1]
    if not isinstance(scene.layer, MaxPool2D):
        return np.full((*scene.y.shape, size), 1 / size)
    if "winners" not in scene.memory:
        won = (scene.kept[0][..., None] == np.arange(size)).astype(np.float64)
        scene.memory["winners"] = won
    return scene.memory["winners"]


def _all_ties(scene: Scene) -> Array:
    if "ties" not in scene.memory:
        scene.memory["ties"] = _find_ties(scene)
    return scene.memory["ties"]


def _find_ties(scene: Scene) -> Array:
    cells = seen(scene)
    ties: Array = (cells == cells.max(axis=-1, keepdims=True)).astype(np.float64)
    # where rounding chose another winner than the largest cell, that one is it
    chosen = winners(scene)
    largest = np.take_along_axis(ties, scene.kept[0][..., None], axis=-1)
    return np.where(largest > 0, ties, chosen)


def _last_tie(scene: Scene) -> Array:
    ties = _all_ties(scene)
    size = ties.shape[-1]
    place = size - 1 - ties[..., ::-1].argmax(axis=-1)
    last: Array = (place[..., None] == np.arange(size)).astype(np.float64)
    return last


STAGES: Stages = (
    ("delta", same),
    ("rule", lambda s, v, dy: share_out(s, v, winners(s))),
    ("crop", lambda s, v, dy: crop(v, s.around)),
    ("out", same),
)


def _assigned(scene: Scene, dy: Array, *, zeros: bool) -> Array:
    """Assign window after window: the last one counts that a cell won, or lay in with ``zeros``."""
    canvas = np.zeros((*scene.x.shape[:2], *scene.padded))
    shares = winners(scene)
    (rows, columns), (down, across) = scene.window, scene.stride
    for p in range(dy.shape[2]):
        for q in range(dy.shape[3]):
            share = shares[:, :, p, q].reshape(*dy.shape[:2], rows, columns)
            part = canvas[:, :, p * down : p * down + rows, q * across : q * across + columns]
            own = share * dy[:, :, p, q, None, None]
            part[...] = own if zeros else np.where(share > 0, own, part)
    return canvas


def _last_image(scene: Scene, dy: Array, _: Array) -> Array:
    return share_out(scene, dy, last_for_all(winners(scene)))


def cropped(canvas: Array, scene: Scene, above: int, left: int) -> Array:
    """Cut the padded map to the input's size, from another corner."""
    rows, columns = scene.x.shape[2:]
    return canvas[:, :, above : above + rows, left : left + columns]


def _cropped_at(above: int, left: int) -> Change:
    return lambda s, v, dy: cropped(v, s, above, left)


def crops(scene: Scene) -> Iterator[Mutant]:
    """Yield wrong ways to take the padding off."""
    (above, below), (left, right) = scene.around
    places = {
        (0, 0): "all of the padding was cut off below and on the right",
        (above + below, left + right): "all of the padding was cut off above and on the left",
        (below, right): "the odd row and column of the padding were cut off from the wrong side",
    }
    for (top, start), said in places.items():
        if (top, start) != (above, left):
            yield Mutant(
                "padding-cropped-wrong",
                "delta",
                "crop",
                _cropped_at(top, start),
                said,
            )


def mutants(scene: Scene) -> Iterator[Mutant]:
    """Yield the mutants of a pooling layer."""
    size = scene.window[0] * scene.window[1]
    largest = isinstance(scene.layer, MaxPool2D)
    if largest:
        yield Mutant(
            "pool-ties-all",
            "delta",
            "rule",
            lambda s, v, dy: share_out(s, v, _all_ties(s)),
            "every cell that equals the maximum got the whole delta, not the winner alone",
        )
    if largest or size > 1:
        yield Mutant(
            "pool-spread",
            "delta",
            "rule",
            lambda s, v, dy: share_out(s, v, 1.0),
            "every cell of the window got the whole delta",
        )
    if largest:
        yield Mutant(
            "pool-spread",
            "delta",
            "rule",
            lambda s, v, dy: share_out(s, v, 1 / size),
            "the delta was shared out evenly over the window, as for an average",
        )
    if any(step < n for step, n in zip(scene.stride, scene.window, strict=True)):
        yield Mutant(
            "pool-overlap-assigned",
            "delta",
            "rule",
            lambda s, v, dy: _assigned(s, v, zeros=False),
            "a cell that several windows share got the last one's delta, not the sum",
        )
        yield Mutant(
            "pool-overlap-assigned",
            "delta",
            "rule",
            lambda s, v, dy: _assigned(s, v, zeros=True),
            "each window was assigned whole, zeros and all, over what the one before had left",
        )
        yield Mutant(
            "pool-overlap-assigned",
            "delta",
            "rule",
            lambda s, v, dy: share_out(s, v, winners(s), adds=False),
            "place after place in the window, the deltas were assigned, not added",
        )
    yield from crops(scene)
    if largest and scene.images > 1:
        yield Mutant(
            "cache-overwritten",
            "delta",
            "rule",
            _last_image,
            "the last image's winners stood in the cache for every image",
        )
    if largest:
        yield Mutant(
            None,
            "delta",
            "rule",
            lambda s, v, dy: share_out(s, v, _last_tie(s)),
            "ties go to the last maximum of a window here, and to the first in fullback: "
            "both are right",
        )
        yield Mutant(
            None,
            "delta",
            "rule",
            lambda s, v, dy: share_out(
                s, v, _all_ties(s) / _all_ties(s).sum(axis=-1, keepdims=True)
            ),
            "ties share the delta evenly here, and the first maximum gets it in fullback: "
            "both are right",
        )
