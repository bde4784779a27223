"""Activations: a wrong layer is one finding, in its layer, by its name where it is known."""

import numpy as np
import pytest

from fullback import BinaryCrossEntropy, Network, diagnose


def program(net, x, wrong=None, dtype="float64"):
    """Return every output of a program that has other formulas in some layers, by name."""
    outputs, a = {}, x.astype(dtype)
    for place, (name, layer) in enumerate(zip(net.names, net.layers, strict=True)):
        arrays = {key: value.astype(dtype) for key, value in net.arrays_of(name).items()}
        y, _ = layer.forward(a, arrays, training=True, rng_key=place)
        if wrong and name in wrong:
            y = wrong[name](a, y)
        outputs[name] = a = y.astype(dtype)
    return outputs


def network(text, shape, **options):
    net = Network.parse(text, shape, dtype="float64", **options)
    rng = np.random.default_rng(1)
    for key, p in net.parameters.items():
        if key.endswith("bias"):
            net.parameters[key] = rng.normal(0, 0.2, p.shape)
    return net


def batch(net, images=5):
    rng = np.random.default_rng(2)
    y = rng.integers(0, max(net.output_shape[0], 2), images)
    return rng.normal(size=(images, *net.input_shape)), y


def conv(net, name="conv1"):
    return net.arrays_of(name)["weight"], net.arrays_of(name)["bias"]


def correlated(x, w, b, pads=(1, 1), mode="constant", stride=1):
    """A convolution in loops, with other padding."""
    x = np.pad(x, ((0, 0), (0, 0), pads, pads), mode=mode)
    rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape[2:], w.shape[2:], strict=True))
    y = np.zeros((len(x), len(w), rows, columns))
    for i, j in np.ndindex(rows, columns):
        cells = x[:, :, i * stride : i * stride + w.shape[2], j * stride : j * stride + w.shape[3]]
        y[:, :, i, j] = np.tensordot(cells, w, ((1, 2, 3), (1, 2, 3))) + b
    return y


SIGMOIDS = network("conv4 sigmoid pool flatten dense6", (1, 8, 8))
COLOUR = network(
    "conv4 relu pool conv3 tanh avgpool flatten dense6 leakyrelu0.1 dense4", (3, 12, 8)
)
STRIDED = network(
    "conv3(stride=2) batchnorm relu pool3(stride=2) globalavgpool dense3", (2, 14, 13)
)

