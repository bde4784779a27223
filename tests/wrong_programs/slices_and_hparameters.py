"""An online course's functions: A_prev (m, n_H, n_W, n_C), hparameters, slices with vert_start.

Filters are (f, f, n_C_prev, n_C), dense layers take columns. dZ is not divided by m before the end.
The mistake: the backward pass leaves the stride out of the corners of the slices, which shows in
conv2, whose stride is 2.
"""

import numpy as np

ARCHITECTURE = "conv4 relu conv3(stride=2, padding=1) relu pool flatten dense4"
INPUT_SHAPE = (2, 7, 6)
MISTAKES = (("conv2", "stride-not-dilated"),)
DELTAS_PER_IMAGE = True
NAMES = {
    "gradients": {
        "dW1": "conv1.weight", "db1": "conv1.bias", "dW2": "conv2.weight", "db2": "conv2.bias",
        "dW3": "dense1.weight", "db3": "dense1.bias",
    },
    "deltas": {"dZ1": "conv1", "dA1": "relu1", "dZ2": "conv2", "dA2": "relu2", "dP2": "pool1",
               "dZ3": "dense1"},
    "activations": {"Z1": "conv1", "A1": "relu1", "Z2": "conv2", "A2": "relu2", "P2": "pool1",
                    "Z3": "dense1"},
}  # fmt: skip


def zero_pad(X, pad):
    return np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="constant")


def conv_single_step(a_slice_prev, W, b):
    s = np.multiply(a_slice_prev, W)
    return np.sum(s) + float(b[0, 0, 0])


def conv_forward(A_prev, W, b, hparameters):
    (m, n_H_prev, n_W_prev, _) = A_prev.shape
    (f, f, _, n_C) = W.shape
    stride, pad = hparameters["stride"], hparameters["pad"]
    n_H = int((n_H_prev - f + 2 * pad) / stride) + 1
    n_W = int((n_W_prev - f + 2 * pad) / stride) + 1
    Z = np.zeros((m, n_H, n_W, n_C))
    A_prev_pad = zero_pad(A_prev, pad)
    for i in range(m):
        a_prev_pad = A_prev_pad[i]
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):
                    vert_start = h * stride
                    vert_end = vert_start + f
                    horiz_start = w * stride
                    horiz_end = horiz_start + f
                    a_slice_prev = a_prev_pad[vert_start:vert_end, horiz_start:horiz_end, :]
                    Z[i, h, w, c] = conv_single_step(a_slice_prev, W[:, :, :, c], b[:, :, :, c])
    return Z, (A_prev, W, b, hparameters)


def conv_backward(dZ, cache, wrong):
    (A_prev, W, b, hparameters) = cache
    (f, f, _, n_C) = W.shape
    stride, pad = hparameters["stride"], hparameters["pad"]
    (m, n_H, n_W, n_C) = dZ.shape
    dW = np.zeros(W.shape)
    db = np.zeros(b.shape)
    A_prev_pad = zero_pad(A_prev, pad)
    dA_prev_pad = np.zeros(A_prev_pad.shape)
    for i in range(m):
        a_prev_pad = A_prev_pad[i]
        da_prev_pad = dA_prev_pad[i]
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):
                    # Find the corners of the current "slice"
                    vert_start = h if wrong else h * stride
                    vert_end = vert_start + f
                    horiz_start = w if wrong else w * stride
                    horiz_end = horiz_start + f
                    a_slice = a_prev_pad[vert_start:vert_end, horiz_start:horiz_end, :]
                    da_prev_pad[vert_start:vert_end, horiz_start:horiz_end, :] += (
                        W[:, :, :, c] * dZ[i, h, w, c]
                    )
                    dW[:, :, :, c] += a_slice * dZ[i, h, w, c]
                    db[:, :, :, c] += dZ[i, h, w, c]
    dA_prev = dA_prev_pad[:, pad:-pad, pad:-pad, :]
    return dA_prev, dW, db


