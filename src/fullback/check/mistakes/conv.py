"""Mistakes in a convolution.

Stages of the next delta: "delta" (which delta), "step" (how far apart its cells are laid), "weight"
(which filters), "turn", "axes", "share" (how they are turned, exchanged and added up), "sum" (how
products are gathered into the padded map), "crop", "out". Of a filter gradient: "delta", "step",
"input" (which padded input), "sum", "out". Of a bias: "delta", "rule", "out".

Written tap by tap: for each place (r, s) of the filter, the cells of the padded input that it met,
one for each output cell, are a strided view of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fullback.check.mistakes.base import Mutant, Stages, run_stages, same
from fullback.check.mistakes.common import delta_mutants, gradient_mutants
from fullback.check.mistakes.dense import inputs
from fullback.check.mistakes.layer_pass import Scene
from fullback.check.mistakes.pool import crops
from fullback.layers import Conv2D
from fullback.layers.base import Array
from fullback.layers.window import crop, pad, pair


@dataclass(frozen=True, eq=False)
class Laid:
    """A delta with the steps it is laid out by, and, further down the line, filters or input."""

    dy: Array
    step: tuple[int, int]
    other: Array | None = None


def _dilation(scene: Scene) -> tuple[int, int]:
    assert isinstance(scene.layer, Conv2D)  # noqa: S101 -- for the types
    return pair(scene.layer.dilation)


def _view(scene: Scene, canvas: Array, r: int, s: int, laid: Laid) -> Array:
    """The cells of a padded map that the filter's place (r, s) meets: (N, C, P, Q)."""
    (below, right), (down, across) = _dilation(scene), laid.step
    rows, columns = laid.dy.shape[2:]
    return canvas[:, :, r * below :: down, s * right :: across][:, :, :rows, :columns]


def _through(dy: Array, tap: Array) -> Array:
    """(N, K, P, Q) through the weights (K, C) of one place: (N, C, P, Q)."""
    return np.moveaxis(np.tensordot(dy, tap, axes=(1, 0)), -1, 1)


def _with_weights(scene: Scene, laid: Laid, dy: Array) -> Laid:
    return replace(laid, other=scene.parameters["weight"])


def _gather(scene: Scene, laid: Laid, dy: Array) -> Array:
    """Add up over taps: dx of the padded input."""
    w = _other(laid)
    canvas = np.zeros((len(dy), w.shape[1], *scene.padded))
    for r, s in np.ndindex(*w.shape[2:]):
        _view(scene, canvas, r, s, laid)[...] += _through(laid.dy, w[:, :, r, s])
    return canvas


def _other(laid: Laid) -> Array:
    assert laid.other is not None  # noqa: S101 -- for the types
    return laid.other


DELTA: Stages = (
    ("delta", same),
    ("step", lambda s, v, dy: Laid(v, s.stride)),
    ("weight", _with_weights),
    ("turn", same),
    ("axes", same),
    ("share", same),
    ("sum", _gather),
    ("crop", lambda s, v, dy: crop(v, s.around)),
    ("out", same),
)


def _correlate(scene: Scene, laid: Laid, dy: Array) -> Array:
    """The input correlated with the delta: (K, C, R, S)."""
    x, rows = _other(laid), scene.window
    dw = np.zeros((laid.dy.shape[1], x.shape[1], *rows))
    for r, s in np.ndindex(*rows):
        dw[:, :, r, s] = np.tensordot(laid.dy, _view(scene, x, r, s, laid), ((0, 2, 3), (0, 2, 3)))
    return dw


WEIGHT: Stages = (
    ("delta", same),
    ("step", lambda s, v, dy: Laid(v, s.stride)),
    ("input", lambda s, v, dy: replace(v, other=s.kept[0])),
    ("sum", _correlate),
    ("out", same),
)
BIAS: Stages = (("delta", same), ("rule", lambda s, v, dy: v.sum(axis=(0, 2, 3))), ("out", same))


# The next delta ---------------------------------------------------------------------------------


def _filters(change: Any) -> Any:
    """Turn a function of the filters (K, C, R, S) into a stage."""
    return lambda s, v, dy: replace(v, other=change(_other(v)))


def _early(scene: Scene, laid: Laid, dy: Array) -> Laid:
    gradient = run_stages(WEIGHT, scene, dy, dy, ())
    return replace(laid, other=scene.parameters["weight"] - scene.rate * gradient)


