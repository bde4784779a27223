"""LeNet's tanh and average pooling in a class, with velocities for momentum; float all along.

The first step from velocities of zero is a plain one.

"z": tanh's slope is 1 - z^2 of its input and not of its output. "sigmoid": tanh goes back by the
sigmoid's slope a (1 - a). "spread": the average pool hands the whole delta to every cell.
"""

import numpy as np

ARCHITECTURE = (
    "conv3(kernel_size=5, padding=2) tanh avgpool conv4(kernel_size=3, padding=valid) tanh avgpool "
    "flatten dense8 tanh dense5"
)
INPUT_SHAPE = (1, 12, 16)
OPTIONS = {"lr": 0.1}
MISTAKES = {
    "z": ("tanh3", "wrong-cached-input", "next delta"),
    "sigmoid": ("tanh3", None, "next delta"),
    "spread": ("avgpool2", "pool-spread", "next delta"),
}


class Layer:
    def __init__(self, weights, bias):
        self.weights, self.bias = weights, bias
        self.v_weights, self.v_bias = np.zeros_like(weights), np.zeros_like(bias)

    def update(self, eta, mu):
        self.v_weights = mu * self.v_weights - eta * self.d_weights
        self.v_bias = mu * self.v_bias - eta * self.d_bias
        self.weights = self.weights + self.v_weights
        self.bias = self.bias + self.v_bias


class Convolution(Layer):
    def __init__(self, weights, bias, pad):
        super().__init__(weights, bias)
        self.pad = pad

    def fprop(self, x):
        p = self.pad
        self.x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        size = self.weights.shape[-1]
        rows, columns = self.x.shape[2] - size + 1, self.x.shape[3] - size + 1
        out = np.zeros((len(x), len(self.weights), rows, columns))
        for i in range(size):
            for j in range(size):
                piece = self.x[:, :, i : i + rows, j : j + columns]
                out += np.tensordot(piece, self.weights[:, :, i, j], (1, 1)).transpose(0, 3, 1, 2)
        return out + self.bias[:, None, None]

    def bprop(self, delta):
        self.d_bias = delta.sum((0, 2, 3))
        self.d_weights = np.zeros_like(self.weights)
        dx = np.zeros_like(self.x)
        rows, columns = delta.shape[2:]
        for i in range(self.weights.shape[2]):
            for j in range(self.weights.shape[3]):
                piece = self.x[:, :, i : i + rows, j : j + columns]
                self.d_weights[:, :, i, j] = np.tensordot(delta, piece, ((0, 2, 3), (0, 2, 3)))
                share = np.tensordot(delta, self.weights[:, :, i, j], (1, 0))
                dx[:, :, i : i + rows, j : j + columns] += share.transpose(0, 3, 1, 2)
        p = self.pad
        return dx[:, :, p : dx.shape[2] - p, p : dx.shape[3] - p]


class Full(Layer):
    def fprop(self, x):
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        return self.x @ self.weights.T + self.bias

    def bprop(self, delta):
        self.d_weights, self.d_bias = delta.T @ self.x, delta.sum(0)
        return (delta @ self.weights).reshape(self.shape)


class Tanh:
    def fprop(self, z):
        self.z, self.a = z, np.tanh(z)
        return self.a

    def bprop(self, delta, wrong):
        if wrong == "z":
            return delta * (1 - self.z**2)
        if wrong == "sigmoid":
            return delta * self.a * (1 - self.a)
        return delta * (1 - self.a**2)


class Mean:
    def fprop(self, x):
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))

    def bprop(self, delta, wrong):
        whole = delta.repeat(2, 2).repeat(2, 3)
        return whole if wrong == "spread" else whole / 4


class LeNet:
    def __init__(self, c1, c3, f5, out):
        self.c1, self.c3, self.f5, self.out = c1, c3, f5, out
        self.t1, self.t3, self.t5, self.s2, self.s4 = Tanh(), Tanh(), Tanh(), Mean(), Mean()

    def train_batch(self, x, y, eta, mu, wrong):
        h = self.s2.fprop(self.t1.fprop(self.c1.fprop(x)))
        h = self.s4.fprop(self.t3.fprop(self.c3.fprop(h)))
        o = self.out.fprop(self.t5.fprop(self.f5.fprop(h)))
        e = np.exp(o - o.max(1)[:, None])
        delta = e / e.sum(1)[:, None]
        delta[range(len(y)), y] -= 1
        delta = self.f5.bprop(self.t5.bprop(self.out.bprop(delta / len(y)), wrong))
        delta = self.c3.bprop(self.t3.bprop(self.s4.bprop(delta, wrong), wrong))
        self.c1.bprop(self.t1.bprop(self.s2.bprop(delta, wrong), wrong))
        for layer in (self.c1, self.c3, self.f5, self.out):
            layer.update(eta, mu)


def create(parameters):
    w = [p.copy() for p in parameters.values()]
    return LeNet(Convolution(*w[:2], 2), Convolution(*w[2:4], 0), Full(*w[4:6]), Full(*w[6:8]))


def step(net, x, y, wrong=""):
    net.train_batch(x, y, OPTIONS["lr"], 0.9, wrong)


def read(net):
    layers = {"conv1": net.c1, "conv2": net.c3, "dense1": net.f5, "dense2": net.out}
    return {
        f"{name}.{kind}": array
        for name, layer in layers.items()
        for kind, array in (("weight", layer.weights), ("bias", layer.bias))
    }
