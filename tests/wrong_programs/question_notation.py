"""The notation of lecture notes: F is a filter, D a delta, V a column; one filter in each layer.

The mistake: the full convolution that makes conv2's next delta does not turn the filter.
"""

import numpy as np

ARCHITECTURE = "conv1 relu pool conv1 relu pool flatten dense5 relu dense4"
INPUT_SHAPE = (1, 8, 12)
MISTAKES = (("conv2", "filter-not-turned"),)
DELTAS_PER_IMAGE = True
NAMES = {
    "gradients": {
        "F1": "conv1.weight", "B1": "conv1.bias", "F2": "conv2.weight", "B2": "conv2.bias",
        "W3": "dense1.weight", "B3": "dense1.bias", "W4": "dense2.weight", "B4": "dense2.bias",
    },
    "deltas": {"D1": "conv1", "D2": "conv2", "D3": "dense1", "D4": "dense2"},
    "activations": {},
}  # fmt: skip


def slide(A, F):
    """'valid': F stays inside of A."""
    rows = A.shape[0] - F.shape[0] + 1
    cols = A.shape[1] - F.shape[1] + 1
    out = np.empty((rows, cols))
    for i in range(rows):
        for j in range(cols):
            out[i, j] = (A[i : i + F.shape[0], j : j + F.shape[1]] * F).sum()
    return out


def full_convolution(D, F, turn):
    """'full': F only has to touch D."""
    r, s = F.shape
    D = np.pad(D, ((r - 1, r - 1), (s - 1, s - 1)))
    return slide(D, F[::-1, ::-1] if turn else F)


def shrink(A):
    return A.reshape(A.shape[0] // 2, 2, A.shape[1] // 2, 2).max(axis=(1, 3))


def grow(D, A):
    """Put D back where the maxima of A were."""
    out = np.zeros_like(A)
    for i, j in np.ndindex(D.shape):
        block = A[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        r, s = np.unravel_index(block.argmax(), block.shape)
        out[2 * i + r, 2 * j + s] = D[i, j]
    return out


def run(parameters, x, y, wrong=True):
    F1 = parameters["conv1.weight"][0, 0]
    F2 = parameters["conv2.weight"][0, 0]
    B1 = parameters["conv1.bias"].item()
    B2 = parameters["conv2.bias"].item()
    W3, B3 = parameters["dense1.weight"], parameters["dense1.bias"].reshape(-1, 1)
    W4, B4 = parameters["dense2.weight"], parameters["dense2.bias"].reshape(-1, 1)

    dF1, dF2, dB1, dB2 = np.zeros((3, 3)), np.zeros((3, 3)), 0.0, 0.0
    dW3, dB3, dW4, dB4 = (np.zeros_like(a) for a in (W3, B3, W4, B4))
    deltas = {"D1": [], "D2": [], "D3": [], "D4": []}
    E = 0.0
    for X, label in zip(x[:, 0], y, strict=True):
        # Input -> Conv1 -> Pool1 -> Conv2 -> Pool2 -> FC3 -> FC4
        X_ = np.pad(X, 1)
        C1 = slide(X_, F1) + B1
        A1 = C1 * (C1 > 0)
        P1 = shrink(A1)
        P1_ = np.pad(P1, 1)
        C2 = slide(P1_, F2) + B2
        A2 = C2 * (C2 > 0)
        P2 = shrink(A2)
        V2 = P2.reshape(-1, 1)
        Z3 = W3 @ V2 + B3
        V3 = Z3 * (Z3 > 0)
        Z4 = W4 @ V3 + B4
        V4 = np.exp(Z4) / np.exp(Z4).sum()
        T = np.zeros_like(V4)
        T[label] = 1
        E -= np.log(V4[label, 0])

        # ... and back
        D4 = V4 - T
        D3 = (W4.T @ D4) * (Z3 > 0)
        D2 = grow((W3.T @ D3).reshape(P2.shape), A2) * (C2 > 0)
        N1 = full_convolution(D2, F2, turn=not wrong)[1:-1, 1:-1]
        D1 = grow(N1, A1) * (C1 > 0)

        dW4 += D4 @ V3.T
        dB4 += D4
        dW3 += D3 @ V2.T
        dB3 += D3
        dF2 += slide(P1_, D2)
        dB2 += D2.sum()
        dF1 += slide(X_, D1)
        dB1 += D1.sum()
        for name, D in zip(deltas, (D1, D2, D3, D4), strict=True):
            deltas[name].append(D)

    n = len(x)
    gradients = {
        "F1": dF1 / n,
        "B1": dB1 / n,
        "F2": dF2 / n,
        "B2": dB2 / n,
        "W3": dW3 / n,
        "B3": dB3 / n,
        "W4": dW4 / n,
        "B4": dB4 / n,
    }
    deltas = {name: np.stack(images) for name, images in deltas.items()}
    return {"loss": E / n, "gradients": gradients, "deltas": deltas, "activations": {}}


def to_fullback(result):
    g = result["gradients"]
    return {
        "conv1.weight": g["F1"][None, None],
        "conv1.bias": np.array([g["B1"]]),
        "conv2.weight": g["F2"][None, None],
        "conv2.bias": np.array([g["B2"]]),
        "dense1.weight": g["W3"],
        "dense1.bias": g["B3"][:, 0],
        "dense2.weight": g["W4"],
        "dense2.bias": g["B4"][:, 0],
    }
