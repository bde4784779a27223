"""A small CNN in plain NumPy, as the core of training steps in many styles.

conv(K filters of 3 x 3, no padding), ReLU, 2 x 2 max pooling, dense, softmax with cross-entropy.
"""

import numpy as np

TEXT = "conv3(padding=valid) relu pool flatten dense4"


def start(channels=1, rows=8, columns=7, seed=0):
    """Return weights (3, C, 3, 3), biases, a matrix (4, features) and biases."""
    rng = np.random.default_rng(seed)
    features = 3 * ((rows - 2) // 2) * ((columns - 2) // 2)
    return [
        rng.normal(0, 0.4, (3, channels, 3, 3)),
        rng.uniform(0.05, 0.2, 3),
        rng.normal(0, 0.3, (4, features)),
        rng.uniform(-0.1, 0.1, 4),
    ]


def batch(channels=1, rows=8, columns=7, images=5):
    """Return images (N, C, H, W) and labels."""
    x = np.random.default_rng(1).random((images, channels, rows, columns))
    return x, np.arange(images) % 4


def gradients(weights, x, y, wrong=False, total=False):
    """Return the gradients of the batch's mean loss, or of its sum.

    With ``wrong`` the filters' bias gradient is a mean over the positions.
    """
    w, b, matrix, c = weights
    n, _, rows, columns = x.shape
    rows, columns = rows - 2, columns - 2
    z = np.zeros((n, len(w), rows, columns)) + b[:, None, None]
    for r in range(3):
        for s in range(3):
            part = x[:, :, r : r + rows, s : s + columns]
            z += np.einsum("nchw,kc->nkhw", part, w[:, :, r, s])
    a = np.maximum(z, 0)[:, :, : rows // 2 * 2, : columns // 2 * 2]
    cells = a.reshape(n, len(w), rows // 2, 2, columns // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    cells = cells.reshape(n, len(w), rows // 2, columns // 2, 4)
    flat = cells.max(axis=-1).reshape(n, -1)
    scores = flat @ matrix.T + c
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    d = p - np.eye(4)[y]
    d = d if total else d / n
    dmatrix, dc = d.T @ flat, d.sum(axis=0)
    d = (d @ matrix).reshape(cells.shape[:-1])
    d = (np.arange(4) == cells.argmax(axis=-1)[..., None]) * d[..., None]
    d = d.reshape(*d.shape[:4], 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(a.shape)
    dz = np.zeros(z.shape)
    dz[:, :, : a.shape[2], : a.shape[3]] = d
    dz *= z > 0
    dw = np.zeros(w.shape)
    for r in range(3):
        for s in range(3):
            part = x[:, :, r : r + rows, s : s + columns]
            dw[:, :, r, s] = np.einsum("nkhw,nchw->kc", dz, part)
    return dw, dz.mean(axis=(2, 3)).sum(0) if wrong else dz.sum(axis=(0, 2, 3)), dmatrix, dc
