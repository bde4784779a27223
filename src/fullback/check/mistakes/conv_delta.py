"""Mistakes in a convolution's next delta; ``conv_stages`` has the stages that they take part in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fullback.check.mistakes import common, conv_stages
from fullback.check.mistakes.base import Change, Mistake, Mutant, Mutants, delta, run_stages
from fullback.check.mistakes.conv_stages import StridedDelta
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.layers.base import Array
from fullback.layers.window import crop, pair

MUTANTS = Mutants()

CHANNELS_SWAPPED = Mistake(
    "channels-swapped",
    "The filters' input and output channels were exchanged.",
    "dx[n,c,...] = sum over k of w[k,c,...] dy[n,k,...]: the sum runs over filters k",
    "back = w.swapaxes(0, 1)[:, :, ::-1, ::-1]  # (C, K, R, S), exchanged once\n"
    "# reshape does not exchange axes: it would mix the weights up\n"
    "dx = correlate(wide_dy, back)",
)
TAPS_OVERWRITTEN = Mistake(
    "taps-overwritten",
    "Shares that had to be added were assigned, so later ones overwrote earlier ones.",
    "dx[n,c,p+r,q+s] collects w[k,c,r,s] dy[n,k,p,q] of every p, q, r, s, k",
    "dx = np.zeros_like(x)\n"
    "for p, q in np.ndindex(P, Q):\n"
    "    dx[:, :, p:p + R, q:q + S] += np.tensordot(dy[:, :, p, q], w, 1)",
)
STRIDE_NOT_DILATED = Mistake(
    "stride-not-dilated",
    "The stride was left out on the way back.",
    "dx[n,c,p stride+r,q stride+s] collects w[k,c,r,s] dy[n,k,p,q]",
    "spread = np.zeros((N, K, (P - 1) * stride + 1, (Q - 1) * stride + 1))\n"
    "spread[:, :, ::stride, ::stride] = dy  # zeros in between\n"
    "dx = full_convolution(spread, w)",
)
STRIDE_LEFTOVER = Mistake(
    "stride-leftover",
    "The rows and columns that the stride leaves over were misplaced.",
    "dx has the shape of the padded x; the cells that no window reached, at its end, stay 0",
    "dx = np.zeros_like(x_padded)  # its own size, leftovers included\n"
    "dx[:, :, p * stride:p * stride + R, q * stride:q * stride + S] += ...\n"
    "dx = dx[:, :, above:above + H, left:left + W]",
)
PADDING_NOT_ZEROS = Mistake(
    "padding-not-zeros",
    "Beyond the border, values were repeated where zeros belong.",
    "dy[n,k,p,q] = 0 and x[n,c,i,j] = 0 beyond the border",
    "wide = np.pad(dy, ((0, 0), (0, 0), (R - 1, R - 1), (S - 1, S - 1)))\n"
    "# zeros: no mode=; scipy.ndimage.convolve: mode='constant';\n"
    "# an FFT wraps round unless there are zeros enough",
)
CHANNELS_MERGED = Mistake(
    "input-channels-merged",
    "Every input channel got the same values.",
    "dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x[n,c,p+r,q+s]: c by c, as in dx",
    "for c in range(C):\n    dw[k, c] += correlate(x[n, c], dy[n, k])  # not x[n, 0], x[n].sum(0)",
)


# Filters ------------------------------------------------------------------------------------------


def _filters(change: Callable[[Array], Array]) -> Change:
    """Turn a function of the filters (K, C, R, S) into a stage."""
    return lambda p, v, dy: replace(v, other=change(v.other))


def _one_filter(which: slice) -> Change:
    return lambda p, v, dy: replace(v, dy=v.dy[:, which], other=v.other[which])


MUTANTS.add(
    Mistake("filter-not-turned",
        "The next delta was computed without turning the filters by 180 degrees.",
        "dx[n,c,i,j] = sum over k, r, s of w[k,c,r,s] dy[n,k,i-r,j-s]",
        "turned = w[:, :, ::-1, ::-1]  # 180 degrees\n"
        "wide = np.pad(dy, ((0, 0), (0, 0), (R - 1, R - 1), (S - 1, S - 1)))\n"
        "dx = correlate(wide, turned.swapaxes(0, 1))"),
    delta("turn", "the filters were not turned by 180 degrees for the full convolution",
          _filters(lambda w: w[:, :, ::-1, ::-1])),
    when=conv_stages.several_taps,
)  # fmt: skip
MUTANTS.add(
    common.ROWS_COLUMNS_SWAPPED,
    delta("turn", "the filters' rows and columns were exchanged",
          _filters(lambda w: w.swapaxes(2, 3)), conv_stages.square),
    delta("turn", "the filters were turned by 180 degrees and had rows and columns exchanged",
          _filters(lambda w: w[:, :, ::-1, ::-1].swapaxes(2, 3)), conv_stages.square),
    delta("out", "the map's rows and columns were exchanged",
          lambda p, v, dy: v.swapaxes(2, 3), lambda p: p.x.shape[2] == p.x.shape[3] > 1),
)  # fmt: skip
MUTANTS.add(
    CHANNELS_SWAPPED,
    delta("axes", "the filters' input and output channels were exchanged too often or too rarely",
          _filters(lambda w: w.swapaxes(0, 1)), lambda p: conv_stages.exchangeable(p, equal=True)),
    delta("axes", "the filters were reshaped to (channels, filters, ...) where their axes had to "
          "be exchanged",
          _filters(lambda w: w.reshape(w.shape[1], w.shape[0], *w.shape[2:]).swapaxes(0, 1)),
          lambda p: conv_stages.exchangeable(p, equal=False)),
)  # fmt: skip
MUTANTS.add(
    Mistake("filter-sum-lost",
        "The next delta is not the sum over the filters.",
        "dx[n,c,i,j] = sum over k, r, s of w[k,c,r,s] dy[n,k,i-r,j-s]",
        "dx = np.zeros_like(x)\n"
        "for k in range(K):\n"
        "    dx += full_convolution(dy[:, k], w[k])  # +=, not ="),
    delta("share", "it holds the last filter's share only, not the sum over the filters",
          _one_filter(slice(-1, None))),
    delta("share", "it holds the first filter's share only, not the sum over the filters",
          _one_filter(slice(1))),
    delta("out", "it is the mean over the filters, not the sum",
          lambda p, v, dy: v / (dy.shape[1] // p.layer.groups)),
    when=conv_stages.several_filters,
)  # fmt: skip


# Sums, strides and padding ------------------------------------------------------------------------

MUTANTS.add(
    TAPS_OVERWRITTEN,
    delta("sum", "each window's share was assigned over the one before, where it had to be added",
          lambda p, v, dy: conv_stages.gather(p, v, dy, adds=False, backwards=True)),
    delta("sum", "each tap's share was assigned over the one before, where it had to be added",
          lambda p, v, dy: conv_stages.gather(p, v, dy, adds=False)),
    delta("sum", "every share of a filter and a window was assigned over those before, where it "
          "had to be added: of all filters the last is left",
          lambda p, v, dy: conv_stages.gather(
              p, _one_filter(slice(-1, None))(p, v, dy), dy, adds=False, backwards=True),
          conv_stages.several_filters),
    when=conv_stages.several_taps,
)  # fmt: skip
MUTANTS.add(
    STRIDE_NOT_DILATED,
    delta("step", "the delta's cells were laid side by side, with no zeros in between for the "
          "stride", conv_stages.side_by_side),
    delta("step", "the delta's cells were repeated as often as the stride says, where zeros belong "
          "between them", conv_stages.repeated),
    when=conv_stages.strided,
)  # fmt: skip


def _squeezed(p: LayerPass, canvas: Array, dy: Array) -> Array:
    """Crop as if nothing were left over, and fill up with zeros at the end."""
    ((above, below), (left, right)), reached = p.around, conv_stages.reach(p)
    part = canvas[:, :, above : reached[0] - below, left : reached[1] - right]
    whole = np.zeros((*canvas.shape[:2], *p.x.shape[2:]))
    part = part[:, :, : whole.shape[2], : whole.shape[3]]
    whole[:, :, : part.shape[2], : part.shape[3]] = part
    return whole


MUTANTS.add(
    STRIDE_LEFTOVER,
    delta("crop", "the rows and columns that the stride leaves over were not counted when the "
          "padding was cut off", _squeezed),
    delta("crop", "the rows and columns that the stride leaves over were put in front",
          lambda p, v, dy: crop(np.roll(v, conv_stages.leftover(p), axis=(2, 3)), p.around)),
    when=lambda p: max(conv_stages.leftover(p)) > 0,
)  # fmt: skip
MUTANTS.add(common.PADDING_CROPPED_WRONG, common.crops)


def _margins(p: LayerPass) -> tuple[int, int]:
    """Rows and columns by which the full convolution is larger than the delta, above and left."""
    below, right = pair(p.layer.dilation)
    return (p.window[0] - 1) * below, (p.window[1] - 1) * right


def _inner(p: LayerPass, canvas: Array, share: int, *, corner: bool = False) -> Array:
    """Keep the full convolution's inside: a half of its margin, or both, becomes zero.

    With ``corner`` what is kept lies at the upper left.
    """
    cuts = [margin * share for margin in _margins(p)]
    (top, side), (high, wide) = (n // 2 for n in cuts), conv_stages.reach(p)
    part = canvas[:, :, top : high - cuts[0] + top, side : wide - cuts[1] + side]
    inner = np.zeros_like(canvas)
    if corner:
        top, side = (first for first, _ in p.around)
    inner[:, :, top : top + part.shape[2], side : side + part.shape[3]] = part
    return crop(inner, p.around)


def _loses(p: LayerPass, share: int) -> bool:
    """Whether that cuts off more than the padding, and leaves something."""
    sides = zip(_margins(p), conv_stages.reach(p), p.around, p.x.shape[2:], strict=True)
    kept = [
        (margin * share // 2, length - (margin * share + 1) // 2, first, min(first + n, length))
        for margin, length, (first, _), n in sides
    ]
    more = any(begin > first or end < last for begin, end, first, last in kept)
    return more and all(end > begin for begin, end, _, _ in kept)


MUTANTS.add(
    Mistake("full-convolution-cropped",
        "The full convolution was done over too few positions: the delta's border is missing.",
        "dx[n,c,i,j] collects every dy[n,k,i-r,j-s] that there is, from 0 to H + R - 2",
        "wide = np.pad(dy, ((0, 0), (0, 0), (R - 1, R - 1), (S - 1, S - 1)))\n"
        "dx = correlate(wide, w[:, :, ::-1, ::-1].swapaxes(0, 1))\n"
        "# R - 1 zeros, not R // 2; scipy.signal: mode='full', not mode='same'"),
    delta("crop", "the full convolution was done as a \"same\" one, which leaves the border zero",
          lambda p, v, dy: _inner(p, v, 1), lambda p: _loses(p, 1)),
    delta("crop", "the full convolution was done as a \"same\" one, whose result lies at the upper "
          "left", lambda p, v, dy: _inner(p, v, 1, corner=True), lambda p: _loses(p, 1)),
    delta("crop", "the full convolution was done as a \"valid\" one, which leaves the border zero",
          lambda p, v, dy: _inner(p, v, 2), lambda p: _loses(p, 2)),
    when=conv_stages.several_taps,
)  # fmt: skip


def _bordered(p: LayerPass, laid: StridedDelta, dy: Array, *, mode: Any) -> Array:
    """Gather with a delta that goes on beyond its border, as ``np.pad`` has it."""
    (down, right), (rows, columns) = laid.step, _margins(p)
    height, width = laid.dy.shape[2:]
    spread = np.zeros((*laid.dy.shape[:2], (height - 1) * down + 1, (width - 1) * right + 1))
    spread[:, :, ::down, ::right] = laid.dy
    high, across = (
        np.pad(np.arange(n), margin, mode=mode)
        for n, margin in zip(spread.shape[2:], (rows, columns), strict=True)
    )
    wide = spread[:, :, high[:, None], across]
    size = wide.shape[2] + rows, wide.shape[3] + columns
    full = conv_stages.gather(p, replace(laid, dy=wide, step=(1, 1)), dy, padded=size)
    full = full[:, :, rows : size[0] - rows, columns : size[1] - columns]
    canvas = np.zeros((*full.shape[:2], *p.padded))
    canvas[:, :, : full.shape[2], : full.shape[3]] = full
    return canvas


def _goes_beyond(p: LayerPass) -> bool:
    """Whether cells that are not padding have partners beyond the delta's border."""
    return any(margin > min(ends) for margin, ends in zip(_margins(p), p.around, strict=True))


