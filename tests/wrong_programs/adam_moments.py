"""A class with Adam inside: dicts of moments, bias correction, a ``fit`` that counts its steps.

A step of Adam hides its gradient: from moments of zero every weight moves by the rate, whichever
way. What shows it is the first moment, (1 - beta1) times the gradient after one step.

"mean": the filters' bias gradient is a mean over images and positions. "last": only the last
image's gradient is left. "same": the full convolution for the next delta is done as "same".
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) relu conv3(padding=valid) relu flatten dense4"
INPUT_SHAPE = (1, 8, 7)
OPTIONS = {}
HIDES_ITS_GRADIENT = True
MISTAKES = {
    "mean": ("conv1", "bias-averaged", "bias gradient"),
    "last": ("conv2", "last-sample-only", "weight gradient"),
    "same": ("conv2", "full-convolution-cropped", "next delta"),
}


class CNN:
    def __init__(self, W, b, learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8):
        self.W, self.b = W, b
        self.alpha, self.beta1, self.beta2, self.epsilon = learning_rate, beta1, beta2, epsilon
        self.m = {"W": [0 * w for w in W], "b": [0 * b for b in b]}
        self.v = {"W": [0 * w for w in W], "b": [0 * b for b in b]}
        self.t = 0

    def correlate(self, x, w):
        rows, cols = x.shape[2] - 2, x.shape[3] - 2
        return sum(
            np.einsum("nchw,kc->nkhw", x[:, :, r : r + rows, s : s + cols], w[:, :, r, s])
            for r in range(3)
            for s in range(3)
        )

    def forward(self, x):
        self.a = [x]
        for w, b in zip(self.W[:2], self.b[:2], strict=True):
            self.a.append(np.maximum(self.correlate(self.a[-1], w) + b[:, None, None], 0))
        z = self.a[-1].reshape(len(x), -1) @ self.W[2].T + self.b[2]
        e = np.exp(z - z.max(axis=1, keepdims=True))
        self.p = e / e.sum(axis=1, keepdims=True)

    def backward(self, y, wrong):
        n = len(y)
        delta = (self.p - np.eye(4)[y]) / n
        dW, db = [0, 0, delta.T @ self.a[2].reshape(n, -1)], [0, 0, delta.sum(axis=0)]
        delta = (delta @ self.W[2]).reshape(self.a[2].shape)
        for layer in (1, 0):
            delta = delta * (self.a[layer + 1] > 0)
            x = self.a[layer]
            images = range(n - 1, n) if wrong == "last" and layer == 1 else range(n)
            dW[layer] = np.zeros(self.W[layer].shape)
            for i in images:
                for k, c in np.ndindex(*dW[layer].shape[:2]):
                    for r, s in np.ndindex(3, 3):
                        h, w = delta.shape[2:]
                        patch = x[i, c, r : r + h, s : s + w]
                        dW[layer][k, c, r, s] += (patch * delta[i, k]).sum()
            if wrong == "mean" and layer == 0:
                db[layer] = delta.mean(axis=(0, 2, 3))
            else:
                db[layer] = delta.sum(axis=(0, 2, 3))
            if layer:
                pad = np.pad(delta, ((0, 0), (0, 0), (2, 2), (2, 2)))
                w = self.W[layer].transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
                full = self.correlate(pad, w)
                if wrong == "same":
                    middle = self.correlate(pad[:, :, 1:-1, 1:-1], w)
                    full = np.zeros(full.shape)
                    full[:, :, : middle.shape[2], : middle.shape[3]] = middle
                delta = full
        return {"W": dW, "b": db}

    def fit_batch(self, x, y, wrong):
        self.forward(x)
        grads = self.backward(y, wrong)
        self.t += 1
        for kind, weights in (("W", self.W), ("b", self.b)):
            for i, g in enumerate(grads[kind]):
                self.m[kind][i] = self.beta1 * self.m[kind][i] + (1 - self.beta1) * g
                self.v[kind][i] = self.beta2 * self.v[kind][i] + (1 - self.beta2) * g**2
                m_hat = self.m[kind][i] / (1 - self.beta1**self.t)
                v_hat = self.v[kind][i] / (1 - self.beta2**self.t)
                weights[i] = weights[i] - self.alpha * m_hat / (np.sqrt(v_hat) + self.epsilon)


def create(parameters):
    p = {name: array.copy() for name, array in parameters.items()}
    names = ("conv1", "conv2", "dense1")
    return CNN([p[f"{name}.weight"] for name in names], [p[f"{name}.bias"] for name in names])


def step(model, x, y, wrong=""):
    model.fit_batch(x, y, wrong)


def gradients(model):
    """The gradients of the first step, under fullback's names."""
    found = {}
    for i, name in enumerate(("conv1", "conv2", "dense1")):
        found[f"{name}.weight"] = model.m["W"][i] / (1 - model.beta1)
        found[f"{name}.bias"] = model.m["b"][i] / (1 - model.beta1)
    return found


def read(model):
    found = {}
    for i, name in enumerate(("conv1", "conv2", "dense1")):
        found[f"{name}.weight"], found[f"{name}.bias"] = model.W[i], model.b[i]
    return found
