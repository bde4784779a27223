"""The reference against PyTorch, where it is installed, in float64.

1e-10, relative to the largest entry, is some 100 000 roundings: more than the sums of a few
thousand terms here can add up to. Where all entries cancel to 0 they are compared to 1e-3.
"""

import warnings

import numpy as np
import pytest

from fullback import SGD, Adam, AdamW, Network, SoftmaxCrossEntropy, zoo
from fullback.layers import (
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    LeakyReLU,
    MaxPool2D,
    Normalize,
    ReLU,
    Sigmoid,
    Tanh,
)
from support.cases import CASES, inputs, reference

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's own, at import
    torch = pytest.importorskip("torch")

F = torch.nn.functional
TOLERANCE = 1e-10


def assert_equal(actual, desired):
    desired = desired.detach().numpy()
    assert actual.shape == desired.shape
    assert np.abs(actual - desired).max() <= TOLERANCE * max(np.abs(desired).max(), 1e-3)


def tensor(array, gradient=True):
    made = torch.tensor(np.asarray(array, np.float64))
    return made.requires_grad_(gradient)


def apply(layer, x, p, training):
    """One layer, in PyTorch's words; x is (N, ...), p its parameters and statistics."""
    match layer:
        case Conv2D():
            x = F.pad(
                x, around(layer, x.shape[2:], layer.kernel_size, layer.stride, layer.dilation)
            )
            return F.conv2d(
                x, p["weight"], p.get("bias"), layer.stride, 0, layer.dilation, layer.groups
            )
        case MaxPool2D():
            step = layer.size if layer.stride is None else layer.stride
            x = F.pad(x, around(layer, x.shape[2:], layer.size, step), value=-torch.inf)
            return F.max_pool2d(x, layer.size, step)
        case AvgPool2D():
            step = layer.size if layer.stride is None else layer.stride
            return F.avg_pool2d(
                F.pad(x, around(layer, x.shape[2:], layer.size, step)), layer.size, step
            )
        case GlobalAvgPool2D():
            return F.adaptive_avg_pool2d(x, 1).flatten(1)
        case Flatten():
            return x.flatten(1)
        case Dense():
            return F.linear(x, p["weight"], p.get("bias"))
        case ReLU():
            return F.relu(x)
        case LeakyReLU():
            return F.leaky_relu(x, layer.slope)
        case Sigmoid():
            return torch.sigmoid(x)
        case Tanh():
            return torch.tanh(x)
        case Dropout():
            return x
        case BatchNorm2D():
            statistics = [p[name].detach() for name in ("mean", "variance")]
            return F.batch_norm(
                x, *statistics, p["weight"], p["bias"], training, layer.momentum, layer.epsilon
            )
        case Normalize():
            ones = (1,) * (x.ndim - 2)
            return (x - p["mean"].reshape(-1, *ones)) / p["deviation"].reshape(-1, *ones)