NAMED = {
    "exp(x)": (SIGMOIDS, "sigmoid1", lambda a, y: 1 / (1 + np.exp(a)), "activation-formula"),
    "brackets": (SIGMOIDS, "sigmoid1", lambda a, y: 1 / 1 + np.exp(-a), "activation-formula"),
    "tanh for sigmoid": (SIGMOIDS, "sigmoid1", lambda a, y: np.tanh(a), "activation-formula"),
    "sigmoid's slope": (SIGMOIDS, "sigmoid1", lambda a, y: y * (1 - y), "activation-formula"),
    "tanh(x / 2)": (
        COLOUR, "tanh1", lambda a, y: (np.exp(a) - 1) / (np.exp(a) + 1), "activation-formula"
    ),
    "no ReLU": (COLOUR, "relu1", lambda a, y: a, "activation-formula"),
    "a mask": (COLOUR, "relu1", lambda a, y: a > 0, "activation-formula"),
    "behind the ReLU": (COLOUR, "conv1", lambda a, y: np.maximum(y, 0), "activation-applied"),
    "average": (
        COLOUR, "pool1", lambda a, y: a.reshape(5, 4, 6, 2, 4, 2).mean((3, 5)), "pooling-other"
    ),
    "maximum": (
        COLOUR, "avgpool1", lambda a, y: a.reshape(5, 3, 3, 2, 2, 2).max((3, 5)), "pooling-other"
    ),
    "sum": (COLOUR, "avgpool1", lambda a, y: 4 * y, "pooling-other"),
    "no bias": (
        COLOUR, "conv2", lambda a, y: y - conv(COLOUR, "conv2")[1][:, None, None], "bias-not-added"
    ),
    "no dense bias": (
        COLOUR, "dense1", lambda a, y: y - conv(COLOUR, "dense1")[1], "bias-not-added"
    ),
    "a bias for each channel": (
        COLOUR, "conv1", lambda a, y: y + 2 * conv(COLOUR)[1][:, None, None], "bias-not-added"
    ),
    "true convolution": (
        COLOUR, "conv1",
        lambda a, y: correlated(a, conv(COLOUR)[0][:, :, ::-1, ::-1], conv(COLOUR)[1]),
        "true-convolution",
    ),
    "rows for columns": (
        COLOUR, "conv1",
        lambda a, y: correlated(a, conv(COLOUR)[0].swapaxes(2, 3), conv(COLOUR)[1]),
        "weights-turned",
    ),
    "last channel": (
        COLOUR, "conv1",
        lambda a, y: correlated(a[:, -1:], conv(COLOUR)[0][:, -1:], conv(COLOUR)[1]),
        "channel-sum-lost",
    ),
    "edge": (
        COLOUR, "conv1", lambda a, y: correlated(a, *conv(COLOUR), mode="edge"), "padding-misplaced"
    ),
    "wrapped": (
        COLOUR, "conv1", lambda a, y: correlated(a, *conv(COLOUR), mode="wrap"), "padding-misplaced"
    ),
    "below": (
        COLOUR, "conv1", lambda a, y: correlated(a, *conv(COLOUR), pads=(0, 2)), "padding-misplaced"
    ),
    "stride 1": (
        STRIDED, "pool1",
        lambda a, y: np.array([[a[:, :, i : i + 3, j : j + 3].max((2, 3)) for j in range(3)]
                               for i in range(3)]).transpose(2, 3, 0, 1),
        "stride-misplaced",
    ),
    "rows, columns, channels": (
        COLOUR, "flatten1", lambda a, y: a.transpose(0, 2, 3, 1).reshape(5, -1), "flatten-order"
    ),
    "N - 1": (
        STRIDED, "batchnorm1",
        lambda a, y: (y - conv(STRIDED, "batchnorm1")[1][:, None, None])
        * np.sqrt(1 - 1 / (a.size // 3)) + conv(STRIDED, "batchnorm1")[1][:, None, None],
        "batchnorm-formula",
    ),
    "largest": (STRIDED, "globalavgpool1", lambda a, y: a.max(axis=(2, 3)), "pooling-other"),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", NAMED)
def test_one_wrong_layer_is_one_finding_with_a_name(case, dtype):
    net, layer, wrong, mistake = NAMED[case]
    if (case, dtype) == ("N - 1", "float32"):
        pytest.skip("epsilon and N - 1 differ by less than float32 tells")
    x, y = batch(net)
    outputs = program(net, x, {layer: wrong}, dtype)
    found = diagnose(net, x, y, activations=outputs)
    assert [(f.mistake, f.layer) for f in found.findings] == [(mistake, layer)], found
    assert found.wrong == [f"output of {layer}"]
    assert len(found.right) == len(outputs) - 1
    if case == "behind the ReLU":  # the ReLU behind it hides it
        return
    # without that layer's own output the next one tells it
    del outputs[layer]
    (finding,) = diagnose(net, x, y, activations=outputs).findings
    assert (finding.mistake, finding.layer) == (mistake, layer)


@pytest.mark.parametrize("net", [SIGMOIDS, COLOUR, STRIDED], ids=["sigmoids", "colour", "strided"])
@pytest.mark.parametrize("layout", ["as here", "channels last", "some"])
def test_what_cannot_be_named_is_one_finding_in_its_layer(net, layout):
    x, y = batch(net)
    rng = np.random.default_rng(3)
    for layer in net.names:
        outputs = program(net, x, {layer: lambda a, y: y + rng.normal(size=y.shape)})
        if layout == "channels last":
            outputs = {k: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for k, a in outputs.items()}
        if layout == "some":
            outputs = {k: outputs[k] for k in net.names if rng.random() < 0.5 or k == net.names[-1]}
        shown = next(k for k in net.names[net.names.index(layer) :] if k in outputs)
        (finding,) = diagnose(net, x, y, activations=outputs).findings
        assert (finding.mistake, finding.layer) == (None, shown)
        assert finding.exact is False
        if shown != layer:
            assert layer in finding.message


def test_every_right_output_is_right():
    for net in (SIGMOIDS, COLOUR, STRIDED):
        for dtype in ("float64", "float32"):
            x, y = batch(net)
            found = diagnose(net, x, y, activations=program(net, x, dtype=dtype))
            assert found.ok
            assert len(found.right) == len(net.names)


def test_dropout_has_a_scale():
    net = network("dense9 dropout0.4 dense3", (6,))
    x, y = batch(net, 7)
    trace = net.trace(x, y)
    right = {name: trace.activations[name] for name in net.names}
    assert diagnose(net, x, y, activations=right).ok
    w, b = conv(net, "dense2")
    wrong = right["dropout1"] * 0.6
    outputs = {**right, "dropout1": wrong, "dense2": wrong @ w.T + b}
    (finding,) = diagnose(net, x, y, activations=outputs).findings
    assert (finding.mistake, finding.layer) == ("dropout-scale", "dropout1")
    assert "the scale 1 / (1 - rate) is missing" in finding.message


@pytest.mark.parametrize("outputs", [1, 3])
def test_sigmoids_for_a_binary_cross_entropy(outputs):
    net = network(f"dense5 tanh dense{outputs}", (6,), loss=BinaryCrossEntropy())
    x, y = batch(net, 7)
    z = net.trace(x, y).activations["dense2"]
    p = 1 / (1 + np.exp(-z))
    assert diagnose(net, x, y, probabilities=p).right == ["probabilities"]
    for wrong, words in (
        (1 / (1 + np.exp(z)), "the sign in the exponent is wrong"),
        (1 / 1 + np.exp(-z), "brackets are missing"),
        (1 / (1 + np.exp(-p)), "the sigmoid was taken twice"),
        (z, "they are the logits"),
    ):
        (finding,) = diagnose(net, x, y, probabilities=wrong).findings
        assert (finding.mistake, finding.layer) == ("sigmoid-formula", "loss")
        assert words in finding.message


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 0.0])
def test_numbers_that_are_none_are_wrong_in_their_place(value):
    x, y = batch(SIGMOIDS)
    with np.errstate(all="ignore"):
        outputs = program(SIGMOIDS, x, {"pool1": lambda a, y: np.full_like(y, value)})
    p = np.full((5, 6), value)
    for given in ({"activations": {"pool1": outputs["pool1"]}}, {"probabilities": p}):
        (finding,) = diagnose(SIGMOIDS, x, y, **given).findings
        assert finding.mistake is None
        assert finding.layer == ("pool1" if "activations" in given else "loss")


def test_probabilities_alone_name_a_layer_above_them():
    net = network("dense9 sigmoid dense4", (6,))
    x, y = batch(net, 7)
    z = program(net, x, {"sigmoid1": lambda a, y: np.tanh(a)})["dense2"]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    (finding,) = diagnose(net, x, y, probabilities=p).findings
    assert (finding.mistake, finding.layer) == ("activation-formula", "sigmoid1")


@pytest.mark.parametrize("given", ["activations", "the next one", "probabilities", "all"])
def test_the_backward_pass_is_judged_with_the_wrong_output(given):
    net = SIGMOIDS
    x, y = batch(net)
    outputs = program(net, x, {"sigmoid1": lambda a, y: 1 / (1 + np.exp(a))})
    z = outputs["dense1"]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    delta = (p - np.eye(6)[y]) / len(x)
    w, _ = conv(net, "dense1")
    gradients = {"dense1.weight": delta.T @ outputs["flatten1"], "dense1.bias": delta.sum(axis=0)}
    a, wide = outputs["sigmoid1"], (delta @ w).reshape(5, 4, 4, 4).repeat(2, 2).repeat(2, 3)
    largest = a.reshape(5, 4, 4, 2, 4, 2).max((3, 5)).repeat(2, 2).repeat(2, 3)
    dy = np.where(a == largest, wide, 0) * a * (1 - a)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    dw = np.zeros((4, 1, 3, 3))
    for r, s in np.ndindex(3, 3):
        dw[:, :, r, s] = np.tensordot(
            dy, padded[:, :, r : r + 8, s : s + 8], ((0, 2, 3), (0, 2, 3))
        )
    gradients |= {"conv1.weight": dw, "conv1.bias": dy.sum(axis=(0, 2, 3))}
    shown = {
        "activations": {"activations": outputs},
        "the next one": {"activations": {"pool1": outputs["pool1"]}},
        "probabilities": {"probabilities": p},
        "all": {"activations": outputs, "probabilities": p, "deltas": {"dense1": delta}},
    }[given]
    found = diagnose(net, x, y, gradients, **shown)
    (finding,) = found.findings
    assert (finding.mistake, finding.layer) == ("activation-formula", "sigmoid1")
    assert {*gradients} <= {*found.right}


def test_gradients_that_are_right_stay_right_beside_probabilities_that_are_not():
    net = network("conv2 relu pool flatten dense3", (1, 6, 6))
    x, y = batch(net)
    trace = net.trace(x, y)
    found = diagnose(net, x, y, trace.gradients, probabilities=2 * trace.probabilities)
    assert found.wrong == ["probabilities"]
    assert set(found.right) == set(trace.gradients)
    assert any("right for the network's own forward pass" in note for note in found.notes)


def test_gradients_that_follow_from_wrong_probabilities_are_judged_by_these():
    net = network("conv2 relu pool flatten dense3", (1, 6, 6))
    x, y = batch(net)
    wrong = 0.9 * net.trace(x, y).probabilities + 0.01
    delta = (wrong - np.eye(3)[y]) / len(x)
    given = {"dense1.bias": delta.sum(axis=0)}
    found = diagnose(net, x, y, given, probabilities=wrong)
    assert (found.wrong, found.right) == (["probabilities"], ["dense1.bias"])


# Images, and outputs that the program did not go on with -----------------------------------------

SMALL = network("conv4 relu pool conv4 relu flatten dense4", (1, 8, 8))


def own(net=SMALL, images=3):
    x, y = batch(net, images)
    return x, y, net.trace(x, y)


@pytest.mark.parametrize("change", [lambda x: -x, lambda x: 1.01 * x, lambda x: x[::-1]])
def test_other_images_than_x_are_one_finding(change):
    x, y, trace = own()
    for rest in ({}, {"dense1": trace.activations["dense1"]}, trace.activations):
        found = diagnose(SMALL, x, y, trace.gradients, None, {**rest, "input": change(x)})
        (finding,) = found.findings
        assert (finding.layer, finding.quantity) == ("input", "output")
        assert "not x" in finding.message
        assert "off x" in finding.evidence.sentence
        assert found.wrong == ["output of input"]
        assert not found.inherited
        assert not found.not_judged
        assert len(found.right) == len(trace.gradients) + len({*rest} - {"input"})


def test_what_follows_from_other_images_is_judged_by_them():
    x, y, _ = own()
    other = SMALL.trace(-x, y)
    found = diagnose(SMALL, x, y, other.gradients, None, {**other.activations, "input": -x})
    assert found.wrong == ["output of input"]
    assert "output of conv1" in found.right
    assert "conv1.weight" in found.right


def test_the_right_input_is_listed():
    x, y, _ = own()
    found = diagnose(SMALL, x, y, activations={"input": x})
    assert found.ok
    assert found.judged == ["output of input"]
    assert "input" in str(found)
    wrong = diagnose(SMALL, x, y, activations={"input": -x})
    assert not wrong.ok
    assert wrong.judged == ["output of input"]


def test_images_that_the_network_scales_may_be_given_scaled_or_not():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 256, (3, 1, 8, 8)).astype(np.uint8), [0, 1, 2]
    trace = SMALL.trace(x, y)
    for given in (x, x / 255, (x / 255).astype("float32")):
        found = diagnose(SMALL, x, y, trace.gradients, None, {"input": given})
        assert found.ok, found
        assert "output of input" in found.right
    (finding,) = diagnose(SMALL, x, y, activations={"input": x.astype(float)}).findings
    assert "it is the right one times 255" in finding.evidence.sentence


