"""An estimator in scikit-learn's manner: coefs_, intercepts_, alpha, partial derivatives in lists.

Dense weights are (in, out). The mistake: the gradients have the term of an L2 penalty, but the loss
has no penalty, and the optimizer decays the weights by itself.
"""

import numpy as np

ARCHITECTURE = "conv2 relu avgpool conv3 relu avgpool flatten dense5 tanh dense4"
INPUT_SHAPE = (1, 8, 4)
MISTAKES = (
    ("dense2", "l2-term"),
    ("dense1", "l2-term"),
    ("conv2", "l2-term"),
    ("conv1", "l2-term"),
)
NAMES = {
    "gradients": {
        "filter_coef_grads_0": "conv1.weight", "filter_intercept_grads_0": "conv1.bias",
        "filter_coef_grads_1": "conv2.weight", "filter_intercept_grads_1": "conv2.bias",
        "coef_grads_0": "dense1.weight", "intercept_grads_0": "dense1.bias",
        "coef_grads_1": "dense2.weight", "intercept_grads_1": "dense2.bias",
    },
    "deltas": {},
    "activations": {},
}  # fmt: skip


class ConvNetClassifier:
    def __init__(self, alpha=0.01, decay_in_gradient=False):
        self.alpha = alpha
        self.decay_in_gradient = decay_in_gradient

    def _correlate(self, X, coef, intercept=None):
        X = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(X, (3, 3), axis=(2, 3))
        maps = np.tensordot(windows, coef, axes=([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2)
        return maps if intercept is None else maps + intercept[:, None, None]

    def _forward_pass(self, X):
        activations = [X]
        for coef, intercept in zip(self.filter_coefs_, self.filter_intercepts_, strict=True):
            maps = np.maximum(self._correlate(activations[-1], coef, intercept), 0)
            activations.append(maps)
            n, c, h, w = maps.shape
            activations.append(maps.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5)))
        hidden = activations[-1].reshape(len(X), -1) @ self.coefs_[0] + self.intercepts_[0]
        activations.append(np.tanh(hidden))
        output = activations[-1] @ self.coefs_[1] + self.intercepts_[1]
        output = np.exp(output - output.max(axis=1)[:, np.newaxis])
        activations.append(output / output.sum(axis=1)[:, np.newaxis])
        return activations

    def _compute_loss_grad(self, coef, delta, activation):
        coef_grad = activation.T @ delta
        if self.decay_in_gradient:
            coef_grad += self.alpha * coef
        return coef_grad, delta.sum(axis=0)

    def _compute_filter_grad(self, coef, delta, activation):
        activation = np.pad(activation, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(activation, (3, 3), axis=(2, 3))
        coef_grad = np.tensordot(delta, windows, axes=([0, 2, 3], [0, 2, 3]))
        if self.decay_in_gradient:
            coef_grad += self.alpha * coef
        return coef_grad, delta.sum(axis=(0, 2, 3))

    def _backprop(self, X, y):
        activations = self._forward_pass(X)
        proba = activations[-1]
        loss = -np.log(proba[np.arange(len(y)), y]).sum() / len(y)

        coef_grads, intercept_grads = [None, None], [None, None]
        filter_grads, filter_intercept_grads = [None, None], [None, None]
        delta = proba.copy()
        delta[np.arange(len(y)), y] -= 1.0
        delta /= len(y)
        coef_grads[1], intercept_grads[1] = self._compute_loss_grad(
            self.coefs_[1], delta, activations[5]
        )
        delta = delta @ self.coefs_[1].T
        delta *= 1 - activations[5] ** 2
        flat = activations[4].reshape(len(X), -1)
        coef_grads[0], intercept_grads[0] = self._compute_loss_grad(self.coefs_[0], delta, flat)
        delta = (delta @ self.coefs_[0].T).reshape(activations[4].shape)
        for i in (1, 0):
            delta = np.repeat(np.repeat(delta, 2, axis=2), 2, axis=3) / 4
            delta[activations[2 * i + 1] == 0] = 0
            filter_grads[i], filter_intercept_grads[i] = self._compute_filter_grad(
                self.filter_coefs_[i], delta, activations[2 * i]
            )
            flipped = np.flip(self.filter_coefs_[i], axis=(2, 3)).swapaxes(0, 1)
            delta = self._correlate(delta, flipped)
        return loss, coef_grads, intercept_grads, filter_grads, filter_intercept_grads, proba


def run(parameters, x, y, wrong=True):
    clf = ConvNetClassifier(alpha=0.01, decay_in_gradient=wrong)
    clf.filter_coefs_ = [parameters["conv1.weight"], parameters["conv2.weight"]]
    clf.filter_intercepts_ = [parameters["conv1.bias"], parameters["conv2.bias"]]
    clf.coefs_ = [parameters["dense1.weight"].T, parameters["dense2.weight"].T]
    clf.intercepts_ = [parameters["dense1.bias"], parameters["dense2.bias"]]
    loss, coefs, intercepts, filters, filter_intercepts, proba = clf._backprop(x, y)
    gradients = {}
    for i in range(2):
        gradients[f"filter_coef_grads_{i}"] = filters[i]
        gradients[f"filter_intercept_grads_{i}"] = filter_intercepts[i]
        gradients[f"coef_grads_{i}"] = coefs[i]
        gradients[f"intercept_grads_{i}"] = intercepts[i]
    return {
        "loss": loss,
        "gradients": gradients,
        "deltas": {},
        "activations": {},
        "probabilities": proba,
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["dense1.weight"] = grads["dense1.weight"].T
    grads["dense2.weight"] = grads["dense2.weight"].T
    return grads
