"""The reference against independent implementations: SciPy, plain loops, and HIPS autograd.

Everything is in float64. 1e-10, relative to the largest entry, is some 100 000 roundings: more than
sums of a few thousand terms can add up to, and far less than any wrong term would make. Where all
entries cancel to 0, as for a bias before a batch normalisation, they are compared to 1e-3.
"""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from scipy.ndimage import maximum_filter, uniform_filter
from scipy.signal import convolve2d, correlate2d

from fullback import MeanSquaredError, Network, SoftmaxCrossEntropy
from fullback.layers import AvgPool2D, Conv2D, MaxPool2D
from support.cases import CASES, inputs, reference

TOLERANCE = 1e-10


def assert_equal(actual, desired):
    assert actual.shape == desired.shape
    assert np.abs(actual - desired).max() <= TOLERANCE * max(np.abs(desired).max(), 1e-3)


class TestConvolutionAgainstSciPy:
    """The three convolutions of a layer, in SciPy's words."""

    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 7, 6))
    weight = rng.normal(size=(4, 2, 3, 2))
    bias = rng.normal(size=4)

    @pytest.mark.parametrize("padding", ["valid", (2, 1)])
    def test_forward_is_a_correlation(self, padding):
        y, _ = self.forward(padding)
        mode = "valid" if padding == "valid" else "full"  # with R - 1 and S - 1 zeros around
        assert_equal(
            y,
            self.sums(lambda n, k, c: correlate2d(self.x[n, c], self.weight[k, c], mode))
            + self.bias[:, None, None],
        )

    def test_filter_gradient_correlates_the_input_with_the_delta(self):
        y, kept = self.forward("valid")
        dy = self.rng.normal(size=y.shape)
        _, gradients = Conv2D(4, (3, 2), padding="valid").backward(dy, kept, self.parameters())
        desired = np.zeros_like(self.weight)
        for k, c in np.ndindex(4, 2):
            for n in range(3):
                desired[k, c] += correlate2d(self.x[n, c], dy[n, k], mode="valid")
        assert_equal(gradients["weight"], desired)
        assert_equal(gradients["bias"], dy.sum(axis=(0, 2, 3)))

    def test_next_delta_is_the_full_convolution(self):
        y, kept = self.forward("valid")
        dy = self.rng.normal(size=y.shape)
        dx, _ = Conv2D(4, (3, 2), padding="valid").backward(dy, kept, self.parameters())
        desired = np.zeros_like(self.x)
        for n, c in np.ndindex(3, 2):
            for k in range(4):
                desired[n, c] += convolve2d(dy[n, k], self.weight[k, c], mode="full")
        assert_equal(dx, desired)

    def parameters(self):
        return {"weight": self.weight, "bias": self.bias}

    def forward(self, padding):
        return Conv2D(4, (3, 2), padding=padding).forward(self.x, self.parameters())

    def sums(self, one):
        """Add up maps over the channels."""
        return np.array([[sum(one(n, k, c) for c in range(2)) for k in range(4)] for n in range(3)])


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (2, 5)])
def test_pooling_equals_scipy_filters(size):
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 7))
    # SciPy centres its windows; moved to their first cell, they are those of stride 1.
    options = {"size": (1, 1, *size), "origin": (0, 0, *(-(n // 2) for n in size))}
    inside = (..., slice(8 - size[0] + 1), slice(7 - size[1] + 1))
    y, _ = MaxPool2D(size, stride=1).forward(x, {})
    np.testing.assert_array_equal(y, maximum_filter(x, **options)[inside])
    y, _ = AvgPool2D(size, stride=1).forward(x, {})
    options["origin"] = tuple(-(n // 2) for n in options["size"])
    assert_equal(y, uniform_filter(x, **options)[inside])


POOLS = [case for case in CASES if isinstance(case.layer, MaxPool2D | AvgPool2D)]


@pytest.mark.parametrize("case", POOLS, ids=str)
def test_pooling_equals_loops(case):
    given = inputs(case)
    results = reference(case, given)
    y, dx = pool_by_loops(case.layer, given.x, given.dy)
    assert_equal(results["y"], y)
    assert_equal(results["dx"], dx)


def pool_by_loops(layer, x, dy):
    """Look at every window on its own, cell by cell, cells outside of the image left out."""
    rows, columns = np.broadcast_to(layer.size, 2)
    down, across = np.broadcast_to(layer.size if layer.stride is None else layer.stride, 2)
    above, left = first_window(layer, x.shape[2:], (rows, columns), (down, across))
    y, dx = np.zeros_like(dy), np.zeros_like(x)
    for n, c, p, q in np.ndindex(dy.shape):
        window = [
            (i, j)
            for i in range(p * down - above, p * down - above + rows)
            for j in range(q * across - left, q * across - left + columns)
            if 0 <= i < x.shape[2] and 0 <= j < x.shape[3]
        ]
        if isinstance(layer, AvgPool2D):
            y[n, c, p, q] = sum(x[n, c, i, j] for i, j in window) / (rows * columns)
            for i, j in window:
                dx[n, c, i, j] += dy[n, c, p, q] / (rows * columns)
        else:
            i, j = max(window, key=lambda cell: x[n, c, cell[0], cell[1]])  # the first, in a tie
            y[n, c, p, q] = x[n, c, i, j]
            dx[n, c, i, j] += dy[n, c, p, q]
    return y, dx


def first_window(layer, length, size, step):
    """Rows above and columns left of the image at which the first window starts."""
    if layer.padding == "valid":
        return 0, 0
    if layer.padding != "same":
        return np.broadcast_to(layer.padding, 2)
    # TensorFlow's rule for "same": ceil(n / s) windows; the fewer half of the zeros in front.
    return tuple(
        max((-(-n // s) - 1) * s + m - n, 0) // 2
        for n, m, s in zip(length, size, step, strict=True)
    )


# Whole networks, written again with autograd.numpy ------------------------------------------------


def conv(x, w, b=None, stride=1, pad=0, groups=1):
    """Add up the shifted images, a weight at a time."""
    x = anp.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), "constant")
    maps = []
    for part in range(groups):
        channels, filters = w.shape[1], w.shape[0] // groups
        xs = x[:, part * channels : (part + 1) * channels]
        ws = w[part * filters : (part + 1) * filters]
        p, q = ((x.shape[a + 2] - w.shape[a + 2]) // stride + 1 for a in (0, 1))
        maps.append(
            sum(
                anp.einsum(
                    "nchw,kc->nkhw",
                    xs[:, :, r : r + p * stride : stride, s : s + q * stride : stride][
                        :, :, :p, :q
                    ],
                    ws[:, :, r, s],
                )
                for r, s in np.ndindex(*w.shape[2:])
            )
        )
    y = anp.concatenate(maps, axis=1)
    return y if b is None else y + b[:, None, None]


def blocks(x, n):
    """Cut maps into n x n blocks: (N, C, P, Q, n * n)."""
    p, q = x.shape[2] // n, x.shape[3] // n
    x = x[:, :, : p * n, : q * n].reshape(x.shape[0], x.shape[1], p, n, q, n)
    return anp.transpose(x, (0, 1, 2, 4, 3, 5)).reshape(x.shape[0], x.shape[1], p, q, n * n)


def relu(x):
    return x * (x > 0)


def dense(x, p, name):
    return anp.dot(x.reshape(len(x), -1), p[f"{name}.weight"].T) + p[f"{name}.bias"]


def question(p, x):
    x = anp.max(blocks(relu(conv(x, p["conv1.weight"], p["conv1.bias"], pad=1)), 2), axis=-1)
    x = anp.max(blocks(relu(conv(x, p["conv2.weight"], p["conv2.bias"], pad=1)), 2), axis=-1)
    return dense(relu(dense(x, p, "dense1")), p, "dense2")


def strided(p, x):
    x = anp.tanh(conv(x, p["conv1.weight"], p["conv1.bias"], stride=2, pad=2))
    x = 1 / (1 + anp.exp(-conv(x, p["conv2.weight"], stride=1, groups=2)))
    x = conv(x, p["conv3.weight"], p["conv3.bias"], stride=3)
    return dense(anp.where(x > 0, x, 0.1 * x), p, "dense1")


def averaged(p, x):
    x = conv(x, p["conv1.weight"], p["conv1.bias"], pad=1)
    axes = (0, 2, 3)
    z = (x - anp.mean(x, axes, keepdims=True)) / anp.sqrt(anp.var(x, axes, keepdims=True) + 1e-5)
    x = relu(p["batchnorm1.weight"][:, None, None] * z + p["batchnorm1.bias"][:, None, None])
    x = conv(anp.mean(blocks(x, 2), axis=-1), p["conv2.weight"], p["conv2.bias"], groups=4)
    return dense(anp.mean(anp.tanh(x), axis=(2, 3)), p, "dense1")


NETS = [
    (
        question,
        "conv1 relu pool conv1 relu pool flatten dense49 relu dense10",
        (1, 28, 28),
    ),
    (
        strided,
        "conv4(kernel_size=5, stride=2, padding=2) tanh "
        "conv6(kernel_size=2, padding=valid, groups=2, bias=false) sigmoid "
        "conv2(kernel_size=2, stride=3, padding=valid) leakyrelu0.1 flatten dense3",
        (3, 13, 12),
    ),
    (
        averaged,
        "conv4 batchnorm relu avgpool conv8(kernel_size=1, groups=4) tanh globalavgpool dense5",
        (2, 7, 9),
    ),
]


def cross_entropy(logits, labels, weights, smoothing):
    largest = anp.max(logits, axis=1, keepdims=True)
    logs = logits - largest - anp.log(anp.sum(anp.exp(logits - largest), axis=1, keepdims=True))
    onehot = np.eye(logits.shape[1])[labels]
    targets = (1 - smoothing) * onehot + smoothing / logits.shape[1]
    return -anp.sum(weights * anp.sum(targets * logs, axis=1)) / np.sum(weights)


def squared_error(y, targets, weights):
    return anp.sum(weights * anp.mean((y - targets) ** 2, axis=1)) / np.sum(weights)


@pytest.mark.parametrize(
    ("again", "text", "input_shape"), NETS, ids=lambda v: getattr(v, "__name__", "")
)
@pytest.mark.parametrize("loss", ["labels", "smoothed", "squares"])
@pytest.mark.parametrize("weighted", [False, True])
def test_networks_equal_autograd(again, text, input_shape, loss, weighted):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, *input_shape))
    weights = np.array([0.5, 2.0, 0.0, 3.0]) if weighted else np.ones(4)
    smoothing = 0.2 if loss == "smoothed" else 0.0
    net = Network.parse(
        text,
        input_shape,
        loss=MeanSquaredError() if loss == "squares" else SoftmaxCrossEntropy(smoothing),
        dtype="float64",
    )
    for name, p in net.parameters.items():  # biases and scales too, which start at 0 and 1
        net.parameters[name] = p + rng.normal(scale=0.3, size=p.shape)
    outputs = net.output_shape[0]
    y = rng.normal(size=(4, outputs)) if loss == "squares" else rng.integers(0, outputs, 4)

    def value(parameters, x):
        output = again(parameters, x)
        if loss == "squares":
            return squared_error(output, y, weights)
        return cross_entropy(output, y, weights, smoothing)

    parameters = dict(net.parameters)
    trace = net.trace(x, y, sample_weight=weights if weighted else None)
    assert trace.loss == pytest.approx(value(parameters, x), rel=TOLERANCE)
    assert_equal(trace.activations[net.names[-1]], again(parameters, x))
    assert_equal(trace.deltas["input"], grad(value, 1)(parameters, x))
    for name, desired in grad(value, 0)(parameters, x).items():
        assert_equal(trace.gradients[name], desired)
