"""Padding "same" for kernels of any size; the gradient of each kernel cell is one line.

The mistake: where the kernel is even, the padding for the kernel's gradient has the odd row and
column before the image, and the forward pass has them behind. conv1 is 4x4; conv2 is 3x3, where the
two are the same.
"""

import numpy as np

ARCHITECTURE = "conv2(kernel_size=4) relu pool conv3 relu pool flatten dense4"
INPUT_SHAPE = (3, 8, 4)
MISTAKES = (("conv1", "weight-gradient-padding"),)
NAMES = {
    "gradients": {
        "conv1/W": "conv1.weight", "conv1/b": "conv1.bias",
        "conv2/W": "conv2.weight", "conv2/b": "conv2.bias",
        "fc/W": "dense1.weight", "fc/b": "dense1.bias",
    },
    "deltas": {"conv1": "conv1", "conv2": "conv2", "fc": "dense1"},
    "activations": {"conv1": "conv1", "conv2": "conv2", "fc": "dense1"},
}  # fmt: skip


class SameConv:
    def __init__(self, W, b):
        self.W, self.b = W, b
        self.size = W.shape[-1]
        self.before = (self.size - 1) // 2
        self.behind = self.size // 2

    def __call__(self, x):
        self.x = x
        pad = (self.before, self.behind)
        xp = np.pad(x, ((0, 0), (0, 0), pad, pad))
        n, _, h, w = x.shape
        out = np.empty((n, len(self.W), h, w))
        for p in range(h):
            for q in range(w):
                field = xp[:, None, :, p : p + self.size, q : q + self.size]
                out[:, :, p, q] = np.sum(field * self.W, axis=(2, 3, 4)) + self.b
        return out

    def gradient(self, d, wrong):
        # kernel cell (r, s) saw the image shifted by (r, s)
        h, w = d.shape[2:]
        before = self.size // 2 if wrong else self.before
        pad = (before, self.size - 1 - before)
        xp = np.pad(self.x, ((0, 0), (0, 0), pad, pad))
        dW = np.zeros(self.W.shape)
        for k, c, r, s in np.ndindex(dW.shape):
            dW[k, c, r, s] = np.sum(d[:, k] * xp[:, c, r : r + h, s : s + w])
        return dW, d.sum(axis=(0, 2, 3))

    def delta(self, d):
        h, w = d.shape[2:]
        dp = np.pad(d, ((0, 0), (0, 0), (self.behind, self.before), (self.behind, self.before)))
        turned = self.W[:, :, ::-1, ::-1]
        out = np.empty(self.x.shape)
        for p in range(h):
            for q in range(w):
                field = dp[:, :, None, p : p + self.size, q : q + self.size]
                out[:, :, p, q] = np.sum(field * turned, axis=(1, 3, 4))
        return out


def max2(x):
    return np.max(
        [x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]], axis=0
    )


def max2_back(d, x):
    back = np.zeros(x.shape)
    for index in np.ndindex(d.shape):
        *image, i, j = index
        block = x[(*image, slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))]
        r, s = divmod(int(np.argmax(block)), 2)
        back[(*image, 2 * i + r, 2 * j + s)] = d[index]
    return back


def run(parameters, x, y, wrong=True):
    conv1 = SameConv(parameters["conv1.weight"], parameters["conv1.bias"])
    conv2 = SameConv(parameters["conv2.weight"], parameters["conv2.bias"])
    fc_W, fc_b = parameters["dense1.weight"], parameters["dense1.bias"]

    z1 = conv1(x)
    r1 = np.clip(z1, 0, None)
    m1 = max2(r1)
    z2 = conv2(m1)
    r2 = np.clip(z2, 0, None)
    m2 = max2(r2)
    scores = np.inner(m2.reshape(len(x), -1), fc_W) + fc_b
    p = np.exp(scores - scores.max())
    p = p / p.sum(axis=1, keepdims=True)
    loss = -np.mean(np.log(np.choose(y, p.T)))

    d = p - (np.arange(p.shape[1]) == y[:, None])
    d /= len(x)
    grads, deltas = {}, {"fc": d}
    grads["fc/W"], grads["fc/b"] = d.T @ m2.reshape(len(x), -1), d.sum(axis=0)
    d = (d @ fc_W).reshape(m2.shape)
    d = max2_back(d, r2) * np.sign(r2)
    deltas["conv2"] = d
    grads["conv2/W"], grads["conv2/b"] = conv2.gradient(d, wrong)
    d = conv2.delta(d)
    d = max2_back(d, r1) * np.sign(r1)
    deltas["conv1"] = d
    grads["conv1/W"], grads["conv1/b"] = conv1.gradient(d, wrong)
    return {
        "loss": loss,
        "gradients": grads,
        "deltas": deltas,
        "activations": {"conv1": z1, "conv2": z2, "fc": scores},
        "probabilities": p,
    }


def to_fullback(result):
    return {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
