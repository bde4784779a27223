"""A convolution: its stages, its mistakes, its rounding.

The longest file of the catalogue, as half of what people do wrong they do here.

Stages of the next delta: "delta" (which delta), "step" (how far apart its cells are laid), "weight"
(which filters), "turn", "axes", "share" (how they are turned, exchanged and added up), "sum" (how
products are gathered into the padded map), "crop", "out". Of a filter gradient: "delta", "step",
"input" (which padded input), "sum", "out". Of a bias: "delta", "rule", "out".

Written tap by tap: for each place (r, s) of the filter, the cells of the padded input that it met,
one for each output cell, are a strided view of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fullback.check.mistakes import common
from fullback.check.mistakes.base import (
    Change,
    Mistake,
    Mutant,
    Mutants,
    Stages,
    bias,
    delta,
    run_stages,
    same,
    weight,
)
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.check.mistakes.rules import Rules, Terms, positions, sum_noise
from fullback.layers.base import Array
from fullback.layers.window import crop, pad, pair


@dataclass(frozen=True, eq=False)
class StridedDelta:
    """A delta with the steps it is laid out by, and, further down the line, filters or input."""

    dy: Array
    step: tuple[int, int]
    other: Any = None


def _view(p: LayerPass, canvas: Array, r: int, s: int, laid: StridedDelta) -> Array:
    """The cells of a padded map that the filter's place (r, s) meets: (N, C, P, Q)."""
    (below, right), (down, across) = pair(p.layer.dilation), laid.step
    rows, columns = laid.dy.shape[2:]
    return canvas[:, :, r * below :: down, s * right :: across][:, :, :rows, :columns]


def _gather(p: LayerPass, laid: StridedDelta, dy: Array, *, adds: bool = True) -> Array:
    """Add up over taps, or assign: dx of the padded input."""
    w = laid.other
    canvas = np.zeros((len(dy), w.shape[1], *p.padded))
    for r, s in np.ndindex(*w.shape[2:]):
        part = np.moveaxis(np.tensordot(laid.dy, w[:, :, r, s], axes=(1, 0)), -1, 1)  # N, C, P, Q
        cells = _view(p, canvas, r, s, laid)
        cells[...] = cells + part if adds else part
    return canvas


def _correlate(p: LayerPass, laid: StridedDelta, dy: Array) -> Array:
    """The input correlated with the delta: (K, C, R, S)."""
    x, rows = laid.other, p.window
    dw = np.zeros((laid.dy.shape[1], x.shape[1], *rows))
    for r, s in np.ndindex(*rows):
        dw[:, :, r, s] = np.tensordot(laid.dy, _view(p, x, r, s, laid), ((0, 2, 3), (0, 2, 3)))
    return dw


DELTA: Stages = (
    ("delta", same),
    ("step", lambda p, v, dy: StridedDelta(v, p.stride)),
    ("weight", lambda p, v, dy: replace(v, other=p.parameters["weight"])),
    ("turn", same),
    ("axes", same),
    ("share", same),
    ("sum", _gather),
    ("crop", lambda p, v, dy: crop(v, p.around)),
    ("out", same),
)
WEIGHT: Stages = (
    ("delta", same),
    ("step", lambda p, v, dy: StridedDelta(v, p.stride)),
    ("input", lambda p, v, dy: replace(v, other=p.cache[0])),
    ("sum", _correlate),
    ("out", same),
)
BIAS: Stages = (("delta", same), ("rule", lambda p, v, dy: v.sum(axis=(0, 2, 3))), ("out", same))

MUTANTS = Mutants()


# Filters ------------------------------------------------------------------------------------------


def _filters(change: Callable[[Array], Array]) -> Change:
    """Turn a function of the filters (K, C, R, S) into a stage."""
    return lambda p, v, dy: replace(v, other=change(v.other))


def _one_filter(which: int) -> Change:
    def change(w: Array) -> Array:
        alone = np.zeros_like(w)
        alone[which] = w[which]
        return alone

    return _filters(change)


