"""Nested loops, one (C, H, W) image at a time; the gradients of the images add up in a dict.

The mistake: conv2 writes each window of its next delta over what earlier windows left there.
"""

import numpy as np

ARCHITECTURE = "conv2 relu pool conv3 relu flatten dense6 relu dense4"
INPUT_SHAPE = (1, 8, 6)
MISTAKES = (("conv2", "taps-overwritten"),)
NAMES = {
    "gradients": {
        "W1": "conv1.weight", "b1": "conv1.bias", "W2": "conv2.weight", "b2": "conv2.bias",
        "W3": "dense1.weight", "b3": "dense1.bias", "W4": "dense2.weight", "b4": "dense2.bias",
    },
    "deltas": {},
    "activations": {},
}  # fmt: skip


def conv(x, w, b):
    n_filters = w.shape[0]
    C, H, W = x.shape
    xp = np.zeros((C, H + 2, W + 2))
    xp[:, 1:-1, 1:-1] = x
    out = np.zeros((n_filters, H, W))
    for k in range(n_filters):
        for i in range(H):
            for j in range(W):
                out[k, i, j] = np.sum(xp[:, i : i + 3, j : j + 3] * w[k]) + b[k]
    return out, xp


def conv_back(dout, xp, w, wrong):
    dw = np.zeros(w.shape)
    db = np.zeros(w.shape[0])
    dxp = np.zeros(xp.shape)
    for i in range(dout.shape[1]):
        for j in range(dout.shape[2]):
            # everything that touches the 3x3 window at (i, j)
            window = xp[:, i : i + 3, j : j + 3]
            dwindow = np.zeros(window.shape)
            for k in range(w.shape[0]):
                dw[k] += dout[k, i, j] * window
                db[k] += dout[k, i, j]
                dwindow += dout[k, i, j] * w[k]
            if wrong:
                dxp[:, i : i + 3, j : j + 3] = dwindow
            else:
                dxp[:, i : i + 3, j : j + 3] += dwindow
    return dw, db, dxp[:, 1:-1, 1:-1]


def pool(x):
    C, H, W = x.shape
    out = np.zeros((C, H // 2, W // 2))
    for c in range(C):
        for i in range(H // 2):
            for j in range(W // 2):
                out[c, i, j] = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max()
    return out


def pool_back(dout, x):
    dx = np.zeros(x.shape)
    for c in range(dout.shape[0]):
        for i in range(dout.shape[1]):
            for j in range(dout.shape[2]):
                where = np.argmax(x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2])
                dx[c, 2 * i + where // 2, 2 * j + where % 2] = dout[c, i, j]
    return dx


def one_image(p, x, label, wrong):
    # forward
    z1, x_pad = conv(x, p["W1"], p["b1"])
    a1 = np.maximum(z1, 0)
    p1 = pool(a1)
    z2, p1_pad = conv(p1, p["W2"], p["b2"])
    a2 = np.maximum(z2, 0)
    f = a2.flatten()
    z3 = p["W3"] @ f + p["b3"]
    a3 = np.maximum(z3, 0)
    z4 = p["W4"] @ a3 + p["b4"]
    e = np.exp(z4 - z4.max())
    probs = e / e.sum()

    # backward
    g = {}
    d4 = probs.copy()
    d4[label] -= 1
    g["W4"], g["b4"] = np.outer(d4, a3), d4
    d3 = (p["W4"].T @ d4) * (z3 > 0)
    g["W3"], g["b3"] = np.outer(d3, f), d3
    d2 = (p["W3"].T @ d3).reshape(a2.shape) * (z2 > 0)
    g["W2"], g["b2"], dp1 = conv_back(d2, p1_pad, p["W2"], wrong)
    d1 = pool_back(dp1, a1) * (z1 > 0)
    g["W1"], g["b1"], _ = conv_back(d1, x_pad, p["W1"], wrong)
    return -np.log(probs[label]), probs, g


def run(parameters, x, y, wrong=True):
    params = {name: parameters[ours] for name, ours in NAMES["gradients"].items()}
    grads = {name: np.zeros(value.shape) for name, value in params.items()}
    total, all_probs = 0.0, []
    for image, label in zip(x, y, strict=True):
        loss, probs, g = one_image(params, image, label, wrong)
        total += loss
        all_probs.append(probs)
        for name in grads:
            grads[name] += g[name] / len(x)
    return {
        "loss": total / len(x),
        "gradients": grads,
        "deltas": {},
        "activations": {},
        "probabilities": np.array(all_probs),
    }


def to_fullback(result):
    return {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
