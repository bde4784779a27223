"""Mistakes in a convolution's own gradients; ``conv_stages`` has the stages they take part in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fullback.check.mistakes import common, conv_delta, conv_stages, gradient
from fullback.check.mistakes.base import Mistake, Mutant, Mutants, bias, weight
from fullback.check.mistakes.conv_stages import StridedDelta
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.layers.base import Array
from fullback.layers.window import pad

MUTANTS = Mutants()


# Axes ---------------------------------------------------------------------------------------------

MUTANTS.add(
    Mistake("weight-gradient-turned",
        "The filter gradient is turned by 180 degrees.",
        "dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x[n,c,p+r,q+s]",
        "for r, s in np.ndindex(R, S):  # no turn: only dx takes one\n"
        "    seen = x[:, :, r:r + P, s:s + Q]\n"
        "    dw[:, :, r, s] = np.einsum('nkpq,ncpq->kc', dy, seen)"),
    weight("out", "the filter gradient is turned by 180 degrees",
           lambda p, v, dy: v[:, :, ::-1, ::-1]),
    when=conv_stages.several_taps,
)  # fmt: skip
MUTANTS.add(
    common.ROWS_COLUMNS_SWAPPED,
    weight("out", "the filter gradient's rows and columns are exchanged",
           lambda p, v, dy: v.swapaxes(2, 3), conv_stages.square),
)  # fmt: skip
MUTANTS.add(
    conv_delta.CHANNELS_SWAPPED,
    weight("out", "the filter gradient's input and output channels are exchanged",
           lambda p, v, dy: v.swapaxes(0, 1), lambda p: conv_stages.exchangeable(p, equal=True)),
    weight("out", "the filter gradient came as (channels, filters, ...) and was reshaped where its "
           "axes had to be exchanged",
           lambda p, v, dy: v.swapaxes(0, 1).reshape(v.shape),
           lambda p: conv_stages.exchangeable(p, equal=False)),
)  # fmt: skip
MUTANTS.add(
    conv_delta.CHANNELS_MERGED,
    weight("out", "every input channel got the gradient of the channels' sum",
           lambda p, v, dy: v.sum(axis=1, keepdims=True).repeat(v.shape[1], axis=1)),
    weight("out", "every input channel got the gradient of the first",
           lambda p, v, dy: v[:, :1].repeat(v.shape[1], axis=1)),
    when=conv_stages.several_channels,
)  # fmt: skip


# Strides and padding ------------------------------------------------------------------------------

MUTANTS.add(
    conv_delta.STRIDE_NOT_DILATED,
    weight("step", "the delta slid over the input side by side, as if the stride were 1",
           conv_stages.side_by_side),
    weight("step", "the delta's cells were repeated as often as the stride says, where zeros "
           "belong between them", conv_stages.repeated),
    when=conv_stages.strided,
)  # fmt: skip


MUTANTS.add(
    conv_delta.STRIDE_LEFTOVER,
    weight("input", "the input was aligned with the delta at its end, where the stride leaves "
           "cells over",
           lambda p, laid, dy: replace(laid, other=np.roll(
               p.cache[0], [-n for n in conv_stages.leftover(p)], axis=(2, 3)))),
    when=lambda p: max(conv_stages.leftover(p)) > 0,
)  # fmt: skip


def _placed_wrongly(p: LayerPass) -> Iterator[Mutant]:
    """Yield weight gradients from an input that lies elsewhere in its padding."""

    def placed(
        p: LayerPass, laid: StridedDelta, dy: Array, *, above: int, left: int
    ) -> StridedDelta:
        canvas = np.zeros((*p.x.shape[:2], *p.padded))
        rows, columns = p.x.shape[2:]
        canvas[:, :, above : above + rows, left : left + columns] = p.x
        return replace(laid, other=canvas)

    words = (
        "the input lay at the upper left of its padding",
        "the input lay at the lower right of its padding",
        "the odd row and column of the padding were on the wrong side",
    )
    for (above, left), description in common.wrong_corners(p, words).items():
        yield weight("input", description, partial(placed, above=above, left=left))


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


def _bordered(p: LayerPass, laid: StridedDelta, dy: Array, *, mode: Any) -> StridedDelta:
    return replace(laid, other=np.pad(p.x, ((0, 0), (0, 0), *p.around), mode=mode))


MUTANTS.add(
    conv_delta.PADDING_NOT_ZEROS,
    weight("input", "around the input, its border was repeated, where zeros belong",
           partial(_bordered, mode="edge")),
    weight("input", "around the input, its other end was wrapped round, where zeros belong",
           partial(_bordered, mode="wrap")),
    weight("input", "around the input, it was mirrored, where zeros belong",
           partial(_bordered, mode="symmetric")),
    when=lambda p: p.around != ((0, 0), (0, 0)),
)  # fmt: skip


# Sums ---------------------------------------------------------------------------------------------

common.add_inputs(MUTANTS, lambda p, x, laid: replace(laid, other=pad(x, p.around)))
gradient.add_to_gradient(MUTANTS, "weight")
MUTANTS.add(
    Mistake("weight-gradient-averaged",
        "The filter gradient was averaged where it has to be added up.",
        "dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x[n,c,p+r,q+s]",
        "dw[:, :, r, s] = np.einsum('nkpq,ncpq->kc', dy, seen)\n"
        "# a sum: no mean, no / (P * Q)"),
    weight("out", "it was averaged over the positions of the filter",
           lambda p, v, dy: v / conv_stages.positions(p), conv_stages.several_positions),
    weight("out", "it was averaged over the positions of the filter and over the batch",
           lambda p, v, dy: v / (conv_stages.positions(p) * p.images),
           lambda p: conv_stages.several_positions(p) and p.images > 1),
)  # fmt: skip


def _one_position(p: LayerPass, laid: StridedDelta, dy: Array, *, which: int) -> Array:
    (rows, columns), (down, across) = laid.dy.shape[2:], laid.step
    i, j = ((rows - 1) * down, (columns - 1) * across) if which else (0, 0)
    part = replace(laid, dy=laid.dy[:, :, which, which][..., None, None])
    return conv_stages.correlate(p, replace(part, other=laid.other[:, :, i:, j:]), dy)


MUTANTS.add(
    conv_delta.TAPS_OVERWRITTEN,
    weight("sum", "each position's share was assigned over the one before: the last one's is left",
           partial(_one_position, which=-1), conv_stages.several_positions),
)  # fmt: skip
MUTANTS.add(
    common.ONE_WINDOW_ONLY,
    weight("sum", "only the first position of the filter counted",
           partial(_one_position, which=0), conv_stages.several_positions),
)  # fmt: skip
common.add_mixed_images(MUTANTS, weight, conv_stages.several_filters)


# Biases -------------------------------------------------------------------------------------------

MUTANTS.add(
    common.BIAS_AVERAGED,
    bias("out", "it was averaged over the positions, where it had to be added up",
         lambda p, v, dy: v / conv_stages.positions(p), conv_stages.several_positions),
    bias("out", "it was averaged over positions and batch, where it had to be added up",
         lambda p, v, dy: v / (conv_stages.positions(p) * p.images),
         lambda p: p.images > 1 and conv_stages.several_positions(p)),
    bias("out", "it was averaged over the batch, where the delta already holds 1 / N",
         common.over_images, common.several_images),
)  # fmt: skip
MUTANTS.add(
    common.ONE_WINDOW_ONLY,
    bias("rule", "only the delta of the last position counted",
         lambda p, v, dy: v[:, :, -1, -1].sum(axis=0)),
    bias("rule", "only the delta of the first position counted",
         lambda p, v, dy: v[:, :, 0, 0].sum(axis=0)),
    when=conv_stages.several_positions,
)  # fmt: skip
gradient.add_to_gradient(MUTANTS, "bias")