def _several_taps(p: LayerPass) -> bool:
    return p.window != (1, 1)


def _square(p: LayerPass) -> bool:
    return p.window[0] == p.window[1] > 1


def _several_filters(p: LayerPass) -> bool:
    return len(p.parameters["weight"]) > 1


def _exchangeable(p: LayerPass, *, equal: bool) -> bool:
    filters, channels = p.parameters["weight"].shape[:2]
    return bool(filters > 1 and channels > 1 and (filters == channels) == equal)


MUTANTS.add(
    Mistake("filter-not-turned",
        "The next delta was computed without turning the filters by 180 degrees.",
        "dx[n,c,i,j] = sum over k, r, s of w[k,c,r,s] dy[n,k,i-r,j-s]",
        "turned = w[:, :, ::-1, ::-1]  # 180 degrees\n"
        "wide = np.pad(dy, ((0, 0), (0, 0), (R - 1, R - 1), (S - 1, S - 1)))\n"
        "dx = correlate(wide, turned.swapaxes(0, 1))"),
    delta("turn", "the filters were not turned by 180 degrees for the full convolution",
          _filters(lambda w: w[:, :, ::-1, ::-1])),
    when=_several_taps,
)  # fmt: skip
MUTANTS.add(
    Mistake("weight-gradient-turned",
        "The filter gradient is turned by 180 degrees.",
        "dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x[n,c,p+r,q+s]",
        "for r, s in np.ndindex(R, S):  # no turn: only dx takes one\n"
        "    seen = x[:, :, r:r + P, s:s + Q]\n"
        "    dw[:, :, r, s] = np.einsum('nkpq,ncpq->kc', dy, seen)"),
    weight("out", "the filter gradient is turned by 180 degrees",
           lambda p, v, dy: v[:, :, ::-1, ::-1]),
    when=_several_taps,
)  # fmt: skip
MUTANTS.add(
    common.ROWS_COLUMNS_SWAPPED,
    delta("turn", "the filters' rows and columns were exchanged",
          _filters(lambda w: w.swapaxes(2, 3)), _square),
    delta("turn", "the filters were turned by 180 degrees and had rows and columns exchanged",
          _filters(lambda w: w[:, :, ::-1, ::-1].swapaxes(2, 3)), _square),
    delta("out", "the map's rows and columns were exchanged",
          lambda p, v, dy: v.swapaxes(2, 3), lambda p: p.x.shape[2] == p.x.shape[3] > 1),
    weight("out", "the filter gradient's rows and columns are exchanged",
           lambda p, v, dy: v.swapaxes(2, 3), _square),
)  # fmt: skip
MUTANTS.add(
    Mistake("channels-swapped",
        "The filters' input and output channels were exchanged.",
        "dx[n,c,...] = sum over k of w[k,c,...] dy[n,k,...]: the sum runs over filters k",
        "back = w.swapaxes(0, 1)[:, :, ::-1, ::-1]  # (C, K, R, S), exchanged once\n"
        "# reshape does not exchange axes: it would mix the weights up\n"
        "dx = correlate(wide_dy, back)"),
    delta("axes", "the filters' input and output channels were exchanged too often or too rarely",
          _filters(lambda w: w.swapaxes(0, 1)), lambda p: _exchangeable(p, equal=True)),
    delta("axes", "the filters were reshaped to (channels, filters, ...) where their axes had to "
          "be exchanged",
          _filters(lambda w: w.reshape(w.shape[1], w.shape[0], *w.shape[2:]).swapaxes(0, 1)),
          lambda p: _exchangeable(p, equal=False)),
    weight("out", "the filter gradient's input and output channels are exchanged",
           lambda p, v, dy: v.swapaxes(0, 1), lambda p: _exchangeable(p, equal=True)),
    weight("out", "the filter gradient came as (channels, filters, ...) and was reshaped where its "
           "axes had to be exchanged",
           lambda p, v, dy: v.swapaxes(0, 1).reshape(v.shape),
           lambda p: _exchangeable(p, equal=False)),
)  # fmt: skip
MUTANTS.add(
    Mistake("filter-sum-lost",
        "The next delta is not the sum over the filters.",
        "dx[n,c,i,j] = sum over k, r, s of w[k,c,r,s] dy[n,k,i-r,j-s]",
        "dx = np.zeros_like(x)\n"
        "for k in range(K):\n"
        "    dx += full_convolution(dy[:, k], w[k])  # +=, not ="),
    delta("share", "it holds the last filter's share only, not the sum over the filters",
          _one_filter(-1)),
    delta("share", "it holds the first filter's share only, not the sum over the filters",
          _one_filter(0)),
    delta("out", "it is the mean over the filters, not the sum", lambda p, v, dy: v / dy.shape[1]),
    when=_several_filters,
)  # fmt: skip


