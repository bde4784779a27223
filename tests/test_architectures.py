"""Architectures: the text form, the zoo, the summary, and random networks."""

import dataclasses
import re
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fullback import BinaryCrossEntropy, MeanSquaredError, Network, SoftmaxCrossEntropy, zoo
from fullback.errors import OptionError, ShapeError
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
from support.networks import batch_for, deterministic

HOSTILE = """
    conv1((((1)))) conv8(kernel_size=999999999) conv8(padding=999999999) dense999999999
    conv999999999 conv-8 conv² conv\uff18 \U0001d484onv8 conv8\u202e conv8\x00 conv8;rm {conv8}
    dropout(rate=e5) dropout(rate=.e1) dropout(rate=1e99) pool(size=.) pool(size=nan) pool(size==2)
    __class__ conv8(__class__=1) flatten(=)
"""

ZOO = {
    # of each layer with weights: filters or units, weights of each, positions they are used at
    "question": [(1, 9, 28**2), (1, 9, 14**2), (49, 49, 1), (10, 49, 1)],
    "lenet1": [(4, 25, 24**2), (12, 100, 8**2), (10, 192, 1)],
    "lenet5": [(6, 25, 28**2), (16, 150, 10**2), (120, 400, 1), (84, 120, 1), (10, 84, 1)],
    "small": [(8, 9, 28**2), (16, 72, 14**2), (64, 784, 1), (10, 64, 1)],
    "wide": [(32, 9, 28**2), (64, 288, 14**2), (128, 3136, 1), (10, 128, 1)],
}


class TestParse:
    def test_options(self):
        net = Network.parse(
            " conv6(kernel_size=3x5, stride=2,padding=valid , groups=2,bias=false)\n\tleakyrelu0.2 "
            "avgpool3(stride=1) batchnorm(epsilon=1e-3) pool(stride=none) dropout0.5 flatten "
            "dense(units=4) ",
            (2, 9, 16),
        )
        assert repr(list(net.layers)) == (
            "[Conv2D(6, kernel_size=(3, 5), stride=2, padding='valid', groups=2, bias=False), "
            "LeakyReLU(slope=0.2), AvgPool2D(size=3, stride=1), BatchNorm2D(epsilon=0.001), "
            "MaxPool2D(), Dropout(), Flatten(), Dense(4)]"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "the network's text is empty; write layers, like: conv8 relu pool"),
            (" \n ", "text is empty"),
            ("conv8 relo flatten", "'relo' is not a layer; did you mean relu"),
            ("transformer", "'transformer' is not a layer; the layers are conv, pool"),
            ("conv flatten", "conv needs its number of filters, like conv8"),
            ("dense", "dense needs its number of units, like dense8"),
            ("relu3", "relu takes no number, got relu3"),
            ("conv8(size=3)", "conv: 'size=3' is not one of its options; .* filters, kernel_size"),
            ("conv8(3)", "conv: '3' is not one of its options"),
            ("conv8(filters=3)", "conv: 'filters=3' is given twice"),
            ("conv8(bias=true, bias=true)", "conv: 'bias=true' is given twice"),
            ("flatten(a=1)", "flatten: 'a=1' is not one of its options; .* options: none"),
            ("conv8(padding=full)", "padding must be 'same', 'valid', .* got 'full'"),
            ("conv8(bias=maybe)", "bias must be True or False, got 'maybe'"),
            ("conv8.5", "filters must be a whole number of at least 1, got 8.5"),
            ("conv0", "filters must be a whole number of at least 1, got 0"),
            ("conv8, relu", "cannot read 'conv8,' in the network's text; a layer is written like"),
            ("conv8(padding=(1,2))", r"cannot read 'conv8\(padding=\(1,2\)\)'"),
            ("Conv8", "cannot read 'Conv8'"),
            ("dropout1.5", r"rate must be a number in \[0, 1\), got 1.5"),
            ("conv8 " * 2000, "text may have 10000 characters, got 12000"),
        ],
    )
    def test_what_cannot_be_read(self, text, message):
        with pytest.raises(OptionError, match=message):
            Network.parse(text, (2, 9, 16))

    @pytest.mark.parametrize(
        "text",
        [
            "(" * 9999,
            "conv8(" * 1600,
            "conv8(" + " " * 2000 + "(",
            "conv8(a" + " " * 9000 + "b)",
            "conv" + "9" * 5000,
            "conv8(kernel_size=" + "9" * 30 + ")",
            "conv8(kernel_size=999999999, padding=999999999)",
            "conv8(stride=999999999x1) conv999999999",
            *HOSTILE.split(),
        ],
        ids=lambda text: repr(text[:30]),
    )
    def test_hostile_text_is_refused_at_once(self, text):
        start = time.perf_counter()
        with pytest.raises((OptionError, ShapeError)):
            Network.parse(text, (2, 9, 16))
        # Some milliseconds are needed; an expression that backtracks takes many seconds.
        assert time.perf_counter() - start < 2


