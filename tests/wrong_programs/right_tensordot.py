"""As short as it goes: one dict of outputs, one of deltas, tensordot. Without a mistake."""

import numpy as np

ARCHITECTURE = "conv4 relu pool conv3(stride=2, padding=1) relu flatten dense5 relu dense4"
INPUT_SHAPE = (2, 8, 12)
MISTAKES = ()
NAMES = {
    "gradients": {
        "c1.w": "conv1.weight", "c1.b": "conv1.bias", "c2.w": "conv2.weight", "c2.b": "conv2.bias",
        "f1.w": "dense1.weight", "f1.b": "dense1.bias",
        "f2.w": "dense2.weight", "f2.b": "dense2.bias",
    },
    "deltas": {"c1": "conv1", "p1": "pool1", "c2": "conv2", "f1": "dense1", "f2": "dense2"},
    "activations": {"c1": "conv1", "p1": "pool1", "c2": "conv2", "f1": "dense1", "f2": "dense2"},
}  # fmt: skip


def taps(x, step):
    """Yield (r, s, the cells that tap (r, s) of a 3x3 filter sees); writing to them writes to x."""
    P, Q = (x.shape[2] - 3) // step + 1, (x.shape[3] - 3) // step + 1
    for r in range(3):
        for s in range(3):
            yield r, s, x[:, :, r : r + step * P : step, s : s + step * Q : step]


def conv(x, w, b, step):
    y = sum(np.tensordot(w[:, :, r, s], v, (1, 1)) for r, s, v in taps(x, step))
    return y.swapaxes(0, 1) + b[:, None, None]


def conv_back(x, w, d, step):
    dw, dx = np.empty_like(w), np.zeros_like(x)
    for r, s, v in taps(x, step):
        dw[:, :, r, s] = np.tensordot(d, v, ((0, 2, 3), (0, 2, 3)))
    for r, s, v in taps(dx, step):
        v += np.tensordot(d, w[:, :, r, s], (1, 0)).transpose(0, 3, 1, 2)
    return dw, d.sum((0, 2, 3)), dx[:, :, 1:-1, 1:-1]


def pad(x):
    return np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))


def run(parameters, x, y, wrong=True):
    P = {name: parameters[ours] for name, ours in NAMES["gradients"].items()}
    n, a, d, g = len(x), {}, {}, {}

    a["c1"] = conv(pad(x), P["c1.w"], P["c1.b"], 1)
    r1 = a["c1"].clip(0)
    four = np.array([r1[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    a["p1"], top = four.max(0), four.argmax(0)
    a["c2"] = conv(pad(a["p1"]), P["c2.w"], P["c2.b"], 2)
    r2 = a["c2"].clip(0)
    flat = r2.reshape(n, -1)
    a["f1"] = flat @ P["f1.w"].T + P["f1.b"]
    r3 = a["f1"].clip(0)
    a["f2"] = r3 @ P["f2.w"].T + P["f2.b"]
    p = np.exp(a["f2"])
    p /= p.sum(1)[:, None]

    d["f2"] = (p - np.eye(4)[y]) / n
    d["f1"] = d["f2"] @ P["f2.w"] * (r3 > 0)
    d["c2"] = (d["f1"] @ P["f1.w"]).reshape(r2.shape) * (r2 > 0)
    g["c2.w"], g["c2.b"], d["p1"] = conv_back(pad(a["p1"]), P["c2.w"], d["c2"], 2)
    d["c1"] = np.zeros_like(r1)
    for i in range(4):
        d["c1"][:, :, i // 2 :: 2, i % 2 :: 2] = d["p1"] * (top == i)
    d["c1"] *= r1 > 0
    g["c1.w"], g["c1.b"], _ = conv_back(pad(x), P["c1.w"], d["c1"], 1)
    g["f1.w"], g["f1.b"] = d["f1"].T @ flat, d["f1"].sum(0)
    g["f2.w"], g["f2.b"] = d["f2"].T @ r3, d["f2"].sum(0)
    loss = -np.log(p[np.arange(n), y]).mean()
    return {"loss": loss, "gradients": g, "deltas": d, "activations": a, "probabilities": p}


def to_fullback(result):
    return {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