MUTANTS.add(
    PADDING_NOT_ZEROS,
    delta("sum", "around the delta, its border was repeated, where zeros belong",
          partial(_bordered, mode="edge")),
    delta("sum", "around the delta, its other end was wrapped round, where zeros belong",
          partial(_bordered, mode="wrap")),
    delta("sum", "around the delta, it was mirrored, where zeros belong",
          partial(_bordered, mode="symmetric")),
    when=lambda p: conv_stages.several_taps(p) and _goes_beyond(p),
)  # fmt: skip


# Positions, channels, order in memory -------------------------------------------------------------


def _one_position(p: LayerPass, laid: StridedDelta, dy: Array, *, which: int) -> Array:
    canvas = np.zeros((len(laid.dy), laid.other.shape[1], *p.padded))
    (below, right), (down, across) = pair(p.layer.dilation), laid.step
    rows, columns = laid.dy.shape[2:]
    i, j = ((rows - 1) * down, (columns - 1) * across) if which else (0, 0)
    cells = canvas[:, :, i::below, j::right][:, :, : p.window[0], : p.window[1]]
    cells[...] = np.tensordot(laid.dy[:, :, which, which], laid.other, 1)
    return canvas


MUTANTS.add(
    common.ONE_WINDOW_ONLY,
    delta("sum", "only the last position of the filter counted", partial(_one_position, which=-1)),
    delta("sum", "only the first position of the filter counted", partial(_one_position, which=0)),
    when=conv_stages.several_positions,
)  # fmt: skip
MUTANTS.add(
    CHANNELS_MERGED,
    delta("out", "every input channel got the sum over the channels",
          lambda p, v, dy: v.sum(axis=1, keepdims=True).repeat(v.shape[1], axis=1)),
    delta("out", "every input channel got what belongs to the first",
          lambda p, v, dy: v[:, :1].repeat(v.shape[1], axis=1)),
    when=conv_stages.several_channels,
)  # fmt: skip


