"""Mistakes that several kinds of layer can have: scale, sign, images, inputs, padding, order.

Every line of stages begins with "delta" and ends with "out". What can happen to any gradient is in
``gradient``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fullback.check.mistakes.base import Change, Condition, Mistake, Mutant, Mutants, delta, weight
from fullback.check.mistakes.layer_pass import LayerPass
from fullback.layers.base import Array

ROWS_COLUMNS_SWAPPED = Mistake(
    "rows-columns-swapped",
    "Rows and columns were exchanged.",
    "dw[k,c,r,s]: r runs down the rows, s along the columns; dx = dy w for a dense layer",
    "w.shape == (K, C, R, S)  # rows before columns, everywhere\n"
    "dx = dy @ w              # dense: w is (units, features)\n"
    "dw = dy.T @ x",
)
PADDING_CROPPED_WRONG = Mistake(
    "padding-cropped-wrong",
    "The padding was cut off from the wrong side, which shifts the next delta.",
    "dx[i,j] = dx_padded[i+above,j+left]",
    "dx = dx_padded[:, :, above:above + H, left:left + W]\n"
    "# for a padding of 1 on every side: dx_padded[:, :, 1:-1, 1:-1]",
)
CACHE_OVERWRITTEN = Mistake(
    "cache-overwritten",
    "What the backward pass took from the cache had been overwritten.",
    "every image needs its own x of the forward pass",
    "self.x = x.copy()  # one cache a layer, for the whole batch\n"
    "# x *= mask and x[x < 0] = 0 change what others have kept",
)
BIAS_AVERAGED = Mistake(
    "bias-averaged",
    "The bias gradient was averaged where it has to be added up.",
    "db[k] = sum over n, p, q of dy[n,k,p,q]",
    "db = dy.sum(axis=(0, 2, 3))  # not mean: dy already holds 1 / N",
)
CONSTANT_FACTOR = Mistake(
    "constant-factor",
    "There is one factor too many on the right value.",
    "L = mean over n of l[n], so dx[n,k] = (p[n,k] - t[n,k]) / N, and dw = sum over n of "
    "dy[n] x[n]: every delta and gradient has the loss's own factor, and no other",
    "delta = (p - t) / N  # no 1/2, no learning rate, no number of classes\n"
    "dw = delta.T @ x     # and none here\n"
    "# a factor of the loss belongs to the loss that is printed, too",
)
BATCH_SCALE = Mistake(
    "batch-scale",
    "The 1 / N of the batch's mean is missing, or there twice.",
    "L = mean over n of l[n], so dx[n,k] = (p[n,k] - t[n,k]) / N, once, at the loss",
    "delta = (p - t) / N  # once, here\ndw = delta.T @ x     # and nowhere below",
)
LAST_SAMPLE_ONLY = Mistake(
    "last-sample-only",
    "Only the last image's gradient is left of the batch's.",
    "dw = sum over n of dy[n] x[n]",
    "dw = np.zeros_like(w)\nfor n in range(N):\n    dw += gradient_of(n)  # +=, not =",
)
SIGN_FLIPPED = Mistake(
    "sign-flipped",
    "The sign is flipped.",
    "dx[n,k] = (p[n,k] - t[n,k]) / N, and weights go against it: w -= rate dw",
    "delta = (p - t) / N  # not (t - p)\nw -= rate * dw",
)
SLOPE_TWICE = Mistake(
    "slope-twice",
    "The slope of an activation was applied twice.",
    "dx = dy f'(x), once;  binary cross-entropy with sigmoid outputs: dx = (p - t) / N, with f' in",
    "delta = (p - t) / N       # of logits, binary cross-entropy: no p (1 - p)\n"
    "delta = dy * y * (1 - y)  # of a sigmoid's input: once",
)
FLATTEN_ORDER = Mistake(
    "flatten-order",
    "Maps were flattened in one order and folded back in another.",
    "feature (c H + i) W + j  is  x[c,i,j]: channel, row, column, both ways",
    "flat = x.reshape(N, -1)      # forward\n"
    "dx = delta.reshape(x.shape)  # back: the same shape, no transpose",
)
WEIGHTS_UPDATED_EARLY = Mistake(
    "weights-updated-early",
    "The weights were updated before the next delta was computed with them.",
    "dx = dy w, with the w of the forward pass",
    "dx = dy @ w     # first the next delta,\ndw = dy.T @ x\nw -= rate * dw  # then the update",
)
WRONG_CACHED_INPUT = Mistake(
    "wrong-cached-input",
    "The backward pass used another activation than the one the layer had seen.",
    "dw = delta times the layer's own input x;  slopes in terms of the x or y they name",
    "y = x @ w.T + b\nself.x = x  # keep this layer's own input\ndw = dy.T @ self.x",
)
IMAGES_MIXED = Mistake(
    "images-mixed",
    "Columns of different images were mixed up in a reshape.",
    "reshape splits or joins neighbouring axes only; to exchange axes takes a transpose",
    "columns = dy.transpose(1, 0, 2, 3).reshape(K, -1)  # (K, N P Q)\n"
    "# (N, P, Q) or (P, Q, N): the same order for both factors",
)
ONE_WINDOW_ONLY = Mistake(
    "one-window-only",
    "Only one window is left of all that had to be counted.",
    "dw[k,c,r,s] = sum over n, p, q of dy[n,k,p,q] x[n,c,p+r,q+s];  dx and db likewise: every p, q",
    "for p, q in np.ndindex(P, Q):  # every window adds: no return, no = here\n"
    "    dw += np.tensordot(dy[:, :, p, q], x[:, :, p:p + R, q:q + S], (0, 0))",
)
MEMORY_ORDER = Mistake(
    "memory-order",
    "An array was reshaped where its axes had to be exchanged: its values lie in another order.",
    "dw has the axes of w in the order of w: reshape changes where an axis ends, transpose which "
    "axis is which",
    "dw = dw.reshape(R, S, C, K).transpose(3, 2, 0, 1)  # as it lies, then as w\n"
    "x = x.transpose(0, 3, 1, 2)  # (N, H, W, C) to (N, C, H, W): no reshape\n"
    "# where the weights lie so too, say it: diagnose(..., weights={...})",
)
CAST_TO_WHOLE = Mistake(
    "cast-to-whole",
    "The result was put into an array of whole numbers, which cuts off all behind the point.",
    "dx and dw are real numbers, whatever the type of x and w",
    "dx = np.zeros(x.shape)  # not np.zeros_like(x), where x has whole numbers\n"
    "w = np.array(w, dtype=float)",
)


def several_images(p: Any) -> bool:
    """Whether the batch has several images."""
    return bool(p.images > 1)


def only_last(p: Any, value: Array, dy: Array) -> Array:
    """Keep the last image's part."""
    last = np.zeros_like(value)
    last[-1] = value[-1]
    return last


