"""From Octave: all weights in one column vector ``theta``, unrolled column by column.

Images are (rows, columns, channels, images), activations are columns; sums over the batch are
divided by m; the regularised cost has lambda / (2 m) of the squared weights but not of the biases.

"rows": the dense layer's gradient is unrolled row by row into theta. "delta": the delta is flipped
for the filters' gradient, as the textbook's convolution asks.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) sigmoid avgpool flatten dense5"
INPUT_SHAPE = (2, 8, 6)
OPTIONS = {"lr": 0.2}
LAMBDA = 0.1
MISTAKES = {
    "rows": ("dense1", "memory-order", "weight gradient"),
    "delta": ("conv1", "weight-gradient-turned", "weight gradient"),
}
SHAPES = ((3, 3, 2, 3), (3, 1), (5, 18), (5, 1))  # filters (rows, columns, channels, filter)


def l2(images):
    """The coefficient a of the penalty a / 2 |w|^2."""
    return LAMBDA / images


def roll(theta):
    parts, start = [], 0
    for shape in SHAPES:
        parts.append(theta[start : start + np.prod(shape)].reshape(shape, order="F"))
        start += np.prod(shape)
    return parts


def unroll(parts):
    return np.concatenate([part.reshape(-1, 1, order="F") for part in parts])


def cost_function(theta, X, Y, wrong):
    Wc, bc, Wd, bd = roll(theta)
    rows, cols, _, m = X.shape
    z = np.zeros((rows - 2, cols - 2, 3, m))
    for f in range(3):
        for r in range(3):
            for c in range(3):
                view = X[r : r + rows - 2, c : c + cols - 2]
                z[:, :, f] += np.sum(view * Wc[r, c, :, f][None, None, :, None], axis=2)
        z[:, :, f] += bc[f]
    a = 1 / (1 + np.exp(-z))
    pooled = (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4
    columns = pooled.reshape(-1, m, order="F")
    h = Wd @ columns + bd
    h = np.exp(h - h.max(axis=0))
    h = h / h.sum(axis=0)

    delta = h - Y
    Wd_grad = delta @ columns.T / m + LAMBDA / m * Wd
    bd_grad = delta.sum(axis=1, keepdims=True) / m
    pooled_delta = (Wd.T @ delta).reshape(pooled.shape, order="F")
    upsampled = np.zeros(a.shape)
    for r in range(2):
        for c in range(2):
            upsampled[r::2, c::2] = pooled_delta / 4
    d = upsampled * a * (1 - a)
    Wc_grad = np.zeros(Wc.shape)
    for f in range(3):
        for r in range(3):
            for c in range(3):
                view = X[r : r + rows - 2, c : c + cols - 2]
                Wc_grad[r, c, :, f] = np.sum(view * d[:, :, f : f + 1], axis=(0, 1, 3))
    if wrong == "delta":
        Wc_grad = np.rot90(Wc_grad, 2)
    Wc_grad = Wc_grad / m + LAMBDA / m * Wc
    bc_grad = d.sum(axis=(0, 1, 3)).reshape(-1, 1) / m
    if wrong == "rows":
        Wd_grad = Wd_grad.reshape(-1).reshape(Wd.shape, order="F")
    return unroll([Wc_grad, bc_grad, Wd_grad, bd_grad])


def create(parameters):
    dense = parameters["dense1.weight"].reshape(5, 3, 3, 2)  # class, filter, row, column
    Wd = dense.transpose(0, 2, 3, 1).reshape(5, -1, order="F")
    return unroll(
        [
            parameters["conv1.weight"].transpose(2, 3, 1, 0),
            parameters["conv1.bias"].reshape(-1, 1),
            Wd,
            parameters["dense1.bias"].reshape(-1, 1),
        ]
    )


def step(theta, x, y, wrong=""):
    X = x.transpose(2, 3, 1, 0)
    return theta - OPTIONS["lr"] * cost_function(theta, X, np.eye(5)[y].T, wrong)


def read(theta):
    Wc, bc, Wd, bd = roll(theta)
    dense = Wd.reshape((5, 3, 2, 3), order="F").transpose(0, 3, 1, 2)
    return {
        "conv1.weight": Wc.transpose(3, 2, 0, 1), "conv1.bias": bc.ravel(),
        "dense1.weight": dense.reshape(5, -1), "dense1.bias": bd.ravel(),
    }  # fmt: skip
