"""Networks on the lane engine: against the reference in float64, and bit for bit with themselves.

Answers, gradients and training differ from the float64 reference by rounding, and by nothing where
only threads, batches at once or the layout of images differ. No kernel touches foreign memory.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fullback import (
    SGD,
    Adam,
    AdamW,
    BinaryCrossEntropy,
    Dense,
    MeanSquaredError,
    Network,
    SoftmaxCrossEntropy,
    fit,
    schedules,
    zoo,
)
from fullback.engine import lanes
from fullback.engine.library import library
from fullback.engine.lowering import write
from fullback.engine.lowering.plan import Plan
from fullback.engine.machine import Machine
from fullback.engine.simd import LANES
from fullback.errors import DivergenceError, OptionError
from fullback.layers import LAYERS, ReLU
from fullback.layers.loss import class_probabilities
from fullback.passes import trace_batch
from fullback.training import lane_stepper as training_lanes
from fullback.training import reference_stepper
from fullback.training.batches import Batches
from fullback.training.lane_stepper import LaneStepper
from fullback.training.options import TrainingOptions
from fullback.training.training_data import TrainingData
from support.cases import EPS, assert_rounded, in_float64, noisy_trace
from support.networks import NETWORKS, deterministic, losses, network, texts, unusual

DRAWS = 4  # noisy results that a result is compared with

every_network = pytest.mark.parametrize("name", NETWORKS)


def test_the_networks_hold_every_kind_of_layer():
    kinds = {layer.kind for name in NETWORKS for layer in network(name).layers}
    assert kinds == set(LAYERS)


def assert_gradients_rounded(net, x, y, *, sample_weight=None, training=True, seed=1):
    """Assert that loss and gradients are right but for rounding."""
    double = in_float64(net)
    batch = double._batch(x, y, sample_weight, seed)
    options = {"training": training, "seed": seed}
    rng = np.random.default_rng(0)
    exact = trace_batch(double, *batch, **options)
    noisy = [noisy_trace(double, *batch, **options, rng=rng) for _ in range(DRAWS)]

    def results(trace):
        return {"loss": np.array(trace.loss), **trace.gradients}

    loss, gradients = net.loss_and_gradients(
        x, y, sample_weight=sample_weight, engine="lanes", **options
    )
    assert {gradient.dtype for gradient in gradients.values()} == {np.dtype("float32")}
    actual = {"loss": np.array(loss), **gradients}
    assert_rounded(actual, results(exact), [results(trace) for trace in noisy])


def assert_logits_rounded(net, x):
    """Assert that logits and probabilities are right but for rounding."""
    double = in_float64(net)
    y = np.zeros((len(x), *net.output_shape) if not net.loss.classifies else len(x), int)
    batch = double._batch(x, y, None, 0)
    options = {"training": False, "seed": 0}
    rng = np.random.default_rng(0)
    traces = [
        trace_batch(double, *batch, **options),
        *(noisy_trace(double, *batch, **options, rng=rng) for _ in range(DRAWS)),
    ]
    logits = [{"logits": trace.activations[net.names[-1]]} for trace in traces]
    actual = {"logits": net.logits(x, engine="lanes")}
    if net.loss.classifies:
        actual["probabilities"] = net.predict_proba(x, engine="lanes")
        for results in logits:
            noise = 0 if results is logits[0] else 4 * EPS * rng.choice([-1, 1], y.shape)[:, None]
            results["probabilities"] = class_probabilities(net.loss, results["logits"]) * (
                1 + noise
            )
    assert {array.dtype for array in actual.values()} == {np.dtype("float32")}
    assert_rounded(actual, logits[0], logits[1:])


# Answers and gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_the_zoo(name, dtype):
    net = zoo.NETWORKS[name]()
    x, y = unusual(net, 3 if name == "wide" else 18, dtype=dtype)
    assert_gradients_rounded(net, x, y)
    assert_logits_rounded(net, x)


@every_network
@pytest.mark.parametrize(
    "loss",
    [SoftmaxCrossEntropy(), SoftmaxCrossEntropy(0.2), BinaryCrossEntropy(), MeanSquaredError()],
    ids=str,
)
@pytest.mark.parametrize("weights", ["none", "some", "zeros"])
@pytest.mark.parametrize("training", [True, False])
def test_losses_and_sample_weights(name, loss, weights, training):
    net = network(name, loss=loss)
    x, y = unusual(net, 21)
    weight = np.random.default_rng(5).uniform(0.1, 3, 21)
    if weights == "zeros":
        weight[[0, 3, 17, 20]] = 0
    sample_weight = None if weights == "none" else weight
    assert_gradients_rounded(net, x, y, sample_weight=sample_weight, training=training)


def test_logits_far_from_zero_cost_the_loss_no_digits():
    net = Network([Dense(5)], (20,))
    net.parameters["dense1.weight"] = np.zeros((5, 20))
    x, y = np.zeros((16, 20), np.float32), np.arange(16) % 5
    losses = []
    for offset in (0, 1e4, -1e5, 1e6):  # whole numbers of this size are exact in float32
        net.parameters["dense1.bias"] = offset + np.arange(5)
        losses.append(net.loss_and_gradients(x, y, engine="lanes")[0])
    exact = in_float64(net).loss_and_gradients(x, y)[0]
    np.testing.assert_allclose(losses, exact, rtol=4 * EPS)


@every_network
@pytest.mark.parametrize("images", [1, 2, 15, 16, 17, 32, 50, 300])
def test_numbers_of_images(name, images):
    net = network(name)
    x, y = unusual(net, images)
    assert_gradients_rounded(net, x, y)
    assert_logits_rounded(net, x)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3), (1, 3, 5), (1, 4, 4), (3,), (1,), (17,)])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_small_images(shape, dtype):
    net = Network.parse("conv3 relu flatten dense4" if len(shape) == 3 else "dense4", shape)
    x, y = unusual(net, 19, dtype=dtype)
    assert_gradients_rounded(net, x, y)
    assert_logits_rounded(net, x)


def same_images(x):
    """Ways to give the same float32 images: dtypes, byte order, layouts."""
    yield "float64", x.astype(np.float64)
    yield "longdouble", x.astype(np.longdouble)
    yield "other byte order", x.astype(x.dtype.newbyteorder())
    yield "Fortran order", np.asfortranarray(x)
    yield "reversed", x[::-1].copy()[::-1]
    yield "channels last", np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
    yield "every second", np.repeat(x, 2, axis=0)[::2]
    yield "one column of two", np.repeat(x, 2, axis=-1)[..., ::2]
    yield "not aligned", np.frombuffer(b"?" + x.tobytes(), np.float32, offset=1).reshape(x.shape)
    read_only = x.copy()
    read_only.flags.writeable = False
    yield "read only", read_only


@every_network
def test_images_are_taken_however_they_lie_in_memory(name):
    net = network(name)
    x, y = unusual(net, 18)
    x = x.astype(np.float16).astype(np.float32)
    _, desired = net.loss_and_gradients(x, y, seed=1)
    logits = net.logits(x)
    for way, images in (("float16", x.astype(np.float16)), *same_images(x)):
        np.testing.assert_array_equal(images, x)
        _, actual = net.loss_and_gradients(images, y, seed=1)
        np.testing.assert_array_equal(net.logits(images), logits, err_msg=way)
        for key, gradient in actual.items():
            np.testing.assert_array_equal(gradient, desired[key], err_msg=f"{way}: {key}")


@every_network
def test_bytes_and_doubles_are_rounded_as_numpy_rounds_them(name):
    net = network(name)
    pixels, _ = unusual(net, 33, dtype="uint8")
    pixels.reshape(-1)[:256] = np.arange(256)
    desired = net.logits(pixels / np.float32(255))
    np.testing.assert_array_equal(net.logits(pixels), desired)
    np.testing.assert_array_equal(net.logits(pixels[:, ..., ::-1][:, ..., ::-1]), desired)
    doubles = pixels / 255
    np.testing.assert_array_equal(net.logits(doubles), net.logits(doubles.astype(np.float32)))


@every_network
def test_a_batch_answers_as_its_images_one_at_a_time(name):
    net = network(name)
    x, _ = unusual(net, 37)
    together = net.logits(x)
    alone = np.concatenate([net.logits(x[n : n + 1]) for n in range(len(x))])
    np.testing.assert_array_equal(together, alone)  # each lane computes for itself


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("pooled", ["conv1"]),
        ("pooled", ["conv1", "conv2", "dense1"]),
        ("normed", ["batchnorm"]),
        ("normed", ["conv1", "batchnorm1", "normalize"]),
        ("normed", ["conv", "batchnorm", "dense"]),
        ("normed and pooled", ["batchnorm1"]),
        ("normed and pooled", ["conv", "batchnorm", "dense"]),
        ("flat", ["normalize", "dense1"]),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_frozen_layers_have_gradients(name, frozen, training):
    net = network(name)
    net.freeze(*frozen)
    x, y = unusual(net, 20)
    assert_gradients_rounded(net, x, y, training=training)


@settings(deterministic, max_examples=100)
@given(
    given=texts(),
    loss=losses,
    images=st.integers(1, 40),
    training=st.booleans(),
    weighted=st.booleans(),
    dtype=st.sampled_from(["float32", "uint8"]),
    seed=st.integers(0, 9),
)
def test_random_networks(given, loss, images, training, weighted, dtype, seed):
    text, shape = given
    net = Network.parse(text, shape, loss=loss, seed=seed)
    x, y = unusual(net, images, seed=seed, dtype=dtype)
    weights = np.random.default_rng(seed).uniform(0.5, 2, images) if weighted else None
    assert_gradients_rounded(net, x, y, training=training, seed=seed, sample_weight=weights)
    assert_logits_rounded(net, x)


# Training -----------------------------------------------------------------------------------------


def stepper(net, data, optimizer, state, batch, **more):
    """What trains on the lane engine, in batches of that many images."""
    options = TrainingOptions(batch_size=batch, optimizer=optimizer)
    return LaneStepper(net, data, options, state, **more)


def trained(net, x, y, **options):
    """Train quietly for two epochs of batches of 20; return everything that training changes."""
    options = {"epochs": 2, "batch_size": 20, "seed": 3, **options}
    history = fit(net, x, y, verbose=False, **options)
    return {**net.parameters, **net.statistics, "losses": np.array(history["loss"])}


OPTIMIZERS = [
    SGD(0.05),
    SGD(0.05, momentum=0.9),
    SGD(0.05, momentum=0.9, nesterov=True),
    SGD(0.05, momentum=0.5, weight_decay=0.1),
    Adam(0.01),
    Adam(0.01, 0.8, 0.99, 1e-6, weight_decay=0.1),
    AdamW(0.01, weight_decay=0.1),
]


@settings(deterministic, max_examples=40)
@given(given=texts(), images=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_means_of_the_units_of_relu_layers(given, images, seed):
    text, shape = given
    net = Network.parse(text, shape, seed=seed)
    x, y = unusual(net, images, seed=seed)
    rectifiers = [
        name for name, layer in zip(net.names, net.layers, strict=True) if layer.rectifies
    ]
    assume(rectifiers)
    found = lanes.unit_means(net, x)
    assert list(found) == rectifiers
    activations = in_float64(net).trace(x, y, training=False).activations
    for name in rectifiers:
        y = activations[name]
        means = y.mean(axis=tuple(range(2, y.ndim)))
        np.testing.assert_allclose(found[name], means, 1e-4, 1e-4 * (abs(y).max() + 1e-3))
        flat = y.reshape(*means.shape, -1)
        assert not found[name][(flat == 0).all(axis=-1)].any()


@pytest.mark.filterwarnings("ignore::fullback.errors.DeadUnitWarning")
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@every_network
def test_training(name, optimizer, monkeypatch):
    """Six steps, of 20, 20 and 10 images twice: what differs is what noise makes of them."""
    net = network(name)
    x, y = unusual(net, 50)
    doubles = [in_float64(net) for _ in range(1 + DRAWS)]
    options = {"optimizer": optimizer, "sample_weight": np.linspace(0.5, 2, 50)}
    exact = trained(doubles[0], x, y, engine="reference", **options)
    rng = np.random.default_rng(0)
    noise = lambda *batch, **given: noisy_trace(*batch, **given, rng=rng)  # noqa: E731
    monkeypatch.setattr(reference_stepper, "trace_batch", noise)
    noisy = [trained(other, x, y, engine="reference", **options) for other in doubles[1:]]
    actual = trained(net, x, y, engine="lanes", **options)
    # Each of the six steps also rounds every parameter, and the rate that it multiplies.
    moved = {key: np.abs(array).max() for key, array in exact.items()}
    floor = {key: 6 * EPS * float(size) for key, size in moved.items()}
    assert_rounded(actual, exact, noisy, floor)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, Adam(0.01, beta2=0.99999)], ids=str)
@pytest.mark.parametrize("steps_before", [0, 4])
def test_one_step_of_an_optimizer(optimizer, steps_before):
    """Cell by cell, from given gradients: a handful of operations, so 16 eps of what they add."""
    net = network("flat")
    x, y = unusual(net, 20)
    rng = np.random.default_rng(1)
    state = optimizer.initial_state(net.parameters, net.trainable())
    state["step"] += steps_before
    for memory, array in state.items():
        if memory != "step" and steps_before:
            array[...] = abs(rng.normal(scale=0.1, size=array.shape))
    _, gradients = net.loss_and_gradients(x, y, seed=(0,), engine="lanes")
    names = net.trainable()

    def stepped(transform):
        """Step in float64, from parameters, gradients and memories that are transformed."""
        p, g, own = (
            {name: transform(array.astype(np.float64)) for name, array in arrays.items()}
            for arrays in (net.parameters, gradients, state)
        )
        before = {name: array.copy() for name, array in p.items()}
        own["step"] = state["step"].copy()
        optimizer.step(p, g, own, names, factor=0.5)
        moved = {name: before[name] + abs(before[name] - p[name]) for name in p}
        return p, own, moved

    desired, memories, _ = stepped(np.array)
    _, most, moved = stepped(np.abs)
    run = stepper(net, TrainingData(x, y), optimizer, state, 20)
    run.begin()
    assert len(run.train(Batches(np.arange(20), 20, [0.5], [(0,)]))) == 1
    run.end()
    assert state["step"] == steps_before + 1
    for name in names:
        assert (abs(net.parameters[name] - desired[name]) <= 16 * EPS * moved[name]).all(), name
        for memory in optimizer.memories:
            key = f"{memory}.{name}"
            assert (abs(state[key] - memories[key]) <= 16 * EPS * most[key]).all(), key


@pytest.mark.parametrize("images", [1, 16, 45])
@pytest.mark.parametrize("equal", [False, True])
def test_right_answers_are_counted(equal, images):
    net = Network([Dense(4)], (20,))
    x, y = unusual(net, images)
    if equal:  # then the first of them is the answer
        net.parameters["dense1.weight"] = np.repeat(net.parameters["dense1.weight"][:1], 4, axis=0)
        net.parameters["dense1.bias"] = np.zeros(4)
    right = (net.logits(x).argmax(axis=1) == y).sum()
    optimizer = SGD(0.1)
    state = optimizer.initial_state(net.parameters, net.trainable())
    run = stepper(net, TrainingData(x, y), optimizer, state, images, workers=2)
    run.begin()
    figures = run.train(Batches(np.arange(images), images, [1.0], [(0,)]))
    assert figures.shape == (1, 2)
    assert figures[0, 1] == right


def test_frozen_layers_stay_as_they_are():
    net = network("normed")
    x, y = unusual(net, 40)
    net.freeze("conv2", "batchnorm1", "dense1")
    before = {**net.parameters, **net.statistics}
    before = {name: array.copy() for name, array in before.items()}
    after = trained(net, x, y, engine="lanes")
    del after["losses"]
    frozen = ("conv2", "batchnorm1", "dense1", "normalize1")  # Normalize is measured already
    for name, array in after.items():
        if name.split(".")[0] in frozen:
            np.testing.assert_array_equal(array, before[name], err_msg=name)
        elif name.endswith("weight"):
            assert (array != before[name]).any(), name


@every_network
@pytest.mark.filterwarnings("ignore::fullback.errors.DeadUnitWarning")
def test_training_takes_images_however_they_lie_in_memory(name):
    results = []
    for way in (np.array, lambda x: x[::-1].copy()[::-1], lambda x: x.astype(np.float16)):
        net = network(name)
        x, y = unusual(net, 50)
        x = x.astype(np.float16).astype(np.float32)
        results.append(trained(net, way(x), y, engine="lanes"))
    for other in results[1:]:
        assert_same(other, results[0])


def assert_same(actual, desired):
    for name, array in desired.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


def message_without_numbers(error):
    return str(error.value).replace("nan", "x").replace("inf", "x")


@pytest.mark.parametrize(
    ("text", "optimizer"),
    [
        ("conv3 relu pool flatten dense4", SGD(1e30)),
        ("flatten dense4", SGD(3e38)),
        ("conv3 batchnorm tanh flatten dense4", SGD(1e38)),
    ],
    ids=str,
)
def test_divergence_is_told_as_by_the_reference(text, optimizer):
    messages = []
    for engine in ("lanes", "reference"):
        net = Network.parse(text, (1, 6, 6))
        x, y = unusual(net, 50)
        before = {name: p.copy() for name, p in (*net.parameters.items(), *net.statistics.items())}
        with pytest.raises(DivergenceError) as error, np.errstate(all="ignore"):
            trained(net, x, y, optimizer=optimizer, engine=engine, schedule=schedules.constant)
        assert_same({**net.parameters, **net.statistics}, before)
        assert error.value.epochs == 0
        messages.append(message_without_numbers(error))
    assert messages[0] == messages[1]
    assert "its weights from before training" in messages[0]


# Determinism --------------------------------------------------------------------------------------


@every_network
@pytest.mark.filterwarnings("ignore::fullback.errors.DeadUnitWarning")
def test_weights_are_the_same_bit_for_bit_for_any_number_of_threads(name, monkeypatch):
    """Batches of 70 images are five blocks, and the last of 20 are two, the second with 4.

    All 300 images are more blocks than there are chunks, so some add to the gradient of others.
    """
    results = []
    for threads in ("1", "1", "2", "3", "4", "9"):
        monkeypatch.setenv("FULLBACK_NUM_THREADS", threads)
        net = network(name)
        x, y = unusual(net, 300, dtype="uint8")
        options = {"engine": "lanes", "optimizer": Adam(0.01)}
        results.append(trained(net, x[:160], y[:160], batch_size=70, **options))
        results[-1]["logits"] = net.logits(x)
        gradients = net.loss_and_gradients(x, y)[1]
        results[-1] |= {f"d {name}": gradient for name, gradient in gradients.items()}
    for other in results[1:]:
        assert_same(other, results[0])


@every_network
def test_weights_are_the_same_however_many_batches_are_run_at_once(name):
    results = []
    for at_once in (1, 2, 5):
        net = network(name)
        x, y = unusual(net, 90)
        optimizer = SGD(0.05, momentum=0.9)
        state = optimizer.initial_state(net.parameters, net.trainable())
        run = stepper(net, TrainingData(x, y), optimizer, state, 20, workers=2)
        order = np.random.default_rng(2).permutation(90)
        figures = []
        run.begin()
        for first in range(0, 5, at_once):
            some = range(first, min(first + at_once, 5))
            part = order[first * 20 : (first + at_once) * 20]
            seeds = [(3, n) for n in some]
            figures.append(run.train(Batches(part, 20, [1 / (n + 1) for n in some], seeds)))
        run.end()
        results.append({**net.parameters, **net.statistics, "figures": np.concatenate(figures)})
    for other in results[1:]:
        assert_same(other, results[0])


# Denormals ----------------------------------------------------------------------------------------

compiled = pytest.mark.skipif(not library().compiled, reason="plain Python does not flush them")


@compiled
@pytest.mark.parametrize("workers", [1, 2])
def test_denormals_count_as_zero_in_a_run_and_not_after(workers):
    net = Network([Dense(64)], (32,))
    x, y = np.zeros((32, 32), np.float32), np.zeros(32, int)
    optimizer = SGD(0.5, momentum=0.5)
    state = optimizer.initial_state(net.parameters, net.trainable())
    tiny = np.finfo(np.float32).tiny
    state["velocity.dense1.weight"][...] = tiny  # and the gradients of its weights are 0
    net.parameters["dense1.weight"] = np.zeros((64, 32))
    run = stepper(net, TrainingData(x, y), optimizer, state, 32, workers=workers)
    run.begin()
    run.train(Batches(np.arange(32), 32, [1.0], [(0,)]))
    run.end()
    assert (state["velocity.dense1.weight"] == 0).all()
    assert (net.parameters["dense1.weight"] == 0).all()
    halves = np.full(100, tiny) * np.float32(0.5)
    assert (halves > 0).all()
    assert float(halves[0]) == float(tiny) / 2


# Memory -------------------------------------------------------------------------------------------

GUARD = 48  # floats behind every region
PATTERN = np.float32(np.nan)  # whoever reads it shows it


class GuardedPlan(Plan):
    """A plan with room behind every region, which remembers where maps have padding."""

    def __init__(self, *given, **options):
        self.rings = []
        super().__init__(*given, **options, guard=GUARD)

    def map(self, name, shape, ring=((0, 0), (0, 0))):
        made = super().map(name, shape, ring)
        self.rings.append((made, self.arena.regions[-1], ring))
        return made


def guarded(net, purpose, **options):
    return write(GuardedPlan(net, purpose, **{"blocks": 1, **options}))


def pieces(machine):
    """Return the memory and the regions of every arena, and of what is shared."""
    plan = machine.plan
    arenas = machine.arenas.reshape(-1, machine.arena_size)
    return [*((arena, plan.arena) for arena in arenas), (machine.shared, plan.shared)]


def guards(machine):
    """Yield what lies behind every region, its name and its cells."""
    for memory, planned in pieces(machine):
        ends = [region.place for region in planned.regions[1:]] + [planned.size]
        for region, end in zip(planned.regions, ends, strict=True):
            start = region.place + -(-region.size // LANES) * LANES
            assert end - start == GUARD
            yield region.name, memory[start:end]


def watch(machine):
    for _, guard in guards(machine):
        guard[:] = PATTERN


def assert_untouched(machine):
    for name, guard in guards(machine):
        assert (guard.view(np.int32) == PATTERN.view(np.int32)).all(), name
    for memory, _ in pieces(machine)[:-1]:
        for own, region, ring in machine.plan.rings:
            channels, height, width = own.shape
            (above, below), (left, right) = ring
            padded = (channels, above + height + below, left + width + right, LANES)
            cells = memory[region.place :][: np.prod(padded)].reshape(padded).copy()
            cells[:, above : above + height, left : left + width] = 0
            assert (cells == 0).all(), f"the padding of {own.name}"


MORE = {
    "odd": ((1, 7, 5), "conv3 relu pool conv9 relu pool flatten dense7 relu dense3"),
    "strided": ((2, 9, 7), "conv4(stride=2) relu conv6(kernel_size=1, stride=3) flatten dense3"),
    "wide": ((1, 6, 20), "conv9(kernel_size=5) relu conv5(dilation=2) tanh flatten dense33"),
    "thin": ((1,), "dense5 relu dense1 sigmoid dense21"),
    "tiny": ((1, 2, 2), "conv1 relu pool flatten dense2"),
}


@pytest.mark.parametrize("name", [*NETWORKS, *MORE])
@pytest.mark.parametrize("images", [3, 50])
def test_nobody_touches_what_is_not_theirs(name, images, monkeypatch):
    """With NaN behind every region, results are the same, and the NaN stay where they are."""
    shape, text = (NETWORKS | MORE)[name]
    results = []
    for watched in (False, True):
        net = Network.parse(text, shape)
        x, y = unusual(net, images)
        optimizer = Adam(0.01)
        state = optimizer.initial_state(net.parameters, net.trainable())
        if watched:
            monkeypatch.setattr(lanes, "lower", guarded)
            monkeypatch.setattr(training_lanes, "lower", guarded)
        run = stepper(net, TrainingData(x, y, np.ones(images)), optimizer, state, 40, workers=2)
        if watched:
            watch(run.machine)
        run.begin()
        order = np.arange(images)
        batches = -(-images // 40)
        run.train(Batches(order, 40, [1.0] * batches, [(n,) for n in range(batches)]))
        run.end()
        results.append({**net.parameters, **net.statistics})
        for purpose in ("logits", "probabilities"):
            plan = (guarded if watched else lanes.lower)(net, purpose)
            machine = Machine(plan, 2)
            if watched:
                watch(machine)
            machine.load()
            output = np.full((images + 2, *net.output_shape), PATTERN)
            machine.run(lanes.staged(x), batch=images, total=images, output=output[1 : images + 1])
            assert np.isnan(output[[0, -1]]).all()
            results[-1][purpose] = output[1:-1]
            if watched:
                assert_untouched(machine)
    assert_untouched(run.machine)
    assert_same(results[1], results[0])
    assert all(np.isfinite(array).all() for array in results[1].values())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called by its number")
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_nothing_behind_the_images_is_read(dtype):
    """The images end where a page begins that nobody may read: who does is killed."""
    script = f"""
