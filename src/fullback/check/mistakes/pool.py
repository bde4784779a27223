"""Max, average and global average pooling: their stages, their mistakes, their rounding.

Stages: "delta", "rule" (who gets how much, in the padded map), "crop", "out".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullback.check.mistakes import common
from fullback.check.mistakes.base import Mistake, Mutants, Stages, delta, same
from fullback.check.mistakes.kinks import WINNER
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.check.mistakes.rules import OWN, Rules, Terms, positions, sum_noise
from fullback.layers.base import Array
from fullback.layers.window import crop, pad, windows


def _share_out(p: LayerPass, dy: Array, shares: Array | float, *, adds: bool = True) -> Array:
    """Give every place of a window its share (N, C, P, Q, R S) of the window's delta."""
    canvas = np.zeros((*p.x.shape[:2], *p.padded))
    (rows, columns), (down, across) = p.window, p.stride
    high, wide = dy.shape[2:]
    for place, (r, s) in enumerate(np.ndindex(rows, columns)):
        cells = canvas[:, :, r::down, s::across][:, :, :high, :wide]  # one a window
        share = shares if isinstance(shares, float) else shares[..., place]
        if adds:
            cells += dy * share
        else:
            cells[...] = np.where(share != 0, dy * share, cells)
    return canvas


def _size(p: LayerPass) -> int:
    return p.window[0] * p.window[1]


def _winners(p: LayerPass) -> Array:
    """1 where a window's winner is, else 0."""
    if "winners" not in p.computed:
        won = (p.cache[0][..., None] == np.arange(_size(p))).astype(np.float64)
        p.computed["winners"] = won
    return p.computed["winners"]


def _evenly(p: LayerPass) -> Array:
    return np.full((*p.y.shape, _size(p)), 1 / _size(p))


def _all_ties(p: LayerPass) -> Array:
    """1 at every cell that equals its window's maximum, else 0."""
    if "ties" not in p.computed:
        every = windows(pad(p.x, p.around, -np.inf), p.window, p.stride)
        cells = every.reshape(*every.shape[:4], -1)
        ties: Array = (cells == cells.max(axis=-1, keepdims=True)).astype(np.float64)
        # where rounding chose another winner than the largest cell, that one is it
        largest = np.take_along_axis(ties, p.cache[0][..., None], axis=-1)
        p.computed["ties"] = np.where(largest > 0, ties, _winners(p))
    return p.computed["ties"]


def _last_tie(p: LayerPass) -> Array:
    ties = _all_ties(p)
    size = ties.shape[-1]
    place = size - 1 - ties[..., ::-1].argmax(axis=-1)
    last: Array = (place[..., None] == np.arange(size)).astype(np.float64)
    return last


def _assigned(p: LayerPass, dy: Array, shares: Array, *, zeros: bool) -> Array:
    """Assign window after window: the last one counts that a cell won, or lay in with ``zeros``."""
    canvas = np.zeros((*p.x.shape[:2], *p.padded))
    (rows, columns), (down, across) = p.window, p.stride
    for i, j in np.ndindex(*dy.shape[2:]):
        share = shares[:, :, i, j].reshape(*dy.shape[:2], rows, columns)
        cells = canvas[:, :, i * down : i * down + rows, j * across : j * across + columns]
        part = share * dy[:, :, i, j, None, None]
        cells[...] = part if zeros else np.where(share > 0, part, cells)
    return canvas


def _stages(shares: Any) -> Stages:
    return (
        ("delta", same),
        ("rule", lambda p, v, dy: _share_out(p, v, shares(p))),
        ("crop", lambda p, v, dy: crop(v, p.around)),
        ("out", same),
    )


def _apart(p: LayerPass) -> bool:
    """Whether a cell lies in one window at most."""
    return all(step >= n for step, n in zip(p.stride, p.window, strict=True))


POOL_SPREAD = Mistake(
    "pool-spread",
    "The pooling layer shared its delta out over the window in the wrong way.",
    "max: only the winner gets dy;  average: every cell gets dy / (R S)",
    "dx[n, c, i_max, j_max] += dy[n, c, p, q]  # max pooling: the winner alone\n"
    "dx[n, c, i:i + R, j:j + S] += dy[n, c, p, q] / (R * S)  # average pooling",
)
OVERLAP_ASSIGNED = Mistake(
    "pool-overlap-assigned",
    "Overlapping pooling windows overwrote each other's deltas.",
    "dx[n,c,i,j] = sum over the windows that (i, j) won of dy[n,c,p,q]",
    "dx = np.zeros_like(x)\ndx[n, c, i_max, j_max] += dy[n, c, p, q]  # +=: a cell can win twice",
)


