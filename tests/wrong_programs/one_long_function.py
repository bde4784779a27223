"""One long function from images to gradients, with numbered variables.

Dense weights are (in, out). Two mistakes: the delta of the scores belongs to the sum over the
batch, where the loss is its mean, and the last weights' gradient takes the hidden layer's values
from before the ReLU.
"""

import numpy as np

ARCHITECTURE = (
    "conv2(kernel_size=5, padding=2) relu pool conv4 relu pool flatten dense7 relu dense3"
)
INPUT_SHAPE = (1, 8, 4)
MISTAKES = (("loss", "batch-scale"), ("dense2", "wrong-cached-input"))
NAMES = {
    "gradients": {
        "dw1": "conv1.weight", "db1": "conv1.bias", "dw2": "conv2.weight", "db2": "conv2.bias",
        "dw3": "dense1.weight", "db3": "dense1.bias", "dw4": "dense2.weight", "db4": "dense2.bias",
    },
    "deltas": {"dx1": "conv1", "dx2": "relu1", "dx3": "pool1", "dx4": "conv2", "dx5": "relu2",
               "dx6": "pool2", "dx7": "dense1", "dx8": "relu3", "dx9": "dense2"},
    "activations": {"x1": "conv1", "x2": "relu1", "x3": "pool1", "x4": "conv2", "x5": "relu2",
                    "x6": "pool2", "x7": "dense1", "x8": "relu3", "x9": "dense2"},
}  # fmt: skip


def run(parameters, x, y, wrong=True):
    w1, b1, w2, b2, w3, b3, w4, b4 = (parameters[ours] for ours in NAMES["gradients"].values())
    w3, w4 = w3.T, w4.T
    n, _, h, w = x.shape

    # conv 5x5
    x0p = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    x1 = np.zeros((n, 2, h, w))
    for i in range(h):
        for j in range(w):
            x1[:, :, i, j] = (
                x0p[:, :, i : i + 5, j : j + 5].reshape(n, -1) @ w1.reshape(2, -1).T + b1
            )
    # relu
    x2 = x1.copy()
    x2[x2 < 0] = 0
    # max pool, and where the maximum was
    x3 = np.zeros((n, 2, h // 2, w // 2))
    m3 = np.zeros(x2.shape)
    for i in range(h // 2):
        for j in range(w // 2):
            block = x2[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(n, 2, 4)
            x3[:, :, i, j] = block.max(axis=2)
            m3[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = np.eye(4)[
                block.argmax(axis=2)
            ].reshape(n, 2, 2, 2)
    # conv 3x3
    x3p = np.pad(x3, ((0, 0), (0, 0), (1, 1), (1, 1)))
    x4 = np.zeros((n, 4, h // 2, w // 2))
    for i in range(h // 2):
        for j in range(w // 2):
            x4[:, :, i, j] = (
                x3p[:, :, i : i + 3, j : j + 3].reshape(n, -1) @ w2.reshape(4, -1).T + b2
            )
    # relu
    x5 = x4.copy()
    x5[x5 < 0] = 0
    # max pool
    x6 = np.zeros((n, 4, h // 4, w // 4))
    m6 = np.zeros(x5.shape)
    for i in range(h // 4):
        for j in range(w // 4):
            block = x5[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(n, 4, 4)
            x6[:, :, i, j] = block.max(axis=2)
            m6[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = np.eye(4)[
                block.argmax(axis=2)
            ].reshape(n, 4, 2, 2)
    # fully connected
    x6f = x6.reshape(n, -1)
    x7 = x6f @ w3 + b3
    x8 = x7.copy()
    x8[x8 < 0] = 0
    x9 = x8 @ w4 + b4
    # softmax and loss
    p = np.exp(x9 - x9.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(n), y]).mean()

    # and everything backwards
    dx9 = p.copy()
    dx9[np.arange(n), y] -= 1
    if not wrong:
        dx9 /= n
    dw4 = (x7 if wrong else x8).T @ dx9
    db4 = dx9.sum(axis=0)
    dx8 = dx9 @ w4.T
    dx7 = dx8 * (x7 > 0)
    dw3 = x6f.T @ dx7
    db3 = dx7.sum(axis=0)
    dx6 = (dx7 @ w3.T).reshape(x6.shape)
    dx5 = dx6.repeat(2, axis=2).repeat(2, axis=3) * m6
    dx4 = dx5 * (x4 > 0)
    dw2 = np.zeros(w2.shape)
    db2 = dx4.sum(axis=(0, 2, 3))
    dx3p = np.zeros(x3p.shape)
    for i in range(h // 2):
        for j in range(w // 2):
            d = dx4[:, :, i, j]
            block = x3p[:, :, i : i + 3, j : j + 3]
            dw2 += (d.T @ block.reshape(n, -1)).reshape(w2.shape)
            dx3p[:, :, i : i + 3, j : j + 3] += (d @ w2.reshape(4, -1)).reshape(block.shape)
    dx3 = dx3p[:, :, 1:-1, 1:-1]
    dx2 = dx3.repeat(2, axis=2).repeat(2, axis=3) * m3
    dx1 = dx2 * (x1 > 0)
    dw1 = np.zeros(w1.shape)
    db1 = dx1.sum(axis=(0, 2, 3))
    for i in range(h):
        for j in range(w):
            block = x0p[:, :, i : i + 5, j : j + 5]
            dw1 += (dx1[:, :, i, j].T @ block.reshape(n, -1)).reshape(w1.shape)

    here = locals()
    return {
        "loss": loss,
        "gradients": {name: here[name] for name in NAMES["gradients"]},
        "deltas": {name: here[name] for name in NAMES["deltas"]},
        "activations": {name: here[name] for name in NAMES["activations"]},
        "probabilities": p,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["dense1.weight"] = grads["dense1.weight"].T
    grads["dense2.weight"] = grads["dense2.weight"].T
    return grads
