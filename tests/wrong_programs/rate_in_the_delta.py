"""A short script: the learning rate is in the first delta already, weights are added to.

delta = lr (t - p), so that no update has a rate or a minus sign of its own; t is one-hot. Sums over
the batch, filters in one matrix of (filters, 9).

"p": the first delta is lr (p - t), and is added: uphill. "a": the filters' gradient is taken with
the ReLU's output in place of the image. "softmax": the softmax is taken down the columns.
"""

import numpy as np

ARCHITECTURE = "conv1(bias=false) relu flatten dense6 relu dense4"
INPUT_SHAPE = (1, 6, 7)
OPTIONS = {"lr": 0.03}
SUM = True
MISTAKES = {
    "p": ("loss", "sign-flipped", "first delta"),
    "a": ("conv1", "wrong-cached-input", "weight gradient"),
    "softmax": ("loss", "other-probabilities", "first delta"),
}


def unfold(images):
    n, h, w = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return np.array(
        [
            [[padded[i, r : r + 3, c : c + 3].ravel() for c in range(w)] for r in range(h)]
            for i in range(n)
        ]
    )  # (n, h, w, 9)


def create(parameters):
    return {
        "F": parameters["conv1.weight"].reshape(1, 9).copy(),
        "W1": parameters["dense1.weight"].copy(),
        "b1": parameters["dense1.bias"].copy(),
        "W2": parameters["dense2.weight"].copy(),
        "b2": parameters["dense2.bias"].copy(),
    }


def step(net, x, y, wrong=""):
    F, W1, b1, W2, b2 = net.values()
    t = np.eye(4)[y]
    patches = unfold(x[:, 0])
    fields = patches @ F.T  # (n, h, w, 1)
    maps = np.maximum(fields, 0)
    flat = maps.reshape(len(x), -1)
    hidden = np.maximum(flat @ W1.T + b1, 0)
    out = hidden @ W2.T + b2
    axis = 0 if wrong == "softmax" else 1
    e = np.exp(out - out.max(axis=axis, keepdims=True))
    p = e / e.sum(axis=axis, keepdims=True)
    lr = OPTIONS["lr"]
    delta2 = lr * (p - t) if wrong == "p" else lr * (t - p)
    delta1 = delta2 @ W2 * (hidden > 0)
    delta0 = (delta1 @ W1).reshape(maps.shape) * (fields > 0)
    F = F + np.einsum("nhwf,nhwk->fk", delta0, unfold(maps[..., 0]) if wrong == "a" else patches)
    return {
        "F": F,
        "W1": W1 + delta1.T @ flat,
        "b1": b1 + delta1.sum(axis=0),
        "W2": W2 + delta2.T @ hidden,
        "b2": b2 + delta2.sum(axis=0),
    }


def read(net):
    return {
        "conv1.weight": net["F"].reshape(1, 1, 3, 3),
        "dense1.weight": net["W1"], "dense1.bias": net["b1"],
        "dense2.weight": net["W2"], "dense2.bias": net["b2"],
    }  # fmt: skip
