"""Signal processing: scipy's ``convolve2d`` forward, which turns the kernel, ``correlate2d`` back.

One image (channels, rows, columns) at a time; a batch's gradients are added up and the step is
divided by nothing: the loss is the batch's sum.

"dW": the kernels' gradients are not turned, as if the forward pass correlated. "dx": the next delta
is convolved with the kernels, which turns them once too often. "channels": the gradient of every
channel's kernels is made of channel 0.
"""

import numpy as np
from scipy.signal import convolve2d, correlate2d

ARCHITECTURE = "conv2(padding=valid) tanh conv3(padding=valid) relu flatten dense4"
INPUT_SHAPE = (2, 8, 9)
OPTIONS = {"lr": 0.05, "convolution": "true"}
SUM = True
MISTAKES = {
    "dW": ("conv2", "weight-gradient-turned", "weight gradient"),
    "dx": ("conv2", "filter-not-turned", "next delta"),
    "channels": ("conv2", "input-channels-merged", "weight gradient"),
}


def forward(image, kernels, biases):
    return np.array(
        [
            sum(convolve2d(a, k, "valid") for a, k in zip(image, kernel, strict=True)) + bias
            for kernel, bias in zip(kernels, biases, strict=True)
        ]
    )


def backward(delta, image, kernels, wrong):
    d_kernels = np.zeros(kernels.shape)
    d_image = np.zeros(image.shape)
    for i, j in np.ndindex(*kernels.shape[:2]):
        # z = x * k, a true convolution: dk is x correlated with dz, and then turned
        gradient = correlate2d(image[0 if wrong == "channels" else j], delta[i], "valid")
        d_kernels[i, j] = gradient if wrong == "dW" else np.rot90(gradient, 2)
        back = convolve2d if wrong == "dx" else correlate2d
        d_image[j] += back(delta[i], kernels[i, j], "full")
    return d_kernels, delta.sum(axis=(1, 2)), d_image


def create(parameters):
    # the weights of a network that correlates, turned
    return {
        "K1": parameters["conv1.weight"][:, :, ::-1, ::-1].copy(),
        "b1": parameters["conv1.bias"].copy(),
        "K2": parameters["conv2.weight"][:, :, ::-1, ::-1].copy(),
        "b2": parameters["conv2.bias"].copy(),
        "W": parameters["dense1.weight"].copy(),
        "b": parameters["dense1.bias"].copy(),
    }


def step(net, images, labels, wrong=""):
    total = {name: np.zeros(array.shape) for name, array in net.items()}
    for x, label in zip(images, labels, strict=True):
        a1 = np.tanh(forward(x, net["K1"], net["b1"]))
        z2 = forward(a1, net["K2"], net["b2"])
        a2 = z2.clip(0)
        v = net["W"] @ a2.ravel() + net["b"]
        p = np.exp(v - v.max())
        delta = p / p.sum()
        delta[label] -= 1
        total["W"] += np.outer(delta, a2)
        total["b"] += delta
        delta = (net["W"].T @ delta).reshape(z2.shape) * (z2 > 0)
        d_kernels, d_biases, delta = backward(delta, a1, net["K2"], wrong)
        total["K2"] += d_kernels
        total["b2"] += d_biases
        d_kernels, d_biases, _ = backward(delta * (1 - a1**2), x, net["K1"], wrong)
        total["K1"] += d_kernels
        total["b1"] += d_biases
    for name in net:
        net[name] -= OPTIONS["lr"] * total[name]


def read(net):
    return {
        "conv1.weight": net["K1"][:, :, ::-1, ::-1], "conv1.bias": net["b1"],
        "conv2.weight": net["K2"][:, :, ::-1, ::-1], "conv2.bias": net["b2"],
        "dense1.weight": net["W"], "dense1.bias": net["b"],
    }  # fmt: skip
