"""A small PyTorch: values that remember how they were made, and a tape that is played backwards.

"assigned": a value that is used twice keeps the gradient of its last use only (the logits are used
by the loss alone, but every parameter is used once an image). "not cleared": the gradients of the
step before are still there. "mask": ReLU lets gradients through by their own sign.
"""

import numpy as np

ARCHITECTURE = "conv2(padding=valid) relu conv3(padding=valid, stride=2) relu flatten dense5"
INPUT_SHAPE = (2, 9, 8)
OPTIONS = {"lr": 0.2}
MISTAKES = {
    "assigned": ("loss", "last-sample-only", "first delta"),
    "not cleared": ("loss", "gradients-not-cleared", "first delta"),
    "mask": ("relu2", "relu-mask-of-delta", "next delta"),
}


class Value:
    def __init__(self, data, parents=(), wrong=""):
        self.data = np.asarray(data, float)
        self.grad = np.zeros(self.data.shape)
        self.parents, self.wrong = parents, wrong
        self._backward = lambda: None

    def _receive(self, gradient):
        if self.wrong == "assigned":
            self.grad = gradient
        else:
            self.grad = self.grad + gradient

    def _child(self, data, *others):
        return Value(data, (self, *others), self.wrong)

    def __add__(self, other):
        out = self._child(self.data + other.data, other)

        def _backward():
            self._receive(out.grad)
            other._receive(out.grad)

        out._backward = _backward
        return out

    def __matmul__(self, vector):
        out = self._child(self.data @ vector.data, vector)

        def _backward():
            self._receive(np.outer(out.grad, vector.data))
            vector._receive(self.data.T @ out.grad)

        out._backward = _backward
        return out

    def relu(self):
        out = self._child(np.where(self.data > 0, self.data, 0))

        def _backward():
            mask = out.grad > 0 if self.wrong == "mask" else out.data > 0
            self._receive(mask * out.grad)

        out._backward = _backward
        return out

    def flatten(self):
        out = self._child(self.data.ravel())

        def _backward():
            self._receive(out.grad.reshape(self.data.shape))

        out._backward = _backward
        return out

    def correlate(self, filters, biases, stride):
        K, _, R, S = filters.data.shape
        P = (self.data.shape[1] - R) // stride + 1
        Q = (self.data.shape[2] - S) // stride + 1
        y = np.empty((K, P, Q))
        for p, q in np.ndindex(P, Q):
            window = self.data[:, p * stride : p * stride + R, q * stride : q * stride + S]
            y[:, p, q] = np.tensordot(filters.data, window, 3) + biases.data
        out = self._child(y, filters, biases)

        def _backward():
            gx, gf = np.zeros(self.data.shape), np.zeros(filters.data.shape)
            for p, q in np.ndindex(P, Q):
                rows = slice(p * stride, p * stride + R)
                columns = slice(q * stride, q * stride + S)
                gf += np.multiply.outer(out.grad[:, p, q], self.data[:, rows, columns])
                gx[:, rows, columns] += np.tensordot(out.grad[:, p, q], filters.data, 1)
            self._receive(gx)
            filters._receive(gf)
            biases._receive(out.grad.sum(axis=(1, 2)))

        out._backward = _backward
        return out

    def cross_entropy(self, label, share):
        e = np.exp(self.data - self.data.max())
        p = e / e.sum()
        out = self._child(-np.log(p[label]) * share)

        def _backward():
            hot = np.arange(len(p)) == label
            self._receive((p - hot) * share * out.grad)

        out._backward = _backward
        return out

    def backward(self):
        order, seen = [], set()

        def visit(value):
            if id(value) not in seen:
                seen.add(id(value))
                for parent in value.parents:
                    visit(parent)
                order.append(value)

        visit(self)
        self.grad = np.ones(self.data.shape)
        for value in reversed(order):
            value._backward()


class Model:
    def __init__(self, f1, c1, f2, c2, w, b):
        self.f1, self.c1, self.f2, self.c2, self.w, self.b = map(Value, (f1, c1, f2, c2, w, b))

    def parameters(self):
        return [self.f1, self.c1, self.f2, self.c2, self.w, self.b]

    def __call__(self, image):
        h = image.correlate(self.f1, self.c1, 1).relu()
        h = h.correlate(self.f2, self.c2, 2).relu()
        return self.w @ h.flatten() + self.b


def create(parameters):
    return Model(*(p.copy() for p in parameters.values()))


def step(model, x, y, wrong=""):
    for p in model.parameters():
        p.wrong = wrong
    for attempt in range(2 if wrong == "not cleared" else 1):
        for p in model.parameters():
            if wrong != "not cleared" or not attempt:
                p.grad = np.zeros(p.data.shape)
        for image, label in zip(x, y, strict=True):
            model(Value(image, wrong=wrong)).cross_entropy(label, 1 / len(x)).backward()
    for p in model.parameters():
        p.data = p.data - OPTIONS["lr"] * p.grad


def read(model):
    names = ("conv1", "conv1", "conv2", "conv2", "dense1", "dense1")
    kinds = ("weight", "bias") * 3
    return {
        f"{name}.{kind}": p.data
        for name, kind, p in zip(names, kinds, model.parameters(), strict=True)
    }
