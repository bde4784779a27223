"""A convolution's backward pass in stages, and where its cells lie.

Stages of the next delta: "delta" (which delta), "step" (how far apart its cells are laid), "weight"
(which filters), "turn", "axes", "share" (how they are turned, exchanged and added up), "sum" (how
products are gathered into the padded map), "crop", "out". Of a filter gradient: "delta", "step",
"input" (which padded input), "sum", "out". Of a bias: "delta", "rule", "out".

For each place (r, s) of the filter, a *tap*, the cells of the padded input that it met, one for
each output cell, are a strided view of it. Products are those of two matrices, an image at a time:
the filters (C R S, K) with its delta (K, P Q), or the delta with the image's columns (C R S, P Q).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fullback.check.mistakes.base import Memo, Mutant, Stages, run_stages, same
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.layers.base import Array
from fullback.layers.window import crop, pair, windows

_MOST_KEPT = 2**21  # cells of an input's columns that are kept for the next filter gradient


@dataclass(frozen=True, eq=False)
class StridedDelta:
    """A delta with the steps it is laid out by, and, further down the line, filters or input."""

    dy: Array
    step: tuple[int, int]
    other: Any = None


def gather(
    p: LayerPass,
    laid: StridedDelta,
    dy: Array,
    *,
    adds: bool = True,
    backwards: bool = False,
    padded: tuple[int, int] | None = None,
) -> Array:
    """Return the delta of the padded input, to which every tap adds its share.

    Parameters
    ----------
    p, laid, dy : as a stage is given them
    adds : False assigns in place of adding
    backwards : begin with the last tap, which, assigning, is to go from window to window
    padded : rows and columns of the result, those of the padded input unless given
    """
    w, (below, right), (down, across) = laid.other, pair(p.layer.dilation), laid.step
    filters, channels, height, width = w.shape
    rows, columns = laid.dy.shape[2:]
    canvas = np.zeros((len(laid.dy), channels, *(padded or p.padded)))
    matrix = w.reshape(filters, -1).T
    taps = list(np.ndindex(height, width))
    for image, delta in zip(canvas, laid.dy, strict=True):
        shares = matrix @ delta.reshape(filters, -1)  # (C R S, P Q)
        shares = shares.reshape(channels, height, width, rows, columns)
        for r, s in reversed(taps) if backwards else taps:
            cells = image[:, r * below :: down, s * right :: across][:, :rows, :columns]
            cells[...] = cells + shares[:, r, s] if adds else shares[:, r, s]
    return canvas


def correlate(p: LayerPass, laid: StridedDelta, dy: Array) -> Array:
    """Return the padded input correlated with the delta: (K, C, R, S)."""
    x, (images, filters, rows, columns) = laid.other, laid.dy.shape
    kept = p.computed if x is p.cache[0] and laid.step == p.stride else {}
    seen = kept.get("columns")  # (N, C R S, P Q)
    if seen is None:
        seen = windows(x, p.window, laid.step, p.layer.dilation)[:, :, :rows, :columns]
        seen = seen.transpose(0, 1, 4, 5, 2, 3)
        if seen.size <= _MOST_KEPT:
            seen = seen.reshape(images, -1, rows * columns)
            kept["columns"] = seen
    dw = np.zeros((filters, x.shape[1] * p.window[0] * p.window[1]))
    for delta, image in zip(laid.dy, seen, strict=True):
        dw += delta.reshape(filters, -1) @ image.reshape(-1, rows * columns).T
    return dw.reshape(filters, x.shape[1], *p.window)


DELTA: Stages = (
    ("delta", same),
    ("step", lambda p, v, dy: StridedDelta(v, p.stride)),
    ("weight", lambda p, v, dy: replace(v, other=p.parameters["weight"])),
    ("turn", same),
    ("axes", same),
    ("share", same),
    ("sum", gather),
    ("crop", lambda p, v, dy: crop(v, p.around)),
    ("out", same),
)
WEIGHT: Stages = (
    ("delta", same),
    ("step", lambda p, v, dy: StridedDelta(v, p.stride)),
    ("input", lambda p, v, dy: replace(v, other=p.cache[0])),
    ("sum", correlate),
    ("out", same),
)
BIAS: Stages = (("delta", same), ("rule", lambda p, v, dy: v.sum(axis=(0, 2, 3))), ("out", same))


def by_group(
    stages: Stages, p: LayerPass, dy: Array, mutants: Sequence[Mutant], memo: Memo | None
) -> Array:
    """Run the stages on every group of channels, join the results, and run the last stage."""
    groups = p.layer.groups
    if groups == 1 or stages is BIAS:
        whole: Array = run_stages(stages, p, dy, dy, mutants, memo)
        return whole
    padded, around = p.cache
    parts = zip(
        np.split(p.x, groups, 1),
        np.split(padded, groups, 1),
        np.split(p.parameters["weight"], groups, 0),
        np.split(dy, groups, 1),
        strict=True,
    )
    last = [m for m in mutants if m.stage == "out"]
    others = [m for m in mutants if m.stage != "out"]
    results = []
    for group, (x, padded_x, w, part) in enumerate(parts):
        of_group = replace(
            p,
            x=x,
            cache=(padded_x, around),
            parameters={**p.parameters, "weight": w},
            activations={
                name: np.split(a, groups, 1)[group] if a.shape[1] == p.x.shape[1] else a
                for name, a in p.activations.items()
            },
            computed={},
        )
        results.append(run_stages(stages[:-1], of_group, part, part, others))
    joined = np.concatenate(results, axis=0 if stages is WEIGHT else 1)
    result: Array = run_stages(stages[-1:], p, joined, dy, last)
    return result


# Conditions, and where cells lie ------------------------------------------------------------------


def several_taps(p: LayerPass) -> bool:
    """Whether the filter has several cells."""
    return p.window != (1, 1)


def square(p: LayerPass) -> bool:
    """Whether the filter has as many rows as columns, and several."""
    return p.window[0] == p.window[1] > 1


def several_filters(p: LayerPass) -> bool:
    """Whether there are several filters."""
    return len(p.parameters["weight"]) > 1


def several_channels(p: LayerPass) -> bool:
    """Whether a filter sees several channels."""
    return bool(p.parameters["weight"].shape[1] > 1)


def strided(p: LayerPass) -> bool:
    """Whether there is a stride."""
    return max(p.stride) > 1


def exchangeable(p: LayerPass, *, equal: bool) -> bool:
    """Whether there are several channels and filters, as many of both or not."""
    filters, channels = p.parameters["weight"].shape[:2]
    filters //= p.layer.groups
    return bool(filters > 1 and channels > 1 and (filters == channels) == equal)


def positions(p: LayerPass) -> int:
    """Return in how many places of an image a filter is laid, P Q."""
    return int(p.y.shape[2] * p.y.shape[3])


def several_positions(p: LayerPass) -> bool:
    """Whether a filter is laid in several places."""
    return positions(p) > 1


def reach(p: LayerPass) -> list[int]:
    """Return rows and columns from the first window's begin to the last one's end."""
    sizes = zip(p.y.shape[2:], p.stride, p.window, pair(p.layer.dilation), strict=True)
    return [(n - 1) * step + (m - 1) * gap + 1 for n, step, m, gap in sizes]


def leftover(p: LayerPass) -> tuple[int, int]:
    """Return rows and columns of the padded input that no window reaches."""
    rows, columns = (n - m for n, m in zip(p.padded, reach(p), strict=True))
    return rows, columns


def side_by_side(p: LayerPass, dy: Array, _: Array) -> StridedDelta:
    """Lay the delta's cells side by side, as if the stride were 1."""
    return StridedDelta(dy, (1, 1))


def repeated(p: LayerPass, dy: Array, _: Array) -> StridedDelta:
    """Repeat every cell of the delta as often as the stride says, in place of zeros between."""
    spans = ((m - 1) * gap for m, gap in zip(p.window, pair(p.layer.dilation), strict=True))
    rows, columns = (n - span for n, span in zip(p.padded, spans, strict=True))
    wide = dy.repeat(p.stride[0], axis=2).repeat(p.stride[1], axis=3)
    return StridedDelta(wide[:, :, :rows, :columns], (1, 1))