def pool_forward(A_prev, f=2):
    (m, n_H_prev, n_W_prev, n_C) = A_prev.shape
    A = np.zeros((m, n_H_prev // f, n_W_prev // f, n_C))
    for h in range(A.shape[1]):
        for w in range(A.shape[2]):
            A[:, h, w, :] = np.max(A_prev[:, f * h : f * h + f, f * w : f * w + f, :], axis=(1, 2))
    return A, A_prev


def pool_backward(dA, A_prev, f=2):
    dA_prev = np.zeros(A_prev.shape)
    for i, h, w, c in np.ndindex(dA.shape):
        a_slice = A_prev[i, f * h : f * h + f, f * w : f * w + f, c]
        mask = np.arange(f * f).reshape(f, f) == np.argmax(a_slice)
        dA_prev[i, f * h : f * h + f, f * w : f * w + f, c] += mask * dA[i, h, w, c]
    return dA_prev


def run(parameters, x, y, wrong=True):
    X = x.transpose(0, 2, 3, 1)
    W1 = parameters["conv1.weight"].transpose(2, 3, 1, 0)
    b1 = parameters["conv1.bias"].reshape(1, 1, 1, -1)
    W2 = parameters["conv2.weight"].transpose(2, 3, 1, 0)
    b2 = parameters["conv2.bias"].reshape(1, 1, 1, -1)
    # the maps that are flattened are (2, 1, 3), channels last
    W3 = parameters["dense1.weight"].reshape(4, 3, 2, 1).transpose(0, 2, 3, 1).reshape(4, 6)
    b3 = parameters["dense1.bias"].reshape(-1, 1)
    m = X.shape[0]

    # Forward propagation
    Z1, cache1 = conv_forward(X, W1, b1, {"stride": 1, "pad": 1})
    A1 = np.maximum(0, Z1)
    Z2, cache2 = conv_forward(A1, W2, b2, {"stride": 2, "pad": 1})
    A2 = np.maximum(0, Z2)
    P2, pool_cache = pool_forward(A2)
    F = P2.reshape(m, -1).T
    Z3 = np.dot(W3, F) + b3
    A3 = np.exp(Z3) / np.sum(np.exp(Z3), axis=0, keepdims=True)
    Y = np.eye(4)[y].T
    cost = -np.sum(Y * np.log(A3)) / m

    # Backward propagation
    dZ3 = A3 - Y
    dW3 = 1 / m * np.dot(dZ3, F.T)
    db3 = 1 / m * np.sum(dZ3, axis=1, keepdims=True)
    dP2 = np.dot(W3.T, dZ3).T.reshape(P2.shape)
    dA2 = pool_backward(dP2, pool_cache)
    dZ2 = dA2 * (Z2 > 0)
    dA1, dW2, db2 = conv_backward(dZ2, cache2, wrong)
    dZ1 = dA1 * (Z1 > 0)
    _, dW1, db1 = conv_backward(dZ1, cache1, wrong)
    return {
        "loss": cost,
        "gradients": {
            "dW1": 1 / m * dW1,
            "db1": 1 / m * db1,
            "dW2": 1 / m * dW2,
            "db2": 1 / m * db2,
            "dW3": dW3,
            "db3": db3,
        },
        "deltas": {"dZ1": dZ1, "dA1": dA1, "dZ2": dZ2, "dA2": dA2, "dP2": dP2, "dZ3": dZ3},
        "activations": {"Z1": Z1, "A1": A1, "Z2": Z2, "A2": A2, "P2": P2, "Z3": Z3},
        "probabilities": A3,
    }


def to_fullback(result):
    g = result["gradients"]
    return {
        "conv1.weight": g["dW1"].transpose(3, 2, 0, 1),
        "conv1.bias": g["db1"].ravel(),
        "conv2.weight": g["dW2"].transpose(3, 2, 0, 1),
        "conv2.bias": g["db2"].ravel(),
        "dense1.weight": g["dW3"].reshape(4, 2, 1, 3).transpose(0, 3, 1, 2).reshape(4, 6),
        "dense1.bias": g["db3"].ravel(),
    }
