"""Saved networks come back as they were, and a damaged or hostile file is refused.

That a killed process leaves a whole file is tested in test_atomic.py, of all that is written.
"""

import errno
import json
import os
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as to_bytes

import fullback
from fullback import (
    AvgPool2D,
    BatchNorm2D,
    BinaryCrossEntropy,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    LeakyReLU,
    MaxPool2D,
    MeanSquaredError,
    Network,
    Normalize,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
    load,
    save,
)
from fullback.errors import InputError, ModelFileError
from fullback.layers import LAYERS, LOSSES

RNG = np.random.default_rng(0)
IMAGES = RNG.random((5, 2, 9, 8))

NETWORKS = {
    "everything": [
        Normalize(),
        Conv2D(4, kernel_size=(5, 3), stride=(1, 2), padding=(2, 1), dilation=(1, 2), groups=2),
        BatchNorm2D(momentum=0.3, epsilon=1e-3),
        LeakyReLU(0.2),
        MaxPool2D((2, 1), stride=1, padding="same"),
        Conv2D(3, padding="valid", bias=False),
        Sigmoid(),
        AvgPool2D(2, stride=(1, 1), padding=1),
        Dropout(0.25),
        Flatten(),
        Dense(6, bias=False),
        Tanh(),
        Dense(3),
    ],
    "global": [Conv2D(3), ReLU(), GlobalAvgPool2D()],
    "no parameters": [Flatten()],
}
LOSS = {
    "labels": SoftmaxCrossEntropy(),
    "smoothed": SoftmaxCrossEntropy(label_smoothing=0.1),
    "sigmoids": BinaryCrossEntropy(),
    "numbers": MeanSquaredError(),
}


def example(name="everything", **options):
    """A network whose every parameter and statistic has a value of its own."""
    net = Network(NETWORKS[name], (2, 9, 8), **options)
    for arrays in (net.parameters, net.statistics):
        for array in arrays.values():
            array[...] = RNG.uniform(0.5, 1.5, array.shape)
    return net


def identical(one, other):
    assert one.layers == other.layers
    assert one.input_shape == other.input_shape
    assert one.loss == other.loss
    assert one.dtype == other.dtype
    assert one.frozen == other.frozen
    for ours, theirs in ((one.parameters, other.parameters), (one.statistics, other.statistics)):
        assert list(ours) == list(theirs)
        for key in ours:
            assert ours[key].dtype == theirs[key].dtype
            assert ours[key].tobytes() == theirs[key].tobytes()


def refused(path, text):
    started = time.process_time()
    with pytest.raises(ModelFileError, match=text) as caught:
        load(path)
    assert time.process_time() - started < 2
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700 + len(str(path))


class TestRoundTrip:
    def test_the_examples_hold_every_layer_and_loss(self):
        assert {layer.kind for layers in NETWORKS.values() for layer in layers} == {*LAYERS}
        assert {loss.kind for loss in LOSS.values()} == {*LOSSES}

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("loss", LOSS)
    @pytest.mark.parametrize("name", NETWORKS)
    def test_everything_comes_back_to_the_bit(self, tmp_path, name, loss, dtype):
        net = example(name, loss=LOSS[loss], dtype=dtype)
        save(net, tmp_path / "m.safetensors")
        again = load(tmp_path / "m.safetensors")
        identical(again, net)
        assert again.logits(IMAGES).tobytes() == net.logits(IMAGES).tobytes()

    def test_frozen_layers(self, tmp_path):
        net = example()
        net.freeze("conv2", "batchnorm")
        save(net, tmp_path / "m")
        again = load(tmp_path / "m")
        assert again.frozen == {"conv2", "batchnorm1"}
        assert again.trainable() == net.trainable()

    @pytest.mark.parametrize("name", fullback.zoo.NETWORKS)
    def test_the_zoo(self, tmp_path, name):
        net = fullback.zoo.NETWORKS[name](seed=5)
        save(net, tmp_path / "m")
        identical(load(tmp_path / "m"), net)

    def test_values_that_are_not_numbers(self, tmp_path):
        net = example("global")
        net.parameters["conv1.bias"] = [np.nan, np.inf, -0.0]
        save(net, tmp_path / "m")
        identical(load(tmp_path / "m"), net)

    def test_the_copy_is_its_own(self, tmp_path):
        """What was loaded can be trained, and outlives its file."""
        net = example("global")
        save(net, tmp_path / "m")
        again = load(tmp_path / "m")
        (tmp_path / "m").unlink()
        again.parameters["conv1.bias"][...] += 1
        assert (again.parameters["conv1.bias"] == net.parameters["conv1.bias"] + 1).all()

    def test_the_same_network_gives_the_same_file(self, tmp_path):
        for i in range(12):
            save(fullback.zoo.question(seed=1), tmp_path / str(i))
        assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


