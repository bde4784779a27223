"""Formulas of an old paper, with its own ``convn``: kernels[l] and offsets[l] of layer l.

Two mistakes in one layer: the paper's layers convolve, and these correlate, so that both its
formulas turn the wrong thing: conv2's next delta is made with filters that are not turned, and the
filters' gradients come out turned, in conv1 too.
"""

import numpy as np

ARCHITECTURE = "conv2 tanh avgpool conv3(padding=valid) tanh flatten dense5"
INPUT_SHAPE = (2, 8, 10)
MISTAKES = (
    ("conv2", "filter-not-turned"),
    ("conv2", "weight-gradient-turned"),
    ("conv1", "weight-gradient-turned"),
)
NAMES = {
    "gradients": {
        "kernels[0]": "conv1.weight", "offsets[0]": "conv1.bias",
        "kernels[1]": "conv2.weight", "offsets[1]": "conv2.bias",
        "matrix": "dense1.weight", "offsets[2]": "dense1.bias",
    },
    "deltas": {"delta[0]": "conv1", "delta[1]": "conv2", "delta[2]": "dense1"},
    "activations": {"u[0]": "conv1", "u[1]": "conv2", "u[2]": "dense1"},
}  # fmt: skip


def convn(a, b, shape):
    """A true convolution of two matrices, by adding shifted copies of ``a``."""
    rows, cols = a.shape[0] + b.shape[0] - 1, a.shape[1] + b.shape[1] - 1
    full = np.zeros((rows, cols))
    for r in range(b.shape[0]):
        for s in range(b.shape[1]):
            full[r : r + a.shape[0], s : s + a.shape[1]] += b[r, s] * a
    if shape == "full":
        return full
    if shape == "same":
        top, left = (b.shape[0] - 1) // 2, (b.shape[1] - 1) // 2
        return full[top : top + a.shape[0], left : left + a.shape[1]]
    return full[b.shape[0] - 1 : a.shape[0], b.shape[1] - 1 : a.shape[1]]


def flipall(a):
    return a[::-1, ::-1]


def layer_output(maps, kernels, offsets, shape):
    """Correlation: each filter is laid on the maps as it is."""
    u = []
    for kernel, offset in zip(kernels, offsets, strict=True):
        parts = [convn(m, flipall(k), shape) for m, k in zip(maps, kernel, strict=True)]
        u.append(sum(parts) + offset)
    return np.array(u)


def kernel_gradient(maps, delta, wrong):
    result = np.zeros((len(delta), len(maps), 3, 3))
    for k, d in enumerate(delta):
        for c, m in enumerate(maps):
            if wrong:
                result[k, c] = convn(flipall(m), d, "valid")
            else:
                result[k, c] = convn(m, flipall(d), "valid")
    return result


def next_delta(delta, kernels, wrong):
    result = []
    for c in range(kernels.shape[1]):
        total = 0
        for d, kernel in zip(delta, kernels[:, c], strict=True):
            total = total + convn(d, flipall(kernel) if wrong else kernel, "full")
        result.append(total)
    return np.array(result)


def one_pattern(image, label, kernels, offsets, matrix, wrong):
    u0 = layer_output(image, kernels[0], offsets[0], "same")
    y0 = np.tanh(u0)
    n, h, w = y0.shape
    s0 = y0.reshape(n, h // 2, 2, w // 2, 2).sum(axis=(2, 4)) * 0.25
    u1 = layer_output(s0, kernels[1], offsets[1], "valid")
    y1 = np.tanh(u1)
    u2 = matrix @ y1.ravel() + offsets[2]
    prob = np.exp(u2) / np.exp(u2).sum()

    delta2 = prob - (np.arange(len(prob)) == label)
    delta1 = (matrix.T @ delta2).reshape(y1.shape) * (1 - y1**2)
    back = next_delta(delta1, kernels[1], wrong)
    delta0 = 0.25 * np.kron(back, np.ones((1, 2, 2))) * (1 - y0**2)
    gradients = {
        "kernels[0]": kernel_gradient(np.pad(image, ((0, 0), (1, 1), (1, 1))), delta0, wrong),
        "offsets[0]": delta0.sum(axis=(1, 2)),
        "kernels[1]": kernel_gradient(s0, delta1, wrong),
        "offsets[1]": delta1.sum(axis=(1, 2)),
        "matrix": np.outer(delta2, y1),
        "offsets[2]": delta2,
    }
    return prob, gradients, (delta0, delta1, delta2), (u0, u1, u2)


def run(parameters, x, y, wrong=True):
    kernels = [parameters["conv1.weight"], parameters["conv2.weight"]]
    offsets = [parameters[f"{name}.bias"] for name in ("conv1", "conv2", "dense1")]
    patterns = [
        one_pattern(image, label, kernels, offsets, parameters["dense1.weight"], wrong)
        for image, label in zip(x, y, strict=True)
    ]
    probs = np.array([pattern[0] for pattern in patterns])
    per_layer = range(3)
    return {
        "loss": -np.mean(np.log(probs[np.arange(len(y)), y])),
        "gradients": {
            name: np.mean([pattern[1][name] for pattern in patterns], axis=0)
            for name in NAMES["gradients"]
        },
        "deltas": {
            f"delta[{i}]": np.array([pattern[2][i] for pattern in patterns]) / len(x)
            for i in per_layer
        },
        "activations": {
            f"u[{i}]": np.array([pattern[3][i] for pattern in patterns]) for i in per_layer
        },
        "probabilities": probs,
    }


def to_fullback(result):
    return {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