def around(layer, length, size, stride, dilation=1):
    """Zeros for F.pad: left, right, above, below; "same" is TensorFlow's rule."""
    sides = []
    for axis in (1, 0):
        n, m, s, d = (int(np.broadcast_to(v, 2)[axis]) for v in (length, size, stride, dilation))
        if layer.padding == "same":
            total = max((-(-n // s) - 1) * s + (m - 1) * d + 1 - n, 0)
            sides += [total // 2, total - total // 2]
        else:
            sides += [
                0 if layer.padding == "valid" else int(np.broadcast_to(layer.padding, 2)[axis])
            ] * 2
    return sides


def expressible(case):
    """PyTorch draws dropout its own way, and refuses to normalise a single value."""
    if isinstance(case.layer, BatchNorm2D):
        return not case.training or case.batch * np.prod(case.input_shape[1:]) > 1
    return not (case.training and isinstance(case.layer, Dropout) and case.layer.rate)


@pytest.mark.parametrize("case", [case for case in CASES if expressible(case)], ids=str)
def test_layers(case):
    given = inputs(case)
    x, parameters = tensor(given.x), {name: tensor(p) for name, p in given.parameters.items()}
    y = apply(case.layer, x, parameters, case.training)
    results = reference(case, given)
    assert_equal(results["y"], y)
    y.backward(tensor(given.dy, gradient=False))
    assert_equal(results["dx"], x.grad)
    for name in case.layer.parameter_shapes(case.input_shape):
        assert_equal(results[f"d{name}"], parameters[name].grad)


def run_network(net, x, parameters, training=True):
    for name, layer in zip(net.names, net.layers, strict=True):
        own = {
            k.removeprefix(f"{name}."): v for k, v in parameters.items() if k.startswith(f"{name}.")
        }
        x = apply(layer, x, own, training)
    return x


@pytest.mark.parametrize("name", list(zoo.NETWORKS))
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_zoo_networks(name, smoothing):
    net = zoo.NETWORKS[name](dtype="float64")
    net.loss = SoftmaxCrossEntropy(smoothing)
    rng = np.random.default_rng(2)
    x, y = rng.random((3, 1, 28, 28)), rng.integers(0, 10, 3)
    arrays = {**net.parameters, **net.statistics}
    pixels, parameters = tensor(x), {k: tensor(p) for k, p in arrays.items()}
    logits = run_network(net, pixels, parameters, training=False)
    loss = F.cross_entropy(logits, torch.tensor(y), label_smoothing=smoothing)
    loss.backward()
    trace = net.trace(x, y, training=False)
    assert trace.loss == pytest.approx(loss.item(), rel=TOLERANCE)
    assert_equal(net.logits(x), logits)
    assert_equal(trace.probabilities, logits.softmax(dim=1))
    assert_equal(trace.deltas["input"], pixels.grad)
    for key, gradient in trace.gradients.items():
        assert_equal(gradient, parameters[key].grad)


@pytest.mark.parametrize("classes", [2, 7])
def test_label_smoothing_and_its_first_delta(classes):
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(5, classes)), rng.integers(0, classes, 5)
    leaf = tensor(logits)
    desired = F.cross_entropy(leaf, torch.tensor(labels), label_smoothing=0.3)
    desired.backward()
    loss, kept = SoftmaxCrossEntropy(0.3).forward(logits, labels)
    assert loss == pytest.approx(desired.item(), rel=TOLERANCE)
    assert_equal(SoftmaxCrossEntropy(0.3).backward(kept), leaf.grad)


def test_batchnorm_running_statistics():
    rng = np.random.default_rng(4)
    layer, module = BatchNorm2D(momentum=0.3), torch.nn.BatchNorm2d(3, momentum=0.3).double()
    parameters = {"weight": np.ones(3), "bias": np.zeros(3)}
    statistics = layer.initial_statistics((3, 4, 5))
    for _ in range(3):
        x = rng.normal(2.0, 3.0, size=(2, 3, 4, 5))
        _, kept = layer.forward(x, {**parameters, **statistics}, training=True)
        statistics = layer.next_statistics(kept, statistics)
        module(tensor(x))
        assert_equal(statistics["mean"], module.running_mean)
        assert_equal(statistics["variance"], module.running_var)
    module.eval()
    x = rng.normal(size=(2, 3, 4, 5))
    assert_equal(layer.forward(x, {**parameters, **statistics})[0], module(tensor(x)))


OPTIMIZERS = [
    (SGD(0.1), torch.optim.SGD, {}),
    (SGD(0.1, momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    (SGD(0.05, 0.8, nesterov=True), torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    (SGD(0.1, weight_decay=0.1), torch.optim.SGD, {"weight_decay": 0.1}),
    (
        SGD(0.1, 0.9, True, 0.1),
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    (Adam(0.01), torch.optim.Adam, {}),
    (
        Adam(0.02, 0.8, 0.95, 1e-4, 0.1),
        torch.optim.Adam,
        {"betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1},
    ),
    (AdamW(0.01), torch.optim.AdamW, {"weight_decay": 0.01}),
    (
        AdamW(0.02, 0.8, 0.95, 1e-4, 0.3),
        torch.optim.AdamW,
        {"betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.3},
    ),
]


@pytest.mark.parametrize(
    ("optimizer", "rival", "options"),
    OPTIMIZERS,
    ids=lambda v: repr(v) if isinstance(v, SGD | Adam) else "",
)
def test_optimizers_for_five_steps(optimizer, rival, options):
    # A bias before a batch normalisation has no gradient but rounding, which Adam would scale up.
    text = "conv3(bias=false) batchnorm tanh avgpool flatten dense4"
    net = Network.parse(text, (2, 6, 6), dtype="float64")
    parameters = {name: tensor(p) for name, p in net.parameters.items()}
    options = dict(options)
    decay = options.pop("weight_decay", 0.0)
    # Decay is for filters and dense weights; biases and scales are vectors, and go without.
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    torch_optimizer = rival(groups, lr=optimizer.learning_rate, **options)
    state = optimizer.initial_state(net.parameters, net.trainable())
    rng = np.random.default_rng(6)
    for _ in range(5):
        x, y = rng.normal(size=(4, 2, 6, 6)), rng.integers(0, 4, 4)
        _, gradients = net.loss_and_gradients(x, y)
        optimizer.step(net.parameters, gradients, state, net.trainable())
        torch_optimizer.zero_grad()
        statistics = {k: tensor(v, False) for k, v in net.statistics.items()}
        logits = run_network(net, tensor(x), {**parameters, **statistics})
        F.cross_entropy(logits, torch.tensor(y)).backward()
        torch_optimizer.step()
        for name, p in parameters.items():
            assert_equal(net.parameters[name], p)