class TestSaveRefuses:
    def test_what_is_no_network(self):
        net = fullback.zoo.question()
        with pytest.raises(
            fullback.OptionError, match="save takes a Network and then a path, got 'm"
        ):
            fullback.save("m.safetensors", net)
        with pytest.raises(fullback.OptionError, match="fit takes a Network first, got 'm'"):
            fullback.fit("m", np.zeros((1, 1, 28, 28)), [0])

    @pytest.mark.parametrize("path", ["", ".", "no/such/folder/m"])
    def test_paths(self, tmp_path, monkeypatch, path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError, match="give another path"):
            save(example(), path)
        assert not [*tmp_path.iterdir()]

    def test_more_layers_than_a_file_can_describe(self, tmp_path):
        with pytest.raises(InputError, match="a model file holds 1000 layers, but there are 1001"):
            save(Network([Flatten()] * 1001, (2, 9, 8)), tmp_path / "m")
        net = Network([Flatten()] * 1000, (2, 9, 8))
        save(net, tmp_path / "m")
        identical(load(tmp_path / "m"), net)

    def test_a_full_disk(self, tmp_path, monkeypatch):
        save(example("global"), tmp_path / "m")
        before = (tmp_path / "m").read_bytes()

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            save(example(), tmp_path / "m")
        assert (tmp_path / "m").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["m"]


class TestVersion1:
    """Files from before the scale of images was noted."""

    @staticmethod
    def load_old(net, path):
        save(net, path)
        arrays = load_file(path)
        with safe_open(path, "numpy") as file:
            described = json.loads(file.metadata()["fullback"])
        described.pop("trained_on", None)
        described["version"] = 1
        save_file(arrays, path, metadata={"fullback": json.dumps(described)})
        return load(path)

    @pytest.mark.parametrize("text", ["flatten dense2", "normalize flatten dense2"])
    def test_a_guess_is_told(self, text, tmp_path):
        net = Network.parse(text, (1, 3, 3))
        x = np.random.default_rng(0).integers(0, 256, (8, 1, 3, 3), np.uint8)
        if text.startswith("normalize"):
            net.adapt(x)
        old = self.load_old(net, tmp_path / "m.safetensors")
        with pytest.warns(fullback.FullbackWarning, match=r"of version 1, .* for 0 \(black\) to 1"):
            np.testing.assert_array_equal(old.logits(x), net.logits(x))
        old.predict(x / 255)
        for copy in (old.copy(), old.copy(seed=1), old.copy(dtype="float64"), old.with_head(3)):
            with pytest.warns(fullback.FullbackWarning, match=r"of version 1, .* for 0 \(black\)"):
                copy.logits(x)

    def test_a_scale_that_normalize_measured_is_not_0_to_1(self, tmp_path):
        net = Network.parse("normalize flatten dense2", (1, 3, 3))
        x = np.random.default_rng(0).integers(0, 256, (8, 1, 3, 3), np.uint8)
        net.adapt(x.astype(np.float32))
        old = self.load_old(net, tmp_path / "m.safetensors")
        np.testing.assert_array_equal(
            old.predict(x.astype(np.float32)), net.predict(x.astype(np.float32))
        )
        with pytest.raises(InputError, match="which of them are black and white is not known"):
            old.predict(x)