def _one_filter(which: int) -> Any:
    def change(w: Array) -> Array:
        kept = np.zeros_like(w)
        kept[which] = w[which]
        return kept

    return change


def _assign_taps(scene: Scene, laid: Laid, dy: Array) -> Array:
    w = _other(laid)
    canvas = np.zeros((len(dy), w.shape[1], *scene.padded))
    for r, s in np.ndindex(*w.shape[2:]):
        _view(scene, canvas, r, s, laid)[...] = _through(laid.dy, w[:, :, r, s])
    return canvas


def _assign_positions(scene: Scene, laid: Laid, dy: Array) -> Array:
    w, (below, right), (down, across) = _other(laid), _dilation(scene), laid.step
    canvas = np.zeros((len(dy), w.shape[1], *scene.padded))
    rows, columns = w.shape[2:]
    for p in range(laid.dy.shape[2]):
        for q in range(laid.dy.shape[3]):
            part = np.tensordot(laid.dy[:, :, p, q], w, axes=(1, 0))  # (N, C, R, S)
            cells = canvas[:, :, p * down :: below, q * across :: right]
            cells[:, :, :rows, :columns] = part
    return canvas


def _squeezed(scene: Scene, canvas: Array, _: Array) -> Array:
    """Crop as if nothing were left over, and fill up with zeros at the end."""
    (above, below), (left, right) = scene.around
    reach = [
        (n - 1) * step + (m - 1) * gap + 1
        for n, step, m, gap in zip(
            scene.y.shape[2:], scene.stride, scene.window, _dilation(scene), strict=True
        )
    ]
    part = canvas[:, :, above : reach[0] - below, left : reach[1] - right]
    whole = np.zeros((*canvas.shape[:2], *scene.x.shape[2:]))
    part = part[:, :, : whole.shape[2], : whole.shape[3]]
    whole[:, :, : part.shape[2], : part.shape[3]] = part
    return whole


def leftover(scene: Scene) -> tuple[int, int]:
    """Rows and columns of the padded input that no window reaches."""
    rows, columns = (
        n - ((count - 1) * step + (m - 1) * gap + 1)
        for n, count, step, m, gap in zip(
            scene.padded,
            scene.y.shape[2:],
            scene.stride,
            scene.window,
            _dilation(scene),
            strict=True,
        )
    )
    return rows, columns


def _moved_by_leftover(scene: Scene, canvas: Array, _: Array) -> Array:
    return crop(np.roll(canvas, leftover(scene), axis=(2, 3)), scene.around)


def _regroup(how: str) -> Any:
    """Read the delta's columns, made in one order of images and positions, in another."""

    def change(scene: Scene, dy: Array, _: Array) -> Array:
        n, k, p, q = dy.shape
        if how == "images last":  # made (P, Q, N), read (N, P, Q)
            columns = dy.transpose(1, 2, 3, 0).reshape(k, -1)
            return columns.reshape(k, n, p, q).swapaxes(0, 1)
        if how == "images first":  # made (N, P, Q), read (P, Q, N)
            columns = dy.swapaxes(0, 1).reshape(k, -1)
            return columns.reshape(k, p, q, n).transpose(3, 0, 1, 2)
        return dy.reshape(k, n, p, q).swapaxes(0, 1)  # images and filters not exchanged

    return change


REGROUPED = {
    "images last": "the delta's columns ran over positions, then images, and were read the other "
    "way round",
    "images first": "the delta's columns ran over images, then positions, and were read the other "
    "way round",
    "not exchanged": "the delta was reshaped to (filters, ...) without its images and filters "
    "having changed places",
}


def _regroupings(filters: int) -> list[tuple[str, str]]:
    """With one filter, there is nothing to exchange with the images."""
    return [entry for entry in REGROUPED.items() if filters > 1 or entry[0] != "not exchanged"]


