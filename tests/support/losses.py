"""A small network by hand, with every loss, which shares nothing with the package.

Flatten, dense, tanh, dense and, for squared errors, a sigmoid or a tanh. ``SWITCHES`` says which
mistakes can be made at the loss, and what each is called in the catalogue.
"""

from __future__ import annotations

import numpy as np

from fullback import BinaryCrossEntropy, MeanSquaredError, Network, SoftmaxCrossEntropy

SWITCHES = {
    # name of the switch: (mistake, loss and last activation)
    "slope twice": ("slope-twice", "binary"),
    "slope missing": ("slope-of-probabilities-missing", "binary"),
    "first term alone": ("binary-term-lost", "binary"),
    "second term's sign": ("binary-term-lost", "binary"),
    "softmax for sigmoid": ("other-probabilities", "binary"),
    "sign": ("sign-flipped", "binary"),
    "shifted": ("labels-shifted", "binary"),
    "mean over outputs": ("batch-scale", "binary"),
    "minus t over p": ("slope-of-probabilities-missing", "softmax"),
    "over the images": ("other-probabilities", "softmax"),
    "sigmoid for softmax": ("other-probabilities", "softmax"),
    "squares: slope twice": ("slope-twice", "squares sigmoid"),
    "squares: tanh's slope twice": ("slope-twice", "squares tanh"),
    "squares: slope missing": ("slope-missing", "squares sigmoid"),
    "squares: t - a": ("slope-missing", "squares tanh"),
    "squares: sign": ("sign-flipped", "squares sigmoid"),
    "squares: shifted": ("labels-shifted", "squares tanh"),
}
LOSSES = {
    "binary": BinaryCrossEntropy(),
    "softmax": SoftmaxCrossEntropy(),
    "squares": MeanSquaredError(),
}


def network(kind, outputs=4, **options):
    """Return the network of a loss and last activation, with weights of a usual size."""
    loss, last = (*kind.split(), "")[:2]
    text = f"flatten dense7 tanh dense{outputs} {last}"
    net = Network.parse(text, (1, 4, 3), loss=LOSSES[loss], **{"dtype": "float64", **options})
    rng = np.random.default_rng(3)
    for key, p in net.parameters.items():
        net.parameters[key] = rng.normal(0, 0.5, p.shape)
    return net


def batch(outputs=4, images=6):
    """Return images and labels."""
    rng = np.random.default_rng(4)
    return rng.normal(size=(images, 1, 4, 3)), rng.integers(0, max(outputs, 2), images)


def run(net, x, y, kind, wrong=None):
    """Return the gradients, the delta of the second dense layer, and the outputs."""
    w1, b1, w2, b2 = (net.parameters[f"dense{n}.{k}"] for n in (1, 2) for k in ("weight", "bias"))
    flat, n, outputs = x.reshape(len(x), -1), len(x), len(w2)
    h = np.tanh(flat @ w1.T + b1)
    z = h @ w2.T + b2
    t = np.eye(outputs)[y] if outputs > 1 else np.reshape(y, (-1, 1)).astype(float)
    if "shifted" in (wrong or ""):
        t = np.roll(t, 1, axis=1)
    softmax, sigmoid = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), 1 / (1 + np.exp(-z))
    if kind == "binary":
        a = sigmoid
        p = softmax if wrong == "softmax for sigmoid" else a
        d = {
            "slope twice": (p - t) * p * (1 - p),
            "slope missing": -t / p + (1 - t) / (1 - p),
            "first term alone": -t / p * p * (1 - p),
            "second term's sign": (-t / p - (1 - t) / (1 - p)) * p * (1 - p),
            "sign": t - p,
            "mean over outputs": (p - t) / outputs,
        }.get(wrong, p - t)
    elif kind == "softmax":
        a = softmax
        p = {"sigmoid for softmax": sigmoid, "over the images": np.exp(z) / np.exp(z).sum(axis=0)}
        d = -t / a if wrong == "minus t over p" else p.get(wrong, a) - t
    else:
        a = sigmoid if kind.endswith("sigmoid") else np.tanh(z)
        slope = a * (1 - a) if kind.endswith("sigmoid") else 1 - a**2
        d = 2 * (a - t) / outputs
        if "t - a" in (wrong or "") or "sign" in (wrong or ""):
            d = -d
        times = (
            2
            if "twice" in (wrong or "")
            else "missing" not in (wrong or "") and "t - a" not in (wrong or "")
        )
        d = d * slope**times
    d = d / n
    d1 = d @ w2 * (1 - h**2)
    gradients = {"W1": d1.T @ flat, "b1": d1.sum(axis=0), "W2": d.T @ h, "b2": d.sum(axis=0)}
    return gradients, {"dense2": d}, a
