"""Networks and data: trained ones, drawn ones, and a small one for ``fit``."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import fullback as fb
from fullback import (
    BinaryCrossEntropy,
    MeanSquaredError,
    Network,
    SoftmaxCrossEntropy,
    fit,
    schedules,
)
from fullback.errors import OptionError, ShapeError

NETWORKS = {
    "pooled": (
        (2, 9, 8),
        "conv5 relu pool conv6(bias=false) relu pool dropout0.2 flatten dense9 relu dense4",
    ),
    "normed": (
        (3, 9, 8),
        "normalize conv6(groups=3) batchnorm relu dropout0.1 conv4(kernel_size=2x3, stride=2x1, "
        "padding=2, dilation=1x2) tanh avgpool3(stride=2, padding=1) conv5(groups=1) batchnorm "
        "leakyrelu0.1 conv7 sigmoid pool3(stride=1, padding=same) globalavgpool dense4",
    ),
    "normed and pooled": (
        (3, 12, 9),  # an even map, whose pooling joins, and an odd one
        "conv5(padding=1x2,kernel_size=3x4) batchnorm relu pool conv6 batchnorm relu pool "
        "flatten dense4",
    ),
    "flat": ((40,), "normalize dense20 sigmoid dropout0.5 dense9(bias=false) leakyrelu dense4"),
}
"""Networks that together hold every layer kind and every rewrite."""


def network(name, **options):
    """Return one of these networks."""
    shape, text = NETWORKS[name]
    return Network.parse(text, shape, **options)


def some_digits():
    whole = fb.load_data("digits")
    return fb.Dataset(
        "digits", whole.x_train[:640], whole.y_train[:640], whole.x_test[:200], whole.y_test[:200]
    )


def trained(net, data, epochs):
    """Train a network in place, and return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fb.DeadUnitWarning)
        fb.fit(net, data.x_train, data.y_train, epochs=epochs, verbose=False)
    return net


# The same examples on every run, without a database; slow machines get the time they need.
deterministic = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def batch_for(net, images, rng):
    """Random images and targets; and parameters and statistics, which partly start at 0 and 1."""
    for arrays in (net.parameters, net.statistics):
        for name, array in arrays.items():
            noise = rng.normal(scale=0.2, size=array.shape)
            arrays[name] = array + (abs(noise) if arrays is net.statistics else noise)
    x, outputs = rng.normal(size=(images, *net.input_shape)), net.output_shape[0]
    squares = isinstance(net.loss, MeanSquaredError)
    return x, rng.normal(size=(images, outputs)) if squares else rng.integers(0, outputs, images)


def unusual(net, images, seed=0, dtype="float32"):
    """Return images and targets, having put noise on what starts at 0 or 1 in the network."""
    rng = np.random.default_rng(seed)
    x, y = batch_for(net, images, rng)
    if dtype == "uint8":
        return rng.integers(0, 256, x.shape, dtype=np.uint8), y
    return x.astype(dtype), y


@st.composite
def texts(draw):
    """Draw the text form of a network and the shape of its images."""
    sizes = st.integers(1, 12)
    shape = draw(st.tuples(st.integers(1, 4), sizes, sizes))
    words = ["normalize"] if draw(st.booleans()) else []
    between = st.sampled_from(
        [
            "relu",
            "leakyrelu0.1",
            "sigmoid",
            "tanh",
            "dropout0.3",
            "batchnorm",
            "pool",
            "pool3(stride=1,padding=same)",
            "pool3x2(stride=2,padding=1)",
            "avgpool",
            "avgpool3(stride=2,padding=same)",
        ]
    )
    options = st.sampled_from(
        [
            "kernel_size=1",
            "kernel_size=5",
            "kernel_size=2x3",
            "stride=2",
            "stride=1x3",
            "padding=valid",
            "padding=2",
            "padding=0x1",
            "dilation=2",
            "dilation=1x3",
            "groups=2",
            "groups=3",
            "bias=false",
        ]
    )
    convs = st.builds(
        lambda filters, given, behind: f"conv{filters}({','.join(given)}){behind}",
        st.integers(1, 9),
        st.lists(options, max_size=2, unique_by=lambda option: option.split("=")[0]),
        st.sampled_from(["", " relu", " relu pool", " batchnorm relu", " batchnorm relu pool"]),
    )
    for word in draw(st.lists(convs | between, max_size=6)):
        try:
            Network.parse(" ".join([*words, word, "flatten"]), shape)
        except (OptionError, ShapeError):  # its groups or its window do not fit
            continue
        words.append(word)
    words.append(draw(st.sampled_from(["flatten", "globalavgpool"])))
    rows = st.sampled_from(["relu", "sigmoid", "leakyrelu", "tanh", "dropout0.5", "flatten"])
    denses = st.builds(
        "dense{}{}".format, st.integers(1, 20), st.sampled_from(["", "(bias=false)"])
    )
    words += draw(st.lists(rows | denses, max_size=4))
    return " ".join([*words, f"dense{draw(st.integers(2, 12))}"]), shape


losses = st.sampled_from(
    [SoftmaxCrossEntropy(), SoftmaxCrossEntropy(0.1), BinaryCrossEntropy(), MeanSquaredError()]
)


TEXT = "conv3 batchnorm leakyrelu pool dropout0.2 flatten dense4"


def net_and_data(images=20, text=TEXT, **options):
    rng = np.random.default_rng(0)
    net = Network.parse(text, (1, 6, 6), **options)
    return net, rng.random((images, 1, 6, 6)), rng.integers(0, 4, images)


def train(net, x, y, **options):
    """Fit quietly, in small batches, at a learning rate that stays."""
    options = {"epochs": 2, "batch_size": 8, "schedule": schedules.constant, **options}
    return fit(net, x, y, verbose=False, **options)


GOOD = net_and_data()
