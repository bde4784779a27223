"""A course's class: ``self.params``, ``loss(X, y)`` that returns loss and grads, im2col by indices.

The loss has 0.5 * reg * sum(W * W) for every W. Dense weights are (in, out).

"reg": the penalty's gradient is doubled. "reg on biases": biases are decayed too. "mixed": col2im
takes the columns image by image, where im2col made them position by position.
"""

import numpy as np

ARCHITECTURE = "conv3 relu pool flatten dense7 relu dense5"
INPUT_SHAPE = (3, 8, 6)
REG = 0.05
OPTIONS = {"lr": 0.1, "l2": REG}
MISTAKES = {
    "reg": ("dense2", "l2-term", "weight gradient"),
    "reg on biases": ("dense2", "l2-term", "bias gradient"),
    "mixed": ("conv1", "images-mixed", "weight gradient"),
}


def get_im2col_indices(x_shape, field_height, field_width, padding=1, stride=1):
    _, C, H, W = x_shape
    out_height = (H + 2 * padding - field_height) // stride + 1
    out_width = (W + 2 * padding - field_width) // stride + 1
    i0 = np.tile(np.repeat(np.arange(field_height), field_width), C)
    i1 = stride * np.repeat(np.arange(out_height), out_width)
    j0 = np.tile(np.arange(field_width), field_height * C)
    j1 = stride * np.tile(np.arange(out_width), out_height)
    i = i0.reshape(-1, 1) + i1.reshape(1, -1)
    j = j0.reshape(-1, 1) + j1.reshape(1, -1)
    k = np.repeat(np.arange(C), field_height * field_width).reshape(-1, 1)
    return k, i, j


def im2col_indices(x, field_height, field_width):
    x_padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="constant")
    k, i, j = get_im2col_indices(x.shape, field_height, field_width)
    cols = x_padded[:, k, i, j]
    return cols.transpose(1, 2, 0).reshape(field_height * field_width * x.shape[1], -1)


class ThreeLayerConvNet:
    def __init__(self, params, reg):
        self.params = params
        self.reg = reg

    def conv_forward(self, x, w, b):
        N, _, H, W = x.shape
        F = w.shape[0]
        self.x_cols = im2col_indices(x, w.shape[2], w.shape[3])
        res = w.reshape(F, -1).dot(self.x_cols) + b.reshape(-1, 1)
        return res.reshape(F, H, W, N).transpose(3, 0, 1, 2)

    def conv_backward(self, dout, w, wrong):
        db = np.sum(dout, axis=(0, 2, 3))
        if wrong == "mixed":
            dout_reshaped = dout.transpose(1, 0, 2, 3).reshape(w.shape[0], -1)
        else:
            dout_reshaped = dout.transpose(1, 2, 3, 0).reshape(w.shape[0], -1)
        return dout_reshaped.dot(self.x_cols.T).reshape(w.shape), db

    def loss(self, X, y, wrong):
        W1, b1 = self.params["W1"], self.params["b1"]
        W2, b2 = self.params["W2"], self.params["b2"]
        W3, b3 = self.params["W3"], self.params["b3"]
        N = X.shape[0]
        conv = self.conv_forward(X, W1, b1)
        act = np.maximum(0, conv)
        n, c, h, w = act.shape
        windows = act.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
        windows = windows.reshape(n, c, h // 2, w // 2, 4)
        winner = windows.argmax(axis=-1)
        pool = windows.max(axis=-1)
        hidden = pool.reshape(N, -1).dot(W2) + b2
        relu = np.maximum(0, hidden)
        scores = relu.dot(W3) + b3

        shifted_logits = scores - np.max(scores, axis=1, keepdims=True)
        Z = np.sum(np.exp(shifted_logits), axis=1, keepdims=True)
        log_probs = shifted_logits - np.log(Z)
        data_loss = -np.sum(log_probs[np.arange(N), y]) / N
        reg_loss = 0.5 * self.reg * sum(np.sum(W * W) for W in (W1, W2, W3))
        dscores = np.exp(log_probs)
        dscores[np.arange(N), y] -= 1
        dscores /= N

        grads = {"W3": relu.T.dot(dscores), "b3": dscores.sum(axis=0)}
        dhidden = dscores.dot(W3.T) * (hidden > 0)
        grads["W2"], grads["b2"] = pool.reshape(N, -1).T.dot(dhidden), dhidden.sum(axis=0)
        dpool = dhidden.dot(W2.T).reshape(pool.shape)
        dwindows = dpool[..., None] * (winner[..., None] == np.arange(4))
        dact = dwindows.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5)
        grads["W1"], grads["b1"] = self.conv_backward(
            dact.reshape(act.shape) * (conv > 0), W1, wrong
        )
        for name in ("W1", "W2", "W3"):
            grads[name] += (2 if wrong == "reg" else 1) * self.reg * self.params[name]
        if wrong == "reg on biases":
            for name in ("b1", "b2", "b3"):
                grads[name] += self.reg * self.params[name]
        return data_loss + reg_loss, grads


def create(parameters):
    return ThreeLayerConvNet(
        {
            "W1": parameters["conv1.weight"].copy(), "b1": parameters["conv1.bias"].copy(),
            "W2": parameters["dense1.weight"].T.copy(), "b2": parameters["dense1.bias"].copy(),
            "W3": parameters["dense2.weight"].T.copy(), "b3": parameters["dense2.bias"].copy(),
        },
        REG,
    )  # fmt: skip


def step(model, X, y, wrong=""):
    _, grads = model.loss(X, y, wrong)
    for p in model.params:
        model.params[p] -= OPTIONS["lr"] * grads[p]


def read(model):
    p = model.params
    return {
        "conv1.weight": p["W1"], "conv1.bias": p["b1"],
        "dense1.weight": p["W2"].T, "dense1.bias": p["b2"],
        "dense2.weight": p["W3"].T, "dense2.bias": p["b3"],
    }  # fmt: skip