def _delta_mutants(scene: Scene) -> Iterator[Mutant]:
    filters, channels, rows, columns = scene.parameters["weight"].shape
    if rows * columns > 1:
        yield Mutant(
            "filter-not-turned",
            "delta",
            "turn",
            _filters(lambda w: w[:, :, ::-1, ::-1]),
            "the filters were not turned by 180 degrees for the full convolution",
        )
    if rows == columns and rows > 1:
        yield Mutant(
            "rows-columns-swapped",
            "delta",
            "turn",
            _filters(lambda w: w.swapaxes(2, 3)),
            "the filters' rows and columns were exchanged",
        )
        yield Mutant(
            "rows-columns-swapped",
            "delta",
            "turn",
            _filters(lambda w: w[:, :, ::-1, ::-1].swapaxes(2, 3)),
            "the filters were turned by 180 degrees and had rows and columns exchanged",
        )
    if scene.x.shape[2] == scene.x.shape[3] > 1:
        yield Mutant(
            "rows-columns-swapped",
            "delta",
            "out",
            lambda s, v, dy: v.swapaxes(2, 3),
            "the map's rows and columns were exchanged",
        )
    if filters > 1 and channels > 1:
        if filters == channels:
            yield Mutant(
                "channels-swapped",
                "delta",
                "axes",
                _filters(lambda w: w.swapaxes(0, 1)),
                "the filters' input and output channels were exchanged too often or too rarely",
            )
        else:
            yield Mutant(
                "channels-swapped",
                "delta",
                "axes",
                _filters(lambda w: w.reshape(w.shape[1], w.shape[0], *w.shape[2:]).swapaxes(0, 1)),
                "the filters were reshaped to (channels, filters, ...) where their axes had to be "
                "exchanged",
            )
    if filters > 1:
        for which, said in ((-1, "last"), (0, "first")):
            yield Mutant(
                "filter-sum-lost",
                "delta",
                "share",
                _filters(_one_filter(which)),
                f"it holds the {said} filter's share only, not the sum over the filters",
            )
        yield Mutant(
            "filter-sum-lost",
            "delta",
            "out",
            lambda s, v, dy: v / dy.shape[1],
            "it is the mean over the filters, not the sum",
        )
    if rows * columns > 1:
        yield Mutant(
            "taps-overwritten",
            "delta",
            "sum",
            _assign_positions,
            "each window's share was assigned over the one before, where it had to be added",
        )
        yield Mutant(
            "taps-overwritten",
            "delta",
            "sum",
            _assign_taps,
            "each tap's share was assigned over the one before, where it had to be added",
        )
    if max(scene.stride) > 1:
        yield Mutant(
            "stride-not-dilated",
            "delta",
            "step",
            lambda s, v, dy: Laid(v, (1, 1)),
            "the delta's cells were laid side by side, with no zeros in between for the stride",
        )
    if max(leftover(scene)) > 0:
        yield Mutant(
            "stride-leftover",
            "delta",
            "crop",
            _squeezed,
            "the rows and columns that the stride leaves over were not counted when the padding "
            "was cut off",
        )
        yield Mutant(
            "stride-leftover",
            "delta",
            "crop",
            _moved_by_leftover,
            "the rows and columns that the stride leaves over were put in front",
        )
    yield from crops(scene)
    yield Mutant(
        "weights-updated-early",
        "delta",
        "weight",
        _early,
        "the delta was taken through filters that had been updated already",
        "rate",
    )
    yield from delta_mutants(scene)
    if scene.images > 1:
        for how, said in _regroupings(filters):
            yield Mutant("images-mixed", "delta", "delta", _regroup(how), said)


# The filter gradient ----------------------------------------------------------------------------


def _from_padded(scene: Scene, laid: Laid, padded: Array) -> Laid:
    return replace(laid, other=padded)


def _product(scene: Scene, x: Array, laid: Laid) -> Laid:
    return replace(laid, other=pad(x, scene.around))


def _placed(above: int, left: int) -> Any:
    """Lay the input into its padded map at another corner."""

    def change(scene: Scene, laid: Laid, dy: Array) -> Laid:
        canvas = np.zeros((*scene.x.shape[:2], *scene.padded))
        rows, columns = scene.x.shape[2:]
        canvas[:, :, above : above + rows, left : left + columns] = scene.x
        return replace(laid, other=canvas)

    return change


def _shifted_by_leftover(scene: Scene, laid: Laid, dy: Array) -> Laid:
    rows, columns = leftover(scene)
    return replace(laid, other=np.roll(scene.kept[0], (-rows, -columns), axis=(2, 3)))


def _last_position(scene: Scene, laid: Laid, dy: Array) -> Array:
    kept = np.zeros_like(laid.dy)
    kept[:, :, -1, -1] = laid.dy[:, :, -1, -1]
    return _correlate(scene, replace(laid, dy=kept), dy)