# Sums, strides and padding ------------------------------------------------------------------------


def _assign_positions(p: LayerPass, laid: StridedDelta, dy: Array) -> Array:
    w, (below, right), (down, across) = laid.other, pair(p.layer.dilation), laid.step
    canvas = np.zeros((len(dy), w.shape[1], *p.padded))
    rows, columns = w.shape[2:]
    for i, j in np.ndindex(*laid.dy.shape[2:]):
        part = np.tensordot(laid.dy[:, :, i, j], w, axes=(1, 0))  # (N, C, R, S)
        cells = canvas[:, :, i * down :: below, j * across :: right]
        cells[:, :, :rows, :columns] = part
    return canvas


def _last_position(p: LayerPass, laid: StridedDelta, dy: Array) -> Array:
    last = np.zeros_like(laid.dy)
    last[:, :, -1, -1] = laid.dy[:, :, -1, -1]
    return _correlate(p, replace(laid, dy=last), dy)


TAPS_OVERWRITTEN = Mistake(
    "taps-overwritten",
    "Shares that had to be added were assigned, so later ones overwrote earlier ones.",
    "dx[n,c,p+r,q+s] collects w[k,c,r,s] dy[n,k,p,q] of every p, q, r, s, k",
    "dx = np.zeros_like(x)\n"
    "for p, q in np.ndindex(P, Q):\n"
    "    dx[:, :, p:p + R, q:q + S] += np.tensordot(dy[:, :, p, q], w, 1)",
)
MUTANTS.add(
    TAPS_OVERWRITTEN,
    delta("sum", "each window's share was assigned over the one before, where it had to be added",
          _assign_positions),
    delta("sum", "each tap's share was assigned over the one before, where it had to be added",
          lambda p, v, dy: _gather(p, v, dy, adds=False)),
    when=_several_taps,
)  # fmt: skip

MUTANTS.add(
    Mistake("stride-not-dilated",
        "The stride was left out on the way back.",
        "dx[n,c,p stride+r,q stride+s] collects w[k,c,r,s] dy[n,k,p,q]",
        "spread = np.zeros((N, K, (P - 1) * stride + 1, (Q - 1) * stride + 1))\n"
        "spread[:, :, ::stride, ::stride] = dy  # zeros in between\n"
        "dx = full_convolution(spread, w)"),
    delta("step", "the delta's cells were laid side by side, with no zeros in between for the "
          "stride", lambda p, v, dy: StridedDelta(v, (1, 1))),
    weight("step", "the delta slid over the input side by side, as if the stride were 1",
           lambda p, v, dy: StridedDelta(v, (1, 1))),
    when=lambda p: max(p.stride) > 1,
)  # fmt: skip


def _leftover(p: LayerPass) -> tuple[int, int]:
    """Rows and columns of the padded input that no window reaches."""
    rows, columns = (n - m for n, m in zip(p.padded, _reach(p), strict=True))
    return rows, columns


