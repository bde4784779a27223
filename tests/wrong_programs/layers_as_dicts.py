"""A list of dicts, one a layer, with 'W', 'b', 'stride' and 'dW', 'db'; gradients are batch sums.

"repeat": the stride is undone by repeating the delta, not by zeros between. "stride": it is not
undone at all. "copy": the delta of the ReLU is the delta of the convolution, the mask is forgotten.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=1) relu conv4(padding=1, stride=2) relu flatten dense5"
INPUT_SHAPE = (2, 8, 6)
OPTIONS = {"lr": 0.02}
SUM = True
MISTAKES = {
    "repeat": ("conv2", "stride-not-dilated", "next delta"),
    "stride": ("conv2", "stride-not-dilated", "next delta"),
    "copy": ("relu2", "relu-mask-missing", "next delta"),
}


def create(parameters):
    p = {name: array.copy() for name, array in parameters.items()}
    return [
        {"type": "conv", "W": p["conv1.weight"], "b": p["conv1.bias"], "pad": 1, "stride": 1},
        {"type": "relu"},
        {"type": "conv", "W": p["conv2.weight"], "b": p["conv2.bias"], "pad": 1, "stride": 2},
        {"type": "relu"},
        {"type": "fc", "W": p["dense1.weight"], "b": p["dense1.bias"]},
    ]


def forward(net, x):
    for layer in net:
        layer["in"] = x
        if layer["type"] == "conv":
            W, s, p = layer["W"], layer["stride"], layer["pad"]
            xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
            h = (xp.shape[2] - W.shape[2]) // s + 1
            w = (xp.shape[3] - W.shape[3]) // s + 1
            x = np.empty((len(x), len(W), h, w))
            for i in range(h):
                for j in range(w):
                    field = xp[:, :, i * s : i * s + W.shape[2], j * s : j * s + W.shape[3]]
                    x[:, :, i, j] = np.tensordot(field, W, ((1, 2, 3), (1, 2, 3))) + layer["b"]
        elif layer["type"] == "relu":
            x = np.maximum(x, 0)
        else:
            x = x.reshape(len(x), -1) @ layer["W"].T + layer["b"]
        layer["out"] = x
    return x


def full_correlation(delta, W, layer, wrong):
    """The next delta: the delta with zeros between, the kernels turned."""
    s, p = layer["stride"], layer["pad"]
    n, k, h, w = delta.shape
    _, c, R, S = W.shape
    rows, columns = layer["in"].shape[2:]
    wide = np.zeros((n, k, rows + 2 * p + R - 1, columns + 2 * p + S - 1))
    if wrong == "repeat" and s > 1:
        big = delta.repeat(s, axis=2).repeat(s, axis=3)
        wide[:, :, R - 1 : R - 1 + s * h, S - 1 : S - 1 + s * w] = big
    elif wrong == "stride":
        wide[:, :, R - 1 : R - 1 + h, S - 1 : S - 1 + w] = delta
    else:
        wide[:, :, R - 1 : R - 1 + s * h : s, S - 1 : S - 1 + s * w : s] = delta
    turned = W[:, :, ::-1, ::-1]
    dx = np.zeros((n, c, rows + 2 * p, columns + 2 * p))
    for i in range(dx.shape[2]):
        for j in range(dx.shape[3]):
            dx[:, :, i, j] = np.tensordot(
                wide[:, :, i : i + R, j : j + S], turned, ((1, 2, 3), (0, 2, 3))
            )
    return dx[:, :, p : p + rows, p : p + columns]


def backward(net, delta, wrong):
    for position in range(len(net) - 1, -1, -1):
        layer = net[position]
        if layer["type"] == "fc":
            flat = layer["in"].reshape(len(delta), -1)
            layer["dW"], layer["db"] = delta.T @ flat, delta.sum(axis=0)
            delta = (delta @ layer["W"]).reshape(layer["in"].shape)
        elif layer["type"] == "relu":
            if not (wrong == "copy" and position == 3):
                delta = delta * (layer["in"] > 0)
        else:
            s, p = layer["stride"], layer["pad"]
            xp = np.pad(layer["in"], ((0, 0), (0, 0), (p, p), (p, p)))
            dW = np.zeros_like(layer["W"])
            for r, q in np.ndindex(*dW.shape[2:]):
                h, w = delta.shape[2:]
                view = xp[:, :, r : r + s * h : s, q : q + s * w : s]
                dW[:, :, r, q] = np.einsum("nkhw,nchw->kc", delta, view)
            layer["dW"], layer["db"] = dW, delta.sum(axis=(0, 2, 3))
            delta = full_correlation(delta, layer["W"], layer, wrong)


def step(net, x, y, wrong=""):
    scores = forward(net, x)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1  # no mean: the loss is the sum
    backward(net, p, wrong)
    for layer in net:
        if "W" in layer:
            layer["W"] -= OPTIONS["lr"] * layer["dW"]
            layer["b"] -= OPTIONS["lr"] * layer["db"]


def read(net):
    with_weights = [layer for layer in net if "W" in layer]
    return {
        f"{name}.{kind}": layer[key]
        for name, layer in zip(("conv1", "conv2", "dense1"), with_weights, strict=True)
        for kind, key in (("weight", "W"), ("bias", "b"))
    }
