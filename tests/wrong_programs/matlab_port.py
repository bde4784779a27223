"""Ported from MATLAB: images (H, W, C, N), columns of features, column-major reshapes, conv2.

The mistake: labels that count from 0 are taken for labels that count from 1.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) relu pool flatten dense6 relu dense4"
INPUT_SHAPE = (2, 7, 8)
MISTAKES = (("loss", "labels-shifted"),)
DELTAS_PER_IMAGE = True
NAMES = {
    "gradients": {
        "Fgrad": "conv1.weight", "bFgrad": "conv1.bias",
        "W1grad": "dense1.weight", "b1grad": "dense1.bias",
        "W2grad": "dense2.weight", "b2grad": "dense2.bias",
    },
    "deltas": {"deltaF": "conv1", "delta1": "dense1", "delta2": "dense2"},
    "activations": {"ZF": "conv1", "A1": "relu2"},
}  # fmt: skip


def rot90_2(A):
    return A[::-1, ::-1]


def conv2(A, K):
    """conv2(A, K, 'valid') for matrices: a true convolution."""
    K = rot90_2(K)
    r, s = K.shape
    C = np.zeros((A.shape[0] - r + 1, A.shape[1] - s + 1))
    for i in range(r):
        for j in range(s):
            C += K[i, j] * A[i : i + C.shape[0], j : j + C.shape[1]]
    return C


def run(parameters, x, y, wrong=True):
    X = x.transpose(2, 3, 1, 0)
    F = parameters["conv1.weight"].transpose(2, 3, 1, 0)
    bF = parameters["conv1.bias"].reshape(-1, 1)
    # A(:) runs down the rows first: its order is filter, column, row
    W1 = parameters["dense1.weight"].reshape(6, 3, 2, 3).transpose(0, 1, 3, 2).reshape(6, 18)
    b1 = parameters["dense1.bias"].reshape(-1, 1)
    W2 = parameters["dense2.weight"]
    b2 = parameters["dense2.bias"].reshape(-1, 1)
    _, _, channels, m = X.shape
    filters = F.shape[3]

    # feedforward
    ZF = np.zeros((5, 6, filters, m))
    for n in range(m):
        for k in range(filters):
            for c in range(channels):
                ZF[:, :, k, n] += conv2(X[:, :, c, n], rot90_2(F[:, :, c, k]))
            ZF[:, :, k, n] += bF[k]
    AF = np.maximum(ZF, 0)
    P = np.zeros((2, 3, filters, m))  # the fifth row is left over
    for i in range(2):
        for j in range(3):
            P[i, j] = AF[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(0, 1))
    A0 = P.reshape(-1, m, order="F")
    Z1 = W1 @ A0 + b1
    A1 = np.maximum(Z1, 0)
    Z2 = W2 @ A1 + b2
    H = np.exp(Z2 - Z2.max(axis=0))
    H = H / H.sum(axis=0)

    # indicator matrix of the labels
    Y = np.zeros(H.shape)
    Y[(y - 1 if wrong else y), np.arange(m)] = 1
    J = -np.sum(Y * np.log(H)) / m

    # backpropagation
    delta2 = H - Y
    delta1 = (W2.T @ delta2) * (Z1 > 0)
    deltaP = (W1.T @ delta1).reshape(P.shape, order="F")
    deltaF = np.zeros(ZF.shape)
    for n in range(m):
        for k in range(filters):
            for i in range(2):
                for j in range(3):
                    block = AF[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, k, n]
                    r, s = np.unravel_index(block.argmax(), (2, 2))
                    deltaF[2 * i + r, 2 * j + s, k, n] = deltaP[i, j, k, n]
    deltaF = deltaF * (ZF > 0)
    Fgrad = np.zeros(F.shape)
    for n in range(m):
        for k in range(filters):
            for c in range(channels):
                Fgrad[:, :, c, k] += conv2(X[:, :, c, n], rot90_2(deltaF[:, :, k, n])) / m
    gradients = {
        "Fgrad": Fgrad,
        "bFgrad": deltaF.sum(axis=(0, 1, 3)).reshape(-1, 1) / m,
        "W1grad": delta1 @ A0.T / m,
        "b1grad": delta1.sum(axis=1, keepdims=True) / m,
        "W2grad": delta2 @ A1.T / m,
        "b2grad": delta2.sum(axis=1, keepdims=True) / m,
    }
    return {
        "loss": J,
        "gradients": gradients,
        "deltas": {"deltaF": deltaF, "delta1": delta1, "delta2": delta2},
        "activations": {"ZF": ZF, "A1": A1},
        "probabilities": H,
    }


def to_fullback(result):
    g = result["gradients"]
    return {
        "conv1.weight": g["Fgrad"].transpose(3, 2, 0, 1),
        "conv1.bias": g["bFgrad"][:, 0],
        "dense1.weight": g["W1grad"].reshape(6, 3, 3, 2).transpose(0, 1, 3, 2).reshape(6, 18),
        "dense1.bias": g["b1grad"][:, 0],
        "dense2.weight": g["W2grad"],
        "dense2.bias": g["b2grad"][:, 0],
    }
