"""A course's functions: ``A_prev``, hparameters, caches as tuples, a dict of parameters, lambd.

Images are (m, rows, columns, channels), filters (f, f, n_C_prev, n_C), biases (1, 1, 1, n_C); the
dense layer's images are columns. The cost holds lambd / (2 m) of the squared weights.

"crop": the padding of dA_prev is cut off above and on the left only. "lambd": the L2 term is not
divided by m. "mean": conv1's dW and db are divided by m once more. "mask": the pool's masks
are all made of the first window.
"""

import numpy as np

ARCHITECTURE = "conv3 relu pool conv2 relu flatten dense4"
INPUT_SHAPE = (2, 6, 8)
LEARNING_RATE = 0.1
OPTIONS = {"lr": LEARNING_RATE}
MISTAKES = {
    "crop": ("conv2", "padding-cropped-wrong", "next delta"),
    "lambd": ("dense1", "l2-term", "weight gradient"),
    "mean": ("conv1", "batch-scale", "weight gradient"),
    "mask": ("pool1", None, "next delta"),
}
LAMBD = 0.3


def l2(images):
    """The coefficient a of the penalty a / 2 |w|^2."""
    return LAMBD / images


def zero_pad(X, pad):
    return np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=0)


def conv_forward(A_prev, W, b, hparameters):
    (m, n_H_prev, n_W_prev, _) = A_prev.shape
    (f, f, _, n_C) = W.shape
    stride, pad = hparameters["stride"], hparameters["pad"]
    n_H = int((n_H_prev - f + 2 * pad) / stride) + 1
    n_W = int((n_W_prev - f + 2 * pad) / stride) + 1
    Z = np.zeros((m, n_H, n_W, n_C))
    A_prev_pad = zero_pad(A_prev, pad)
    for i in range(m):
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):
                    vert_start, horiz_start = h * stride, w * stride
                    a_slice = A_prev_pad[
                        i, vert_start : vert_start + f, horiz_start : horiz_start + f, :
                    ]
                    Z[i, h, w, c] = np.sum(a_slice * W[..., c]) + b[0, 0, 0, c]
    return Z, (A_prev, W, b, hparameters)


def conv_backward(dZ, cache, wrong):
    (A_prev, W, b, hparameters) = cache
    (f, f, _, n_C) = W.shape
    stride, pad = hparameters["stride"], hparameters["pad"]
    (m, n_H, n_W, n_C) = dZ.shape
    dA_prev = np.zeros(A_prev.shape)
    dW, db = np.zeros(W.shape), np.zeros(b.shape)
    A_prev_pad, dA_prev_pad = zero_pad(A_prev, pad), zero_pad(dA_prev, pad)
    for i in range(m):
        a_prev_pad, da_prev_pad = A_prev_pad[i], dA_prev_pad[i]
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):
                    rows = slice(h * stride, h * stride + f)
                    cols = slice(w * stride, w * stride + f)
                    da_prev_pad[rows, cols, :] += W[:, :, :, c] * dZ[i, h, w, c]
                    dW[:, :, :, c] += a_prev_pad[rows, cols, :] * dZ[i, h, w, c]
                    db[:, :, :, c] += dZ[i, h, w, c]
        if wrong:
            dA_prev[i] = da_prev_pad[2 * pad :, 2 * pad :, :]
        else:
            dA_prev[i] = da_prev_pad[pad:-pad, pad:-pad, :]
    return dA_prev, dW, db