GOOD = {
    "version": 1,
    "layers": [{"kind": "conv", "filters": 1}, {"kind": "flatten"}, {"kind": "dense", "units": 2}],
    "input_shape": [1, 3, 3],
    "dtype": "float32",
    "frozen": [],
    "loss": {"kind": "softmax_cross_entropy"},
}
ARRAYS = {
    "conv1.weight": np.zeros((1, 1, 3, 3), np.float32),
    "conv1.bias": np.zeros(1, np.float32),
    "dense1.weight": np.zeros((2, 9), np.float32),
    "dense1.bias": np.zeros(2, np.float32),
}
NO_MODEL, DAMAGED = "not a fullback model", "the file is damaged"
CONV = [{"kind": "conv", "filters": 1}, *GOOD["layers"][1:]]
NUMBER = json.dumps({**GOOD, "input_shape": [1, "N", 3]})
TEXTS = {
    "empty": ("", NO_MODEL),
    "no JSON": ("{'version': 1}", NO_MODEL),
    "cut": (json.dumps(GOOD)[:-9], NO_MODEL),
    "a list": ("[1]", NO_MODEL),
    "deep": ("[" * 200_000, NO_MODEL),
    "deep layers": (json.dumps(GOOD).replace("[]", "[" * 90_000), NO_MODEL),
    "long": (json.dumps({**GOOD, "more": "x" * 2**20}), NO_MODEL),
    "5000 digits": (NUMBER.replace('"N"', "9" * 5000), NO_MODEL),
    "400 digits": (NUMBER.replace('"N"', "9" * 400), "an input of shape"),
    "infinite": (NUMBER.replace('"N"', "1e999"), "input_shape must be"),
    "not a number": (NUMBER.replace('"N"', "NaN"), "input_shape must be"),
}
CHANGES = {
    "newer": (
        {"version": 3},
        "has format version 3, but this fullback reads versions 1 to 2; inst",
    ),
    "no version": ({"version": None}, "format version None"),
    "long version": ({"version": "x" * 9999}, r"format version \.\.\."),
    "class names are a word": ({"class_names": "cat"}, "class_names must be a list of texts"),
    "class names are numbers": ({"class_names": [1, 2]}, "class_names must be a list of texts"),
    "many class names": ({"class_names": ["x"] * 3}, "3 class names for 2 outputs"),
    "no layers": ({"layers": []}, "a network needs at least one layer"),
    "layers are null": ({"layers": None}, DAMAGED),
    "layers are a word": ({"layers": "conv"}, DAMAGED),
    "a layer is a list": ({"layers": [[]]}, DAMAGED),
    "kind is a list": ({"layers": [{"kind": []}]}, DAMAGED),
    "unknown layer": ({"layers": [{"kind": "__class__"}]}, DAMAGED),
    "a long kind": ({"layers": [{"kind": "evil" * 9999}]}, DAMAGED),
    "unknown option": ({"layers": [{"kind": "relu", "evil": 1}]}, DAMAGED),
    "self": ({"layers": [{"kind": "relu", "self": 1}]}, DAMAGED),
    "many layers": ({"layers": [*GOOD["layers"], *[{"kind": "relu"}] * 1000]}, "1003 layers are"),
    "many filters": ({"layers": [{**CONV[0], "filters": 10**8}, *CONV[1:]]}, "too large"),
    "many units": ({"layers": [*CONV[:-1], {"kind": "dense", "units": 10**8}]}, "parameters"),
    "no padding": ({"layers": [{**CONV[0], "padding": {}}, *CONV[1:]]}, "padding must be"),
    "deep padding": ({"layers": [{**CONV[0], "padding": [[1], 2]}, *CONV[1:]]}, "padding must be"),
    "other size": ({"layers": [{**CONV[0], "kernel_size": 5}, *CONV[1:]]}, "its network needs"),
    "layers that do not fit": ({"layers": [*CONV[1:], CONV[0]]}, DAMAGED),
    "no end": ({"layers": CONV[:1]}, "the last layer"),
    "rate": ({"layers": [{"kind": "dropout", "rate": float("nan")}, *CONV]}, "rate must be"),
    "shape is null": ({"input_shape": None}, DAMAGED),
    "shape is empty": ({"input_shape": []}, "input_shape must be"),
    "shape is negative": ({"input_shape": [1, -3, 3]}, "input_shape must be"),
    "dtype": ({"dtype": "float16"}, DAMAGED),
    "dtype is a list": ({"dtype": ["float32"]}, DAMAGED),
    "other dtype": ({"dtype": "float64"}, "has shape .* and type F32, but its network needs .*F64"),
    "frozen is null": ({"frozen": None}, DAMAGED),
    "frozen is unknown": ({"frozen": ["conv9"]}, "no layer to freeze is called 'conv9'"),
    "loss is null": ({"loss": None}, DAMAGED),
    "smoothing": ({"loss": {**GOOD["loss"], "label_smoothing": 2}}, "label_smoothing must be"),
}
ARRAY_CHANGES = {
    "missing": ({"conv1.bias": None}, r"missing: conv1\.bias; unexpected: none"),
    "extra": ({"evil": np.zeros(3)}, r"missing: none; unexpected: evil\)"),
    "many": ({f"evil{i}": np.zeros(0) for i in range(5000)}, r"unexpected: evil0, .* \.\.\.\)"),
    "renamed": (
        {"conv1.bias": None, "conv2.bias": np.zeros(1, "f4")},
        r"missing: conv1\.bias; unexpected: conv2\.bias",
    ),
    "turned": ({"dense1.weight": np.zeros((9, 2), "f4")}, r"dense1\.weight has shape \(9, 2\) and"),
    "flat": ({"dense1.weight": np.zeros(18, "f4")}, r"needs \(2, 9\) and F32; the file is damaged"),
    "double": ({"conv1.bias": np.zeros(1)}, r"conv1\.bias has shape \(1,\) and type F64"),
    "whole": ({"conv1.bias": np.zeros(1, "i4")}, r"conv1\.bias has shape \(1,\) and type I32"),
}