import ctypes, mmap
import numpy as np
from fullback import Network
libc = ctypes.CDLL(None, use_errno=True)
for shape in ((1, 4, 4), (17,), (1, 5, 5), (3, 3, 7)):
    net = Network.parse("dense2" if len(shape) == 1 else "conv2 flatten dense2", shape)
    for count in (1, 5, 16, 19):
        x = np.ones((count, *shape), {dtype!r})
        pages = -(-x.nbytes // mmap.PAGESIZE)
        memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        whole = np.frombuffer(memory, np.uint8)
        behind = ctypes.c_void_p(whole.ctypes.data + pages * mmap.PAGESIZE)
        assert libc.mprotect(behind, mmap.PAGESIZE, 0) == 0
        start = pages * mmap.PAGESIZE - x.nbytes
        images = whole[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
        images[...] = 1
        assert (net.logits(images) == net.logits(x)).all()
        net.loss_and_gradients(images, np.zeros(count, int))
        assert libc.mprotect(behind, mmap.PAGESIZE, 3) == 0
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "done\n", f"{done.returncode}: {done.stderr}"


class OwnReLU(ReLU):
    """A layer of somebody's own, of which the engine knows nothing."""


class OwnLoss(SoftmaxCrossEntropy):
    """A loss of somebody's own."""


class OwnSGD(SGD):
    """An optimizer of somebody's own."""


def test_what_has_no_kernel_is_refused():
    x, y = np.zeros((4, 5), np.float32), np.zeros(4, int)
    net = Network([Dense(3), OwnReLU(), Dense(2)], (5,))
    with pytest.raises(OptionError, match=r"no kernel for relu1.*engine='reference'"):
        net.logits(x)
    net = Network([Dense(2)], (5,), loss=OwnLoss())
    with pytest.raises(OptionError, match=r"no kernel for .*engine='reference'"):
        net.loss_and_gradients(x, y)
    net = Network.parse("normalize dense2", (5,))
    with pytest.raises(OptionError, match="engine='reference'"):
        fit(net, x, y, batch_size=4, optimizer=OwnSGD(0.1), verbose=False)
    with pytest.raises(OptionError, match="engine must be"):
        fit(net, x, y, batch_size=4, engine="x", verbose=False)
    assert net.statistics["normalize1.images"] == 0  # nothing was done


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradients_of_a_loss_that_is_not_finite(value):
    net = zoo.question()
    net.parameters["dense2.bias"][3] = value
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 1, 28, 28)), rng.integers(0, 10, 20)
    loss, gradients = net.loss_and_gradients(x, y)
    assert not np.isfinite(loss)
    _, reference = net.loss_and_gradients(x, y, engine="reference")
    for name, own in gradients.items():
        np.testing.assert_array_equal(np.isnan(own), np.isnan(reference[name]), name)


def test_networks_of_nothing_but_dropout():
    net = Network.parse("dropout0.5", (4,))
    x, y = np.random.default_rng(0).normal(size=(6, 4)), np.arange(6) % 4
    loss, gradients = net.loss_and_gradients(x, y, training=False)
    assert gradients == {}
    assert loss == pytest.approx(
        net.loss_and_gradients(x, y, training=False, engine="reference")[0], 1e-6
    )


@pytest.mark.parametrize("engine", ["lanes", "reference"])
def test_a_callback_may_unfreeze(engine):
    net = Network.parse("flatten dense6 relu dense3", (1, 4, 4))
    net.freeze("dense1")
    before = net.parameters["dense1.weight"].copy()
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 1, 4, 4)), rng.integers(0, 3, 30)
    fit(
        net, x, y, epochs=2, batch_size=8, engine=engine, verbose=False,
        callbacks=[lambda epoch: net.unfreeze("dense1")],
    )  # fmt: skip
    assert (net.parameters["dense1.weight"] != before).any()
