"""A list of layer objects, each with ``params``, ``grads`` and whatever it remembers.

The mistake: one ReLU object stands at two places of the list, so the second forward call replaces
what the first one remembered. Their inputs have the same shape, and nothing fails.
"""

import numpy as np

ARCHITECTURE = "conv3 relu conv3 relu pool flatten dense4"
INPUT_SHAPE = (2, 6, 4)
MISTAKES = (("relu1", "cache-overwritten"),)
NAMES = {
    "gradients": {
        "conv_a.W": "conv1.weight", "conv_a.b": "conv1.bias",
        "conv_b.W": "conv2.weight", "conv_b.b": "conv2.bias",
        "out.W": "dense1.weight", "out.b": "dense1.bias",
    },
    "deltas": {"conv_a": "conv1", "conv_b": "conv2", "out": "dense1"},
    "activations": {"conv_a": "conv1", "conv_b": "conv2", "out": "dense1"},
}  # fmt: skip


class Layer:
    def __init__(self, name=None, **params):
        self.name = name
        self.params = params
        self.grads = {}


class Conv(Layer):
    """3x3 and zero padding, by nine shifted copies of the input."""

    def shifts(self, x):
        H, W = x.shape[2:]
        padded = np.zeros((*x.shape[:2], H + 2, W + 2))
        padded[:, :, 1:-1, 1:-1] = x
        return [(r, s, padded[:, :, r : r + H, s : s + W]) for r in range(3) for s in range(3)]

    def forward(self, x):
        self.inputs = x
        W, b = self.params["W"], self.params["b"]
        y = np.zeros((x.shape[0], W.shape[0], *x.shape[2:]))
        for r, s, shifted in self.shifts(x):
            for k in range(W.shape[0]):
                for c in range(W.shape[1]):
                    y[:, k] += W[k, c, r, s] * shifted[:, c]
        return y + b[None, :, None, None]

    def backward(self, dy):
        W = self.params["W"]
        dW = np.zeros_like(W)
        for r, s, shifted in self.shifts(self.inputs):
            for k in range(W.shape[0]):
                for c in range(W.shape[1]):
                    dW[k, c, r, s] = np.vdot(shifted[:, c], dy[:, k])
        dx = np.zeros_like(self.inputs)
        for r, s, shifted in self.shifts(dy):
            for k in range(W.shape[0]):
                for c in range(W.shape[1]):
                    dx[:, c] += W[k, c, 2 - r, 2 - s] * shifted[:, k]
        self.grads = {"W": dW, "b": dy.sum((0, 2, 3))}
        return dx


class ReLU(Layer):
    def forward(self, x):
        self.active = x > 0
        return np.where(self.active, x, 0.0)

    def backward(self, dy):
        return np.where(self.active, dy, 0.0)


class MaxPool(Layer):
    def forward(self, x):
        N, C, H, W = x.shape
        self.blocks = [
            (slice(i, i + 2), slice(j, j + 2)) for i in range(0, H, 2) for j in range(0, W, 2)
        ]
        self.inputs = x
        y = np.stack([x[:, :, i, j].max(axis=(2, 3)) for i, j in self.blocks], axis=2)
        return y.reshape(N, C, H // 2, W // 2)

    def backward(self, dy):
        N, C = dy.shape[:2]
        dy = dy.reshape(N, C, -1)
        dx = np.zeros_like(self.inputs)
        for number, (i, j) in enumerate(self.blocks):
            block = self.inputs[:, :, i, j].reshape(N, C, 4)
            first = block.argmax(axis=2)[..., None] == np.arange(4)
            dx[:, :, i, j] = (first * dy[:, :, number, None]).reshape(N, C, 2, 2)
        return dx


class Linear(Layer):
    def forward(self, x):
        self.shape = x.shape
        self.inputs = x.reshape(x.shape[0], -1)
        return self.inputs @ self.params["W"].T + self.params["b"]

    def backward(self, dy):
        self.grads = {"W": dy.T @ self.inputs, "b": dy.sum(0)}
        return (dy @ self.params["W"]).reshape(self.shape)


class CrossEntropy:
    def __call__(self, scores, labels):
        self.labels = labels
        scores = scores - scores.max(1, keepdims=True)
        self.p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        return -np.mean(np.log(self.p[range(len(labels)), labels]))

    def backward(self):
        d = self.p.copy()
        d[range(len(d)), self.labels] -= 1
        return d / len(d)


def run(parameters, x, y, wrong=True):
    relu = ReLU()
    model = [
        Conv("conv_a", W=parameters["conv1.weight"], b=parameters["conv1.bias"]),
        relu,
        Conv("conv_b", W=parameters["conv2.weight"], b=parameters["conv2.bias"]),
        relu if wrong else ReLU(),
        MaxPool(),
        Linear("out", W=parameters["dense1.weight"], b=parameters["dense1.bias"]),
    ]
    loss_function = CrossEntropy()
    activations, deltas = {}, {}
    out = x
    for layer in model:
        out = layer.forward(out)
        if layer.name:
            activations[layer.name] = out
    loss = loss_function(out, y)
    d = loss_function.backward()
    for layer in reversed(model):
        if layer.name:
            deltas[layer.name] = d
        d = layer.backward(d)
    gradients = {
        f"{layer.name}.{key}": grad for layer in model for key, grad in layer.grads.items()
    }
    return {
        "loss": loss,
        "gradients": gradients,
        "deltas": deltas,
        "activations": activations,
        "probabilities": loss_function.p,
    }


def to_fullback(result):
    return {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
