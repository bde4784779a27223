"""sliding_window_view and einsum, a few lines for everything; both convolutions have 3 filters.

The mistake: conv2's next delta sums over the filters' channels, and not over the filters, which
einsum accepts because there are as many of each.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

ARCHITECTURE = "conv3 relu conv3(padding=valid) relu pool flatten dense4"
INPUT_SHAPE = (2, 6, 8)
MISTAKES = (("conv2", "channels-swapped"),)
NAMES = {
    "gradients": {
        "K1": "conv1.weight", "B1": "conv1.bias", "K2": "conv2.weight", "B2": "conv2.bias",
        "M": "dense1.weight", "B3": "dense1.bias",
    },
    "deltas": {"gx1": "conv1", "gh1": "relu1", "gx2": "conv2", "gh2": "relu2", "gx3": "dense1"},
    "activations": {"x1": "conv1", "h1": "relu1", "x2": "conv2", "h2": "relu2", "x3": "dense1"},
}  # fmt: skip


def win(a, pad=0):
    a = np.pad(a, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    return sliding_window_view(a, (3, 3), axis=(2, 3))  # n c i j r s


def run(parameters, x, y, wrong=True):
    K1, B1, K2, B2, M, B3 = (parameters[ours] for ours in NAMES["gradients"].values())
    M = M.reshape(4, 3, 2, 3)  # the dense layer sees (c, i, j): no need to flatten anything

    # forward
    x1 = np.einsum("ncijrs,kcrs->nkij", win(x, 1), K1) + B1[:, None, None]
    h1 = np.maximum(x1, 0)
    x2 = np.einsum("ncijrs,kcrs->nkij", win(h1), K2) + B2[:, None, None]
    h2 = np.maximum(x2, 0)
    blocks = h2.reshape(-1, 3, 2, 2, 3, 2)
    p = np.einsum("nciajb->ncijab", blocks).reshape(-1, 3, 2, 3, 4)
    top = p.argmax(-1)
    p = p.max(-1)
    x3 = np.einsum("ncij,ocij->no", p, M) + B3
    q = np.exp(x3)
    q /= np.einsum("no->n", q)[:, None]
    t = np.eye(4)[y]
    loss = -np.einsum("no,no->", t, np.log(q)) / len(x)

    # backward
    gx3 = (q - t) / len(x)
    gp = np.einsum("no,ocij->ncij", gx3, M)
    corner = np.eye(4)[top].reshape(*top.shape, 2, 2)
    gh2 = np.einsum("ncij,ncijab->nciajb", gp, corner).reshape(h2.shape)
    gx2 = gh2 * (x2 > 0)
    flipped = K2[:, :, ::-1, ::-1]
    if wrong:
        gh1 = np.einsum("nkijrs,ckrs->ncij", win(gx2, 2), flipped)
    else:
        gh1 = np.einsum("nkijrs,kcrs->ncij", win(gx2, 2), flipped)
    gx1 = gh1 * (x1 > 0)
    gradients = {
        "K1": np.einsum("nkij,ncijrs->kcrs", gx1, win(x, 1)),
        "B1": np.einsum("nkij->k", gx1),
        "K2": np.einsum("nkij,ncijrs->kcrs", gx2, win(h1)),
        "B2": np.einsum("nkij->k", gx2),
        "M": np.einsum("no,ncij->ocij", gx3, p),
        "B3": np.einsum("no->o", gx3),
    }
    return {
        "loss": loss,
        "gradients": gradients,
        "deltas": {"gx1": gx1, "gh1": gh1, "gx2": gx2, "gh2": gh2, "gx3": gx3},
        "activations": {"x1": x1, "h1": h1, "x2": x2, "h2": h2, "x3": x3},
        "probabilities": q,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["dense1.weight"] = grads["dense1.weight"].reshape(4, 18)
    return grads
