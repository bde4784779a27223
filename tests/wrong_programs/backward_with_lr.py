"""Batches through ``layer.backward(grad, lr)``, which updates at once; a list of such layers.

Dense weights are (in, out). The mean over the batch is taken in every layer's update.

"updated": the dense layer updates before it computes the gradient that it returns. "twice": the
loss divides by the batch's size and every layer does so again. "pool": the winners' mask is that of
the batch before (computed for the images in reverse).
"""

import numpy as np

ARCHITECTURE = "conv4(padding=valid) relu pool flatten dense6 relu dense4"
INPUT_SHAPE = (1, 10, 8)
OPTIONS = {"lr": 0.5}
MISTAKES = {
    "updated": ("dense2", "weights-updated-early", "next delta"),
    "twice": ("loss", "batch-scale", "first delta"),
    "pool": ("pool1", None, "next delta"),
}


class Conv:
    def __init__(self, kernels, bias):
        self.kernels, self.bias = kernels, bias

    def forward(self, x):
        self.x = x
        n, _, h, w = x.shape
        out = np.zeros((n, len(self.kernels), h - 2, w - 2))
        for i in range(h - 2):
            for j in range(w - 2):
                patch = x[:, None, :, i : i + 3, j : j + 3]
                out[:, :, i, j] = np.sum(patch * self.kernels, axis=(2, 3, 4)) + self.bias
        return out

    def backward(self, grad, lr, wrong):
        d_kernels = np.zeros(self.kernels.shape)
        _, _, h, w = grad.shape
        for i in range(h):
            for j in range(w):
                patch = self.x[:, None, :, i : i + 3, j : j + 3]
                d_kernels += np.sum(grad[:, :, i, j][..., None, None, None] * patch, axis=0)
        self.kernels -= lr * d_kernels / len(grad)
        self.bias -= lr * grad.sum(axis=(0, 2, 3)) / len(grad)


class ReLU:
    def forward(self, x):
        self.mask = x > 0
        return x * self.mask

    def backward(self, grad, lr, wrong):
        return grad * self.mask


class MaxPool:
    def forward(self, x):
        n, c, h, w = x.shape
        self.shape = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
        blocks = blocks.reshape(n, c, h // 2, w // 2, 4)
        self.mask = blocks.argmax(axis=4)[..., None] == np.arange(4)
        return blocks.max(axis=4)

    def backward(self, grad, lr, wrong):
        n, c, h, w = self.shape
        mask = np.roll(self.mask, 1, axis=0) if wrong == "pool" else self.mask
        blocks = (mask * grad[..., None]).reshape(n, c, h // 2, w // 2, 2, 2)
        return blocks.transpose(0, 1, 2, 4, 3, 5).reshape(self.shape)


class Flatten:
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad, lr, wrong):
        return grad.reshape(self.shape)


class Dense:
    def __init__(self, weights, bias):
        self.weights, self.bias = weights, bias

    def forward(self, x):
        self.x = x
        return x @ self.weights + self.bias

    def backward(self, grad, lr, wrong):
        back = grad @ self.weights.T
        self.weights -= lr * self.x.T @ grad / len(grad)
        self.bias -= lr * grad.sum(axis=0) / len(grad)
        return grad @ self.weights.T if wrong == "updated" else back


class Sequential:
    def __init__(self, layers):
        self.layers = layers

    def train_on_batch(self, x, y, lr, wrong):
        for layer in self.layers:
            x = layer.forward(x)
        e = np.exp(x - x.max(axis=1, keepdims=True))
        grad = e / e.sum(axis=1, keepdims=True) - np.eye(x.shape[1])[y]
        if wrong == "twice":
            grad /= len(x)
        for layer in reversed(self.layers):
            grad = layer.backward(grad, lr, wrong)


def create(parameters):
    p = {name: array.copy() for name, array in parameters.items()}
    return Sequential(
        [
            Conv(p["conv1.weight"], p["conv1.bias"]),
            ReLU(),
            MaxPool(),
            Flatten(),
            Dense(p["dense1.weight"].T.copy(), p["dense1.bias"]),
            ReLU(),
            Dense(p["dense2.weight"].T.copy(), p["dense2.bias"]),
        ]
    )


def step(model, x, y, wrong=""):
    model.train_on_batch(x, y, OPTIONS["lr"], wrong)


def read(model):
    conv, first, second = model.layers[0], model.layers[4], model.layers[6]
    return {
        "conv1.weight": conv.kernels, "conv1.bias": conv.bias,
        "dense1.weight": first.weights.T, "dense1.bias": first.bias,
        "dense2.weight": second.weights.T, "dense2.bias": second.bias,
    }  # fmt: skip
