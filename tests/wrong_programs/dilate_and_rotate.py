"""Correlation helpers for whole batches: ``dilate``, ``rot180`` and ``full`` in the backward pass.

The mistake: where conv2's stride leaves a row and a column over, the next delta comes out too
small, and the zeros that it lacks are put before it instead of behind.
"""

import numpy as np

ARCHITECTURE = "conv3 relu pool conv2(stride=2, padding=valid) relu flatten dense5 relu dense4"
INPUT_SHAPE = (2, 8, 12)
MISTAKES = (("conv2", "stride-leftover"),)
NAMES = {
    "gradients": {
        "k1": "conv1.weight", "c1": "conv1.bias", "k2": "conv2.weight", "c2": "conv2.bias",
        "w3": "dense1.weight", "b3": "dense1.bias", "w4": "dense2.weight", "b4": "dense2.bias",
    },
    "deltas": {"delta_conv1": "conv1", "delta_conv2": "conv2", "delta_w3": "dense1",
               "delta_w4": "dense2"},
    "activations": {},
}  # fmt: skip


def xcorr(a, b):
    """(N, C, H, W) with (K, C, R, S), valid."""
    rows = a.shape[2] - b.shape[2] + 1
    cols = a.shape[3] - b.shape[3] + 1
    out = 0
    for r in range(b.shape[2]):
        for s in range(b.shape[3]):
            view = a[:, :, r : r + rows, s : s + cols]
            out = out + np.tensordot(view, b[:, :, r, s], axes=(1, 1))  # N, rows, cols, K
    return np.moveaxis(out, -1, 1)


def full(a, b):
    r, s = b.shape[2:]
    return xcorr(np.pad(a, ((0, 0), (0, 0), (r - 1, r - 1), (s - 1, s - 1))), b)


def rot180(k):
    return np.rot90(k, 2, axes=(2, 3))


def swap(a):
    return np.swapaxes(a, 0, 1)


def dilate(d, stride):
    n, k, p, q = d.shape
    out = np.zeros((n, k, (p - 1) * stride + 1, (q - 1) * stride + 1))
    out[:, :, ::stride, ::stride] = d
    return out


def maxpool(a):
    n, c, h, w = a.shape
    tiles = a.reshape(n, c, h // 2, 2, w // 2, 2).swapaxes(3, 4).reshape(n, c, h // 2, w // 2, 4)
    return tiles.max(axis=-1), tiles.argmax(axis=-1)


def unpool(d, where):
    n, c, p, q = d.shape
    tiles = np.where(np.arange(4) == where[..., None], d[..., None], 0)
    return tiles.reshape(n, c, p, q, 2, 2).swapaxes(3, 4).reshape(n, c, 2 * p, 2 * q)


def run(parameters, x, y, wrong=True):
    k1, c1, k2, c2, w3, b3, w4, b4 = parameters.values()

    x_pad = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    u1 = xcorr(x_pad, k1) + c1.reshape(1, -1, 1, 1)
    v1, where = maxpool(np.maximum(u1, 0))
    u2 = xcorr(v1, k2)[:, :, ::2, ::2] + c2.reshape(1, -1, 1, 1)
    v2 = np.maximum(u2, 0)
    flat = v2.reshape(len(x), -1)
    u3 = flat @ w3.T + b3
    v3 = np.maximum(u3, 0)
    u4 = v3 @ w4.T + b4
    probs = np.exp(u4) / np.exp(u4).sum(1, keepdims=True)
    loss = np.mean([-np.log(p[label]) for p, label in zip(probs, y, strict=True)])

    delta_w4 = (probs - np.eye(len(b4))[y]) / len(y)
    delta_w3 = (delta_w4 @ w4) * (u3 > 0)
    delta_conv2 = (delta_w3 @ w3).reshape(v2.shape) * (u2 > 0)

    dilated = dilate(delta_conv2, 2)
    delta_v1 = full(dilated, swap(rot180(k2)))
    # rows and columns at the end that no window reached
    rest_h = v1.shape[2] - delta_v1.shape[2]
    rest_w = v1.shape[3] - delta_v1.shape[3]
    grad_k2 = swap(
        xcorr(swap(v1[:, :, : v1.shape[2] - rest_h, : v1.shape[3] - rest_w]), swap(dilated))
    )
    if wrong:
        delta_v1 = np.pad(delta_v1, ((0, 0), (0, 0), (rest_h, 0), (rest_w, 0)))
    else:
        delta_v1 = np.pad(delta_v1, ((0, 0), (0, 0), (0, rest_h), (0, rest_w)))

    delta_conv1 = unpool(delta_v1, where) * (u1 > 0)
    grad_k1 = swap(xcorr(swap(x_pad), swap(delta_conv1)))
    return {
        "loss": loss,
        "gradients": {
            "k1": grad_k1,
            "c1": delta_conv1.sum((0, 2, 3)),
            "k2": grad_k2,
            "c2": delta_conv2.sum((0, 2, 3)),
            "w3": delta_w3.T @ flat,
            "b3": delta_w3.sum(0),
            "w4": delta_w4.T @ v3,
            "b4": delta_w4.sum(0),
        },
        "deltas": {
            "delta_conv1": delta_conv1,
            "delta_conv2": delta_conv2,
            "delta_w3": delta_w3,
            "delta_w4": delta_w4,
        },
        "activations": {},
        "probabilities": probs,
    }


def to_fullback(result):
    return {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