def whole(p: Any, value: Array, dy: Array) -> Array:
    """Cut off all behind the point."""
    cut: Array = np.trunc(value)
    return cut


CUT_OFF = delta("out", "it was cast to whole numbers, towards 0", whole)


def lie_as(array: Array, order: tuple[int, ...]) -> Array:
    """Return an array of the same shape, its numbers in memory as with its axes in that order."""
    return array.transpose(order).reshape(array.shape)


def read_as(array: Array, order: tuple[int, ...]) -> Array:
    """Return an array whose numbers were read as if its axes lay in memory in another order."""
    shape = [array.shape[axis] for axis in order]
    return array.reshape(shape).transpose(np.argsort(order))


def before_for_all(value: Array) -> Array:
    """Put the part of the image before in place of each image's; before the first is the last."""
    return np.roll(value, 1, axis=0)


def last_for_all(value: Array) -> Array:
    """Put the last image's part in place of every image's."""
    return np.broadcast_to(value[-1:], value.shape).copy()


def add_other_images(
    table: Mutants,
    target: Callable[..., Mutant],
    stage: str,
    what: str,
    change: Callable[[Callable[[Array], Array]], Change],
) -> None:
    """Add what happens where a cache, ``what``, is another image's.

    ``target`` makes a mutant, and ``change`` its function from what is done to the cache.
    """
    table.add(
        CACHE_OVERWRITTEN,
        target(stage, f"the last image's {what} stood in the cache for every image",
               change(last_for_all)),
        target(stage, f"the {what} of the image before stood in the cache",
               change(before_for_all)),
        when=several_images,
    )  # fmt: skip


def negative(p: Any, value: Array, dy: Array) -> Array:
    """Flip the sign."""
    return -value


def over_images(p: Any, value: Array, dy: Array) -> Array:
    """Divide by N."""
    quotient: Array = value / p.images
    return quotient


def times_images(p: Any, value: Array, dy: Array) -> Array:
    """Multiply by N."""
    product: Array = value * p.images
    return product


