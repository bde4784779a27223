"""The document of one image: every number is the trace's, the program is the engine's."""

import base64
import json

import numpy as np
import pytest

import fullback as fb
from fullback.report.document import document

EVERY = (
    "normalize conv4(stride=2) batchnorm tanh avgpool conv4(groups=2) leakyrelu pool3(stride=2) "
    "sigmoid dropout globalavgpool dense3"
)
NETWORKS = {
    "question": fb.zoo.question(seed=0),
    "small": fb.zoo.small(seed=0),
    "float64": fb.zoo.question(seed=0, dtype="float64"),
    "every": fb.Network.parse(EVERY, (2, 17, 17), seed=0),
    "fused": fb.Network.parse("conv4 batchnorm relu pool flatten dense3", (2, 8, 8), seed=0),
    "smoothed": fb.Network.parse("dense3", (4,), loss=fb.SoftmaxCrossEntropy(0.1), seed=0),
    "squared": fb.Network.parse("dense4 relu dense2", (6,), loss=fb.MeanSquaredError(), seed=0),
}


def image(net):
    return np.random.default_rng(0).random(net.input_shape, np.float32)


def answer(net):
    return 1 if net.loss.classifies else [0.5, -1.0]


def unpacked(array):
    values = np.frombuffer(base64.b64decode(array["data"]), "<f4")
    return values.reshape(array["shape"])


@pytest.fixture(params=NETWORKS)
def net(request):
    return NETWORKS[request.param]


def test_every_number_is_the_traces(net):
    x, y = image(net), answer(net)
    made = json.loads(json.dumps(document(net, x, y), allow_nan=False))
    trace = net.trace(x[None], np.asarray(y)[None])
    assert made["loss"] == trace.loss
    for key, arrays in (("activations", trace.activations), ("deltas", trace.deltas)):
        assert [*made[key]] == ["input", *net.names]
        for name, expected in arrays.items():
            np.testing.assert_array_equal(
                unpacked(made[key][name]), expected[0].astype(np.float32), strict=True
            )
    for key, arrays in (("parameters", net.parameters), ("gradients", trace.gradients)):
        assert [*made[key]] == [*net.parameters]
        for name, expected in arrays.items():
            np.testing.assert_array_equal(unpacked(made[key][name]), expected.astype(np.float32))
    np.testing.assert_array_equal(unpacked(made["input"]), x)
    if net.loss.classifies:
        np.testing.assert_array_equal(
            unpacked(made["probabilities"]), trace.probabilities[0].astype(np.float32)
        )
        t, p = unpacked(made["target"]), unpacked(made["probabilities"])
        np.testing.assert_allclose(
            unpacked(made["deltas"][net.names[-1]]), p - t, rtol=0, atol=1e-6
        )
    else:
        assert made["probabilities"] is None
        assert made["label"] is None
        np.testing.assert_array_equal(unpacked(made["target"]), [0.5, -1.0])


def test_the_program_is_the_engines(net):
    steps = document(net, image(net), answer(net))["program"]
    assert [step["index"] for step in steps] == [*range(len(steps))]
    passes = [step["pass"] for step in steps]
    assert passes == sorted(passes, reverse=True)  # forward first
    if net.dtype == np.float32:
        lines = net.program(1).lines
        assert [step["text"] for step in steps] == [
            f"{line.name}({', '.join(line.reads)})" for line in lines
        ]
        assert [tuple(step["writes"]) for step in steps] == [line.writes for line in lines]
    assert all(step["sentence"].endswith((".", ")")) for step in steps)
    assert not any("{" in step["sentence"] or " computes " in step["sentence"] for step in steps)


def test_an_instruction_takes_what_the_picture_shows_already(net):
    """Only the deltas of the image and of a Normalize are nobody's business."""
    made = document(net, image(net), answer(net))
    shown = {f"p:{name}" for name in net.parameters}
    for step in made["program"]:
        assert {*step["from"]} <= shown, step
        assert not {*step["shows"]} & shown, step
        shown |= {*step["shows"]}
    names = ["input", *net.names]
    everything = {
        *(f"a:{name}" for name in names),
        *(f"d:{name}" for name in names),
        *(f"p:{name}" for name in net.parameters),
        *(f"g:{name}" for name in net.parameters),
    }
    missing = everything - shown
    assert missing <= {"d:input", "d:normalize1"}


def test_windows_are_given_in_numbers():
    layers = document(NETWORKS["every"], image(NETWORKS["every"]), 0)["layers"]
    options = {layer["name"]: layer["options"] for layer in layers}
    assert options["conv1"]["window"] == [3, 3]
    assert options["conv1"]["step"] == [2, 2]
    assert options["conv1"]["pads"] == [[1, 1], [1, 1]]
    assert options["avgpool1"]["step"] == [2, 2]
    assert options["pool1"]["window"] == [3, 3]
    assert options["conv2"]["groups"] == 2


def test_shapes_of_an_image():
    net = NETWORKS["question"]
    x = (image(net) * 255).astype(np.uint8)
    whole = document(net, x, 3)
    for other in (x[None], x[0]):
        assert document(net, other, np.array([3])) == whole
    np.testing.assert_array_equal(unpacked(whole["input"]), x.astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ((2, 1, 28, 28), 0, fb.ShapeError, r"x must be one image, .* holds 2; x\[0\] is the first"),
        ((1, 27, 28), 0, fb.ShapeError, "x must have shape"),
        ((1, 28, 28), [0, 1], fb.InputError, "y must be one label"),
        ((1, 28, 28), 10, fb.InputError, "label 10 of image 0 is out of range"),
    ],
)
def test_what_is_refused(x, y, error, message):
    with pytest.raises(error, match=message):
        document(NETWORKS["question"], np.zeros(x), y)


def test_names_of_classes():
    net = NETWORKS["smoothed"]
    assert document(net, image(net), 0, classes=["cat", "dog", "cow"])["classes"][1] == "dog"
    with pytest.raises(fb.ShapeError, match="classes must be 3 names, one per output, got 2"):
        document(net, image(net), 0, classes=["cat", "dog"])


def test_a_loss_that_is_not_finite_is_null():
    net = fb.Network.parse("flatten dense3", (1, 2, 2), seed=0)
    net.parameters["dense1.weight"] = np.full((3, 4), 1e38)
    made = document(net, np.full((1, 2, 2), 1e3), 0)
    assert made["loss"] is None
    json.dumps(made, allow_nan=False)
