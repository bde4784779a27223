"""Objects all the way down: a Filter has a kernel and a bias, a Neuron weights and a bias.

One image at a time; each object learns by itself, from the delta that its layer hands it.

"last filter": of the filters' shares in the next delta only the last one's is left. "shared": every
filter learns from the delta of the first. "swapped": the winner's row and column are exchanged.
"""

import numpy as np

ARCHITECTURE = "conv2 relu pool conv4(padding=valid) relu flatten dense3"
INPUT_SHAPE = (2, 10, 8)
ONE_IMAGE = True
RATE = 0.1
OPTIONS = {"lr": RATE}
MISTAKES = {
    "last filter": ("conv2", "filter-sum-lost", "next delta"),
    "shared": ("conv1", None, "weight gradient"),
    "swapped": ("pool1", None, "next delta"),
}


class Filter:
    def __init__(self, kernel, bias):
        self.kernel = kernel
        self.bias = bias

    def look(self, maps):
        self.maps = maps
        _, h, w = maps.shape
        out = np.full((h - 2, w - 2), float(self.bias))
        for i, j in np.ndindex(out.shape):
            out[i, j] += (maps[:, i : i + 3, j : j + 3] * self.kernel).sum()
        return out

    def learn(self, delta):
        back, gradient = np.zeros(self.maps.shape), np.zeros(self.kernel.shape)
        for i, j in np.ndindex(delta.shape):
            gradient += delta[i, j] * self.maps[:, i : i + 3, j : j + 3]
            back[:, i : i + 3, j : j + 3] += delta[i, j] * self.kernel
        self.kernel = self.kernel - RATE * gradient
        self.bias = self.bias - RATE * delta.sum()
        return back


class FilterBank:
    def __init__(self, filters, pad, wrong=""):
        self.filters, self.pad, self.wrong = filters, pad, wrong

    def forward(self, maps):
        p = self.pad
        padded = np.pad(maps, ((0, 0), (p, p), (p, p)))
        self.fields = np.array([one.look(padded) for one in self.filters])
        return np.maximum(self.fields, 0)

    def backward(self, delta):
        delta = np.where(self.fields > 0, delta, 0)
        if self.wrong == "shared" and self.pad:
            shares = [one.learn(delta[0]) for one in self.filters]
        else:
            shares = [one.learn(d) for one, d in zip(self.filters, delta, strict=True)]
        total = shares[-1] if self.wrong == "last filter" else sum(shares)
        p = self.pad
        return total[:, p:-p, p:-p] if p else total


class Pool:
    def __init__(self, wrong=""):
        self.wrong = wrong

    def forward(self, maps):
        self.maps = maps
        c, h, w = maps.shape
        out = np.zeros((c, h // 2, w // 2))
        self.winners = {}
        for k, i, j in np.ndindex(out.shape):
            window = maps[k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            r, s = np.unravel_index(np.argmax(window), (2, 2))
            out[k, i, j] = window[r, s]
            self.winners[k, i, j] = (s, r) if self.wrong == "swapped" else (r, s)
        return out

    def backward(self, delta):
        back = np.zeros(self.maps.shape)
        for (k, i, j), (r, s) in self.winners.items():
            back[k, 2 * i + r, 2 * j + s] += delta[k, i, j]
        return back


class Neuron:
    def __init__(self, weights, bias):
        self.weights = weights
        self.bias = bias

    def fire(self, inputs):
        self.inputs = inputs
        return self.weights @ inputs + self.bias

    def learn(self, delta):
        back = delta * self.weights
        self.weights = self.weights - RATE * delta * self.inputs
        self.bias = self.bias - RATE * delta
        return back


class Brain:
    def __init__(self, first, second, neurons):
        self.first, self.pool, self.second = FilterBank(first, 1), Pool(), FilterBank(second, 0)
        self.neurons = neurons

    def see(self, image, label):
        maps = self.second.forward(self.pool.forward(self.first.forward(image)))
        scores = np.array([neuron.fire(maps.ravel()) for neuron in self.neurons])
        p = np.exp(scores - scores.max())
        p /= p.sum()
        p[label] -= 1
        delta = sum(neuron.learn(d) for neuron, d in zip(self.neurons, p, strict=True))
        self.first.backward(self.pool.backward(self.second.backward(delta.reshape(maps.shape))))


def create(parameters):
    p = {name: array.copy() for name, array in parameters.items()}

    def pairs(kind, name):
        rows = zip(p[f"{name}.weight"], p[f"{name}.bias"], strict=True)
        return [kind(w.copy(), float(b)) for w, b in rows]

    return Brain(pairs(Filter, "conv1"), pairs(Filter, "conv2"), pairs(Neuron, "dense1"))


def step(brain, image, label, wrong=""):
    brain.first.wrong = brain.second.wrong = brain.pool.wrong = wrong
    brain.see(np.asarray(image), label)


def read(brain):
    def stacked(name, objects, attribute):
        return {
            f"{name}.weight": np.array([getattr(one, attribute) for one in objects]),
            f"{name}.bias": np.array([one.bias for one in objects]),
        }

    return {
        **stacked("conv1", brain.first.filters, "kernel"),
        **stacked("conv2", brain.second.filters, "kernel"),
        **stacked("dense1", brain.neurons, "weights"),
    }
