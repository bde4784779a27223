"""A blog's network: a filter bank, a pool and a softmax, whose ``backprop`` updates as it goes.

One grey image at a time, of shape (rows, columns); filters without biases and without a ReLU;
output volumes are (rows, columns, filters). Dense weights are (inputs, classes).

"ties": every pixel that equals the maximum gets the gradient. "early": the softmax's weights are
updated before the gradient for the pool is made with them. "label": only the label's own total
gets a gradient.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid, bias=false) pool flatten dense4"
INPUT_SHAPE = (1, 10, 12)
ONE_IMAGE = True
LEARN_RATE = 0.05
OPTIONS = {"lr": LEARN_RATE}
MISTAKES = {
    "ties": ("pool1", "pool-ties-all", "next delta"),
    "early": ("dense1", "weights-updated-early", "next delta"),
    "label": ("loss", "softmax-diagonal", "first delta"),
}


class Conv3x3:
    def __init__(self, filters):
        self.num_filters = len(filters)
        self.filters = filters

    def iterate_regions(self, image):
        h, w = image.shape
        for i in range(h - 2):
            for j in range(w - 2):
                yield image[i : i + 3, j : j + 3], i, j

    def forward(self, input):
        self.last_input = input
        h, w = input.shape
        output = np.zeros((h - 2, w - 2, self.num_filters))
        for im_region, i, j in self.iterate_regions(input):
            output[i, j] = np.sum(im_region * self.filters, axis=(1, 2))
        return output

    def backprop(self, d_L_d_out, learn_rate):
        d_L_d_filters = np.zeros(self.filters.shape)
        for im_region, i, j in self.iterate_regions(self.last_input):
            for f in range(self.num_filters):
                d_L_d_filters[f] += d_L_d_out[i, j, f] * im_region
        self.filters -= learn_rate * d_L_d_filters


class MaxPool2:
    def forward(self, input):
        self.last_input = input
        h, w, num_filters = input.shape
        output = np.zeros((h // 2, w // 2, num_filters))
        for i in range(h // 2):
            for j in range(w // 2):
                output[i, j] = np.amax(input[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], axis=(0, 1))
        return output

    def backprop(self, d_L_d_out, ties):
        d_L_d_input = np.zeros(self.last_input.shape)
        for i, j, f in np.ndindex(d_L_d_out.shape):
            im_region = self.last_input[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, f]
            for i2, j2 in np.ndindex(2, 2):
                if im_region[i2, j2] == np.amax(im_region):
                    d_L_d_input[2 * i + i2, 2 * j + j2, f] = d_L_d_out[i, j, f]
                    if not ties:
                        break
        return d_L_d_input


class Softmax:
    def __init__(self, weights, biases):
        self.weights = weights
        self.biases = biases

    def forward(self, input):
        self.last_input_shape = input.shape
        self.last_input = input.flatten()
        totals = np.dot(self.last_input, self.weights) + self.biases
        self.last_totals = totals
        exp = np.exp(totals)
        return exp / np.sum(exp, axis=0)

    def backprop(self, d_L_d_out, learn_rate, wrong):
        for i, gradient in enumerate(d_L_d_out):
            if gradient == 0:
                continue
            t_exp = np.exp(self.last_totals)
            S = np.sum(t_exp)
            d_out_d_t = -t_exp[i] * t_exp / (S**2)
            d_out_d_t[i] = t_exp[i] * (S - t_exp[i]) / (S**2)
            if wrong == "label":
                d_out_d_t[np.arange(len(t_exp)) != i] = 0
            d_L_d_t = gradient * d_out_d_t
            d_L_d_w = self.last_input[np.newaxis].T @ d_L_d_t[np.newaxis]
            d_L_d_inputs = self.weights @ d_L_d_t
            self.weights -= learn_rate * d_L_d_w
            self.biases -= learn_rate * d_L_d_t
            if wrong == "early":
                d_L_d_inputs = self.weights @ d_L_d_t
            return d_L_d_inputs.reshape(self.last_input_shape)
        return None


class CNN:
    def __init__(self, conv, softmax):
        self.conv, self.pool, self.softmax = conv, MaxPool2(), softmax


def create(parameters):
    k, (h, w) = 3, (4, 5)
    dense = parameters["dense1.weight"].reshape(4, k, h, w).transpose(2, 3, 1, 0)
    return CNN(
        Conv3x3(parameters["conv1.weight"][:, 0].copy()),
        Softmax(dense.reshape(-1, 4).copy(), parameters["dense1.bias"].copy()),
    )


def step(cnn, image, label, wrong=""):
    image = np.asarray(image).reshape(INPUT_SHAPE[1:])
    out = cnn.softmax.forward(cnn.pool.forward(cnn.conv.forward(image)))
    gradient = np.zeros(len(out))
    gradient[label] = -1 / out[label]
    gradient = cnn.softmax.backprop(gradient, LEARN_RATE, wrong)
    gradient = cnn.pool.backprop(gradient, wrong == "ties")
    cnn.conv.backprop(gradient, LEARN_RATE)


def read(cnn):
    dense = cnn.softmax.weights.reshape(4, 5, 3, 4).transpose(3, 2, 0, 1)
    return {
        "conv1.weight": cnn.conv.filters[:, None],
        "dense1.weight": dense.reshape(4, -1),
        "dense1.bias": cnn.softmax.biases,
    }
