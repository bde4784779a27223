"""A course's fast layers: pooling by reshape, where ties share the gradient; layers as functions.

Sharing out ties is a convention and no mistake.

"ties": the shares are not divided by their number. "scale": every bias gradient is divided by N
although the delta is that of the mean.
"""

import numpy as np

ARCHITECTURE = "conv3 pool relu conv4(padding=valid) relu pool flatten dense6"
INPUT_SHAPE = (1, 12, 12)
OPTIONS = {"lr": 0.1}
MISTAKES = {
    "ties": ("pool1", "pool-ties-all", "next delta"),
    "scale": ("conv2", "bias-averaged", "bias gradient"),
}


def max_pool_forward_reshape(x):
    N, C, H, W = x.shape
    x_reshaped = x.reshape(N, C, H // 2, 2, W // 2, 2)
    out = x_reshaped.max(axis=3).max(axis=4)
    return out, (x, x_reshaped, out)


def max_pool_backward_reshape(dout, cache, wrong):
    x, x_reshaped, out = cache
    dx_reshaped = np.zeros_like(x_reshaped)
    out_newaxis = out[:, :, :, np.newaxis, :, np.newaxis]
    mask = x_reshaped == out_newaxis
    dout_newaxis = dout[:, :, :, np.newaxis, :, np.newaxis]
    dout_broadcast, _ = np.broadcast_arrays(dout_newaxis, dx_reshaped)
    dx_reshaped[mask] = dout_broadcast[mask]
    if wrong != "ties":
        dx_reshaped /= np.sum(mask, axis=(3, 5), keepdims=True)
    return dx_reshaped.reshape(x.shape)


def conv_forward(x, w, b, pad):
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    N, C, H, W = x_pad.shape
    F, _, HH, WW = w.shape
    shape = (C, HH, WW, N, H - HH + 1, W - WW + 1)
    sC, sH, sW = x_pad.strides[1:]
    strides = (sC, sH, sW, x_pad.strides[0], sH, sW)
    x_stride = np.lib.stride_tricks.as_strided(x_pad, shape=shape, strides=strides)
    x_cols = np.ascontiguousarray(x_stride).reshape(C * HH * WW, -1)
    res = w.reshape(F, -1).dot(x_cols) + b.reshape(-1, 1)
    out = res.reshape(F, N, *shape[4:]).transpose(1, 0, 2, 3)
    return np.ascontiguousarray(out), (x, w, pad, x_cols)


def conv_backward(dout, cache, wrong):
    x, w, pad, x_cols = cache
    F, _, HH, WW = w.shape
    N, C, H, W = x.shape
    db = np.sum(dout, axis=(0, 2, 3)) / (N if wrong == "scale" else 1)
    dout_reshaped = dout.transpose(1, 0, 2, 3).reshape(F, -1)
    dw = dout_reshaped.dot(x_cols.T).reshape(w.shape)
    dx_cols = w.reshape(F, -1).T.dot(dout_reshaped).reshape(C, HH, WW, N, *dout.shape[2:])
    dx_pad = np.zeros((N, C, H + 2 * pad, W + 2 * pad))
    for r in range(HH):
        for s in range(WW):
            rows, cols = slice(r, r + dout.shape[2]), slice(s, s + dout.shape[3])
            dx_pad[:, :, rows, cols] += dx_cols[:, r, s].transpose(1, 0, 2, 3)
    return dx_pad[:, :, pad : pad + H, pad : pad + W], dw, db


def create(parameters):
    names = ("w1", "b1", "w2", "b2", "w3", "b3")
    return {name: p.copy() for name, p in zip(names, parameters.values(), strict=True)}


def step(p, x, y, wrong=""):
    c1, cache1 = conv_forward(x, p["w1"], p["b1"], 1)
    p1, pool1 = max_pool_forward_reshape(c1)
    r1 = np.maximum(0, p1)
    c2, cache2 = conv_forward(r1, p["w2"], p["b2"], 0)
    r2 = np.maximum(0, c2)
    p2, pool2 = max_pool_forward_reshape(r2)
    flat = p2.reshape(len(x), -1)
    scores = flat.dot(p["w3"].T) + p["b3"]
    probs = np.exp(scores - scores.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    probs[np.arange(len(x)), y] -= 1
    probs /= len(x)
    grads = {"w3": probs.T.dot(flat), "b3": probs.sum(axis=0)}
    dp2 = probs.dot(p["w3"]).reshape(p2.shape)
    dc2 = max_pool_backward_reshape(dp2, pool2, "") * (c2 > 0)
    dr1, grads["w2"], grads["b2"] = conv_backward(dc2, cache2, wrong)
    dc1 = max_pool_backward_reshape(dr1 * (p1 > 0), pool1, wrong)
    _, grads["w1"], grads["b1"] = conv_backward(dc1, cache1, "")
    for name in p:
        p[name] -= OPTIONS["lr"] * grads[name]


def read(p):
    names = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias")
    return dict(zip((*names, "dense1.weight", "dense1.bias"), p.values(), strict=True))
