"""The program for one image: bit for bit what a block of sixteen answers, with today's weights."""

from __future__ import annotations

import copy
import pickle
import threading

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullback import Network, zoo
from fullback.engine import lanes
from fullback.engine.lowering.one import OnePlan, write_one
from fullback.engine.machine import Machine
from fullback.engine.one import OneMachine
from fullback.engine.simd import LANES
from fullback.errors import InputError
from fullback.layers import Flatten
from support.cases import CASES, inputs
from support.networks import NETWORKS, deterministic, network, texts, unusual

every_network = pytest.mark.parametrize("name", NETWORKS)

MORE = {
    "no layer in force": ((4,), "dropout0.5"),
    "no weights": ((3, 5, 4), "pool flatten"),
    "ends in a map": ((3, 6, 7), "conv20 relu flatten"),
    "starts with a pooling": ((2, 9, 8), "avgpool relu conv3 flatten dense2"),
    "starts with an activation": ((1, 1, 20), "sigmoid conv3 flatten dense2"),
    "one row, no padding": ((1, 1, 37), "sigmoid flatten dense2"),
    "flattened first": ((2, 3, 5), "flatten tanh dense33 relu dense17 sigmoid dense1"),
    "groups of many": ((6, 5, 9), "conv51(groups=3) relu conv34(groups=17) flatten dense3"),
    "whole groups": ((4, 6, 6), "conv32(groups=2) relu conv64(groups=2,stride=2) flatten dense3"),
    "depthwise": ((20, 7, 6), "conv20(groups=20) relu conv20(groups=20,stride=2) flatten dense2"),
    "depthwise image": ((3, 7, 6), "conv3(groups=3,bias=false) flatten dense2"),
    "many filters": ((1, 16, 28), "conv33 relu pool conv70 relu pool flatten dense200 relu dense7"),
    "wide units": ((70,), "dense129 relu dense64 relu dense250"),
}


def block(net, x, purpose="logits"):
    """What blocks of sixteen answer."""
    return lanes._outputs(net, purpose, net.output_shape[0], x)


def one_by_one(net, x, purpose="logits"):
    machine = OneMachine(net, purpose)
    return np.concatenate([machine.answers(x[n : n + 1])[0] for n in range(len(x))])


def assert_same_bits(net, x):
    for purpose in ("logits", "probabilities"):
        ours, theirs = one_by_one(net, x, purpose), block(net, x, purpose)
        np.testing.assert_array_equal(ours, theirs, purpose)  # NaN equals NaN
        assert ours.dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", [*NETWORKS, *MORE])
def test_networks(name, dtype):
    shape, text = (NETWORKS | MORE)[name]
    net = Network.parse(text, shape)
    x, _ = unusual(net, 4, dtype=dtype)
    assert_same_bits(net, x)


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_the_zoo(name):
    net = zoo.NETWORKS[name]()
    x, _ = unusual(net, 2, dtype="uint8")
    assert_same_bits(net, x)


@settings(deterministic, max_examples=150)
@given(given=texts(), seed=st.integers(0, 9), dtype=st.sampled_from(["float32", "uint8"]))
def test_random_networks(given, seed, dtype):
    text, shape = given
    net = Network.parse(text, shape, seed=seed)
    x, _ = unusual(net, 3, seed=seed, dtype=dtype)
    assert_same_bits(net, x)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer(case):
    data = inputs(case, "float32")
    layers = [case.layer, *[Flatten()] * (data.dy.ndim == 4)]
    net = Network(layers, data.x.shape[1:])
    for key, value in data.parameters.items():
        full_name = f"{net.names[0]}.{key}"
        arrays = net.parameters if full_name in net.parameters else net.statistics
        arrays[full_name] = value
    x = data.x[:3]
    np.testing.assert_array_equal(one_by_one(net, x), block(net, x))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the engine in plain Python
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", [*NETWORKS, "groups of many", "depthwise", "many filters"])
def test_what_is_not_finite_goes_the_same_way(name, value):
    shape, text = (NETWORKS | MORE)[name]
    for key in Network.parse(text, shape).parameters:
        net = Network.parse(text, shape)
        x, _ = unusual(net, 2)
        net.parameters[key].flat[-1] = value
        assert_same_bits(net, x)


# Which program ------------------------------------------------------------------------------------


@every_network
def test_few_images_take_it_and_more_take_blocks(name, monkeypatch):
    net = network(name)
    x, _ = unusual(net, 16)
    most = OneMachine(net, "logits").most
    assert 1 <= most < LANES
    blocks = []
    outputs = lanes._outputs
    monkeypatch.setattr(lanes, "_outputs", lambda *given: blocks.append(1) or outputs(*given))
    together = net.logits(x)
    for count in range(1, 17):
        blocks.clear()
        np.testing.assert_array_equal(net.logits(x[:count]), together[:count])
        assert bool(blocks) == (count > most)
        program = net.program(count, training=False)
        assert program.images == (LANES if count > most else 1)


def test_wide_layers_make_it_pay_for_more_images():
    assert OneMachine(zoo.wide(), "logits").most > OneMachine(zoo.question(), "logits").most


