"""Every operation returns its output and a function for the way back; images are (C, H, W, N).

Filters are (C, R, S, K). The mistake: ReLU's way back cuts off negative deltas, not the deltas of
negative inputs.
"""

import numpy as np

ARCHITECTURE = "conv2 relu pool conv3 relu pool flatten dense5"
INPUT_SHAPE = (3, 8, 4)
MISTAKES = (("relu2", "relu-mask-of-delta"), ("relu1", "relu-mask-of-delta"))
NAMES = {
    "gradients": {
        "filters1": "conv1.weight", "biases1": "conv1.bias",
        "filters2": "conv2.weight", "biases2": "conv2.bias",
        "matrix": "dense1.weight", "biases3": "dense1.bias",
    },
    "deltas": {"conv1": "conv1", "relu1": "relu1", "pool1": "pool1", "conv2": "conv2",
               "relu2": "relu2", "pool2": "pool2", "scores": "dense1"},
    "activations": {"conv1": "conv1", "relu1": "relu1", "pool1": "pool1", "conv2": "conv2",
                    "relu2": "relu2", "pool2": "pool2", "scores": "dense1"},
}  # fmt: skip


def conv(x, filters, biases):
    channels, rows, cols, n = x.shape
    xp = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((filters.shape[3], rows, cols, n))
    for r in range(3):
        for s in range(3):
            part = xp[:, r : r + rows, s : s + cols]
            y += (filters[:, r, s].T @ part.reshape(channels, -1)).reshape(y.shape)
    y += biases.reshape(-1, 1, 1, 1)

    def back(dy):
        dxp = np.zeros_like(xp)
        dfilters = np.zeros_like(filters)
        dy2 = dy.reshape(len(dy), -1)
        for r in range(3):
            for s in range(3):
                part = xp[:, r : r + rows, s : s + cols]
                dfilters[:, r, s] = part.reshape(channels, -1) @ dy2.T
                dxp[:, r : r + rows, s : s + cols] += (filters[:, r, s] @ dy2).reshape(part.shape)
        return dxp[:, 1:-1, 1:-1], dfilters, dy2.sum(axis=1)

    return y, back


def relu(x, wrong):
    def back(dy):
        return np.where((dy if wrong else x) > 0, dy, 0)

    return np.maximum(x, 0), back


def pool(x):
    quads = np.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    which = quads.argmax(axis=0)

    def back(dy):
        dx = np.empty(x.shape)
        for number in range(4):
            dx[:, number // 2 :: 2, number % 2 :: 2] = np.where(which == number, dy, 0)
        return dx

    return quads.max(axis=0), back


def dense(x, matrix, biases):
    columns = x.reshape(-1, x.shape[-1])

    def back(dy):
        return (matrix.T @ dy).reshape(x.shape), dy @ columns.T, dy.sum(axis=1)

    return matrix @ columns + biases[:, None], back


def cross_entropy(scores, labels):
    n = scores.shape[1]
    shifted = scores - scores.max(axis=0)
    log_sum = np.log(np.exp(shifted).sum(axis=0))
    probs = np.exp(shifted - log_sum)
    loss = (log_sum - shifted[labels, np.arange(n)]).mean()

    def back(dloss=1.0):
        d = probs.copy()
        d[labels, np.arange(n)] -= 1
        return d * dloss / n

    return loss, probs, back


def run(parameters, x, y, wrong=True):
    images = x.transpose(1, 2, 3, 0)
    filters1 = parameters["conv1.weight"].transpose(1, 2, 3, 0)
    filters2 = parameters["conv2.weight"].transpose(1, 2, 3, 0)

    out, d = {}, {}
    out["conv1"], conv1_back = conv(images, filters1, parameters["conv1.bias"])
    out["relu1"], relu1_back = relu(out["conv1"], wrong)
    out["pool1"], pool1_back = pool(out["relu1"])
    out["conv2"], conv2_back = conv(out["pool1"], filters2, parameters["conv2.bias"])
    out["relu2"], relu2_back = relu(out["conv2"], wrong)
    out["pool2"], pool2_back = pool(out["relu2"])
    out["scores"], dense_back = dense(
        out["pool2"], parameters["dense1.weight"], parameters["dense1.bias"]
    )
    loss, probs, loss_back = cross_entropy(out["scores"], y)

    g = {}
    d["scores"] = loss_back()
    d["pool2"], g["matrix"], g["biases3"] = dense_back(d["scores"])
    d["relu2"] = pool2_back(d["pool2"])
    d["conv2"] = relu2_back(d["relu2"])
    d["pool1"], g["filters2"], g["biases2"] = conv2_back(d["conv2"])
    d["relu1"] = pool1_back(d["pool1"])
    d["conv1"] = relu1_back(d["relu1"])
    _, g["filters1"], g["biases1"] = conv1_back(d["conv1"])
    return {
        "loss": loss,
        "gradients": g,
        "deltas": d,
        "activations": out,
        "probabilities": probs,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    for name in ("conv1.weight", "conv2.weight"):
        grads[name] = grads[name].transpose(3, 0, 1, 2)
    return grads
