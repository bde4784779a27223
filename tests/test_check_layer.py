"""check_layer: layers as people write them, right and wrong, in every usual convention."""

import itertools

import numpy as np
import pytest

from fullback.check.layer import check_layer
from fullback.check.mistakes import MISTAKES
from fullback.errors import InputError, OptionError
from layer_styles.functions import loss, loss_backward

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5))
COUNT = itertools.count(1.0)


# Layers as people write them ----------------------------------------------------------------------


def conv(x, w, b, stride=1, pad=0):
    n, _, height, width = x.shape
    filters, _, rows, columns = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    high = (height + 2 * pad - rows) // stride + 1
    wide = (width + 2 * pad - columns) // stride + 1
    y = np.zeros((n, filters, high, wide))
    for p, q in np.ndindex(high, wide):
        at = np.s_[:, :, p * stride : p * stride + rows, q * stride : q * stride + columns]
        y[:, :, p, q] = np.tensordot(padded[at], w, ((1, 2, 3), (1, 2, 3))) + b
    return y, (x, w, stride, pad)


def conv_backward(dy, cache):
    x, w, stride, pad = cache
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    for p, q in np.ndindex(dy.shape[2:]):
        rows, columns = w.shape[2:]
        at = np.s_[:, :, p * stride : p * stride + rows, q * stride : q * stride + columns]
        dx[at] += np.tensordot(dy[:, :, p, q], w, (1, 0))
        dw += np.tensordot(dy[:, :, p, q], padded[at], (0, 0))
    height, width = x.shape[2:]
    return dx[:, :, pad : pad + height, pad : pad + width], dw, dy.sum(axis=(0, 2, 3))


def conv_nhwc(x, w, b, stride=1, pad=0):
    y, cache = conv(x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), b, stride, pad)
    return y.transpose(0, 2, 3, 1), cache


def conv_nhwc_backward(dout, cache):
    dx, dw, db = conv_backward(dout.transpose(0, 3, 1, 2), cache)
    return {"dX": dx.transpose(0, 2, 3, 1), "dW": dw.transpose(2, 3, 1, 0), "db": db}


class DenseLayer:
    """Weights (in, out), gradients as attributes."""

    def __init__(self, features, units):
        self.W, self.b = RNG.normal(size=(features, units)), np.zeros(units)
        self.dW, self.db = np.zeros_like(self.W), np.zeros_like(self.b)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, grad):
        self.dW, self.db = self.x.T @ grad, grad.sum(axis=0)
        return grad @ self.W.T


class DictLayer(DenseLayer):
    def __init__(self, features, units):
        self.params = {"W": RNG.normal(size=(features, units)), "b": np.zeros(units)}
        self.grads = {}

    def forward(self, x):
        self.x = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, grad):
        self.grads = {"W": self.x.T @ grad, "b": grad.sum(axis=0)}
        return grad @ self.params["W"].T


class AddingLayer(DenseLayer):
    def backward(self, grad):
        self.dW += self.x.T @ grad
        self.db += grad.sum(axis=0)
        return grad @ self.W.T


def relu(x):
    return np.maximum(x, 0), x


def pool(x):
    n, c, height, width = x.shape
    inside = x[:, :, : height // 2 * 2, : width // 2 * 2]
    cells = inside.reshape(n, c, height // 2, 2, width // 2, 2)
    return cells.max(axis=(3, 5)), (cells, x.shape)


def pool_backward(dy, cache, share):
    cells, shape = cache
    mask = cells == cells.max(axis=(3, 5), keepdims=True)
    if share:
        mask = mask / mask.sum(axis=(3, 5), keepdims=True)
    dx = np.zeros(shape)
    high, wide = (2 * n for n in dy.shape[2:])
    spread = (mask * dy[:, :, :, None, :, None]).reshape(*shape[:2], high, wide)
    dx[:, :, :high, :wide] = spread
    return dx


def batchnorm(x, gamma, beta, eps=1e-5):
    mean, variance = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    z = (x - mean) / np.sqrt(variance + eps)
    return gamma[:, None, None] * z + beta[:, None, None], (z, variance, gamma, eps)


def batchnorm_backward(dy, cache):
    z, variance, gamma, eps = cache
    dgamma, dbeta = (dy * z).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))
    count = dy.size // dy.shape[1]
    through = dy - dbeta[:, None, None] / count - z * dgamma[:, None, None] / count
    return gamma[:, None, None] / np.sqrt(variance + eps) * through, dgamma, dbeta