@pytest.mark.parametrize("name", ["question", "small", "compact"])
def test_its_program(name):
    program = zoo.NETWORKS[name]().program(1, training=False)
    written = {"input"}
    for line in program.lines:
        assert line.sentence.endswith(".")
        assert not line.backward
        parameters = {name for name in line.reads if name.split(".")[1:] == ["weight"]}
        assert set(line.reads) - parameters - {"flatten1"} <= written
        written |= set(line.writes)
    text = str(program)
    assert "when the weights have changed" in text
    assert "16 images" not in text


# Weights ------------------------------------------------------------------------------------------


@pytest.fixture
def packed(monkeypatch):
    """How often weights were packed."""
    calls, before = [], OneMachine.pack
    monkeypatch.setattr(OneMachine, "pack", lambda self: calls.append(self) or before(self))
    return calls


def set_all(net):
    net.parameters["conv1.weight"] = net.parameters["conv1.weight"] * 2


def set_in_place(net):
    net.parameters["conv1.weight"][...] *= 2


def set_one_number(net):
    net.parameters["dense1.bias"][0] += 1


def set_statistics(net):
    net.statistics["batchnorm1.mean"][0] += 1


def set_by_layer(net):
    net.arrays_of("conv1")["bias"][...] += 1


def set_every(net):
    for array in net.parameters.values():
        array *= 1.5


def train(net):
    rng = np.random.default_rng(0)
    x, y = rng.random((16, *net.input_shape)), rng.integers(0, 3, 16)
    net.fit(x, y, epochs=1, batch_size=8, verbose=False)


def train_with_the_reference(net):
    rng = np.random.default_rng(0)
    x, y = rng.random((16, *net.input_shape)), rng.integers(0, 3, 16)
    net.fit(x, y, epochs=1, batch_size=8, verbose=False, engine="reference")


CHANGES = [
    set_all,
    set_in_place,
    set_one_number,
    set_statistics,
    set_by_layer,
    set_every,
    train,
    train_with_the_reference,
]


def some_network():
    return Network.parse("conv4 batchnorm relu pool flatten dense3", (1, 6, 6))


X = np.random.default_rng(0).random((1, 1, 6, 6), np.float32)


def assert_current(net):
    np.testing.assert_array_equal(net.logits(X), block(net, X))


@pytest.mark.filterwarnings("ignore::fullback.errors.DeadUnitWarning")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_are_seen(change):
    net = some_network()
    before = net.logits(X)
    change(net)
    assert_current(net)
    assert (net.logits(X) != before).any()


def double(array):
    array *= 2


def raise_first(memory):
    memory[0] = memory[0] + 3


def test_changes_through_what_was_handed_out_long_ago_are_seen():
    net = some_network()
    keep = [
        (double, net.parameters["conv1.weight"]),
        (double, net.parameters["dense1.weight"][1:].T),
        (raise_first, memoryview(net.parameters["conv1.bias"])),
        (raise_first, net.arrays_of("batchnorm1")["mean"]),
    ]
    answers = [net.logits(X)]
    for change, own in keep:
        for _ in range(2):
            change(own)
            assert_current(net)
            answers.append(net.logits(X))
    del keep, own
    assert_current(net)
    assert len({answer.tobytes() for answer in answers}) == len(answers)


def test_a_change_between_two_predictions_by_who_lets_go_then_is_seen():
    net = some_network()
    weights = net.parameters["dense1.weight"]
    before = net.logits(X)
    weights += 1
    del weights
    assert_current(net)
    assert (net.logits(X) != before).all()


def test_a_shallow_copy_of_the_arrays_hands_out_the_same():
    net = some_network()
    other = copy.copy(net.parameters)
    net.logits(X)
    other["dense1.bias"][0] += 1
    assert_current(net)


def test_both_purposes_see_a_change():
    net = some_network()
    net.logits(X), net.predict_proba(X)
    set_in_place(net)
    np.testing.assert_array_equal(net.predict_proba(X), block(net, X, "probabilities"))
    assert_current(net)


def test_unpickled_arrays_do_not_share_the_pickle_s_memory(packed):
    """Out of band, arrays lie in buffers that whoever unpickles them owns."""
    buffers = []
    stream = pickle.dumps(some_network(), protocol=5, buffer_callback=buffers.append)
    memory = [bytearray(buffer.raw()) for buffer in buffers]
    net = pickle.loads(stream, buffers=memory)
    before = net.logits(X)
    for own in memory:
        np.frombuffer(own, np.float32)[:] *= 2
    assert_current(net)
    np.testing.assert_array_equal(net.logits(X), before)
    assert len(packed) == 1
    assert all(array.flags.writeable for array in net.parameters.values())


def test_arrays_in_a_file_change_with_it(tmp_path):
    joblib.dump(some_network(), tmp_path / "net")
    net, other = (joblib.load(tmp_path / "net", mmap_mode="r+") for _ in range(2))
    before = net.logits(X)
    other.parameters["dense1.weight"][...] += 1
    assert_current(net)
    assert (net.logits(X) != before).all()


