"""Classes with Keras' names and layouts: images (N, H, W, C), kernels (R, S, C, K).

Dense kernels are (in, out). The mistake: the einsum for the convolutions' kernel gradients has the
letters of rows and columns swapped.
"""

import numpy as np

ARCHITECTURE = "conv3 relu pool conv2 relu pool flatten dense5 relu dense4"
INPUT_SHAPE = (2, 8, 4)
MISTAKES = (("conv2", "rows-columns-swapped"), ("conv1", "rows-columns-swapped"))
NAMES = {
    "gradients": {
        "conv2d/kernel": "conv1.weight", "conv2d/bias": "conv1.bias",
        "conv2d_1/kernel": "conv2.weight", "conv2d_1/bias": "conv2.bias",
        "dense/kernel": "dense1.weight", "dense/bias": "dense1.bias",
        "dense_1/kernel": "dense2.weight", "dense_1/bias": "dense2.bias",
    },
    "deltas": {"conv2d": "conv1", "conv2d_1": "conv2", "dense": "dense1", "dense_1": "dense2"},
    "activations": {"conv2d": "conv1", "conv2d_1": "conv2", "dense": "dense1", "dense_1": "dense2"},
}  # fmt: skip


class Conv2D:
    def __init__(self, kernel, bias, wrong):
        self.kernel, self.bias, self.wrong = kernel, bias, wrong

    def patches(self, x):
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        size = self.kernel.shape[:2]
        return np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))  # n p q c r s

    def __call__(self, x):
        self.seen = self.patches(x)
        return np.einsum("npqcrs,rsck->npqk", self.seen, self.kernel) + self.bias

    def backward(self, dy):
        self.dbias = dy.sum(axis=(0, 1, 2))
        if self.wrong:
            self.dkernel = np.einsum("npqcrs,npqk->srck", self.seen, dy)
        else:
            self.dkernel = np.einsum("npqcrs,npqk->rsck", self.seen, dy)
        flipped = self.kernel[::-1, ::-1]
        return np.einsum("npqkrs,rsck->npqc", self.patches(dy), flipped)


class MaxPooling2D:
    def __call__(self, x):
        n, h, w, c = x.shape
        blocks = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
        self.shape = blocks.shape
        blocks = blocks.reshape(*blocks.shape[:4], 4)
        self.winner = blocks.argmax(axis=-1)
        return blocks.max(axis=-1)

    def backward(self, dy):
        blocks = np.eye(4)[self.winner] * dy[..., None]
        n, p, q, c = dy.shape
        blocks = blocks.reshape(self.shape).transpose(0, 1, 4, 2, 5, 3)
        return blocks.reshape(n, 2 * p, 2 * q, c)


class ReLU:
    def __call__(self, x):
        self.on = x > 0
        return x * self.on

    def backward(self, dy):
        return dy * self.on


class Flatten:
    def __call__(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy):
        return dy.reshape(self.shape)


class Dense:
    def __init__(self, kernel, bias):
        self.kernel, self.bias = kernel, bias

    def __call__(self, x):
        self.x = x
        return x @ self.kernel + self.bias

    def backward(self, dy):
        self.dkernel = self.x.T @ dy
        self.dbias = dy.sum(axis=0)
        return dy @ self.kernel.T


def hwc_rows(weight):
    """(out, C * H * W) to (H * W * C, out), for maps of 2 channels, 2 rows and 1 column."""
    return weight.reshape(-1, 2, 2, 1).transpose(2, 3, 1, 0).reshape(4, -1)


def run(parameters, x, y, wrong=True):
    def kernel(name):
        return parameters[f"{name}.weight"].transpose(2, 3, 1, 0)

    named = {
        "conv2d": Conv2D(kernel("conv1"), parameters["conv1.bias"], wrong),
        "conv2d_1": Conv2D(kernel("conv2"), parameters["conv2.bias"], wrong),
        "dense": Dense(hwc_rows(parameters["dense1.weight"]), parameters["dense1.bias"]),
        "dense_1": Dense(parameters["dense2.weight"].T, parameters["dense2.bias"]),
    }
    model = [
        ("conv2d", named["conv2d"]),
        ("activation", ReLU()),
        ("max_pooling2d", MaxPooling2D()),
        ("conv2d_1", named["conv2d_1"]),
        ("activation_1", ReLU()),
        ("max_pooling2d_1", MaxPooling2D()),
        ("flatten", Flatten()),
        ("dense", named["dense"]),
        ("activation_2", ReLU()),
        ("dense_1", named["dense_1"]),
    ]
    out = x.transpose(0, 2, 3, 1)
    outputs, output_gradients = {}, {}
    for name, layer in model:
        out = layer(out)
        if name in named:
            outputs[name] = out

    probabilities = np.exp(out) / np.exp(out).sum(axis=-1, keepdims=True)
    y_true = np.eye(4)[y]
    loss = -(y_true * np.log(probabilities)).sum(axis=-1).mean()

    grad = (probabilities - y_true) / len(x)
    for name, layer in reversed(model):
        if name in named:
            output_gradients[name] = grad
        grad = layer.backward(grad)

    gradients = {}
    for name, layer in named.items():
        gradients[f"{name}/kernel"] = layer.dkernel
        gradients[f"{name}/bias"] = layer.dbias
    return {
        "loss": loss,
        "gradients": gradients,
        "deltas": output_gradients,
        "activations": outputs,
        "probabilities": probabilities,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["conv1.weight"] = grads["conv1.weight"].transpose(3, 2, 0, 1)
    grads["conv2.weight"] = grads["conv2.weight"].transpose(3, 2, 0, 1)
    grads["dense1.weight"] = (
        grads["dense1.weight"].reshape(2, 1, 2, 5).transpose(3, 2, 0, 1).reshape(5, 4)
    )
    grads["dense2.weight"] = grads["dense2.weight"].T
    return grads
