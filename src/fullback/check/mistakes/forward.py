"""Mistakes in the forward pass: what a layer gives whose formula is another one.

A way to make one is a function of the layer's pass, with its right output ``p.y`` at hand, to the
output that one gets who makes it, or None where the mistake makes no sense there. Ways at the loss
give probabilities, and their functions take the ``LossPass``. Those of windows have a file of their
own, ``forward_windows``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fullback import layers
from fullback.check.mistakes import forward_windows as forward_windows  # adds its ways
from fullback.check.mistakes.base import Mistake
from fullback.check.mistakes.forward_ways import LOSS_WAYS, WAYS, Way, add
from fullback.check.mistakes.layer_pass import LayerPass, LossPass
from fullback.layers import Layer
from fullback.layers.base import Array
from fullback.layers.loss import softmax


def forward_ways(p: LayerPass | LossPass) -> Iterator[tuple[Way, Array]]:
    """Yield every way that makes sense in a pass, with what it computes."""
    ways = LOSS_WAYS if isinstance(p, LossPass) else WAYS.get(type(p.layer), [])
    shape = p.p.shape if isinstance(p, LossPass) else p.y.shape
    for way in ways:
        with np.errstate(all="ignore"):
            output = way.output(p)
        if output is not None and output.shape == shape:
            yield way, output


# Activations and dropout --------------------------------------------------------------------------

ACTIVATION = Mistake(
    "activation-formula",
    "The activation is another function than the network's.",
    "relu: max(x, 0);  sigmoid: 1 / (1 + exp(-x));  tanh: (exp(2x) - 1) / (exp(2x) + 1)",
    "np.maximum(x, 0)\n1 / (1 + np.exp(-x))  # the sign, and both brackets\nnp.tanh(x)",
)


def _sigmoid(x: Array) -> Array:
    y: Array = (1 + np.tanh(x / 2)) / 2
    return y


_EVERY: dict[type[Layer], dict[str, Callable[[LayerPass], Any]]] = {
    layers.ReLU: {"it is a ReLU": lambda p: np.maximum(p.x, 0)},
    layers.Sigmoid: {"it is a sigmoid": lambda p: _sigmoid(p.x)},
    layers.Tanh: {"it is a tanh": lambda p: np.tanh(p.x)},
    layers.LeakyReLU: {
        "it is a leaky ReLU, with the slope 0.01": lambda p: np.where(p.x > 0, p.x, p.x / 100)
    },
}
for _kind in _EVERY:
    add(_kind, mistake=ACTIVATION, ways={
        "the activation was left out: its input was handed on": lambda p: p.x,
    })  # fmt: skip
    for _other, _formula in _EVERY.items():
        if _other is not _kind:
            add(_kind, mistake=ACTIVATION, ways=_formula)
add(layers.Sigmoid, mistake=ACTIVATION, ways={
    "the sign in the exponent is wrong: 1 / (1 + exp(x))": lambda p: _sigmoid(-p.x),
    "brackets are missing: 1 / 1 + exp(-x)": lambda p: 1 + np.exp(-p.x),
    "the 1 is missing: 1 / exp(-x)": lambda p: np.exp(p.x),
    "the slope y (1 - y) was handed on in place of y": lambda p: p.y * (1 - p.y),
})  # fmt: skip
add(layers.Tanh, mistake=ACTIVATION, ways={
    "the sign is wrong: it is -tanh(x)": lambda p: -p.y,
    "the exponents are half as large: (exp(x) - 1) / (exp(x) + 1)": lambda p: np.tanh(p.x / 2),
    "the slope 1 - y^2 was handed on in place of y": lambda p: 1 - p.y**2,
})  # fmt: skip
add(layers.ReLU, mistake=ACTIVATION, ways={
    "the mask was handed on in place of the masked input": lambda p: (p.x > 0).astype(float),
    "it cuts off what is positive: min(x, 0)": lambda p: np.minimum(p.x, 0),
    "it is the absolute value": lambda p: abs(p.x),
    "it is max(-x, 0)": lambda p: np.maximum(-p.x, 0),
})  # fmt: skip
add(layers.LeakyReLU, mistake=ACTIVATION, ways={
    "the slope is on the positive side": lambda p: np.where(p.x > 0, p.layer.slope * p.x, p.x),
})  # fmt: skip


def _scaled(p: LayerPass, factor: Callable[[float], float]) -> Any:
    rate = p.layer.rate
    return None if p.cache is None or not rate else p.x * (p.cache > 0) * factor(rate)


add(layers.Dropout, mistake=Mistake(
    "dropout-scale",
    "Dropout's scale is missing or another one.",
    "y = m x, with m = 1 / (1 - rate) where the unit stays, else 0",
    "mask = (rng.random(x.shape) >= rate) / (1 - rate)\ny = mask * x",
), ways={
    "the scale 1 / (1 - rate) is missing": lambda p: _scaled(p, lambda rate: 1.0),
    "it was multiplied by 1 - rate, and not divided": lambda p: _scaled(p, lambda rate: 1 - rate),
    "it was divided by the rate, and not by 1 - rate": lambda p: _scaled(p, lambda rate: 1 / rate),
    "nothing was left out: the input was handed on": lambda p: p.x,
    "all units were scaled, and none left out": lambda p: p.x / (1 - p.layer.rate),
})  # fmt: skip


# Convolution and dense layer ----------------------------------------------------------------------


def _with_bias(p: LayerPass, times: int) -> Any:
    """Return the output with the bias so many times, where that makes a difference."""
    b = p.parameters.get("bias")
    if b is None or not b.any() or times == 1:
        return None
    return p.y + (times - 1) * (b if p.y.ndim == 2 else b[:, None, None])


add(layers.Conv2D, layers.Dense, mistake=Mistake(
    "bias-not-added",
    "The bias was not added, or not once.",
    "y[n,k] = sum over c, r, s of w[k,c,r,s] x[...] + b[k], once for each k",
    "y = x @ w.T + b             # dense\ny = y + b[:, None, None]    # convolution, (N, K, P, Q)",
), ways={
    "the bias was not added": lambda p: _with_bias(p, 0),
    "the bias was subtracted": lambda p: _with_bias(p, -1),
    "the bias was added twice": lambda p: _with_bias(p, 2),
    "the bias was added once for each input channel": lambda p: _with_bias(p, p.x.shape[1]),
})  # fmt: skip


add(layers.Conv2D, layers.Dense, layers.BatchNorm2D, mistake=Mistake(
    "activation-applied",
    "The output went through an activation already.",
    "a layer's output is what it computes itself; what an activation makes of it is that one's",
    "activations = {'conv1': z1, 'relu1': a1}  # before and behind the ReLU\n"
    "probabilities = p                         # behind a softmax or sigmoids",
), ways={
    "a ReLU was applied to its output": lambda p: np.maximum(p.y, 0),
    "a sigmoid was applied to its output": lambda p: _sigmoid(p.y),
    "a tanh was applied to its output": lambda p: np.tanh(p.y),
    "a softmax was applied to its output": lambda p: softmax(p.y) if p.y.ndim == 2 else None,
})  # fmt: skip


def _weights(change: Callable[[Array], Array | None]) -> Callable[[LayerPass], Any]:
    """Return the output with other weights of the same shape."""

    def output(p: LayerPass) -> Any:
        own = p.parameters["weight"]
        w = change(own)
        if w is None or w.shape != own.shape:
            return None
        return p.layer.forward(p.x, {**p.parameters, "weight": w})[0]

    return output


def _only(w: Array, which: int) -> Array | None:
    alone = np.zeros_like(w)
    alone[:, which] = w[:, which]
    return alone if w.shape[1] > 1 else None


add(layers.Conv2D, mistake=Mistake(
    "true-convolution",
    "The filters were turned by 180 degrees in the forward pass: a true convolution.",
    "y[n,k,p,q] = sum over c, r, s of w[k,c,r,s] x[n,c,p+r,q+s]: a correlation",
    "fb.diagnose(..., convolution='true')  # where it is meant to be one\n"
    "correlate2d(x, w, 'valid')            # and not convolve2d, where not",
), ways={
    "the filters were turned by 180 degrees: a true convolution, where fullback correlates":
        _weights(lambda w: w[:, :, ::-1, ::-1]),
})  # fmt: skip
add(layers.Conv2D, layers.Dense, mistake=Mistake(
    "weights-turned",
    "The weights' axes are in another order.",
    "w is (filters, channels, rows, columns), or (units, features)",
    "w.shape == (K, C, R, S)\ny = x @ w.T  # dense: w is (units, features)",
), ways={
    "the filters' rows and columns were exchanged, or the matrix was transposed":
        _weights(lambda w: w.swapaxes(-1, -2)),
    "the filters' input and output channels were exchanged":
        _weights(lambda w: w.swapaxes(0, 1) if w.ndim == 4 else None),
    "the filters' rows are upside down":
        _weights(lambda w: w[:, :, ::-1] if w.ndim == 4 else None),
    "the filters' columns are the wrong way round":
        _weights(lambda w: w[:, :, :, ::-1] if w.ndim == 4 else None),
})  # fmt: skip
add(layers.Conv2D, mistake=Mistake(
    "channel-sum-lost",
    "The output is not the sum over the input channels.",
    "y[n,k,p,q] = sum over c, r, s of w[k,c,r,s] x[n,c,p+r,q+s] + b[k]",
    "for c in range(C):\n    y[n, k] += correlate2d(x[n, c], w[k, c], 'valid')  # +=, not =",
), ways={
    "only the last input channel is in it": _weights(lambda w: _only(w, -1)),
    "only the first input channel is in it": _weights(lambda w: _only(w, 0)),
})  # fmt: skip


# Flatten and normalisation ------------------------------------------------------------------------


def _flat(p: LayerPass, *order: int) -> Any:
    return p.x.transpose(order).reshape(p.y.shape) if p.x.ndim == 4 else None


def _met_flat(p: LayerPass) -> Any:
    """Return the output for features in the order row, column, channel."""
    for maps in p.activations.values():
        if maps.ndim == 4 and np.array_equal(maps.reshape(len(maps), -1), p.x):
            flat = maps.transpose(0, 2, 3, 1).reshape(p.x.shape)
            return p.layer.forward(flat, p.parameters)[0]
    return None


_FLATTEN = Mistake(
    "flatten-order",
    "Maps were flattened in another order than the weights behind expect.",
    "feature (c H + i) W + j  is  x[c,i,j]: channel, row, column",
    "flat = x.reshape(len(x), -1)                        # of (N, C, H, W)\n"
    "flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # of (N, H, W, C)",
)
add(layers.Dense, mistake=_FLATTEN, ways={
    "its features came in the order row, column, channel": _met_flat,
})  # fmt: skip
add(layers.Flatten, mistake=_FLATTEN, ways={
    "maps were flattened in the order row, column, channel": lambda p: _flat(p, 0, 2, 3, 1),
    "maps were flattened in the order channel, column, row": lambda p: _flat(p, 0, 1, 3, 2),
    "maps were flattened in the order column, row, channel": lambda p: _flat(p, 0, 3, 2, 1),
    "maps were flattened in the order column, channel, row": lambda p: _flat(p, 0, 3, 1, 2),
})  # fmt: skip
add(layers.Flatten, mistake=Mistake(
    "images-mixed-forward",
    "Cells of different images were mixed up in a reshape.",
    "reshape splits or joins neighbouring axes only; to exchange axes takes a transpose",
    "flat = x.reshape(len(x), -1)    # (N, C H W)\nflat = x.reshape(len(x), -1).T  # (C H W, N)",
), ways={
    "maps were reshaped to (features, images), and read as images by features":
        lambda p: p.x.reshape(-1, len(p.x)).T,
})  # fmt: skip


def _batchnorm(
    p: LayerPass,
    scale: Callable[[Array, float], Array] = lambda v, e: np.sqrt(v + e),
    axes: tuple[int, ...] = (0, 2, 3),
    ddof: int = 0,
) -> Any:
    """Return the output with other statistics, or another function of variance and epsilon."""
    if p.cache[-1] is None or np.prod([p.x.shape[a] for a in axes]) <= ddof:
        return None
    mean, variance = p.x.mean(axes, keepdims=True), p.x.var(axes, keepdims=True, ddof=ddof)
    z = (p.x - mean) / scale(variance, p.layer.epsilon)
    weight, bias = (p.parameters[key][:, None, None] for key in ("weight", "bias"))
    return weight * z + bias


add(layers.BatchNorm2D, mistake=Mistake(
    "batchnorm-formula",
    "The batch normalisation has another formula.",
    "y = weight (x - mean) / sqrt(variance + epsilon) + bias, over images and positions",
    "mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))\n"
    "z = (x - mean) / np.sqrt(variance + epsilon)",
), ways={
    "the variance was divided by N - 1, and not by N": lambda p: _batchnorm(p, ddof=1),
    "epsilon is missing, or another one": lambda p: _batchnorm(p, lambda v, e: np.sqrt(v)),
    "epsilon was added to the root, and not under it":
        lambda p: _batchnorm(p, lambda v, e: np.sqrt(v) + e),
    "it was divided by the variance, and not by its root":
        lambda p: _batchnorm(p, lambda v, e: v + e),
    "mean and variance are each image's own": lambda p: _batchnorm(p, axes=(2, 3)),
    "mean and variance are each position's own": lambda p: _batchnorm(p, axes=(0,)),
    "weight and bias are missing": lambda p: p.cache[0],
    "the running mean and variance were used, as in prediction, and not the batch's":
        lambda p: p.layer.forward(p.x, p.parameters)[0],
    "the batch's mean and variance were used, as in training, and not the running ones":
        lambda p: p.layer.forward(p.x, p.parameters, training=True)[0],
})  # fmt: skip
add(layers.Normalize, mistake=Mistake(
    "normalize-formula",
    "The images were normalised in another way.",
    "y = (x - mean) / deviation",
    "y = (x - mean) / deviation",
), ways={
    "the mean was not subtracted": lambda p: p.y - p.layer.forward(0 * p.x, p.parameters)[0],
    "the images were not normalised": lambda p: p.x,
})  # fmt: skip


# Probabilities ------------------------------------------------------------------------------------

_SOFTMAX = Mistake(
    "softmax-formula",
    "The probabilities are not the softmax of the logits.",
    "p[n, k] = exp(x[n, k]) / sum over j of exp(x[n, j])",
    "e = np.exp(x - x.max(axis=1, keepdims=True))\np = e / e.sum(axis=1, keepdims=True)",
)
_SIGMOID = Mistake(
    "sigmoid-formula",
    "The probabilities are not the sigmoids of the logits.",
    "p[n, k] = 1 / (1 + exp(-x[n, k]))",
    "p = 1 / (1 + np.exp(-x))  # the sign, and both brackets",
)


def _right(p: LossPass) -> Array:
    right = p.loss.probabilities(p.logits)
    assert right is not None  # noqa: S101 -- probabilities need a classifier
    return right


def _add_probabilities(
    mistake: Mistake, *, softmax: bool, ways: dict[str, Callable[[LossPass], Array]]
) -> None:
    """Add ways to get other probabilities than those of a softmax, or of sigmoids."""

    def only(change: Callable[[LossPass], Array]) -> Callable[[LossPass], Array | None]:
        kind = layers.SoftmaxCrossEntropy
        return lambda p: change(p) if isinstance(p.loss, kind) == softmax else None

    LOSS_WAYS.extend(Way(mistake, text, only(change)) for text, change in ways.items())


_EITHER: dict[str, Callable[[LossPass], Array]] = {
    "they are the logits: nothing was done with them": lambda p: p.logits,
    "they are the logarithms of the right ones": lambda p: np.log(_right(p)),
}
_add_probabilities(_SOFTMAX, softmax=True, ways={
    "the softmax was taken over the images, down the columns, not over the classes":
        lambda p: softmax(p.logits.T).T,
    "the exponentials were divided by the sum of the whole batch":
        lambda p: np.exp(p.logits - p.logits.max()) / np.exp(p.logits - p.logits.max()).sum(),
    "the exponentials were not divided by their sum": lambda p: np.exp(p.logits),
    "they are sigmoids, each class for itself, and do not sum to 1": lambda p: _sigmoid(p.logits),
    "the softmax was taken twice": lambda p: softmax(_right(p)),
    "the sign in the exponent is wrong": lambda p: softmax(-p.logits),
} | _EITHER)  # fmt: skip
_add_probabilities(_SIGMOID, softmax=False, ways={
    "the sign in the exponent is wrong: 1 / (1 + exp(x))": lambda p: _sigmoid(-p.logits),
    "brackets are missing: 1 / 1 + exp(-x)": lambda p: 1 + np.exp(-p.logits),
    "they are a softmax, and sum to 1": lambda p: softmax(p.logits),
    "the sigmoid was taken twice": lambda p: _sigmoid(_right(p)),
    "they are a tanh": lambda p: np.tanh(p.logits),
} | _EITHER)  # fmt: skip

FORWARD_MISTAKES: dict[str, Mistake] = {
    way.mistake.id: way.mistake for ways in (*WAYS.values(), LOSS_WAYS) for way in ways
}
"""Every mistake of the forward pass, by its id."""
