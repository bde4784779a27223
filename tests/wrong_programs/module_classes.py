"""PyTorch's names and layouts: ``features`` and ``classifier``, ``Parameter.grad``, an optimizer.

The mistake: ``zero_grad`` is not called. The gradients are those of the second iteration. The first
one has learning rate 0, as a warm-up begins, so both see the same weights.
"""

import numpy as np

ARCHITECTURE = "conv3 relu pool conv4 relu pool flatten dense5 relu dense3"
INPUT_SHAPE = (2, 8, 4)
MISTAKES = (
    ("dense2", "gradients-not-cleared"),
    ("dense1", "gradients-not-cleared"),
    ("conv2", "gradients-not-cleared"),
    ("conv1", "gradients-not-cleared"),
)
NAMES = {
    "gradients": {
        "features.0.weight": "conv1.weight", "features.0.bias": "conv1.bias",
        "features.3.weight": "conv2.weight", "features.3.bias": "conv2.bias",
        "classifier.0.weight": "dense1.weight", "classifier.0.bias": "dense1.bias",
        "classifier.2.weight": "dense2.weight", "classifier.2.bias": "dense2.bias",
    },
    "deltas": {},
    "activations": {"features": "pool2", "logits": "dense2"},
}  # fmt: skip


class Parameter:
    def __init__(self, data):
        self.data = data.copy()
        self.grad = np.zeros_like(data)


class Module:
    def parameters(self, prefix=""):
        for key, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + key, value


class Conv2d(Module):
    """3x3, padding 1, on unfolded images."""

    def __init__(self, weight, bias):
        self.weight, self.bias = Parameter(weight), Parameter(bias)

    def unfold(self, x):
        n, c, h, w = x.shape
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        shifted = [x[:, :, r : r + h, s : s + w] for r in range(3) for s in range(3)]
        return np.stack(shifted, axis=2).reshape(n, c * 9, h * w)

    def fold(self, unfolded, c, h, w):
        unfolded = unfolded.reshape(-1, c, 9, h, w)
        x = np.zeros((len(unfolded), c, h + 2, w + 2))
        for tap in range(9):
            r, s = tap // 3, tap % 3
            x[:, :, r : r + h, s : s + w] += unfolded[:, :, tap]
        return x[:, :, 1:-1, 1:-1]

    def forward(self, x):
        self.input_shape = x.shape
        self.unfolded = self.unfold(x)
        kernel = self.weight.data.reshape(len(self.weight.data), -1)
        out = kernel @ self.unfolded + self.bias.data[:, None]
        return out.reshape(len(x), -1, *x.shape[2:])

    def backward(self, grad_output):
        n, k, h, w = grad_output.shape
        grad_output = grad_output.reshape(n, k, h * w)
        grad_weight = np.matmul(grad_output, self.unfolded.transpose(0, 2, 1)).sum(axis=0)
        self.weight.grad += grad_weight.reshape(self.weight.data.shape)
        self.bias.grad += grad_output.sum(axis=(0, 2))
        grad_unfolded = self.weight.data.reshape(k, -1).T @ grad_output
        return self.fold(grad_unfolded, *self.input_shape[1:])


class Linear(Module):
    def __init__(self, weight, bias):
        self.weight, self.bias = Parameter(weight), Parameter(bias)

    def forward(self, x):
        self.input = x
        return x @ self.weight.data.T + self.bias.data

    def backward(self, grad_output):
        self.weight.grad += grad_output.T @ self.input
        self.bias.grad += grad_output.sum(axis=0)
        return grad_output @ self.weight.data


class ReLU(Module):
    def forward(self, x):
        self.input = x
        return x.clip(min=0)

    def backward(self, grad_output):
        return grad_output * (self.input > 0)


class MaxPool2d(Module):
    def forward(self, x):
        corners = [x[:, :, r::2, s::2] for r in (0, 1) for s in (0, 1)]
        self.shape = x.shape
        self.indices = np.argmax(corners, axis=0)
        return np.max(corners, axis=0)

    def backward(self, grad_output):
        grad_input = np.zeros(self.shape)
        for index in range(4):
            corner = grad_input[:, :, index // 2 :: 2, index % 2 :: 2]
            corner[...] = grad_output * (self.indices == index)
        return grad_input


class Sequential(Module):
    def __init__(self, *modules):
        self.modules = modules

    def parameters(self, prefix=""):
        for i, module in enumerate(self.modules):
            yield from module.parameters(f"{prefix}{i}.")

    def forward(self, x):
        for module in self.modules:
            x = module.forward(x)
        return x

    def backward(self, grad_output):
        for module in reversed(self.modules):
            grad_output = module.backward(grad_output)
        return grad_output


class Net(Module):
    def __init__(self, p):
        self.features = Sequential(
            Conv2d(p["conv1.weight"], p["conv1.bias"]),
            ReLU(),
            MaxPool2d(),
            Conv2d(p["conv2.weight"], p["conv2.bias"]),
            ReLU(),
            MaxPool2d(),
        )
        self.classifier = Sequential(
            Linear(p["dense1.weight"], p["dense1.bias"]),
            ReLU(),
            Linear(p["dense2.weight"], p["dense2.bias"]),
        )

    def named_parameters(self):
        yield from self.features.parameters("features.")
        yield from self.classifier.parameters("classifier.")

    def forward(self, x):
        self.maps = self.features.forward(x)
        return self.classifier.forward(self.maps.reshape(len(x), -1))

    def backward(self, grad_output):
        grad_output = self.classifier.backward(grad_output)
        self.features.backward(grad_output.reshape(self.maps.shape))


class Optimizer:
    def __init__(self, model):
        self.params = [param for _, param in model.named_parameters()]

    def zero_grad(self):
        for param in self.params:
            param.grad = np.zeros_like(param.data)

    def step(self, lr):
        for param in self.params:
            param.data -= lr * param.grad


def cross_entropy(logits, target):
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    rows = np.arange(len(target))
    grad_logits = probs.copy()
    grad_logits[rows, target] -= 1
    return -np.log(probs[rows, target]).mean(), grad_logits / len(target), probs


def run(parameters, x, y, wrong=True):
    model = Net(parameters)
    optimizer = Optimizer(model)
    base_lr, warmup_iterations = 0.1, 10
    for iteration in range(2):
        logits = model.forward(x)
        loss, grad_logits, probs = cross_entropy(logits, y)
        if not wrong:
            optimizer.zero_grad()
        model.backward(grad_logits)
        grads = {name: param.grad.copy() for name, param in model.named_parameters()}
        optimizer.step(base_lr * iteration / warmup_iterations)
    return {
        "loss": loss,
        "gradients": grads,
        "deltas": {},
        "activations": {"features": model.maps, "logits": logits},
        "probabilities": probs,
    }


def to_fullback(result):
    return {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
