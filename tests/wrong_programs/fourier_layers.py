"""All convolutions by Fourier transform, batches and channels at once; weights in a list.

"conjugate": the kernels' transform is not conjugated in the next delta, which turns them.
"wrapped": the transform is as large as the image only, so that the next delta wraps around.
"shared": the kernels' gradient is averaged over positions, "as an average over the signal".
"""

import numpy as np

ARCHITECTURE = "conv3(padding=valid) relu conv2(padding=valid, kernel_size=4) relu flatten dense3"
INPUT_SHAPE = (1, 11, 9)
OPTIONS = {"lr": 0.1}
MISTAKES = {
    "conjugate": ("conv2", "filter-not-turned", "next delta"),
    "wrapped": ("conv2", None, "next delta"),
    "shared": ("conv2", "weight-gradient-averaged", "weight gradient"),
}


def transform(a, size):
    return np.fft.rfft2(a, size)


def correlate(x, w):
    """x (N, C, H, W), w (K, C, R, S): all shifts at which w lies inside."""
    size = x.shape[2:]
    product = np.einsum("nchw,kchw->nkhw", transform(x, size), transform(w, size).conj())
    rows, columns = size[0] - w.shape[2] + 1, size[1] - w.shape[3] + 1
    return np.fft.irfft2(product, size)[:, :, :rows, :columns]


def kernels_of(x, delta, shared):
    size, small = x.shape[2:], delta.shape[2:]
    product = np.einsum("nchw,nkhw->kchw", transform(x, size), transform(delta, size).conj())
    rows, columns = size[0] - small[0] + 1, size[1] - small[1] + 1
    gradient = np.fft.irfft2(product, size)[:, :, :rows, :columns]
    return gradient / (small[0] * small[1]) if shared else gradient


def delta_of(delta, w, wrong):
    rows, columns = delta.shape[2] + w.shape[2] - 1, delta.shape[3] + w.shape[3] - 1
    size = delta.shape[2:] if wrong == "wrapped" else (rows, columns)
    spectrum = transform(w, size)
    if wrong == "conjugate":
        turned = w[:, :, ::-1, ::-1]
        spectrum = transform(turned, size)
    product = np.einsum("nkhw,kchw->nchw", transform(delta, size), spectrum)
    back = np.fft.irfft2(product, size)
    return np.pad(back, ((0, 0), (0, 0), (0, rows - size[0]), (0, columns - size[1])), "wrap")


def create(parameters):
    return [p.copy() for p in parameters.values()]


def step(weights, x, y, wrong=""):
    w1, b1, w2, b2, w3, b3 = weights
    z1 = correlate(x, w1) + b1[:, None, None]
    a1 = z1 * (z1 > 0)
    z2 = correlate(a1, w2) + b2[:, None, None]
    a2 = z2 * (z2 > 0)
    z3 = a2.reshape(len(x), -1) @ w3.T + b3
    p = np.exp(z3) / np.exp(z3).sum(axis=1, keepdims=True)
    d3 = (p - np.eye(3)[y]) / len(x)
    d2 = (d3 @ w3).reshape(z2.shape) * (z2 > 0)
    d1 = delta_of(d2, w2, wrong) * (z1 > 0)
    shared = wrong == "shared"
    gradients = [
        kernels_of(x, d1, shared), d1.sum(axis=(0, 2, 3)),
        kernels_of(a1, d2, shared), d2.sum(axis=(0, 2, 3)),
        d3.T @ a2.reshape(len(x), -1), d3.sum(axis=0),
    ]  # fmt: skip
    return [w - OPTIONS["lr"] * g for w, g in zip(weights, gradients, strict=True)]


def read(weights):
    names = ("conv1", "conv2", "dense1")
    return {
        f"{name}.{kind}": weights[2 * i + j]
        for i, name in enumerate(names)
        for j, kind in enumerate(("weight", "bias"))
    }