def _reach(p: LayerPass) -> list[int]:
    """Rows and columns of the padded input from the first window's begin to the last one's end."""
    sizes = zip(p.y.shape[2:], p.stride, p.window, pair(p.layer.dilation), strict=True)
    return [(n - 1) * step + (m - 1) * gap + 1 for n, step, m, gap in sizes]


def _squeezed(p: LayerPass, canvas: Array, dy: Array) -> Array:
    """Crop as if nothing were left over, and fill up with zeros at the end."""
    ((above, below), (left, right)), reach = p.around, _reach(p)
    part = canvas[:, :, above : reach[0] - below, left : reach[1] - right]
    whole = np.zeros((*canvas.shape[:2], *p.x.shape[2:]))
    part = part[:, :, : whole.shape[2], : whole.shape[3]]
    whole[:, :, : part.shape[2], : part.shape[3]] = part
    return whole


def _shifted_by_leftover(p: LayerPass, laid: StridedDelta, dy: Array) -> StridedDelta:
    rows, columns = _leftover(p)
    return replace(laid, other=np.roll(p.cache[0], (-rows, -columns), axis=(2, 3)))


MUTANTS.add(
    Mistake("stride-leftover",
        "The rows and columns that the stride leaves over were misplaced.",
        "dx has the shape of the padded x; the cells that no window reached, at its end, stay 0",
        "dx = np.zeros_like(x_padded)  # its own size, leftovers included\n"
        "dx[:, :, p * stride:p * stride + R, q * stride:q * stride + S] += ...\n"
        "dx = dx[:, :, above:above + H, left:left + W]"),
    delta("crop", "the rows and columns that the stride leaves over were not counted when the "
          "padding was cut off", _squeezed),
    delta("crop", "the rows and columns that the stride leaves over were put in front",
          lambda p, v, dy: crop(np.roll(v, _leftover(p), axis=(2, 3)), p.around)),
    weight("input", "the input was aligned with the delta at its end, where the stride leaves "
           "cells over", _shifted_by_leftover),
    when=lambda p: max(_leftover(p)) > 0,
)  # fmt: skip
MUTANTS.add(common.PADDING_CROPPED_WRONG, common.crops)


def _placed_wrongly(p: LayerPass) -> Iterator[Mutant]:
    """Yield weight gradients from an input that lies elsewhere in its padding."""

    def placed(above: int, left: int) -> Change:
        def change(p: LayerPass, laid: StridedDelta, dy: Array) -> StridedDelta:
            canvas = np.zeros((*p.x.shape[:2], *p.padded))
            rows, columns = p.x.shape[2:]
            canvas[:, :, above : above + rows, left : left + columns] = p.x
            return replace(laid, other=canvas)

        return change

    words = (
        "the input lay at the upper left of its padding",
        "the input lay at the lower right of its padding",
        "the odd row and column of the padding were on the wrong side",
    )
    for corner, description in common.wrong_corners(p, words).items():
        yield weight("input", description, placed(*corner))


MUTANTS.add(
    Mistake(
        "weight-gradient-padding",
        "The filter gradient was computed from an input that lies wrongly in its padding.",
        "dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x_padded[n,c,p+r,q+s]",
        "around = ((0, 0), (0, 0), (above, below), (left, right))\n"
        "x_padded = np.pad(x, around)  # the same one as in the forward pass\n"
        "dw = correlate_images(x_padded, dy)",
    ),
    _placed_wrongly,
)


# What other layers have too -----------------------------------------------------------------------


def _early(p: LayerPass, laid: StridedDelta, dy: Array) -> StridedDelta:
    gradient = run_stages(WEIGHT, p, dy, dy, ())
    return replace(laid, other=p.parameters["weight"] - p.rate * gradient)


