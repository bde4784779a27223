"""A textbook's first network with a convolution: sigmoids everywhere, the quadratic cost.

The cost is 1 / 2 |a - y|^2, averaged over the mini batch; y is one-hot. Images one at a time, as
columns where they are flat; weights and biases in lists.

"no slope": the output's delta is a - y, as for the cross-entropy. "slope of a": sigmoid_prime is
given the activation.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) sigmoid avgpool flatten dense6 sigmoid dense4 sigmoid"
INPUT_SHAPE = (1, 8, 10)
LOSS = "MeanSquaredError"
FACTOR = 2.0  # outputs / 2: 1 / 2 sum of squares, where fullback takes the mean over 4 outputs
OPTIONS = {"lr": 3.0}
MISTAKES = {
    "no slope": ("sigmoid3", None, "next delta"),
    "slope of a": ("sigmoid3", "wrong-cached-input", "next delta"),
}


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z):
    return sigmoid(z) * (1 - sigmoid(z))


class Network:
    def __init__(self, weights, biases):
        self.weights, self.biases = weights, biases

    def backprop(self, x, y, wrong):
        prime = (lambda z: sigmoid_prime(sigmoid(z))) if wrong == "slope of a" else sigmoid_prime
        kernels, W1, W2 = self.weights
        c, b1, b2 = self.biases
        rows, columns = x.shape[0] - 2, x.shape[1] - 2
        z0 = np.zeros((3, rows, columns))
        for r, s in np.ndindex(3, 3):
            z0 += kernels[:, r, s, None, None] * x[r : r + rows, s : s + columns]
        z0 += c[:, :, None]
        maps = sigmoid(z0)
        pooled = maps.reshape(3, rows // 2, 2, columns // 2, 2).mean(axis=(2, 4))
        a0 = pooled.reshape(-1, 1)
        z1 = W1 @ a0 + b1
        a1 = sigmoid(z1)
        z2 = W2 @ a1 + b2
        a2 = sigmoid(z2)
        delta2 = a2 - y
        if wrong != "no slope":
            delta2 = delta2 * prime(z2)
        delta1 = (W2.T @ delta2) * prime(z1)
        delta0 = (W1.T @ delta1).reshape(pooled.shape)
        delta0 = np.kron(delta0, np.ones((2, 2)) / 4) * prime(z0)
        nabla_k = np.zeros(kernels.shape)
        for r, s in np.ndindex(3, 3):
            nabla_k[:, r, s] = (delta0 * x[r : r + rows, s : s + columns]).sum(axis=(1, 2))
        return (
            [nabla_k, delta1 @ a0.T, delta2 @ a1.T],
            [delta0.sum(axis=(1, 2)).reshape(-1, 1), delta1, delta2],
        )

    def update_mini_batch(self, mini_batch, eta, wrong):
        nabla_b = [np.zeros(b.shape) for b in self.biases]
        nabla_w = [np.zeros(w.shape) for w in self.weights]
        for x, y in mini_batch:
            delta_nabla_w, delta_nabla_b = self.backprop(x, y, wrong)
            nabla_b = [nb + dnb for nb, dnb in zip(nabla_b, delta_nabla_b, strict=True)]
            nabla_w = [nw + dnw for nw, dnw in zip(nabla_w, delta_nabla_w, strict=True)]
        n = len(mini_batch)
        self.weights = [w - eta / n * nw for w, nw in zip(self.weights, nabla_w, strict=True)]
        self.biases = [b - eta / n * nb for b, nb in zip(self.biases, nabla_b, strict=True)]


def create(parameters):
    p = parameters
    return Network(
        [p["conv1.weight"][:, 0].copy(), p["dense1.weight"].copy(), p["dense2.weight"].copy()],
        [p[f"{name}.bias"].reshape(-1, 1).copy() for name in ("conv1", "dense1", "dense2")],
    )


def vectorized_result(j):
    e = np.zeros((4, 1))
    e[j] = 1.0
    return e


def step(net, x, y, wrong=""):
    mini_batch = [(image[0], vectorized_result(j)) for image, j in zip(x, y, strict=True)]
    net.update_mini_batch(mini_batch, OPTIONS["lr"], wrong)


def read(net):
    names = ("conv1", "dense1", "dense2")
    arrays = {}
    for name, w, b in zip(names, net.weights, net.biases, strict=True):
        arrays[f"{name}.weight"] = w[:, None] if name == "conv1" else w
        arrays[f"{name}.bias"] = b.ravel()
    return arrays