class TestZoo:
    @pytest.mark.parametrize("name", ZOO)
    def test_sizes(self, name):
        net = zoo.NETWORKS[name]()
        assert net.output_shape == (10,)
        parameters = sum(units * (weights + 1) for units, weights, _ in ZOO[name])
        costs = sum(units * weights * positions for units, weights, positions in ZOO[name])
        total = next(line for line in net.summary().splitlines() if line.split()[:1] == ["total"])
        assert total.split() == ["total", f"{parameters:,}", f"{costs:,}"]

    def test_the_size_of_deep(self):
        """Filters without biases, two numbers a channel to normalise, a dense layer."""
        widths = ((1, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64))
        filters = sum(9 * below * above for below, above in widths)
        channels = sum(above for _, above in widths)
        net = zoo.deep()
        count = sum(array.size for array in net.parameters.values())
        assert count == filters + 2 * channels + 64 * 7 * 7 * 10 + 10
        assert len(net.layers) == 6 * 3 + 2 + 3

    def test_options(self):
        assert list(zoo.NETWORKS) == [*ZOO, "deep", "compact"]
        for network in zoo.NETWORKS.values():
            net = network((3, 32, 36), 7, seed=3, dtype="float64")
            assert (net.input_shape, net.output_shape, net.dtype) == ((3, 32, 36), (7,), np.float64)

    def test_images_that_are_too_small(self):
        with pytest.raises(ShapeError, match=r"conv3 after avgpool2: .* 5x5 .* into 3x3"):
            zoo.lenet5((1, 20, 20))


def test_summary_of_a_small_network():
    net = Network([Flatten(), Dense(10, bias=False)], (1, 10, 10))
    assert net.summary().startswith("layer ")
    assert not net.summary().endswith("\n")
    body = [line.split() for line in net.summary().splitlines() if line.strip()]
    assert body[0] == ["layer", "options", "output", "parameters", "multiply-adds"]
    assert body[2:] == [
        ["input", "1", "x", "10", "x", "10"],
        ["flatten1", "Flatten()", "100"],
        ["dense1", "Dense(10,", "bias=False)", "10", "1,000", "1,000"],
        ["total", "1,000", "1,000"],
    ]


# Random networks ----------------------------------------------------------------------------------


def pairs(least, most):
    return st.integers(least, most) | st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def convolutions(draw, channels):
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    return Conv2D(
        groups * draw(st.integers(1, 2)),
        draw(pairs(1, 4)),
        draw(pairs(1, 3)),
        draw(st.sampled_from(["same", "valid"]) | pairs(0, 2)),
        draw(pairs(1, 2)),
        groups,
        draw(st.booleans()),
    )


@st.composite
def pools(draw):
    pool = draw(st.sampled_from([MaxPool2D, AvgPool2D]))
    stride = draw(st.none() | pairs(1, 3))
    return pool(draw(pairs(2, 3)), stride, draw(st.sampled_from(["same", "valid", 0, 1, (0, 1)])))


activations = st.sampled_from([ReLU(), LeakyReLU(), LeakyReLU(0.2), Sigmoid(), Tanh()])
anywhere = activations | st.sampled_from([Dropout(0.3)])


@st.composite
def networks(draw):
    """Draw a network in float64, of some thousand parameters at most."""
    input_shape = (draw(st.integers(1, 3)), draw(st.integers(2, 8)), draw(st.integers(2, 8)))
    layers = [Normalize()] if draw(st.booleans()) else []
    shape = input_shape
    for _ in range(draw(st.integers(0, 5))):
        layer = draw(convolutions(shape[0]) | pools() | anywhere | st.just(BatchNorm2D()))
        try:
            shape = layer.output_shape(shape)
        except ShapeError:  # its window is too large by now
            continue
        layers.append(layer)
    layers.append(draw(st.sampled_from([Flatten(), GlobalAvgPool2D()])))
    for _ in range(draw(st.integers(0, 2))):
        layers += [Dense(draw(st.integers(1, 6)), draw(st.booleans())), draw(anywhere)]
    layers.append(Dense(draw(st.integers(2, 4))))
    loss = draw(
        st.sampled_from(
            [
                SoftmaxCrossEntropy(),
                SoftmaxCrossEntropy(0.2),
                BinaryCrossEntropy(),
                MeanSquaredError(),
            ]
        )
    )
    seed = draw(st.integers(0, 999))
    return Network(layers, input_shape, loss=loss, seed=seed, dtype="float64")


