"""Index arrays: filters as one (C * R * S, K) matrix, overlapping pooling by fancy indexing.

The mistake: ``+=`` with an index array adds once where a pixel is the maximum of several windows.
"""

from collections import namedtuple

import numpy as np

ARCHITECTURE = "conv3 relu pool3(stride=2) flatten dense5 relu dense4"
INPUT_SHAPE = (2, 7, 9)
MISTAKES = (("pool1", "pool-overlap-assigned"),)
NAMES = {
    "gradients": {
        "conv_W": "conv1.weight", "conv_b": "conv1.bias",
        "hidden_W": "dense1.weight", "hidden_b": "dense1.bias",
        "out_W": "dense2.weight", "out_b": "dense2.bias",
    },
    "deltas": {"pool": "pool1", "relu": "relu1", "conv": "conv1"},
    "activations": {"pool": "pool1", "conv": "conv1"},
}  # fmt: skip

Memo = namedtuple("Memo", "patches conv rows cols flat hidden hidden_relu")


def patch_indices(height, width):
    """Rows and columns, both (H * W, 9), of the 3x3 patch around every pixel of a padded image."""
    i, j = np.divmod(np.arange(height * width), width)
    r, s = np.divmod(np.arange(9), 3)
    return i[:, None] + r, j[:, None] + s


def max_indices(maps, size, stride):
    """Rows and columns, both (N, C, P, Q), of every window's maximum."""
    n, c, h, w = maps.shape
    p, q = (h - size) // stride + 1, (w - size) // stride + 1
    rows = np.zeros((n, c, p, q), dtype=int)
    cols = np.zeros((n, c, p, q), dtype=int)
    for i in range(p):
        for j in range(q):
            top, left = i * stride, j * stride
            window = maps[:, :, top : top + size, left : left + size].reshape(n, c, -1)
            r, s = np.unravel_index(window.argmax(axis=2), (size, size))
            rows[:, :, i, j] = top + r
            cols[:, :, i, j] = left + s
    return rows, cols


def predict(weights, images):
    n, c, h, w = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, cols = patch_indices(h, w)
    patches = padded[:, :, rows, cols]  # n, c, pixel, tap
    patches = patches.transpose(0, 2, 1, 3).reshape(n, h * w, c * 9)
    conv = (patches @ weights["conv_W"] + weights["conv_b"]).transpose(0, 2, 1)
    conv = conv.reshape(n, -1, h, w)
    relu = np.maximum(conv, 0)
    rows, cols = max_indices(relu, size=3, stride=2)
    image, channel = np.ogrid[:n, : relu.shape[1]]
    pooled = relu[image[..., None, None], channel[..., None, None], rows, cols]
    flat = pooled.reshape(n, -1)
    hidden = flat @ weights["hidden_W"] + weights["hidden_b"]
    hidden_relu = np.maximum(hidden, 0)
    logits = hidden_relu @ weights["out_W"] + weights["out_b"]
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    memo = Memo(patches, conv, rows, cols, flat, hidden, hidden_relu)
    return exp / exp.sum(axis=1, keepdims=True), memo


def derive(weights, memo, dlogits, wrong):
    grads = {"out_W": memo.hidden_relu.T @ dlogits, "out_b": dlogits.sum(axis=0)}
    dhidden = dlogits @ weights["out_W"].T * (memo.hidden > 0)
    grads["hidden_W"] = memo.flat.T @ dhidden
    grads["hidden_b"] = dhidden.sum(axis=0)

    dpool = (dhidden @ weights["hidden_W"].T).reshape(memo.rows.shape)
    drelu = np.zeros(memo.conv.shape)
    n, k = drelu.shape[:2]
    image, channel = np.ogrid[:n, :k]
    index = (image[..., None, None], channel[..., None, None], memo.rows, memo.cols)
    if wrong:
        drelu[index] += dpool
    else:
        np.add.at(drelu, index, dpool)
    dconv = drelu * (memo.conv > 0)

    columns = dconv.reshape(n, k, -1).transpose(0, 2, 1)  # n, pixel, filter
    grads["conv_W"] = np.tensordot(memo.patches, columns, axes=((0, 1), (0, 1)))
    grads["conv_b"] = columns.sum(axis=(0, 1))
    return grads, {"pool": dpool, "relu": drelu, "conv": dconv}


def run(parameters, x, y, wrong=True):
    weights = {name: parameters[ours] for name, ours in NAMES["gradients"].items()}
    weights["conv_W"] = weights["conv_W"].reshape(3, 18).T
    weights["hidden_W"], weights["out_W"] = weights["hidden_W"].T, weights["out_W"].T
    probs, memo = predict(weights, x)
    onehot = (y[:, None] == np.arange(4)).astype(float)
    loss = -(onehot * np.log(probs)).sum() / len(y)
    grads, deltas = derive(weights, memo, (probs - onehot) / len(y), wrong)
    return {
        "loss": loss,
        "gradients": grads,
        "deltas": deltas,
        "activations": {"pool": memo.flat, "conv": memo.conv},
        "probabilities": probs,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["conv1.weight"] = grads["conv1.weight"].T.reshape(3, 2, 3, 3)
    grads["dense1.weight"] = grads["dense1.weight"].T
    grads["dense2.weight"] = grads["dense2.weight"].T
    return grads
