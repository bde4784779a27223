"""Max, average and global average pooling: their stages, their mistakes, their rounding.

Stages: "delta", "rule" (who gets how much, in the padded map), "crop", "out".
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fullback.check.mistakes import common
from fullback.check.mistakes.base import Mistake, Mutants, Stages, delta, same
from fullback.check.mistakes.kinks import WINNER
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.check.mistakes.rules import OWN, Rules, Terms, positions, sum_noise
from fullback.layers.base import Array
from fullback.layers.window import crop, pad, windows


def _share_out(
    p: LayerPass,
    dy: Array,
    shares: Array | float,
    *,
    step: tuple[int, int] | None = None,
    adds: bool = True,
    backwards: bool = False,
    zeros: bool = False,
) -> Array:
    """Return the delta of the padded input: every place of a window gets its share of the window's.

    Parameters
    ----------
    p, dy : the pass and the delta (N, C, P, Q)
    shares : (R S, N, C, P, Q), or (R S,), or one for all
    step : cells from one window to the next, the stride unless given
    adds : False assigns in place of adding
    backwards : begin with the last place, which, assigning, is to go from window to window
    zeros : assign shares of 0 too
    """
    canvas = np.zeros((*p.x.shape[:2], *p.padded))
    (rows, columns), (down, across) = p.window, step or p.stride
    high, wide = dy.shape[2:]
    places = list(enumerate(np.ndindex(rows, columns)))
    for place, (r, s) in reversed(places) if backwards else places:
        cells = canvas[:, :, r::down, s::across][:, :, :high, :wide]  # one a window
        share = shares if isinstance(shares, float) else shares[place]
        if adds:
            cells += dy * share
        else:
            cells[...] = dy * share if zeros else np.where(share != 0, dy * share, cells)
    return canvas


def _size(p: LayerPass) -> int:
    return p.window[0] * p.window[1]


def _only(place: Array, size: int) -> Array:
    """Return 1 at that place of each window, else 0, (R S, N, C, P, Q)."""
    return np.stack([place == one for one in range(size)]).astype(np.float64)


def _winners(p: LayerPass) -> Array:
    """1 where a window's winner is, else 0."""
    if "winners" not in p.computed:
        p.computed["winners"] = _only(p.cache[0], _size(p))
    return p.computed["winners"]


def _evenly(p: LayerPass) -> float:
    return 1 / _size(p)


def _cells(p: LayerPass, beyond: float) -> Array:
    """Return the windows' cells (R S, N, C, P, Q), with that value in the padding."""
    every = windows(pad(p.x, p.around, beyond), p.window, p.stride)
    return every.transpose(4, 5, 0, 1, 2, 3).reshape(-1, *every.shape[:4])


def _all_ties(p: LayerPass) -> Array:
    """1 at every cell that equals its window's maximum, else 0."""
    if "ties" not in p.computed:
        cells = _cells(p, -np.inf)
        ties: Array = (cells == cells.max(axis=0)).astype(np.float64)
        # where rounding chose another winner than the largest cell, that one is it
        largest = np.take_along_axis(ties, p.cache[0][None], axis=0)
        p.computed["ties"] = np.where(largest > 0, ties, _winners(p))
    return p.computed["ties"]


def _largest(p: LayerPass) -> Array:
    """The place of each window's largest cell: of a tie, the first one's, as ``argmax`` has it."""
    place: Array = _all_ties(p).argmax(axis=0)
    return place


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


STRIDE_LOST = Mistake(
    "pool-stride-lost",
    "The pooling layer left its stride out on the way back.",
    "window (p, q) begins at row p stride, column q stride: dx[n,c,p stride+r,q stride+s]",
    "i, j = p * stride, q * stride  # not: i, j = p, q\n"
    "dx[n, c, i:i + R, j:j + S] += share * dy[n, c, p, q]",
)


def _whole(p: LayerPass, v: Array, dy: Array) -> Array:
    return _share_out(p, v, 1.0)


def _alone(p: LayerPass, v: Array, dy: Array, *, which: int) -> Array:
    """Keep one window's delta."""
    alone = np.zeros_like(v)
    alone[:, :, which, which] = v[:, :, which, which]
    return alone


def _several_windows(p: LayerPass) -> bool:
    return bool(p.y[0, 0].size > 1)