MUTANTS.add(
    common.WEIGHTS_UPDATED_EARLY,
    delta("weight", "the delta was taken through filters that had been updated already",
          _early, unknown="rate"),
)  # fmt: skip
common.add_to_delta(MUTANTS)
common.add_inputs(MUTANTS, lambda p, x, laid: replace(laid, other=pad(x, p.around)))
common.add_to_gradient(MUTANTS, "weight")
MUTANTS.add(
    TAPS_OVERWRITTEN,
    weight("sum", "each position's share was assigned over the one before: the last one's is left",
           _last_position),
)  # fmt: skip


def _images_last(p: LayerPass, dy: Array, _: Array) -> Array:
    """Columns made (P, Q, N) and read (N, P, Q)."""
    n, k, rows, columns = dy.shape
    return dy.transpose(1, 2, 3, 0).reshape(k, -1).reshape(k, n, rows, columns).swapaxes(0, 1)


def _images_first(p: LayerPass, dy: Array, _: Array) -> Array:
    """Columns made (N, P, Q) and read (P, Q, N)."""
    n, k, rows, columns = dy.shape
    return dy.swapaxes(0, 1).reshape(k, -1).reshape(k, rows, columns, n).transpose(3, 0, 1, 2)


def _not_exchanged(p: LayerPass, dy: Array, _: Array) -> Array:
    n, k, rows, columns = dy.shape
    return dy.reshape(k, n, rows, columns).swapaxes(0, 1)


for _target in (delta, weight):
    MUTANTS.add(
        common.IMAGES_MIXED,
        _target("delta", "the delta's columns ran over positions, then images, and were read the "
                "other way round", _images_last),
        _target("delta", "the delta's columns ran over images, then positions, and were read the "
                "other way round", _images_first),
        _target("delta", "the delta was reshaped to (filters, ...) without its images and filters "
                "having changed places", _not_exchanged, _several_filters),
        when=common.several_images,
    )  # fmt: skip


def _cells(p: LayerPass) -> int:
    return int(p.y.shape[2] * p.y.shape[3])


MUTANTS.add(
    common.BIAS_AVERAGED,
    bias("out", "it was averaged over the positions, where it had to be added up",
         lambda p, v, dy: v / _cells(p), lambda p: _cells(p) > 1),
    bias("out", "it was averaged over positions and batch, where it had to be added up",
         lambda p, v, dy: v / (_cells(p) * p.images), lambda p: p.images > 1 and _cells(p) > 1),
    bias("out", "it was averaged over the batch, where the delta already holds 1 / N",
         common.over_images, common.several_images),
)  # fmt: skip
common.add_to_gradient(MUTANTS, "bias")


# Groups and rounding ------------------------------------------------------------------------------


def _by_group(stages: Stages, p: LayerPass, dy: Array, mutants: Sequence[Mutant]) -> Array:
    """Run the stages on every group of channels, and join the results."""
    groups = p.layer.groups
    if groups == 1 or stages is BIAS:
        whole: Array = run_stages(stages, p, dy, dy, mutants)
        return whole
    padded, around = p.cache
    parts = zip(
        np.split(p.x, groups, 1),
        np.split(padded, groups, 1),
        np.split(p.parameters["weight"], groups, 0),
        np.split(dy, groups, 1),
        strict=True,
    )
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
        )
        results.append(run_stages(stages, of_group, part, part, mutants))
    return np.concatenate(results, axis=0 if stages is WEIGHT else 1)


def _terms(layer: Any, x: Array, y: Array) -> Terms:
    cells = int(np.prod(layer.parameter_shapes(x.shape[1:])["weight"][2:]))
    return Terms(
        output=x.shape[1] // layer.groups * cells + 1,
        delta=layer.filters // layer.groups * cells,
        gradient=positions(y),
    )


RULES = Rules(
    MUTANTS,
    {"delta": DELTA, "weight": WEIGHT, "bias": BIAS},
    run=_by_group,
    terms=_terms,
    absolute=lambda p: {"cache": (abs(p.cache[0]), p.cache[1])},
    noise=sum_noise(_terms),
    weighs=True,
)