def test_weights_that_have_not_changed_are_packed_once(packed):
    net = some_network()
    other = network("pooled")
    for _ in range(3):
        net.logits(X)
    assert len(packed) == 1
    net.parameters["conv1.weight"]  # looked at
    net.logits(X)
    weights = net.parameters["conv1.weight"]  # and held
    for _ in range(3):
        net.logits(X)
    assert len(packed) == 1
    weights += 1
    net.logits(X), net.logits(X)
    assert len(packed) == 2
    other.logits(np.zeros((1, *other.input_shape), np.float32))
    assert len(packed) == 3


def test_a_network_of_zeros_is_packed_too():
    net = some_network()
    for name, array in net.parameters.items():
        net.parameters[name] = np.zeros_like(array)
    assert (net.logits(X) == 0).all()
    net.parameters["dense1.bias"] = [1, 2, 3]
    np.testing.assert_array_equal(net.logits(X), [[1, 2, 3]])


def test_copies_have_weights_of_their_own():
    net = some_network()
    before = net.logits(X)
    for other in (net.copy(), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other.logits(X), before)
        set_all(other)
        assert_current(other)
    np.testing.assert_array_equal(net.logits(X), before)


def test_threads_predict_and_change_weights():
    """Every answer is that of weights that the network had while it was asked."""
    net = Network.parse("dense2", (3,))
    x, wrong = np.ones((1, 3), np.float32), []
    net.parameters["dense1.weight"] = np.zeros((2, 3))
    now, ends = [0], threading.Event()

    def ask():
        while not ends.is_set():
            least = now[0]
            (answer,) = net.logits(x)
            if not least <= answer[0] <= now[0] + 1:
                wrong.append((least, answer, now[0]))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for value in range(1, 300):
        net.parameters["dense1.bias"][...] = value
        now[0] = value
        if net.logits(x)[0, 0] != value:
            wrong.append(value)
    ends.set()
    for asker in askers:
        asker.join()
    assert not wrong


# Images and answers -------------------------------------------------------------------------------


def test_answers_are_the_caller_s_own():
    net = some_network()
    first = net.logits(X)
    kept = first.copy()
    net.logits(X + 1)
    np.testing.assert_array_equal(first, kept)
    first[...] = 0
    np.testing.assert_array_equal(net.logits(X), kept)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_an_answer_that_is_not_finite_is_an_error(images):
    net = Network.parse("dense40 relu dense3", (5,))
    x = np.ones((images, 5), np.float32)
    net.logits(x)
    net.parameters["dense1.weight"][:] = 3e38
    with pytest.raises(InputError, match=r"relu1|dense1"):
        net.logits(x)
    net.parameters["dense1.weight"][:] = 1
    assert np.isfinite(net.logits(x)).all()
    with pytest.raises(InputError):
        net.logits(np.concatenate([x[1:], np.full((1, 5), 1e300)]))
    assert np.isfinite(net.logits(x)).all()


# Memory -------------------------------------------------------------------------------------------

GUARD = 48  # floats behind every region


@pytest.mark.parametrize("name", [*NETWORKS, *MORE])
def test_nobody_touches_what_is_not_theirs(name):
    """With NaN behind every region, answers are the same, and the NaN stay where they are."""
    shape, text = (NETWORKS | MORE)[name]
    net = Network.parse(text, shape)
    x, _ = unusual(net, 1)
    for purpose in ("logits", "probabilities"):
        plan = write_one(OnePlan(net, purpose, guard=GUARD))
        guarded = OneMachine(net, purpose, plan=plan)
        machine: Machine = guarded.machine
        guards = []
        for memory, planned in ((machine.arenas, plan.arena), (machine.shared, plan.shared)):
            if not planned.regions:  # no weights
                continue
            ends = [region.place for region in planned.regions[1:]] + [planned.size]
            for region, end in zip(planned.regions, ends, strict=True):
                guards.append((region.name, memory[end - GUARD : end]))
        for _, guard in guards:
            guard[:] = np.nan
        for _ in range(2):
            answers, finite = guarded.answers(x)
            np.testing.assert_array_equal(answers, block(net, x, purpose))
            assert finite
        for region, guard in guards:
            assert np.isnan(guard).all(), region


def test_one_thread_more_than_once(monkeypatch):
    monkeypatch.setenv("FULLBACK_NUM_THREADS", "2")
    net = some_network()
    results = []

    def ask():
        results.extend(net.logits(X) for _ in range(50))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len({result.tobytes() for result in results}) == 1
    assert len(net.machines["logits of one image"]) <= 2


def test_images_are_read_wherever_they_are():
    net = some_network()
    x = np.random.default_rng(1).random((3, 1, 6, 6), np.float32)
    answers = net.logits(x)
    for same in (x[::-1].copy()[::-1], np.asfortranarray(x), x.astype(">f4"), x.astype(np.float64)):
        np.testing.assert_array_equal(net.logits(same), answers)
    pixels = (x * 255).astype(np.uint8)
    np.testing.assert_array_equal(net.logits(pixels), net.logits(pixels / np.float32(255)))