@pytest.mark.parametrize("name", ["conv1", "pool1", "conv2", "flatten1"])
def test_an_output_that_is_the_networks_own_is_never_wrong(name):
    x, y, trace = own()
    outputs = {**trace.activations, name: -trace.activations[name]}
    found = diagnose(SMALL, x, y, trace.gradients, None, outputs, trace.probabilities)
    assert found.wrong == [f"output of {name}"]
    assert len(found.findings) == 1
    assert "probabilities" in found.right


def test_probabilities_that_are_the_networks_own_are_never_wrong():
    x, y, trace = own()
    outputs = {"dense1": -trace.activations["dense1"]}
    found = diagnose(SMALL, x, y, None, None, outputs, trace.probabilities)
    assert found.wrong == ["output of dense1"]
    assert found.right == ["probabilities"]


@pytest.mark.parametrize(
    ("name", "change", "mistake", "layer"),
    [
        ("dense1", lambda d: 3 * d, "batch-scale", "loss"),
        ("conv2", lambda d: 3 * d, None, "relu2"),
        ("conv2", lambda d: d[..., ::-1], None, "relu2"),
        ("pool1", lambda d: -d, "sign-flipped", "conv2"),
    ],
)
def test_a_delta_that_the_program_did_not_go_on_with_is_wrong_alone(name, change, mistake, layer):
    x, y, trace = own()
    deltas = {**trace.deltas, name: change(trace.deltas[name])}
    found = diagnose(SMALL, x, y, trace.gradients, deltas)
    assert [(f.mistake, f.layer) for f in found.findings] == [(mistake, layer)]
    assert found.wrong == [f"delta of {name}"]
    assert not found.inherited
    assert len(found.right) == len(trace.gradients) + len(deltas) - 1


def test_deltas_of_another_sign_beside_right_gradients_are_one_finding():
    x, y, trace = own()
    found = diagnose(SMALL, x, y, trace.gradients, {k: -d for k, d in trace.deltas.items()})
    assert [f.mistake for f in found.findings] == ["sign-flipped"]
    assert {*found.right} == {*trace.gradients}
    assert len(found.inherited) + len(found.wrong) == len(trace.deltas)


def test_what_should_be_zero_is_told_so():
    net = network("dense3 relu dense1", (4,))
    x = np.random.default_rng(0).normal(size=(3, 4))
    trace, rng = net.trace(x, [0, 0, 0]), np.random.default_rng(0)
    wrong = {name: rng.normal(size=g.shape) for name, g in trace.gradients.items()}
    for given in (wrong, {"dense1.weight": wrong["dense1.weight"]}):
        for finding in diagnose(net, x, [0, 0, 0], given).findings:
            assert "zero everywhere" in finding.evidence.sentence
            assert "e+" not in finding.evidence.sentence