def _weight_mutants(scene: Scene) -> Iterator[Mutant]:
    filters, channels, rows, columns = scene.parameters["weight"].shape
    if rows * columns > 1:
        yield Mutant(
            "weight-gradient-turned",
            "weight",
            "out",
            lambda s, v, dy: v[:, :, ::-1, ::-1],
            "the filter gradient is turned by 180 degrees",
        )
    if rows == columns and rows > 1:
        yield Mutant(
            "rows-columns-swapped",
            "weight",
            "out",
            lambda s, v, dy: v.swapaxes(2, 3),
            "the filter gradient's rows and columns are exchanged",
        )
    if filters > 1 and channels > 1:
        if filters == channels:
            yield Mutant(
                "channels-swapped",
                "weight",
                "out",
                lambda s, v, dy: v.swapaxes(0, 1),
                "the filter gradient's input and output channels are exchanged",
            )
        else:
            yield Mutant(
                "channels-swapped",
                "weight",
                "out",
                lambda s, v, dy: v.swapaxes(0, 1).reshape(v.shape),
                "the filter gradient came as (channels, filters, ...) and was reshaped where its "
                "axes had to be exchanged",
            )
    if max(scene.stride) > 1:
        yield Mutant(
            "stride-not-dilated",
            "weight",
            "step",
            lambda s, v, dy: Laid(v, (1, 1)),
            "the delta slid over the input side by side, as if the stride were 1",
        )
    if max(leftover(scene)) > 0:
        yield Mutant(
            "stride-leftover",
            "weight",
            "input",
            _shifted_by_leftover,
            "the input was aligned with the delta at its end, where the stride leaves cells over",
        )
    (above, below), (left, right) = scene.around
    places = {
        (0, 0): "the input lay at the upper left of its padding",
        (above + below, left + right): "the input lay at the lower right of its padding",
        (below, right): "the odd row and column of the padding were on the wrong side",
    }
    for (top, start), said in places.items():
        if (top, start) != (above, left):
            yield Mutant("weight-gradient-padding", "weight", "input", _placed(top, start), said)
    yield from inputs(scene, _product)
    yield from gradient_mutants(scene, "weight")
    yield Mutant(
        "taps-overwritten",
        "weight",
        "sum",
        _last_position,
        "each position's share was assigned over the one before: the last one's is left",
    )
    if scene.images > 1:
        for how, said in _regroupings(filters):
            yield Mutant("images-mixed", "weight", "delta", _regroup(how), said)


def _bias_mutants(scene: Scene) -> Iterator[Mutant]:
    cells = scene.y.shape[2] * scene.y.shape[3]
    if cells > 1:
        yield Mutant(
            "bias-averaged",
            "bias",
            "out",
            lambda s, v, dy: v / cells,
            "it was averaged over the positions, where it had to be added up",
        )
    if scene.images > 1 and cells > 1:
        yield Mutant(
            "bias-averaged",
            "bias",
            "out",
            lambda s, v, dy: v / (cells * s.images),
            "it was averaged over positions and batch, where it had to be added up",
        )
    if scene.images > 1:
        yield Mutant(
            "bias-averaged",
            "bias",
            "out",
            lambda s, v, dy: v / s.images,
            "it was averaged over the batch, where the delta already holds 1 / N",
        )
    yield from gradient_mutants(scene, "bias")


def mutants(scene: Scene) -> Iterator[Mutant]:
    """Yield the mutants of a convolution."""
    yield from _delta_mutants(scene)
    yield from _weight_mutants(scene)
    if "bias" in scene.parameters:
        yield from _bias_mutants(scene)


# Groups -----------------------------------------------------------------------------------------


def by_group(stages: Stages, scene: Scene, dy: Array, mutants: tuple[Mutant, ...]) -> Array:
    """Run the stages on every group of channels, and join the results."""
    assert isinstance(scene.layer, Conv2D)  # noqa: S101 -- for the types
    groups = scene.layer.groups
    if groups == 1:
        whole: Array = run_stages(stages, scene, dy, dy, mutants)
        return whole
    padded, around = scene.kept
    parts = zip(
        np.split(scene.x, groups, 1),
        np.split(padded, groups, 1),
        np.split(scene.parameters["weight"], groups, 0),
        np.split(dy, groups, 1),
        strict=True,
    )
    made = []
    for group, (x, p, w, part) in enumerate(parts):
        own = replace(
            scene,
            x=x,
            kept=(p, around),
            parameters={**scene.parameters, "weight": w},
            activations={
                name: np.split(a, groups, 1)[group] if a.shape[1] == scene.x.shape[1] else a
                for name, a in scene.activations.items()
            },
        )
        made.append(run_stages(stages, own, part, part, mutants))
    return np.concatenate(made, axis=0 if stages is WEIGHT else 1)