def _add_windows(table: Mutants, shares: Any, firsts: Any) -> None:
    """Add what goes wrong with strides, where windows overlap, and where there is padding.

    ``shares`` are the right ones, and ``firsts`` are these where the first of a tie wins.
    """
    table.add(
        STRIDE_LOST,
        delta("rule", "the windows were laid side by side, each one cell behind the one before",
              lambda p, v, dy: _share_out(p, v, firsts(p), step=(1, 1))),
        when=lambda p: max(p.stride) > 1 and _several_windows(p),
    )  # fmt: skip
    table.add(
        common.ONE_WINDOW_ONLY,
        delta("delta", "only the last window's delta was handed down", partial(_alone, which=-1)),
        delta("delta", "only the first window's delta was handed down", partial(_alone, which=0)),
        when=_several_windows,
    )  # fmt: skip
    table.add(
        OVERLAP_ASSIGNED,
        delta("rule", "a cell that several windows share got the last one's delta, not the sum",
              lambda p, v, dy: _share_out(p, v, shares(p), adds=False, backwards=True)),
        delta("rule", "each window was assigned whole, zeros and all, over what the one before had "
              "left", lambda p, v, dy: _share_out(
                  p, v, shares(p), adds=False, backwards=True, zeros=True)),
        delta("rule", "place after place in the window, the deltas were assigned, not added",
              lambda p, v, dy: _share_out(p, v, shares(p), adds=False)),
        when=lambda p: not _apart(p),
    )  # fmt: skip
    table.add(common.PADDING_CROPPED_WRONG, common.crops)
    table.add(common.CAST_TO_WHOLE, common.CUT_OFF)


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


def _exchanged(p: LayerPass) -> Array:
    rows, columns = np.divmod(_largest(p), p.window[1])
    return _only(columns * p.window[0] + rows, _size(p))


MAX_MUTANTS.add(
    Mistake("pool-wrong-winner",
        "The pooling layer handed its delta to another cell than the winner.",
        "dx[n,c,i,j] = sum over the windows that (i, j) won of dy[n,c,p,q]",
        "r, s = np.unravel_index(window.argmax(), window.shape)  # row, column\n"
        "dx[n, c, i + r, j + s] += dy[n, c, p, q]"),
    delta("rule", "the smallest cell of the window got the delta, not the largest",
          lambda p, v, dy: _share_out(p, v, _only(_cells(p, np.inf).argmin(axis=0), _size(p)))),
    delta("rule", "the winner's row and column in the window were exchanged",
          lambda p, v, dy: _share_out(p, v, _exchanged(p)),
          lambda p: p.window[0] == p.window[1]),
    delta("rule", "the first cell of every window got the delta, whichever won",
          lambda p, v, dy: _share_out(p, v, np.eye(_size(p))[0])),
    delta("rule", "the last cell of every window got the delta, whichever won",
          lambda p, v, dy: _share_out(p, v, np.eye(_size(p))[-1])),
    when=lambda p: _size(p) > 1,
)  # fmt: skip
_add_windows(MAX_MUTANTS, _winners, lambda p: _only(_largest(p), _size(p)))
MAX_MUTANTS.add(
    common.CACHE_OVERWRITTEN,
    delta("rule", "the last image's winners stood in the cache for every image",
          lambda p, v, dy: _share_out(p, v, _only(common.last_for_all(_largest(p)), _size(p)))),
    delta("rule", "the winners in the cache were those of the image before",
          lambda p, v, dy: _share_out(p, v, _only(common.before_for_all(_largest(p)), _size(p)))),
    when=common.several_images,
)  # fmt: skip
MAX_MUTANTS.add(
    None,
    delta("rule", "ties go to the last maximum of a window here, and to the first in fullback: "
          "both are right", lambda p, v, dy: _share_out(
              p, v, _only(_size(p) - 1 - _all_ties(p)[::-1].argmax(axis=0), _size(p)))),
    delta("rule", "ties share the delta evenly here, and the first maximum gets it in fullback: "
          "both are right",
          lambda p, v, dy: _share_out(p, v, _all_ties(p) / _all_ties(p).sum(axis=0))),
)  # fmt: skip
MAX_RULES = Rules(
    MAX_MUTANTS, {"delta": _stages(_winners)}, adds=lambda p: not _apart(p), kinks=WINNER
)


# Average pooling ----------------------------------------------------------------------------------


def _terms(layer: Any, x: Array, y: Array) -> Terms:
    return Terms(output=max(x[0].size // y[0].size, 1), gradient=positions(y))


AVERAGE_MUTANTS = Mutants()
AVERAGE_MUTANTS.add(
    POOL_SPREAD,
    delta("rule", "every cell of the window got the whole delta", _whole, lambda p: _size(p) > 1),
)
_add_windows(AVERAGE_MUTANTS, _evenly, _evenly)
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
