"""A course's cat classifier with a convolution: one sigmoid output, images are columns, A - Y.

Binary cross-entropy, averaged over m. Parameters and grads are dicts.

"dA": the derivative of the cost for A is not multiplied with the sigmoid's slope. "minus": the
second term of dA has the wrong sign. "keepdims": db of the first layer is a mean over positions.
"""

import numpy as np

ARCHITECTURE = "conv2 relu pool flatten dense3 relu dense1"
INPUT_SHAPE = (3, 6, 8)
LOSS = "BinaryCrossEntropy"
OPTIONS = {"lr": 0.3}
MISTAKES = {
    "dA": ("loss", "slope-of-probabilities-missing", "first delta"),
    "minus": ("loss", "binary-term-lost", "first delta"),
    "keepdims": ("conv1", "bias-averaged", "bias gradient"),
}


def create(parameters):
    p = parameters
    return {
        "W1": p["conv1.weight"].copy(), "b1": p["conv1.bias"].reshape(-1, 1, 1).copy(),
        "W2": p["dense1.weight"].copy(), "b2": p["dense1.bias"].reshape(-1, 1).copy(),
        "W3": p["dense2.weight"].copy(), "b3": p["dense2.bias"].reshape(-1, 1).copy(),
    }  # fmt: skip


def model_forward(X, parameters):
    m, _, rows, cols = X.shape
    X_pad = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))
    W1 = parameters["W1"]
    Z1 = np.zeros((m, 2, rows, cols)) + parameters["b1"]
    for i in range(rows):
        for j in range(cols):
            X_slice = X_pad[:, :, i : i + 3, j : j + 3]
            Z1[:, :, i, j] += (X_slice[:, None] * W1).sum(axis=(2, 3, 4))
    A1 = np.maximum(0, Z1)
    cells = A1.reshape(m, 2, rows // 2, 2, cols // 2, 2).swapaxes(3, 4)
    cells = cells.reshape(m, 2, rows // 2, cols // 2, 4)
    F = cells.max(axis=-1).reshape(m, -1).T
    Z2 = parameters["W2"] @ F + parameters["b2"]
    A2 = np.maximum(0, Z2)
    Z3 = parameters["W3"] @ A2 + parameters["b3"]
    A3 = 1 / (1 + np.exp(-Z3))
    return A3, (X_pad, Z1, cells, F, Z2, A2, Z3)


def model_backward(AL, Y, cache, parameters, wrong):
    X_pad, Z1, cells, F, Z2, A2, _ = cache
    m, _, rows, cols = Z1.shape
    sign = -1 if wrong == "minus" else 1
    dAL = -(np.divide(Y, AL) - sign * np.divide(1 - Y, 1 - AL))
    dZ3 = dAL if wrong == "dA" else dAL * AL * (1 - AL)
    grads = {"dW3": dZ3 @ A2.T / m, "db3": dZ3.sum(axis=1, keepdims=True) / m}
    dZ2 = parameters["W3"].T @ dZ3
    dZ2[Z2 <= 0] = 0
    grads |= {"dW2": dZ2 @ F.T / m, "db2": dZ2.sum(axis=1, keepdims=True) / m}
    dP = (parameters["W2"].T @ dZ2).T.reshape(cells.shape[:-1])
    winner = np.eye(4)[cells.argmax(axis=-1)] * dP[..., None]
    dA1 = winner.reshape(m, 2, rows // 2, cols // 2, 2, 2).swapaxes(3, 4).reshape(Z1.shape)
    dZ1 = np.where(Z1 > 0, dA1, 0)
    dW1 = np.zeros(parameters["W1"].shape)
    for i in range(rows):
        for j in range(cols):
            X_slice = X_pad[:, :, i : i + 3, j : j + 3]
            dW1 += (dZ1[:, :, i, j][:, :, None, None, None] * X_slice[:, None]).sum(axis=0)
    grads["dW1"] = dW1 / m
    db1 = dZ1.sum(axis=0).mean(axis=(1, 2)) if wrong == "keepdims" else dZ1.sum(axis=(0, 2, 3))
    grads["db1"] = db1.reshape(-1, 1, 1) / m
    return grads


def step(parameters, X, Y, wrong=""):
    AL, cache = model_forward(X, parameters)
    grads = model_backward(AL, Y.reshape(1, -1), cache, parameters, wrong)
    for name in parameters:
        parameters[name] = parameters[name] - OPTIONS["lr"] * grads["d" + name]
    return parameters


def read(parameters):
    p = parameters
    return {
        "conv1.weight": p["W1"], "conv1.bias": p["b1"].ravel(),
        "dense1.weight": p["W2"], "dense1.bias": p["b2"].ravel(),
        "dense2.weight": p["W3"], "dense2.bias": p["b3"].ravel(),
    }  # fmt: skip
