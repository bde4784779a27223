"""A blog's classes: generators of image regions, one grey image at a time, no activation.

Two mistakes: the softmax passes its gradient to the label's own score only, and the pooling gives
the gradient to every pixel that equals the maximum.
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) pool flatten dense4"
INPUT_SHAPE = (1, 8, 10)
MISTAKES = (("loss", "true-class-only"), ("pool1", "pool-ties-all"))
DELTAS_PER_IMAGE = True
NAMES = {
    "gradients": {
        "conv.filters": "conv1.weight", "conv.biases": "conv1.bias",
        "softmax.weights": "dense1.weight", "softmax.biases": "dense1.bias",
    },
    "deltas": {"d_L_d_conv": "conv1", "d_L_d_pool": "pool1", "d_L_d_totals": "dense1"},
    "activations": {},
}  # fmt: skip


class Conv3x3:
    # A convolution layer using 3x3 filters.
    def __init__(self, filters, biases):
        self.filters, self.biases = filters, biases
        self.d_L_d_filters = np.zeros(filters.shape)
        self.d_L_d_biases = np.zeros(biases.shape)

    def iterate_regions(self, image):
        h, w = image.shape
        for i in range(h - 2):
            for j in range(w - 2):
                yield image[i : (i + 3), j : (j + 3)], i, j

    def forward(self, image):
        self.last_input = image
        h, w = image.shape
        output = np.zeros((h - 2, w - 2, len(self.filters)))
        for im_region, i, j in self.iterate_regions(image):
            output[i, j] = np.sum(im_region * self.filters, axis=(1, 2)) + self.biases
        return output

    def backprop(self, d_L_d_out):
        for im_region, i, j in self.iterate_regions(self.last_input):
            for f in range(len(self.filters)):
                self.d_L_d_filters[f] += d_L_d_out[i, j, f] * im_region
        self.d_L_d_biases += d_L_d_out.sum(axis=(0, 1))


class MaxPool2:
    # A max pooling layer using a pool size of 2.
    def iterate_regions(self, image):
        h, w, _ = image.shape
        for i in range(h // 2):
            for j in range(w // 2):
                yield image[(i * 2) : (i * 2 + 2), (j * 2) : (j * 2 + 2)], i, j

    def forward(self, image):
        self.last_input = image
        h, w, num_filters = image.shape
        output = np.zeros((h // 2, w // 2, num_filters))
        for im_region, i, j in self.iterate_regions(image):
            output[i, j] = np.amax(im_region, axis=(0, 1))
        return output

    def backprop(self, d_L_d_out, wrong):
        d_L_d_input = np.zeros(self.last_input.shape)
        for im_region, i, j in self.iterate_regions(self.last_input):
            h, w, f = im_region.shape
            amax = np.amax(im_region, axis=(0, 1))
            for f2 in range(f):
                for i2 in range(h):
                    for j2 in range(w):
                        # If this pixel was the max value, copy the gradient to it.
                        if im_region[i2, j2, f2] == amax[f2]:
                            d_L_d_input[i * 2 + i2, j * 2 + j2, f2] = d_L_d_out[i, j, f2]
                            if not wrong:
                                amax[f2] = np.inf
        return d_L_d_input


class Softmax:
    # A fully-connected layer with softmax activation.
    def __init__(self, weights, biases):
        self.weights, self.biases = weights, biases
        self.d_L_d_w = np.zeros(weights.shape)
        self.d_L_d_b = np.zeros(biases.shape)

    def forward(self, maps):
        self.last_input_shape = maps.shape
        self.last_input = maps.flatten()
        self.last_totals = np.dot(self.last_input, self.weights) + self.biases
        exp = np.exp(self.last_totals)
        return exp / np.sum(exp, axis=0)

    def backprop(self, d_L_d_out, wrong):
        # Only one entry of d_L_d_out is not 0.
        i = np.flatnonzero(d_L_d_out)[0]
        t_exp = np.exp(self.last_totals)
        S = np.sum(t_exp)

        d_out_d_t = np.zeros(len(t_exp))
        if not wrong:
            d_out_d_t = -t_exp[i] * t_exp / (S**2)
        d_out_d_t[i] = t_exp[i] * (S - t_exp[i]) / (S**2)

        d_L_d_t = d_L_d_out[i] * d_out_d_t
        self.d_L_d_w += self.last_input[np.newaxis].T @ d_L_d_t[np.newaxis]
        self.d_L_d_b += d_L_d_t
        d_L_d_inputs = self.weights @ d_L_d_t
        return d_L_d_t, d_L_d_inputs.reshape(self.last_input_shape)


def run(parameters, x, y, wrong=True):
    weights = parameters["dense1.weight"].reshape(4, 3, 3, 4)
    conv = Conv3x3(parameters["conv1.weight"][:, 0], parameters["conv1.bias"])
    pool = MaxPool2()
    softmax = Softmax(weights.transpose(2, 3, 1, 0).reshape(36, 4), parameters["dense1.bias"])

    loss, probabilities = 0, []
    deltas = {"d_L_d_conv": [], "d_L_d_pool": [], "d_L_d_totals": []}
    for im, label in zip(x[:, 0], y, strict=True):
        out = softmax.forward(pool.forward(conv.forward(im)))
        loss += -np.log(out[label])
        probabilities.append(out)

        gradient = np.zeros(4)
        gradient[label] = -1 / out[label]
        d_L_d_totals, d_L_d_pool = softmax.backprop(gradient, wrong)
        d_L_d_conv = pool.backprop(d_L_d_pool, wrong)
        conv.backprop(d_L_d_conv)
        for name, delta in zip(deltas, (d_L_d_conv, d_L_d_pool, d_L_d_totals), strict=True):
            deltas[name].append(delta)

    # the mean over the images
    num = len(x)
    return {
        "loss": loss / num,
        "gradients": {
            "conv.filters": conv.d_L_d_filters / num,
            "conv.biases": conv.d_L_d_biases / num,
            "softmax.weights": softmax.d_L_d_w / num,
            "softmax.biases": softmax.d_L_d_b / num,
        },
        "deltas": {name: np.array(images) for name, images in deltas.items()},
        "activations": {},
        "probabilities": np.array(probabilities),
    }


def to_fullback(result):
    grads = {ours: result["gradients"][name] for name, ours in NAMES["gradients"].items()}
    grads["conv1.weight"] = grads["conv1.weight"][:, np.newaxis]
    grads["dense1.weight"] = (
        grads["dense1.weight"].reshape(3, 4, 3, 4).transpose(3, 2, 0, 1).reshape(4, 36)
    )
    return grads