def add_to_delta(table: Mutants) -> None:
    """Add what can happen to the next delta of a layer with parameters."""
    table.add(SIGN_FLIPPED, delta("out", "its sign is flipped", negative))
    table.add(
        BATCH_SCALE,
        delta("out", "it was divided by N once more on the way down", over_images, several_images),
        delta("out", "it was multiplied by N on the way down", times_images, several_images),
    )
    table.add(
        LAST_SAMPLE_ONLY,
        delta("delta", "only the last image's was carried down", only_last, several_images),
    )
    table.add(CAST_TO_WHOLE, CUT_OFF)


def add_inputs(table: Mutants, product: Callable[[LayerPass, Array, Any], Any]) -> None:
    """Add weight gradients from other inputs; ``product`` computes one from pass, x and delta."""

    def met(p: LayerPass, v: Any, dy: Array, *, name: str, last: bool = False) -> Any:
        x = p.activations[name]
        x = x.transpose(0, 2, 3, 1) if last else x
        return product(p, x if x.ndim == p.x.ndim else x.reshape(len(p.x), -1), v)

    def others(p: LayerPass) -> Iterator[Mutant]:
        names = [n for n, x in p.activations.items() if x.shape[1:] == p.x.shape[1:]]
        names = [n for n in names if n != p.before]
        for name in (*names, *(n for n in _folded(p) if not _is_input(p, n))):
            words = f"the delta met the output of {name} in place of that of {p.before}"
            yield weight("input", words, partial(met, name=name))

    def reordered(p: LayerPass) -> Iterator[Mutant]:
        words = "the features it met were flattened in the order row, column, channel"
        for name in _folded(p):
            shape = p.activations[name].shape
            if min(shape[1], max(shape[2:])) > 1 and _is_input(p, name):
                yield weight("input", words, partial(met, name=name, last=True))

    table.add(WRONG_CACHED_INPUT, others)
    table.add(FLATTEN_ORDER, reordered)
    add_other_images(
        table, weight, "input", "input", lambda of: lambda p, v, dy: product(p, of(p.x), v)
    )


def _folded(p: LayerPass) -> list[str]:
    """Return the maps that have as many cells as the layer's input has features."""
    return [
        name
        for name, x in p.activations.items()
        if x.ndim == 4 and p.x.ndim == 2 and x[0].size == p.x[0].size
    ]


def _is_input(p: LayerPass, name: str) -> bool:
    """Whether maps, flattened, are the layer's input."""
    maps = p.activations[name]
    return np.array_equal(maps.reshape(len(maps), -1), p.x)


def wrong_corners(p: LayerPass, words: tuple[str, str, str]) -> dict[tuple[int, int], str]:
    """Return where else the input may begin in its padding: (row, column), with words for each.

    The words are those for all of the padding behind it, all in front, and the two exchanged.
    """
    (above, below), (left, right) = p.around
    corners = dict(zip([(0, 0), (above + below, left + right), (below, right)], words, strict=True))
    corners.pop((above, left), None)
    return corners


def crops(p: LayerPass) -> Iterator[Mutant]:
    """Yield wrong ways to take the padding off."""
    words = (
        "all of the padding was cut off below and on the right",
        "all of the padding was cut off above and on the left",
        "the odd row and column of the padding were cut off from the wrong side",
    )
    for (above, left), description in wrong_corners(p, words).items():
        yield delta("crop", description, partial(_cropped, above=above, left=left))


def _cropped(p: LayerPass, canvas: Array, dy: Array, *, above: int, left: int) -> Array:
    rows, columns = p.x.shape[2:]
    return canvas[:, :, above : above + rows, left : left + columns]


# Images in columns --------------------------------------------------------------------------------


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


def add_mixed_images(table: Mutants, target: Callable[..., Mutant], several: Condition) -> None:
    """Add what happens where a convolution's delta is read as a matrix in the wrong order.

    ``target`` makes a mutant, and ``several`` says whether there are several filters.
    """
    table.add(
        IMAGES_MIXED,
        target("delta", "the delta's columns ran over positions, then images, and were read the "
               "other way round", _images_last),
        target("delta", "the delta's columns ran over images, then positions, and were read the "
               "other way round", _images_first),
        target("delta", "the delta was reshaped to (filters, ...) without its images and filters "
               "having changed places", _not_exchanged, several),
        when=several_images,
    )  # fmt: skip