_ORDERS = ((0, 2, 3, 1), (2, 3, 1, 0), (2, 3, 0, 1), (1, 2, 3, 0))


def _filters_reshaped(p: LayerPass) -> Iterator[Mutant]:
    """Yield the filters read as if they lay in memory in another order, and the reverse."""
    shape = p.parameters["weight"].shape
    seen: set[tuple[int, ...]] = {(0, 1, 2, 3)}
    for order in _ORDERS:
        lies = tuple(axis for axis in order if shape[axis] > 1)  # axes of one cell do not count
        if lies in seen or lies == tuple(sorted(lies)):
            continue
        seen.add(lies)
        other = ", ".join("KCRS"[axis] for axis in order)
        for words, change in (
            (f"({other}) were reshaped to (K, C, R, S)", partial(common.lie_as, order=order)),
            (f"(K, C, R, S) were reshaped to ({other})", partial(common.read_as, order=order)),
        ):
            yield delta("axes", f"the filters {words}, which mixes them up", _filters(change))


MUTANTS.add(
    common.MEMORY_ORDER,
    _filters_reshaped,
    delta("out", "the maps (N, H, W, C) were reshaped to (N, C, H, W), which mixes them up",
          lambda p, v, dy: common.lie_as(v, (0, 2, 3, 1)), conv_stages.several_channels),
    delta("out", "the maps (N, C, H, W) were reshaped to (N, H, W, C), which mixes them up",
          lambda p, v, dy: common.read_as(v, (0, 2, 3, 1)), conv_stages.several_channels),
)  # fmt: skip