def pool_forward(A_prev, hparameters):
    (m, n_H_prev, n_W_prev, n_C) = A_prev.shape
    f, stride = hparameters["f"], hparameters["stride"]
    A = np.zeros((m, 1 + (n_H_prev - f) // stride, 1 + (n_W_prev - f) // stride, n_C))
    for i, h, w, c in np.ndindex(A.shape):
        A[i, h, w, c] = A_prev[i, h * stride : h * stride + f, w * stride : w * stride + f, c].max()
    return A, (A_prev, hparameters)


def create_mask_from_window(x):
    mask = np.zeros(x.shape, bool)
    mask.flat[x.argmax()] = True
    return mask


def pool_backward(dA, cache, wrong):
    (A_prev, hparameters) = cache
    f, stride = hparameters["f"], hparameters["stride"]
    dA_prev = np.zeros(A_prev.shape)
    for i, h, w, c in np.ndindex(dA.shape):
        rows = slice(h * stride, h * stride + f)
        cols = slice(w * stride, w * stride + f)
        window = A_prev[i, :f, :f, c] if wrong else A_prev[i, rows, cols, c]
        dA_prev[i, rows, cols, c] += create_mask_from_window(window) * dA[i, h, w, c]
    return dA_prev


def create(parameters):
    made = {}
    for number in (1, 2):
        made[f"W{number}"] = parameters[f"conv{number}.weight"].transpose(2, 3, 1, 0).copy()
        made[f"b{number}"] = parameters[f"conv{number}.bias"].reshape(1, 1, 1, -1).copy()
    dense = parameters["dense1.weight"].reshape(4, 2, 3, 4).transpose(0, 2, 3, 1)
    made["W3"] = dense.reshape(4, -1).copy()
    made["b3"] = parameters["dense1.bias"].reshape(-1, 1).copy()
    return made


def step(parameters, X, Y, wrong=""):
    X = X.transpose(0, 2, 3, 1)
    m = X.shape[0]
    same, pooling = {"stride": 1, "pad": 1}, {"f": 2, "stride": 2}
    Z1, cache1 = conv_forward(X, parameters["W1"], parameters["b1"], same)
    A1 = np.maximum(0, Z1)
    P1, pool_cache = pool_forward(A1, pooling)
    Z2, cache2 = conv_forward(P1, parameters["W2"], parameters["b2"], same)
    A2 = np.maximum(0, Z2)
    F = A2.reshape(m, -1).T
    Z3 = np.dot(parameters["W3"], F) + parameters["b3"]
    t = np.exp(Z3 - Z3.max(axis=0))
    A3 = t / t.sum(axis=0)

    grads = {}
    dZ3 = A3 - np.eye(4)[Y].T
    grads["dW3"] = 1 / m * np.dot(dZ3, F.T)
    grads["db3"] = 1 / m * np.sum(dZ3, axis=1, keepdims=True)
    dA2 = np.dot(parameters["W3"].T, dZ3).T.reshape(A2.shape)
    dP1, dW, db = conv_backward(dA2 * (Z2 > 0), cache2, wrong == "crop")
    grads["dW2"], grads["db2"] = dW / m, db / m
    dA1 = pool_backward(dP1, pool_cache, wrong == "mask")
    _, dW, db = conv_backward(dA1 * (Z1 > 0), cache1, wrong=False)
    grads["dW1"], grads["db1"] = dW / m, db / m
    if wrong == "mean":
        grads["dW1"], grads["db1"] = grads["dW1"] / m, grads["db1"] / m
    for layer in ("1", "2", "3"):
        lambd = LAMBD if wrong == "lambd" else LAMBD / m
        grads["dW" + layer] = grads["dW" + layer] + lambd * parameters["W" + layer]
    for key in parameters:
        parameters[key] = parameters[key] - LEARNING_RATE * grads["d" + key]
    return parameters


def read(made):
    arrays = {}
    for number in (1, 2):
        arrays[f"conv{number}.weight"] = made[f"W{number}"].transpose(3, 2, 0, 1)
        arrays[f"conv{number}.bias"] = made[f"b{number}"].ravel()
    dense = made["W3"].reshape(4, 3, 4, 2).transpose(0, 3, 1, 2)
    arrays["dense1.weight"] = dense.reshape(4, -1)
    arrays["dense1.bias"] = made["b3"].ravel()
    return arrays
