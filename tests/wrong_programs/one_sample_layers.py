"""Layer classes for one sample, columns of features, correlate2d and convolve2d of its own.

The softmax is a layer, with its Jacobian in the backward pass. The mistake: the derivative of the
loss that starts the backward pass is that of softmax and cross-entropy together, p - y.
"""

import numpy as np

ARCHITECTURE = (
    "conv3(padding=valid) sigmoid conv2(padding=valid) sigmoid flatten dense5 sigmoid dense4"
)
INPUT_SHAPE = (2, 7, 6)
MISTAKES = (("loss", "softmax-twice"),)
NAMES = {
    "gradients": {
        "kernels_1_gradient": "conv1.weight", "biases_1_gradient": "conv1.bias",
        "kernels_2_gradient": "conv2.weight", "biases_2_gradient": "conv2.bias",
        "weights_1_gradient": "dense1.weight", "bias_1_gradient": "dense1.bias",
        "weights_2_gradient": "dense2.weight", "bias_2_gradient": "dense2.bias",
    },
    "deltas": {},
    "activations": {},
}  # fmt: skip


def correlate2d(a, k, mode):
    if mode == "full":
        a = np.pad(a, [(n - 1, n - 1) for n in k.shape])
    shape = (a.shape[0] - k.shape[0] + 1, a.shape[1] - k.shape[1] + 1)
    out = np.zeros(shape)
    for i, j in np.ndindex(shape):
        out[i, j] = np.sum(a[i : i + k.shape[0], j : j + k.shape[1]] * k)
    return out


def convolve2d(a, k, mode):
    return correlate2d(a, np.rot90(k, 2), mode)


class Convolutional:
    def __init__(self, kernels, biases):
        self.kernels, self.biases = kernels, biases
        self.kernels_gradient = np.zeros(kernels.shape)
        self.biases_gradient = np.zeros(biases.shape)

    def forward(self, inputs):
        self.input = inputs
        output = []
        for i in range(len(self.kernels)):
            output.append(self.biases[i])
            for j in range(len(inputs)):
                output[i] = output[i] + correlate2d(inputs[j], self.kernels[i, j], "valid")
        return np.array(output)

    def backward(self, output_gradient):
        input_gradient = np.zeros(self.input.shape)
        for i in range(len(self.kernels)):
            for j in range(len(self.input)):
                self.kernels_gradient[i, j] += correlate2d(
                    self.input[j], output_gradient[i], "valid"
                )
                input_gradient[j] += convolve2d(output_gradient[i], self.kernels[i, j], "full")
            self.biases_gradient[i] += output_gradient[i].sum()
        return input_gradient


class Dense:
    def __init__(self, weights, bias):
        self.weights, self.bias = weights, bias
        self.weights_gradient = np.zeros(weights.shape)
        self.bias_gradient = np.zeros(bias.shape)

    def forward(self, inputs):
        self.input = inputs
        return np.dot(self.weights, inputs) + self.bias

    def backward(self, output_gradient):
        self.weights_gradient += np.dot(output_gradient, self.input.T)
        self.bias_gradient += output_gradient
        return np.dot(self.weights.T, output_gradient)


class Sigmoid:
    def forward(self, inputs):
        self.output = 1 / (1 + np.exp(-inputs))
        return self.output

    def backward(self, output_gradient):
        return output_gradient * self.output * (1 - self.output)


class Reshape:
    def forward(self, inputs):
        self.shape = inputs.shape
        return np.reshape(inputs, (-1, 1))

    def backward(self, output_gradient):
        return np.reshape(output_gradient, self.shape)


class Softmax:
    def forward(self, inputs):
        tmp = np.exp(inputs)
        self.output = tmp / np.sum(tmp)
        return self.output

    def backward(self, output_gradient):
        n = np.size(self.output)
        return np.dot((np.identity(n) - self.output.T) * self.output, output_gradient)


def cross_entropy(y_true, y_pred):
    return -np.sum(y_true * np.log(y_pred))


def cross_entropy_prime(y_true, y_pred, wrong):
    if wrong:
        return y_pred - y_true
    return -y_true / y_pred


def run(parameters, x, y, wrong=True):
    convs = [
        Convolutional(parameters[f"conv{i}.weight"], parameters[f"conv{i}.bias"]) for i in (1, 2)
    ]
    denses = [
        Dense(parameters[f"dense{i}.weight"], parameters[f"dense{i}.bias"].reshape(-1, 1))
        for i in (1, 2)
    ]
    network = [
        convs[0],
        Sigmoid(),
        convs[1],
        Sigmoid(),
        Reshape(),
        denses[0],
        Sigmoid(),
        denses[1],
        Softmax(),
    ]
    error, outputs = 0, []
    for sample, label in zip(x, y, strict=True):
        output = sample
        for layer in network:
            output = layer.forward(output)
        y_true = np.zeros((4, 1))
        y_true[label] = 1
        error += cross_entropy(y_true, output)
        outputs.append(output.ravel())
        grad = cross_entropy_prime(y_true, output, wrong)
        for layer in reversed(network):
            grad = layer.backward(grad)

    gradients = {}
    for i in (0, 1):
        gradients[f"kernels_{i + 1}_gradient"] = convs[i].kernels_gradient / len(x)
        gradients[f"biases_{i + 1}_gradient"] = convs[i].biases_gradient / len(x)
        gradients[f"weights_{i + 1}_gradient"] = denses[i].weights_gradient / len(x)
        gradients[f"bias_{i + 1}_gradient"] = denses[i].bias_gradient / len(x)
    return {
        "loss": error / len(x),
        "gradients": gradients,
        "deltas": {},
        "activations": {},
        "probabilities": np.array(outputs),
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    for name in ("dense1.bias", "dense2.bias"):
        grads[name] = grads[name].reshape(-1)
    return grads