RIGHT = {
    "conv": ((conv, conv_backward), {"kind": "conv2d"}),
    "conv-stride": ((conv, conv_backward), {"kind": "conv2d", "stride": 2, "padding": 1}),
    "conv-5x5": ((conv, conv_backward), {"kind": "conv2d", "stride": 3, "kernel_size": 5}),
    "conv-nhwc": ((conv_nhwc, conv_nhwc_backward), {"kind": "conv2d", "padding": 1}),
    "conv-given": (
        (conv, conv_backward, RNG.normal(size=(2, 2, 5, 6))),
        {"params": (RNG.normal(size=(3, 2, 3, 3)), np.zeros(3))},
    ),
    "dense-object": ((DenseLayer(5, 4),), {"kind": "dense"}),
    "dense-object-given": ((DenseLayer(5, 4), None, X), {}),
    "dense-grads": ((DictLayer(5, 4),), {"kind": "dense"}),
    "dense-columns": (
        (
            lambda x, w, b: w @ x + b,
            lambda dy, x, w, b: (w.T @ dy, dy @ x.T, dy.sum(axis=1, keepdims=True)),
        ),
        {"kind": "dense"},
    ),
    "dense-dict": (
        (
            lambda x, p: x @ p["w"] + p["b"],
            lambda dy, x, p: {"x": dy @ p["w"].T, "w": x.T @ dy, "b": dy.sum(axis=0)},
            X,
        ),
        {"params": {"w": RNG.normal(size=(5, 2)), "b": np.ones(2)}},
    ),
    "dense-nested": (
        (
            lambda x, w, b: (x @ w + b, x, w),
            lambda dy, cache: (dy @ cache[1].T, [cache[0].T @ dy, dy.sum(axis=0)]),
            [X, X[:1], 100 * X],
        ),
        {"params": [RNG.normal(size=(5, 2)), np.ones(2)]},
    ),
    "relu": ((relu, lambda dy, x: dy * (x > 0)), {"kind": "relu"}),
    "relu-other-slope-at-0": ((relu, lambda dy, x: dy * (x >= 0)), {"kind": "relu"}),
    "relu-of-y": ((lambda x: np.maximum(x, 0), lambda dy, y: dy * (y > 0)), {"kind": "relu"}),
    "sigmoid": ((lambda x: 1 / (1 + np.exp(-x)), lambda dy, y: dy * y * (1 - y), X), {}),
    "maxpool-shared": ((pool, lambda dy, c: pool_backward(dy, c, True)), {"kind": "maxpool2d"}),
    "avgpool-no-leftovers": (
        (
            lambda x: x.reshape(*x.shape[:2], x.shape[2] // 2, 2, -1, 2).mean(axis=(3, 5)),
            lambda dy: np.repeat(np.repeat(dy, 2, axis=2), 2, axis=3) / 4,
        ),
        {"kind": "avgpool2d"},
    ),
    "softmax": ((loss, loss_backward), {"kind": "softmax_cross_entropy"}),
    "softmax-one-hot": (
        (
            lambda x, t: -(t * (x - np.log(np.exp(x).sum(axis=1, keepdims=True)))).sum() / len(x),
            lambda x, t: (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) - t) / len(x),
        ),
        {"kind": "softmax_cross_entropy"},
    ),
    "batchnorm": ((batchnorm, batchnorm_backward), {"kind": "batchnorm"}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_layers(name):
    arguments, options = RIGHT[name]
    result = check_layer(*arguments, **options)
    assert result.ok, str(result)
    assert max(row.error for row in result.rows) < 1e-6
    assert "agree" in str(result)


def test_a_kinds_probes_bring_out_what_hides():
    result = check_layer(conv, conv_backward, kind="conv2d")
    probes = {part for row in result.rows for part in row.probe.replace(": ", ", ").split(", ")}
    assert {"a zero background", "large values", "small values", "one image alone"} <= probes
    assert {"stride 1", "stride 2", "padding 0", "padding 1"} <= probes


def last(dy, cache):
    x, w, stride, pad = cache
    dx, _, db = conv_backward(dy, cache)
    return dx, conv_backward(dy[-1:], (x[-1:], w, stride, pad))[1], db


def mixed(dy, cache):
    x, w, stride, pad = cache
    dx, _, db = conv_backward(dy, cache)
    return dx, conv_backward(dy, (x[::-1], w, stride, pad))[1], db


def in_place(x):
    x[x < 0] = 0
    return x, x


def in_place_backward(dy, x):
    dy[x <= 0] = 0
    return dy


class SharedBuffer:
    """Keeps its input in one buffer for every call."""

    def __init__(self):
        self.buffer = np.zeros((3, 5))

    def run(self, x):
        self.buffer[:] = x
        return np.tanh(x), self.buffer


WRONG = {
    "sign": (
        (conv, lambda dy, c: [-g for g in conv_backward(dy, c)]),
        {"kind": "conv2d"},
        {("sign-flipped", "dx"), ("sign-flipped", "dw"), ("sign-flipped", "db")},
    ),
    "last": ((conv, last), {"kind": "conv2d"}, {("last-sample-only", "dw")}),
    "mixed": ((conv, mixed), {"kind": "conv2d"}, {("images-mixed", "dw")}),
    "batch": (
        (
            lambda x, w, b: x @ w + b,
            lambda dy, x, w, b: (dy @ w.T, x.T @ dy / len(x), dy.sum(axis=0)),
        ),
        {"kind": "dense"},
        {("batch-scale", "dw")},
    ),
    "loss-sum": (
        (loss, lambda cache: loss_backward(cache) * len(cache[1])),
        {"kind": "softmax_cross_entropy"},
        {("batch-scale", "dx")},
    ),
    "adding": (
        (AddingLayer(5, 4),),
        {"kind": "dense"},
        {("gradients-not-cleared", "dW"), ("gradients-not-cleared", "db")},
    ),
    "input-overwritten": (
        (in_place, lambda dy, x: dy * (x > 0)),
        {"kind": "relu"},
        {("cache-overwritten", "x")},
    ),
    "cache-shared": (
        (SharedBuffer().run, lambda dy, cache: dy / np.cosh(cache) ** 2, X),
        {},
        {("cache-overwritten", "dx")},
    ),
    "bias-averaged": (
        (conv, lambda dy, c: (*conv_backward(dy, c)[:2], dy.mean(axis=(0, 2, 3)))),
        {"kind": "conv2d"},
        {("bias-averaged", "db")},
    ),
    "mask-missing": (
        (relu, lambda dy, x: dy + 0 * x),
        {"kind": "relu"},
        {("relu-mask-missing", "dx")},
    ),
    "mask-of-delta": (
        (relu, lambda dy, x: dy * (dy > 0)),
        {"kind": "relu"},
        {("relu-mask-of-delta", "dx")},
    ),
    "ties-all": (
        (pool, lambda dy, c: pool_backward(dy, c, False)),
        {"kind": "maxpool2d"},
        {("pool-ties-all", "dx")},
    ),
    "transposed": (
        (lambda x, w: x @ w, lambda dy, x, w: (dy @ w.T, dy.T @ x), X),
        {"params": [RNG.normal(size=(5, 2))]},
        {(None, "dw")},
    ),
    "statistics-constant": (
        (
            batchnorm,
            lambda dy, c: (
                c[2][:, None, None] / np.sqrt(c[1] + c[3]) * dy,
                *batchnorm_backward(dy, c)[1:],
            ),
        ),
        {"kind": "batchnorm"},
        {(None, "dx")},
    ),
    "random": ((lambda x: x * next(COUNT), lambda dy: dy, X), {}, {(None, "y")}),
    "not-linear": ((lambda x: 2 * x, lambda dy: 2 * dy + 1, X), {}, {(None, "dx")}),
    "forward": (
        (lambda x: np.maximum(x, -1), lambda dy, x: dy * (x > -1)),
        {"kind": "relu"},
        {(None, "y")},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_layers(name):
    arguments, options, wanted = WRONG[name]
    result = check_layer(*arguments, **options)
    assert not result.ok
    assert {(own.mistake, own.quantity) for own in result.findings} == wanted, str(result)
    assert "wrong" in str(result)


def test_a_mistake_is_named_whatever_the_layout():
    def turned(dout, cache):
        found = conv_nhwc_backward(dout, cache)
        return {**found, "dW": found["dW"][::-1, ::-1]}

    result = check_layer(conv_nhwc, turned, kind="conv2d", stride=2)
    (finding,) = result.findings
    assert finding.mistake == "weight-gradient-turned"
    assert finding.mend == MISTAKES["weight-gradient-turned"].mend
    text = str(result)
    assert "turned by 180 degrees" in text
    assert "  right is\n    dw[k,c,r,s] = sum over n, p, q of" in text


def test_two_mistakes_in_one_gradient():
    def wrong(dy, cache):
        dx, dw, db = conv_backward(dy, cache)
        return dx, -dw[:, :, ::-1, ::-1], -db / len(dy)

    found = check_layer(conv, wrong, kind="conv2d").findings
    assert {(own.mistake, own.quantity) for own in found} == {
        ("sign-flipped", "dw"),
        ("weight-gradient-turned", "dw"),
        ("sign-flipped", "db"),
        ("bias-averaged", "db"),
    }


def test_a_delta_that_is_written_to_is_a_note():
    result = check_layer(relu, in_place_backward, kind="relu")
    assert result.ok
    assert any("writes to the dy" in note for note in result.notes)


def test_an_objects_weights_come_back():
    layer = DenseLayer(5, 4)
    before = layer.W.copy()
    check_layer(layer, kind="dense")
    check_layer(layer, inputs=X)
    np.testing.assert_array_equal(layer.W, before)


def test_parameters_that_a_function_reads_from_outside():
    w = RNG.normal(size=(5, 2))
    before = w.copy()
    result = check_layer(lambda x: x @ w, lambda dy, x: (dy @ w.T, x.T @ dy), X, params={"w": w})
    assert result.ok, str(result)
    assert {row.quantity for row in result.rows} == {"dx", "dw"}
    np.testing.assert_array_equal(w, before)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((relu, in_place_backward), {}, OptionError, "needs inputs, or the layer's kind"),
        ((relu, in_place_backward), {"kind": "relus"}, OptionError, "kind must be one of conv2d"),
        ((relu, in_place_backward), {"kind": "relu", "stride": 2}, OptionError, "takes no options"),
        ((relu, in_place_backward, X), {"stride": 2}, OptionError, "stride goes with kind"),
        ((relu,), {"kind": "relu"}, OptionError, "takes two functions, forward and backward, or"),
        ((DenseLayer,), {"kind": "dense"}, OptionError, "takes an object, not the class"),
        ((relu, 3, X), {}, OptionError, "backward must be a function, got 3"),
        ((relu, in_place_backward, ["a"]), {}, InputError, "inputs must hold numbers"),
        ((relu, in_place_backward, X[:0]), {}, InputError, "inputs holds no numbers"),
        (
            (relu, in_place_backward, X),
            {"lr": 0},
            OptionError,
            r"lr must be a number in \(0, inf\)",
        ),
        ((relu, in_place_backward), {"kind": "dense"}, OptionError, "has weights, but forward"),
        ((conv, conv_backward), {"kind": "conv2d", "stride": 0}, OptionError, "stride must be"),
        ((relu, in_place_backward, np.nan * X), {}, InputError, "inputs holds NaN"),
        (
            (lambda x, q, r: x, in_place_backward, X),
            {},
            OptionError,
            r"cannot call <lambda>\(x, q, r\): no usual order of arguments fits",
        ),
        ((lambda x: "no", in_place_backward, X), {}, OptionError, r"forward\(x\): returned str"),
        (
            (relu, lambda u, v: 1 / 0, X),
            {},
            OptionError,
            r"backward\(dy, cache\): ZeroDivisionError: division by zero",
        ),
    ],
)
def test_what_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        check_layer(*arguments, **options)


@pytest.mark.parametrize(
    "backward",
    [lambda d, x: d * (1 - x**2), lambda dout, x: dout * (1 - x**2), lambda q, x: q * (1 - x**2)],
)
def test_an_argument_called_x_is_the_input(backward):
    found = check_layer(np.tanh, backward, kind="tanh")
    assert [finding.mistake for finding in found.findings] == ["slope-at-wrong-place"]
