"""Layers in further styles: masks, lists of parameters, matrices for derivatives, plain lists."""

import numpy as np

RNG = np.random.default_rng(2)


class MaskedRelu:
    """Writes to the delta that it is handed, which its book allows."""

    def __init__(self):
        self.mask = None

    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout):
        dout[self.mask] = 0
        return dout


class ListedAffine:
    """Parameters and gradients in lists."""

    def __init__(self):
        self.params = [RNG.normal(size=(5, 4)), np.zeros(4)]
        self.grads = [np.zeros((5, 4)), np.zeros(4)]
        self.x = None

    def forward(self, x):
        W, b = self.params
        self.x = x
        return np.dot(x, W) + b

    def backward(self, dout):
        self.grads[0][...] = np.dot(self.x.T, dout)
        self.grads[1][...] = np.sum(dout, axis=0)
        return np.dot(dout, self.params[0].T)


class BatchNormalization:
    """Step by step, with running statistics and an epsilon of its own."""

    def __init__(self):
        self.gamma, self.beta, self.momentum = np.ones(4), np.zeros(4), 0.9
        self.running_mean = None

    def forward(self, x, train_flg=True):
        if self.running_mean is None:
            self.running_mean = np.zeros(x.shape[1])
        mu = x.mean(axis=0)
        self.xc = x - mu
        self.std = np.sqrt(np.mean(self.xc**2, axis=0) + 10e-7)
        self.xn = self.xc / self.std
        self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mu
        return self.gamma * self.xn + self.beta

    def backward(self, dout):
        self.dbeta, self.dgamma = dout.sum(axis=0), np.sum(self.xn * dout, axis=0)
        dxn = self.gamma * dout
        dxc = dxn / self.std
        dstd = -np.sum((dxn * self.xc) / (self.std * self.std), axis=0)
        dxc += (2.0 / len(dout)) * self.xc * 0.5 * dstd / self.std
        return dxc - np.sum(dxc, axis=0) / len(dout)


class Activation:
    """An activation and its derivative, handed in."""

    def __init__(self, activation, activation_prime):
        self.activation, self.activation_prime = activation, activation_prime

    def forward(self, input):
        self.input = input
        return self.activation(self.input)

    def backward(self, output_gradient, learning_rate):
        return np.multiply(output_gradient, self.activation_prime(self.input))


class SoftmaxColumn:
    """The whole Jacobian of one column."""

    def forward(self, input):
        tmp = np.exp(input)
        self.output = tmp / np.sum(tmp)
        return self.output

    def backward(self, output_gradient, learning_rate):
        n = np.size(self.output)
        return np.dot((np.identity(n) - self.output.T) * self.output, output_gradient)


class TargetsFirst:
    """A loss of targets and outputs, in this order."""

    def forward(self, y_true, y_pred):
        e = np.exp(y_pred - y_pred.max(axis=1, keepdims=True))
        self.p, self.t = e / e.sum(axis=1, keepdims=True), y_true
        return -np.sum(y_true * np.log(self.p)) / len(y_true)

    def backward(self):
        return (self.p - self.t) / len(self.t)


class NeuronLists:
    """Plain lists in and out, updated on the way back."""

    def __init__(self):
        self.weights, self.biases = RNG.random((3, 4)), RNG.random(3)

    def feed_forward(self, inputs):
        self.inputs = inputs
        return [
            sum(w * i for w, i in zip(neuron, inputs, strict=True)) + bias
            for neuron, bias in zip(self.weights, self.biases, strict=True)
        ]

    def backpropagate(self, error, l_rate):
        passed = [sum(self.weights[j][i] * error[j] for j in range(3)) for i in range(4)]
        for j in range(3):
            for i in range(4):
                self.weights[j][i] -= l_rate * error[j] * self.inputs[i]
            self.biases[j] -= l_rate * error[j]
        return passed


class SinglePrecision:
    """float32 weights, a small rate, the mean over the batch at the weights."""

    def __init__(self, average=False):
        self.W, self.b = RNG.normal(size=(5, 4)).astype(np.float32), np.zeros(4, np.float32)
        self.eta, self.average = 0.01, average

    def forward(self, x):
        self.x = x.astype(np.float32)
        return self.x @ self.W + self.b

    def backward(self, delta):
        delta = delta.astype(np.float32)
        rate = self.eta / (len(delta) if self.average else 1)
        dx = delta @ self.W.T
        self.W -= rate * self.x.T @ delta
        self.b -= rate * delta.sum(axis=0)
        return dx


class Momentum:
    """One column; a velocity that later steps build up."""

    def __init__(self):
        self.weights, self.velocity = RNG.normal(size=(3, 5)), 0.0

    def forward(self, input):
        self.input = input
        return self.weights @ input

    def backward(self, grad, learning_rate):
        passed = self.weights.T @ grad
        self.velocity = 0.9 * self.velocity + grad @ self.input.T
        self.weights -= learning_rate * self.velocity
        return passed


class GeneratorDropout:
    """Draws from a generator of its own, if it is told that it is training."""

    def __init__(self, p):
        self.p, self.rng = p, np.random.default_rng(2)

    def forward(self, x, training=False):
        if not training:
            return x
        self.mask = (self.rng.random(x.shape) > self.p) / (1 - self.p)
        return x * self.mask

    def backward(self, dy):
        return dy * self.mask


def tanh_with_closure(x):
    """Returns its output and its backward function."""
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y**2)


class LateWeights:
    """Makes its weights when it sees its first input."""

    def __init__(self, units):
        self.units, self.W = units, None

    def forward(self, x):
        if self.W is None:
            self.W, self.b = RNG.normal(size=(x.shape[1], self.units)), np.zeros((1, self.units))
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0, keepdims=True)
        return dout @ self.W.T


def bias_first(b, w, x):
    """Arguments, and gradients, in another order."""
    return x @ w.T + b


def bias_first_backward(x, w, grad_y):
    return grad_y.sum(axis=0), grad_y.T @ x, grad_y @ w


class Leaky:
    """A slope of its own below 0."""

    def __init__(self, alpha):
        self.alpha = alpha

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, self.alpha * x)

    def backward(self, grad):
        return grad * np.where(self.x > 0, 1, self.alpha)