def _whole(p: LayerPass, v: Array, dy: Array) -> Array:
    return _share_out(p, v, 1.0)


def _add_overlaps(table: Mutants, shares: Any) -> None:
    """Add what goes wrong where windows overlap, and where there is padding."""
    table.add(
        OVERLAP_ASSIGNED,
        delta("rule", "a cell that several windows share got the last one's delta, not the sum",
              lambda p, v, dy: _assigned(p, v, shares(p), zeros=False)),
        delta("rule", "each window was assigned whole, zeros and all, over what the one before had "
              "left", lambda p, v, dy: _assigned(p, v, shares(p), zeros=True)),
        delta("rule", "place after place in the window, the deltas were assigned, not added",
              lambda p, v, dy: _share_out(p, v, shares(p), adds=False)),
        when=lambda p: not _apart(p),
    )  # fmt: skip
    table.add(common.PADDING_CROPPED_WRONG, common.crops)


# Max pooling --------------------------------------------------------------------------------------

MAX_MUTANTS = Mutants()
MAX_MUTANTS.add(
    Mistake("pool-ties-all",
        "The pooling layer handed its delta to every cell that ties for the maximum.",
        "dx[n,c,i,j] = sum over the windows that (i, j) won of dy[n,c,p,q]",
        "winner = windows.argmax(axis=-1)  # the first of a tie, one a window\n"
        "dx.ravel()[winner_index] += dy    # not: (x == max) * dy"),
    delta("rule", "every cell that equals the maximum got the whole delta, not the winner alone",
          lambda p, v, dy: _share_out(p, v, _all_ties(p))),
)  # fmt: skip
MAX_MUTANTS.add(
    POOL_SPREAD,
    delta("rule", "every cell of the window got the whole delta", _whole),
    delta("rule", "the delta was shared out evenly over the window, as for an average",
          lambda p, v, dy: _share_out(p, v, 1 / _size(p))),
)  # fmt: skip
_add_overlaps(MAX_MUTANTS, _winners)
MAX_MUTANTS.add(
    common.CACHE_OVERWRITTEN,
    delta("rule", "the last image's winners stood in the cache for every image",
          lambda p, v, dy: _share_out(p, v, common.last_for_all(_winners(p))),
          common.several_images),
)  # fmt: skip
MAX_MUTANTS.add(
    None,
    delta("rule", "ties go to the last maximum of a window here, and to the first in fullback: "
          "both are right", lambda p, v, dy: _share_out(p, v, _last_tie(p))),
    delta("rule", "ties share the delta evenly here, and the first maximum gets it in fullback: "
          "both are right",
          lambda p, v, dy: _share_out(p, v, _all_ties(p) / _all_ties(p).sum(-1, keepdims=True))),
)  # fmt: skip
MAX_RULES = Rules(
    MAX_MUTANTS,
    {"delta": _stages(_winners)},
    adds=lambda p: not _apart(p),
    kinks=WINNER,
)


# Average pooling ----------------------------------------------------------------------------------


def _terms(layer: Any, x: Array, y: Array) -> Terms:
    return Terms(output=max(x[0].size // y[0].size, 1), gradient=positions(y))


AVERAGE_MUTANTS = Mutants()
AVERAGE_MUTANTS.add(
    POOL_SPREAD,
    delta("rule", "every cell of the window got the whole delta", _whole, lambda p: _size(p) > 1),
)
_add_overlaps(AVERAGE_MUTANTS, _evenly)
AVERAGE_RULES = Rules(
    AVERAGE_MUTANTS, {"delta": _stages(_evenly)}, terms=_terms, noise=sum_noise(_terms)
)

GLOBAL_MUTANTS = Mutants()
GLOBAL_MUTANTS.add(
    POOL_SPREAD,
    delta("out", "every cell of the map got the whole delta",
          lambda p, v, dy: v * p.x.shape[2] * p.x.shape[3]),
)  # fmt: skip
GLOBAL_RULES = Rules(GLOBAL_MUTANTS, {"delta": OWN}, terms=_terms, noise=sum_noise(_terms))