class TestLoadRefuses:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "m.safetensors"

    def test_the_file_that_is_changed_below_is_good(self, path):
        path.write_bytes(to_bytes(ARRAYS, {"fullback": json.dumps(GOOD)}))
        assert load(path).names == ("conv1", "flatten1", "dense1")

    @pytest.mark.parametrize("case", TEXTS)
    def test_metadata(self, path, case):
        text, message = TEXTS[case]
        path.write_bytes(to_bytes(ARRAYS, {"fullback": text}))
        refused(path, message)

    @pytest.mark.parametrize("case", CHANGES)
    def test_architectures(self, path, case):
        change, message = CHANGES[case]
        path.write_bytes(to_bytes(ARRAYS, {"fullback": json.dumps({**GOOD, **change})}))
        refused(path, message)

    @pytest.mark.parametrize("case", ARRAY_CHANGES)
    def test_arrays(self, path, case):
        change, message = ARRAY_CHANGES[case]
        arrays = {name: array for name, array in {**ARRAYS, **change}.items() if array is not None}
        path.write_bytes(to_bytes(arrays, {"fullback": json.dumps(GOOD)}))
        refused(path, message)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"12345678",
            b"a text of some length, which is no model",
            bytes(1000),
            b"\xff" * 1000,
            pickle.dumps({"conv1.weight": [0.0] * 99}),
            (10**8).to_bytes(8, "little") + b"{}",
            (2).to_bytes(8, "little") + b"{}",
        ],
        ids=["empty", "short", "text", "zeros", "ones", "pickle", "huge header", "no arrays"],
    )
    def test_foreign_files(self, path, content):
        path.write_bytes(content)
        refused(path, "cannot be read as a safetensors file|not a fullback model")

    def test_a_pickle_is_not_run(self, path, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "evil"),)

        path.write_bytes(pickle.dumps(Evil()))
        refused(path, "cannot be read as a safetensors file")
        assert not (tmp_path / "evil").exists()

    def test_another_programs_file(self, path):
        path.write_bytes(to_bytes(ARRAYS, {"format": "pt"}))
        refused(path, NO_MODEL)
        path.write_bytes(to_bytes(ARRAYS))
        refused(path, NO_MODEL)

    def test_no_file(self, path, tmp_path):
        refused(path, "does not exist; expected a model file that fullback saved")
        refused(tmp_path, "is not a file; expected a model file that fullback saved")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A saved network, where its arrays' bytes begin, and a place for damaged copies."""
    net, path = example(), tmp_path_factory.mktemp("damaged") / "m.safetensors"
    save(net, path)
    content = path.read_bytes()
    return net, content, 8 + int.from_bytes(content[:8], "little"), path


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_bytes(whole, data):
    """Whatever is changed, a network whose arrays fit its layers is loaded, or the file refused."""
    net, content, arrays, path = whole
    end = data.draw(st.sampled_from([8, arrays, len(content)]))
    changes = data.draw(st.dictionaries(st.integers(0, end - 1), st.integers(0, 255), max_size=4))
    damaged = bytearray(content)
    for place, value in changes.items():
        damaged[place] = value
    path.write_bytes(damaged)
    try:
        loaded = load(path)
    except ModelFileError:
        assert min(changes) < arrays
        return
    if all(place >= arrays for place in changes):
        assert loaded.layers == net.layers
    assert loaded.input_shape == (2, 9, 8) or min(changes) < arrays
    try:
        logits = loaded.logits(np.zeros((1, *loaded.input_shape)))
    except InputError as error:  # the changed parameters are NaN, or too large
        assert "the first whose output is not finite" in str(error)  # noqa: PT017
    else:
        assert logits.shape == (1, *loaded.output_shape)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 10_000))
def test_truncated(whole, length):
    _, content, _, path = whole
    length %= len(content)
    path.write_bytes(content[:length])
    refused(path, "cannot be read as a safetensors file")
