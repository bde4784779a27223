"""A script for a board without libraries: padding by hand, a pixel's and a filter's loop.

"edge": the picture is padded with zeros forward, and with its border's cells for the filters'
gradient. "merged": the channels are added up for the filters' gradient. "exchanged": the next delta
takes filters for channels, which nothing objects to where there are as many of each.
"""

import numpy as np

ARCHITECTURE = "conv2 relu conv2 relu flatten dense4"
INPUT_SHAPE = (2, 5, 6)
OPTIONS = {"lr": 0.01}
MISTAKES = {
    "edge": ("conv1", "padding-not-zeros", "weight gradient"),
    "merged": ("conv1", "input-channels-merged", "weight gradient"),
    "exchanged": ("conv2", "channels-swapped", "next delta"),
}


def correlate(x, w, b):
    n, _, rows, cols = x.shape
    xp = np.zeros((n, x.shape[1], rows + 2, cols + 2))
    xp[:, :, 1:-1, 1:-1] = x
    y = np.empty((n, len(w), rows, cols))
    for k, kernel in enumerate(w):
        y[:, k] = b[k] + sum(
            kernel[c, r, s] * xp[:, c, r : r + rows, s : s + cols]
            for c in range(x.shape[1])
            for r in range(3)
            for s in range(3)
        )
    return y


def filter_gradient(x, dy, wrong):
    _, channels, rows, cols = x.shape
    around = ((0, 0), (0, 0), (1, 1), (1, 1))
    xp = np.pad(x, around, mode="edge" if wrong == "edge" else "constant")
    if wrong == "merged":
        xp = np.repeat(xp.sum(axis=1, keepdims=True), channels, axis=1)
    dw = np.zeros((dy.shape[1], channels, 3, 3))
    for k, c, r, s in np.ndindex(dw.shape):
        dw[k, c, r, s] = np.vdot(dy[:, k], xp[:, c, r : r + rows, s : s + cols])
    return dw


def next_delta(dy, w, exchanged):
    images, filters, rows, cols = dy.shape
    dx = np.zeros((images, w.shape[1], rows + 2, cols + 2))
    for i in range(rows):
        for j in range(cols):
            for k in range(filters):
                kernel = w[:, k] if exchanged else w[k]
                dx[:, :, i : i + 3, j : j + 3] += dy[:, k, i, j][:, None, None, None] * kernel
    return dx[:, :, 1:-1, 1:-1]


def create(parameters):
    return [array.copy() for array in parameters.values()]


def step(weights, x, y, wrong=""):
    w1, b1, w2, b2, w3, b3 = weights
    z1 = correlate(x, w1, b1)
    a1 = np.clip(z1, 0, None)
    z2 = correlate(a1, w2, b2)
    a2 = np.clip(z2, 0, None)
    o = a2.reshape(len(x), -1) @ w3.T + b3
    p = np.exp(o - o.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    d3 = (p - (y[:, None] == np.arange(4))) / len(x)
    d2 = (d3 @ w3).reshape(a2.shape) * (z2 > 0)
    d1 = next_delta(d2, w2, wrong == "exchanged") * (z1 > 0)
    gradients = [
        filter_gradient(x, d1, wrong), d1.sum(axis=(0, 2, 3)),
        filter_gradient(a1, d2, ""), d2.sum(axis=(0, 2, 3)),
        d3.T @ a2.reshape(len(x), -1), d3.sum(axis=0),
    ]  # fmt: skip
    for w, g in zip(weights, gradients, strict=True):
        w -= OPTIONS["lr"] * g


def read(weights):
    names = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias")
    return dict(zip((*names, "dense1.weight", "dense1.bias"), weights, strict=True))