# What other layers have too -----------------------------------------------------------------------


def _early(p: LayerPass, laid: StridedDelta, dy: Array) -> StridedDelta:
    gradient = run_stages(conv_stages.WEIGHT, p, dy, dy, ())
    return replace(laid, other=p.parameters["weight"] - p.rate * gradient)


def _early_each(p: LayerPass, laid: StridedDelta, dy: Array) -> Array:
    """Take each image's delta through weights that its own gradient has changed."""
    changes = []
    for n in range(p.images):
        image = StridedDelta(laid.dy[n : n + 1], laid.step, p.cache[0][n : n + 1])
        own = replace(image, other=p.images * conv_stages.correlate(p, image, dy))
        changes.append(conv_stages.gather(p, own, dy))
    changed: Array = conv_stages.gather(p, laid, dy) - p.rate * np.concatenate(changes)
    return changed


MUTANTS.add(
    common.WEIGHTS_UPDATED_EARLY,
    delta("weight", "the delta was taken through weights that had been updated already",
          _early, unknown="rate"),
    delta("sum", "each image's delta was taken through weights that had been updated with that "
          "image already", _early_each, common.several_images, unknown="rate"),
)  # fmt: skip
common.add_to_delta(MUTANTS)
common.add_mixed_images(MUTANTS, delta, conv_stages.several_filters)
