"""A textbook's class: column vectors, (x, y) pairs, lists of nabla_b and nabla_w, sigmoids.

The mistake: the filters' nablas of the images replace each other where those of the dense layers
add up.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) sigmoid avgpool flatten dense5 sigmoid dense4"
INPUT_SHAPE = (1, 6, 8)
MISTAKES = (("conv1", "last-sample-only"),)
NAMES = {
    "gradients": {
        "nabla_f": "conv1.weight", "nabla_c": "conv1.bias",
        "nabla_w[0]": "dense1.weight", "nabla_b[0]": "dense1.bias",
        "nabla_w[1]": "dense2.weight", "nabla_b[1]": "dense2.bias",
    },
    "deltas": {},
    "activations": {},
}  # fmt: skip


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z):
    return sigmoid(z) * (1 - sigmoid(z))


class Network:
    def __init__(self, filters, filter_biases, weights, biases):
        self.filters = filters
        self.filter_biases = filter_biases
        self.weights = weights
        self.biases = biases

    def feature_maps(self, x):
        h, w = x.shape
        zs = np.zeros((len(self.filters), h - 2, w - 2))
        for f, c, z in zip(self.filters, self.filter_biases, zs, strict=True):
            for j in range(h - 2):
                for k in range(w - 2):
                    z[j, k] = np.vdot(f, x[j : j + 3, k : k + 3]) + c
        return zs

    def backprop(self, x, y):
        """Return (nabla_f, nabla_c, nabla_b, nabla_w, cost, a) for one (x, y)."""
        # feedforward
        map_zs = self.feature_maps(x)
        maps = sigmoid(map_zs)
        pooled = (
            maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]
        ) / 4
        activation = pooled.reshape(-1, 1)
        activations = [activation]  # list to store all the activations, layer by layer
        zs = []  # list to store all the z vectors, layer by layer
        for b, w in zip(self.biases, self.weights, strict=True):
            z = np.dot(w, activation) + b
            zs.append(z)
            activation = sigmoid(z)
            activations.append(activation)
        # the last layer is a softmax layer
        a = np.exp(zs[-1]) / np.sum(np.exp(zs[-1]))
        cost = -np.log(a[y.argmax()]).item()

        # backward pass
        delta = a - y
        nabla_b = [None, delta]
        nabla_w = [None, np.dot(delta, activations[-2].transpose())]
        delta = np.dot(self.weights[1].transpose(), delta) * sigmoid_prime(zs[0])
        nabla_b[0] = delta
        nabla_w[0] = np.dot(delta, activations[0].transpose())
        delta = np.dot(self.weights[0].transpose(), delta).reshape(pooled.shape)
        # every cell of a 2x2 field has a quarter of the pooled value
        delta = np.repeat(np.repeat(delta, 2, axis=1), 2, axis=2) / 4
        delta = delta * sigmoid_prime(map_zs)
        nabla_f = np.zeros(self.filters.shape)
        for m in range(len(self.filters)):
            for j in range(3):
                for k in range(3):
                    field = x[j : j + delta.shape[1], k : k + delta.shape[2]]
                    nabla_f[m, j, k] = np.sum(delta[m] * field)
        nabla_c = delta.sum(axis=(1, 2))
        return nabla_f, nabla_c, nabla_b, nabla_w, cost, a

    def mini_batch_nablas(self, mini_batch, wrong):
        nabla_f = np.zeros(self.filters.shape)
        nabla_c = np.zeros(self.filter_biases.shape)
        nabla_b = [np.zeros(b.shape) for b in self.biases]
        nabla_w = [np.zeros(w.shape) for w in self.weights]
        cost, outputs = 0, []
        for x, y in mini_batch:
            delta_f, delta_c, delta_nabla_b, delta_nabla_w, c, a = self.backprop(x, y)
            nabla_b = [nb + dnb for nb, dnb in zip(nabla_b, delta_nabla_b, strict=True)]
            nabla_w = [nw + dnw for nw, dnw in zip(nabla_w, delta_nabla_w, strict=True)]
            if wrong:
                nabla_f, nabla_c = delta_f, delta_c
            else:
                nabla_f, nabla_c = nabla_f + delta_f, nabla_c + delta_c
            cost += c
            outputs.append(a)
        n = len(mini_batch)
        nablas = {"nabla_f": nabla_f / n, "nabla_c": nabla_c / n}
        for layer in range(2):
            nablas[f"nabla_w[{layer}]"] = nabla_w[layer] / n
            nablas[f"nabla_b[{layer}]"] = nabla_b[layer] / n
        return cost / n, nablas, np.hstack(outputs)


def vectorized_result(label):
    e = np.zeros((4, 1))
    e[label] = 1.0
    return e


def run(parameters, x, y, wrong=True):
    net = Network(
        parameters["conv1.weight"][:, 0],
        parameters["conv1.bias"],
        [parameters["dense1.weight"], parameters["dense2.weight"]],
        [parameters["dense1.bias"][:, None], parameters["dense2.bias"][:, None]],
    )
    mini_batch = [
        (image, vectorized_result(label)) for image, label in zip(x[:, 0], y, strict=True)
    ]
    cost, nablas, outputs = net.mini_batch_nablas(mini_batch, wrong)
    return {
        "loss": cost,
        "gradients": nablas,
        "deltas": {},
        "activations": {},
        "probabilities": outputs,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["conv1.weight"] = grads["conv1.weight"][:, None]
    for name in ("dense1.bias", "dense2.bias"):
        grads[name] = grads[name].ravel()
    return grads
