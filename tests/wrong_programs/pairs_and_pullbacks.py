"""Functional: a list of (W, b), layers that return a value and its pullback, new weights out.

Images are (N, rows, columns, channels) and kernels (rows, columns, in, out), as in JAX's examples.

"order": the pullback of the flatten folds (channels, rows, columns). "kernel": the convolution's
pullback correlates with the kernel as it is, not turned. "axes": the kernels' cotangent has rows
and columns exchanged.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

ARCHITECTURE = "conv4 relu avgpool conv3(padding=valid) relu flatten dense6 tanh dense4"
INPUT_SHAPE = (1, 10, 12)
OPTIONS = {"lr": 0.1}
MISTAKES = {
    "order": ("flatten1", "flatten-order", "next delta"),
    "kernel": ("conv2", "filter-not-turned", "next delta"),
    "axes": ("conv2", "rows-columns-swapped", "weight gradient"),
}


def conv(params, x, pad, wrong):
    W, b = params
    r, s = W.shape[:2]
    xp = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    patches = sliding_window_view(xp, (r, s), axis=(1, 2))  # n p q c r s
    y = np.einsum("npqcrs,rsck->npqk", patches, W) + b

    def pullback(g):
        gW = np.einsum("npqcrs,npqk->rsck", patches, g)
        if wrong == "axes":
            gW = gW.swapaxes(0, 1)
        wide = np.pad(g, ((0, 0), (r - 1, r - 1), (s - 1, s - 1), (0, 0)))
        turned = W if wrong == "kernel" else W[::-1, ::-1]
        gx = np.einsum("npqkrs,rsck->npqc", sliding_window_view(wide, (r, s), axis=(1, 2)), turned)
        rows, columns = x.shape[1:3]
        return (gW, g.sum((0, 1, 2))), gx[:, pad : pad + rows, pad : pad + columns]

    return y, pullback


def elementwise(f, slope):
    def layer(x):
        y = f(x)
        return y, lambda g: g * slope(x, y)

    return layer


relu = elementwise(lambda x: np.maximum(x, 0.0), lambda x, y: (x > 0).astype(x.dtype))
tanh = elementwise(np.tanh, lambda x, y: 1 - y**2)


def avg_pool(x):
    n, h, w, c = x.shape
    y = x.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))

    def pullback(g):
        wide = np.broadcast_to(g[:, :, None, :, None] / 4, (n, h // 2, 2, w // 2, 2, c))
        return wide.reshape(x.shape)

    return y, pullback


def flatten(x, wrong):
    n, h, w, c = x.shape

    def pullback(g):
        if wrong == "order":
            return g.reshape(n, c, h, w).transpose(0, 2, 3, 1)
        return g.reshape(x.shape)

    return x.reshape(n, -1), pullback


def dense(params, x):
    W, b = params
    return x @ W + b, lambda g: ((x.T @ g, g.sum(0)), g @ W.T)


def grad(params, images, targets, wrong):
    h, conv1 = conv(params[0], images, 1, "")
    h, relu1 = relu(h)
    h, pool1 = avg_pool(h)
    h, conv2 = conv(params[1], h, 0, wrong)
    h, relu2 = relu(h)
    h, unflatten = flatten(h, wrong)
    h, dense1 = dense(params[2], h)
    h, tanh1 = tanh(h)
    logits, dense2 = dense(params[3], h)
    logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    g = (np.exp(logprobs) - targets) / len(images)
    g_dense2, g = dense2(g)
    g_dense1, g = dense1(tanh1(g))
    g_conv2, g = conv2(relu2(unflatten(g)))
    g_conv1, g = conv1(relu1(pool1(g)))
    return [g_conv1, g_conv2, g_dense1, g_dense2]


def create(parameters):
    W3 = parameters["dense1.weight"].reshape(6, 3, 3, 4).transpose(2, 3, 1, 0).reshape(-1, 6)
    return [
        (parameters["conv1.weight"].transpose(2, 3, 1, 0), parameters["conv1.bias"]),
        (parameters["conv2.weight"].transpose(2, 3, 1, 0), parameters["conv2.bias"]),
        (W3, parameters["dense1.bias"]),
        (parameters["dense2.weight"].T, parameters["dense2.bias"]),
    ]


def step(params, x, y, wrong=""):
    grads = grad(params, x.transpose(0, 2, 3, 1), np.eye(4)[y], wrong)
    lr = OPTIONS["lr"]
    return [(W - lr * dW, b - lr * db) for (W, b), (dW, db) in zip(params, grads, strict=True)]


def read(params):
    (W1, b1), (W2, b2), (W3, b3), (W4, b4) = params
    W3 = W3.reshape(3, 4, 3, 6).transpose(3, 2, 0, 1).reshape(6, -1)
    return {
        "conv1.weight": W1.transpose(3, 2, 0, 1), "conv1.bias": b1,
        "conv2.weight": W2.transpose(3, 2, 0, 1), "conv2.bias": b2,
        "dense1.weight": W3, "dense1.bias": b3, "dense2.weight": W4.T, "dense2.bias": b4,
    }  # fmt: skip