@settings(deterministic, max_examples=150)
@given(net=networks(), images=st.integers(1, 4), training=st.booleans())
def test_gradients_equal_finite_differences_in_a_random_direction(net, images, training):
    rng = np.random.default_rng(0)
    x, y = batch_for(net, images, rng)
    start = {name: p.copy() for name, p in net.parameters.items()}
    trace = net.trace(x, y, training=training, seed=1)
    gradients = {**trace.gradients, "input": trace.deltas["input"]}
    direction = {name: rng.normal(size=g.shape) for name, g in gradients.items()}
    length = np.sqrt(sum((d**2).sum() for d in direction.values()))
    expected = sum((gradients[name] * d).sum() for name, d in direction.items()) / length

    def loss(step):
        for name, p in start.items():
            net.parameters[name] = p + step / length * direction[name]
        moved = x + step / length * direction["input"]
        return net.loss_and_gradients(moved, y, training=training, seed=1)[0]

    def slope(step):
        return (loss(step) - loss(-step)) / (2 * step)

    # The error is a third derivative times h^2 / 6, plus the loss's rounding, 1e-15, over 2 h. In
    # h = 1e-5 and 2e-5 both are below 1e-9, unless a kink lies between -h and h, or the values of a
    # batch normalisation lie together so closely that they bend; then the slopes differ.
    near, far = slope(1e-5), slope(2e-5)
    scale = max(1.0, np.sqrt(sum((g**2).sum() for g in gradients.values())))
    assume(abs(near - far) <= 1e-7 * scale)
    assert near == pytest.approx(expected, abs=1e-6 * scale)


@deterministic
@given(net=networks(), images=st.integers(1, 4))
def test_traces_have_the_declared_shapes(net, images):
    x, y = batch_for(net, images, np.random.default_rng(0))
    trace = net.trace(x, y)
    shapes = dict(zip(("input", *net.names), (net.input_shape, *net.shapes), strict=True))
    assert {name: a.shape for name, a in trace.activations.items()} == {
        name: (images, *shape) for name, shape in shapes.items()
    }
    assert {name: d.shape for name, d in trace.deltas.items()} == {
        name: a.shape for name, a in trace.activations.items()
    }
    assert {name: g.shape for name, g in trace.gradients.items()} == {
        name: p.shape for name, p in net.parameters.items()
    }
    assert net.logits(x).shape == (images, *net.output_shape)


def written(layer):
    """Write a layer in the text form: its first option as a number, the others in brackets."""
    number, options = "", []
    for position, field in enumerate(dataclasses.fields(layer)):
        value = getattr(layer, field.name)
        if position == 0 and not isinstance(value, tuple):
            number = str(value)
        elif value != field.default:
            pair = "x".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
            options.append(f"{field.name}={pair}")
    return f"{layer.kind}{number}" + (f"({', '.join(options)})" if options else "")


@deterministic
@given(net=networks())
def test_the_text_form_gives_the_same_layers(net):
    text = " ".join(map(written, net.layers))
    again = Network.parse(text, net.input_shape, loss=net.loss, dtype="float64")
    assert again.layers == net.layers
    assert again.names == net.names
    assert again.shapes == net.shapes


@deterministic
@given(net=networks(), freeze=st.booleans())
def test_the_summary_adds_up(net, freeze):
    if freeze:
        net.freeze("dense1")
    lines = [line for line in net.summary().splitlines() if line.strip()]
    assert lines[0].split() == ["layer", "options", "output", "parameters", "multiply-adds"]
    body = [line for line in lines if re.match(r" *(input|[a-z]+\d+) ", line)]
    assert [line.split()[0] for line in body] == ["input", *net.names]
    for line, shape in zip(body, (net.input_shape, *net.shapes), strict=True):
        assert re.search(rf"\b{' x '.join(map(str, shape))}\b", line)
    count = sum(p.size for p in net.parameters.values())
    frozen = sum(p.size for n, p in net.parameters.items() if n.startswith("dense1.") and freeze)
    costs = sum(
        layer.multiply_adds(shape)
        for layer, shape in zip(net.layers, (net.input_shape, *net.shapes), strict=False)
    )
    shown = f"{count:,} ({frozen:,} frozen)" if frozen else f"{count:,}"
    assert lines[-1].split() == ["total", *shown.split(), f"{costs:,}"]
