"""A small CNN written by hand in NumPy, with two mistakes in its backward pass.

docs/diagnose.md finds and mends them.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

AROUND = ((0, 0), (0, 0), (1, 1), (1, 1))  # a ring of zeros around maps (N, C, H, W)


def windows(x):
    """All 3x3 windows of the padded maps: (N, C, H, W, 3, 3)."""
    return sliding_window_view(np.pad(x, AROUND), (3, 3), axis=(2, 3))


def conv_forward(x, w, b):
    return np.einsum("nchwrs,kcrs->nkhw", windows(x), w) + b[:, None, None]


def conv_backward(dy, x, w):
    dw = np.einsum("nkhw,nchwrs->kcrs", dy, windows(x))
    db = dy.mean(axis=(0, 2, 3))
    dx = np.einsum("nkhwrs,kcrs->nchw", windows(dy), w)
    return dx, dw, db


def pool_forward(x):
    n, c, h, w = x.shape
    cells = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    cells = cells.reshape(n, c, h // 2, w // 2, 4)
    return cells.max(axis=-1), cells.argmax(axis=-1)


def pool_backward(dy, winner):
    n, c, h, w = dy.shape
    cells = (np.arange(4) == winner[..., None]) * dy[..., None]
    cells = cells.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return cells.reshape(n, c, 2 * h, 2 * w)


def backpropagate(p, x, y):
    """Return the gradients and deltas of a batch, by the parameters in the dict p."""
    a1 = conv_forward(x, p["conv1.weight"], p["conv1.bias"])
    p1, winner1 = pool_forward(np.maximum(a1, 0))
    a2 = conv_forward(p1, p["conv2.weight"], p["conv2.bias"])
    p2, winner2 = pool_forward(np.maximum(a2, 0))
    flat = p2.reshape(len(x), -1)
    logits = flat @ p["dense1.weight"].T + p["dense1.bias"]
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = e / e.sum(axis=1, keepdims=True)

    delta = probabilities.copy()
    delta[np.arange(len(x)), y] -= 1
    delta /= len(x)
    gradients, deltas = {}, {"dense1": delta}
    gradients["dense1.weight"] = delta.T @ flat
    gradients["dense1.bias"] = delta.sum(axis=0)
    deltas["pool2"] = (delta @ p["dense1.weight"]).reshape(p2.shape)
    deltas["conv2"] = pool_backward(deltas["pool2"], winner2) * (a2 > 0)
    deltas["pool1"], gradients["conv2.weight"], gradients["conv2.bias"] = conv_backward(
        deltas["conv2"], p1, p["conv2.weight"]
    )
    deltas["conv1"] = pool_backward(deltas["pool1"], winner1) * (a1 > 0)
    _, gradients["conv1.weight"], gradients["conv1.bias"] = conv_backward(
        deltas["conv1"], x, p["conv1.weight"]
    )
    return gradients, deltas
