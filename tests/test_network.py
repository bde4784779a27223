"""Networks: parameters, the trace, prediction, freezing, statistics, and what is refused."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score

import fullback
from fullback import (
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    MeanSquaredError,
    Network,
    Normalize,
    ReLU,
    SoftmaxCrossEntropy,
    zoo,
)
from fullback.errors import InputError, OptionError, ShapeError
from fullback.export.safetensors import read_model
from fullback.layers.text import layers_text, parse_layers
from fullback.model import Model
from fullback.passes import PREDICTION_BATCH

X = np.random.default_rng(0).random((5, 2, 6, 7))
Y = np.array([0, 2, 1, 2, 0])
TEXT = "conv4 batchnorm relu pool flatten dense6 tanh dense3"


def small(**options):
    return Network.parse(TEXT, (2, 6, 7), **{"dtype": "float64", **options})


def flat(outputs=2, **options):
    return Network([Dense(outputs)], (3,), **{"dtype": "float64", **options})


class TestStructure:
    def test_names_shapes_and_parameters(self):
        net = zoo.question()
        names = "conv1 relu1 pool1 conv2 relu2 pool2 flatten1 dense1 relu3 dense2"
        assert net.names == tuple(names.split())
        assert net.shapes[:3] == ((1, 28, 28), (1, 28, 28), (1, 14, 14))
        assert net.shapes[6:] == ((49,), (49,), (49,), (10,))
        assert net.output_shape == (10,)
        assert {name: p.shape for name, p in net.parameters.items()} == {
            "conv1.weight": (1, 1, 3, 3),
            "conv1.bias": (1,),
            "conv2.weight": (1, 1, 3, 3),
            "conv2.bias": (1,),
            "dense1.weight": (49, 49),
            "dense1.bias": (49,),
            "dense2.weight": (10, 49),
            "dense2.bias": (10,),
        }
        assert {p.dtype for p in net.parameters.values()} == {np.dtype("float32")}
        assert not net.statistics
        assert list(small().statistics) == ["batchnorm1.mean", "batchnorm1.variance"]

    def test_repr_builds_the_same_network(self):
        net = small(loss=SoftmaxCrossEntropy(0.1))
        again = eval(repr(net), {name: getattr(fullback, name) for name in fullback.__all__})
        assert (again.layers, again.loss, again.dtype) == (net.layers, net.loss, net.dtype)

    @pytest.mark.parametrize(
        ("layers", "input_shape", "message"),
        [
            ([Dense(2)], (0,), r"input_shape must be \(channels, rows, columns\) or"),
            ([Dense(2)], (28, 28), r"input_shape must be .*, got \(28, 28\)"),
            ([Dense(2)], (2.5,), r"input_shape must be .*, got \(2.5,\)"),
            ([Dense(2)], 5, r"input_shape must be .*, got 5"),
            ([Dense(2)], (1, 4, 4), "^dense1: Dense takes one row of features"),
            ([Flatten(), Conv2D(1)], (1, 4, 4), "^conv1 after flatten1: Conv2D takes images"),
            ([Conv2D(1)], (1, 4, 4), r"the last layer, conv1, gives \(1, 4, 4\), but the loss"),
            ([MaxPool2D()] * 3, (1, 4, 4), "^pool3 after pool2: .* 2x2 cells .* into 1x1"),
            ([Dense(2**20)] * 2, (2**12,), "would have 1,103,808,692,224 parameters; use smaller"),
            ([Conv2D(1, padding=10**6)], (1, 4, 4), "^conv1: .* is 2000004x2000004, which is too"),
            ([Conv2D(2**26)], (1, 4, 4), "^conv1: .* is too large for one image"),
            ([Flatten(), Dense(1)], (2**32, 2**32, 1), "too large"),
        ],
    )
    def test_what_does_not_fit(self, layers, input_shape, message):
        with pytest.raises(ShapeError, match=message):
            Network(layers, input_shape)

    @pytest.mark.parametrize(
        ("layers", "options", "message"),
        [
            ([], {}, "a network needs at least one layer"),
            ([ReLU], {}, r"layer 0 is not a layer like Conv2D\(8\) but <class"),
            ("conv8", {}, "layer 0 is not a layer .* but 'c'"),
            ([ReLU(), Normalize()], {}, "Normalize must be the first layer: it is measured on"),
            ([ReLU()], {"loss": "mse"}, r"loss must be a loss like SoftmaxCross.* got 'mse'"),
            ([ReLU()], {"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
            ([ReLU()], {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
            ([ReLU()], {"seed": 1.5}, r"seed must be a whole number of at least 0, got 1\.5"),
        ],
    )
    def test_what_makes_no_network(self, layers, options, message):
        with pytest.raises(OptionError, match=message):
            Network(layers, (4,), **options)

    def test_a_layers_own_arrays(self):
        net = small()
        assert net.arrays_of("dense1")["weight"] is net.parameters["dense1.weight"]
        assert list(net.arrays_of("batchnorm1")) == ["weight", "bias", "mean", "variance"]
        with pytest.raises(
            OptionError, match="no layer is called 'dense3'; there are conv1, batch"
        ):
            net.arrays_of("dense3")

    def test_loss_options(self):
        message = r"SoftmaxCrossEntropy: label_smoothing must be a number in \[0, 1\), got 1"
        with pytest.raises(OptionError, match=message):
            SoftmaxCrossEntropy(label_smoothing=1)


class TestSeeds:
    def test_the_same_seed_gives_the_same_parameters(self):
        first, second, other = (small(seed=seed) for seed in (4, 4, 5))
        for name, p in first.parameters.items():
            np.testing.assert_array_equal(p, second.parameters[name])
        assert (first.parameters["dense1.weight"] != other.parameters["dense1.weight"]).all()

    @pytest.mark.parametrize("first", ["conv4(kernel_size=5, bias=false)", "conv4(groups=2)"])
    def test_another_first_layer_leaves_the_others_as_they_were(self, first):
        net, other = small(), Network.parse(f"{first} {TEXT[6:]}", (2, 6, 7), dtype="float64")
        assert net.parameters["conv1.weight"].shape != other.parameters["conv1.weight"].shape
        for name in ("dense1.weight", "dense2.weight"):
            np.testing.assert_array_equal(net.parameters[name], other.parameters[name])

    def test_float32_is_float64_rounded(self):
        single, double = small(dtype="float32"), small(dtype="float64")
        for name, p in double.parameters.items():
            np.testing.assert_array_equal(p.astype(np.float32), single.parameters[name])


def test_initial_weights_have_the_variance_of_their_layer():
    text = "conv48 relu conv48(kernel_size=5) tanh globalavgpool dense300 dense200 dense100"
    net = Network.parse(text, (3, 6, 7), dtype="float64")
    expected = {  # gain / sqrt(fan-in)
        "conv1": np.sqrt(2 / 27),
        "conv2": np.sqrt(1 / 1200),
        "dense1": np.sqrt(1 / 48),
        "dense2": np.sqrt(1 / 300),
        "dense3": 0.1 * np.sqrt(1 / 200),
    }
    for name, deviation in expected.items():
        weight = net.parameters[f"{name}.weight"][1:]  # the first filter is another one
        # The deviation of n draws is itself off by 1 / sqrt(2 n) of it; five times that is allowed.
        assert weight.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * weight.size))
        assert not net.parameters[f"{name}.bias"].any()
    for name in ("conv1", "conv2"):  # an average: a sum of 1, but for float64's rounding
        assert net.parameters[f"{name}.weight"][0].sum() == pytest.approx(1, abs=1e-12)


class TestParameters:
    def test_assignment_casts_and_copies(self):
        net = small(dtype="float32")
        value, kept = np.full(3, 1 / 3), net.parameters["dense2.bias"]
        net.parameters["dense2.bias"] = value
        assert net.parameters["dense2.bias"] is kept
        assert kept.dtype == np.float32
        np.testing.assert_array_equal(kept, np.float32(1 / 3))
        value[:] = 0
        assert kept[0] == np.float32(1 / 3)
        net.parameters["dense2.bias"] = [1, 2, 3]
        np.testing.assert_array_equal(kept, [1, 2, 3])

    def test_what_cannot_be_assigned(self):
        p = small().parameters
        with pytest.raises(ShapeError, match=r"dense2.bias has shape \(3,\), got .*\(1,\)"):
            p["dense2.bias"] = [0]
        with pytest.raises(InputError, match=r"dense2.bias takes numbers, got an array of <U1"):
            p["dense2.bias"] = ["a", "b", "c"]
        with pytest.raises(KeyError, match=r"called 'dense2.bais'; did you mean dense2.bias"):
            p["dense2.bais"] = [0, 0, 0]
        with pytest.raises(KeyError, match=r"called 'w'; there are .*'conv1.weight'"):
            p["w"]
        with pytest.raises(TypeError, match=r"'conv1.bias' belongs to .* cannot be deleted"):
            del p["conv1.bias"]
        assert "w" not in p
        assert "'conv1.weight': (4, 2, 3, 3)" in repr(p)


class TestTrace:
    def test_holds_every_layer_by_name(self):
        net = small()
        trace = net.trace(X, Y)
        assert list(trace.activations) == list(trace.deltas) == ["input", *net.names]
        assert list(trace.gradients) == list(net.parameters)
        np.testing.assert_array_equal(trace.activations["input"], X)
        np.testing.assert_array_equal(
            trace.activations["relu1"], np.maximum(trace.activations["batchnorm1"], 0)
        )
        loss, gradients = net.loss_and_gradients(X, Y)
        assert loss == trace.loss
        for name, gradient in gradients.items():
            np.testing.assert_array_equal(gradient, trace.gradients[name])
        logits = trace.activations["dense2"]
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        # float64 softmax of small numbers: a few roundings of 1e-16
        np.testing.assert_allclose(trace.probabilities, p, rtol=1e-14)
        assert repr(trace).startswith("Trace(loss=")

    @pytest.mark.parametrize("cut", [0, 1, 3, 5, 6])
    def test_deltas_are_the_loss_gradient_of_each_output(self, cut):
        """Move one layer's output and run the rest of the network from there."""
        net = small()
        trace = net.trace(X, Y, training=False)
        a, delta = (values[net.names[cut]] for values in (trace.activations, trace.deltas))
        rest = Network(net.layers[cut + 1 :], net.shapes[cut], dtype="float64")
        for name, full_name in zip([*rest.parameters][::-1], [*net.parameters][::-1], strict=False):
            rest.parameters[name] = net.parameters[full_name]
        direction = np.random.default_rng(1).normal(size=a.shape)
        losses = [rest.trace(a + h * direction, Y, training=False).loss for h in (1e-5, -1e-5)]
        # 1e-10 of truncation and 1e-16 / 1e-5 of rounding, on a slope of about 0.1
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx((delta * direction).sum(), abs=1e-9)

    def test_sample_weights_weigh_the_mean(self):
        net = small()
        each = [net.trace(X[n : n + 1], Y[n : n + 1], training=False).loss for n in range(5)]
        weights = [1, 0, 2, 0.5, 3]
        weighted = net.trace(X, Y, sample_weight=weights, training=False).loss
        # sums of five float64 numbers
        assert weighted == pytest.approx(np.average(each, weights=weights), rel=1e-13)

    def test_dropout_is_fixed_by_the_seed(self):
        net = Network([Flatten(), Dropout(), Dense(3)], (2, 6, 7))
        first, second, other = (net.trace(X, Y, seed=s) for s in (1, 1, 2))
        np.testing.assert_array_equal(first.activations["dropout1"], second.activations["dropout1"])
        assert (first.activations["dropout1"] != other.activations["dropout1"]).any()
        assert (net.trace(X, Y, seed=(1, 2, 3)).activations["dropout1"] == 0).any()
        np.testing.assert_array_equal(
            net.trace(X, Y, training=False).activations["dropout1"],
            X.reshape(5, -1).astype(np.float32),
        )

    def test_two_dropouts_draw_differently(self):
        net = Network([Dropout(), Dropout(), Dense(2)], (1000,))
        trace = net.trace(np.ones((1, 1000)), [0])
        dropped = trace.activations["dropout1"] == 0
        # 0.5 * 0.5 of 1000 stay, with a standard deviation of 14; were the draws alike, 500 would
        assert 180 < (trace.activations["dropout2"] != 0).sum() < 320
        assert 420 < dropped.sum() < 580  # standard deviation 16

    def test_deltas_can_be_written_to(self):
        trace = Network.parse("conv2 globalavgpool dense3", (2, 6, 7)).trace(X, Y)
        assert all(delta.flags.writeable for delta in trace.deltas.values())


class TestImages:
    def test_uint8_is_scaled_by_255(self):
        net = small(dtype="float32")
        pixels = np.random.default_rng(1).integers(0, 256, size=(4, 2, 6, 7), dtype=np.uint8)
        np.testing.assert_array_equal(net.logits(pixels), net.logits(pixels / np.float32(255)))

    def test_one_channel_may_be_left_out(self):
        net = zoo.question()
        x = np.random.default_rng(1).random((3, 28, 28))
        np.testing.assert_array_equal(net.logits(x), net.logits(x[:, None]))

    def test_large_sets_are_predicted_in_parts(self):
        net = flat()
        x = np.random.default_rng(1).random((2 * PREDICTION_BATCH + 3, 3))
        assert net.logits(x).shape == (515, 2)
        # another order of summation, of three products
        np.testing.assert_allclose(net.logits(x)[-1], net.logits(x[-1:])[0], rtol=1e-14)

    @pytest.mark.parametrize(
        ("x", "error", "message"),
        [
            (X[:, :1], ShapeError, r"x must have shape \(N, 2, 6, 7\), got \(5, 1, 6, 7\)$"),
            (X[0], ShapeError, r"got \(2, 6, 7\); x\[None\] makes a batch of one image"),
            (3.0, ShapeError, r"x must have shape \(N, 2, 6, 7\), got \(\)"),
            (X[:0], InputError, "x holds no images"),
            (X.astype(int), InputError, "must be uint8 .* or float .*, got int64; convert them"),
            (X > 0.5, InputError, "images must be uint8 .*, got bool"),
            (np.where(X[3, 0, 0, 0] == X, np.nan, X), InputError, r"image 3 holds .* \(1 of 5"),
            (np.where(X[1, 1, 2, 3] == X, -np.inf, X), InputError, "image 1 holds NaN or inf"),
        ],
    )
    def test_what_is_no_batch_of_images(self, x, error, message):
        for method in (small().logits, small().predict, small().predict_proba):
            with pytest.raises(error, match=message):
                method(x)
        with pytest.raises(error, match=message):
            small().trace(x, Y)

    def test_a_scalar_is_no_batch_of_one_feature(self):
        with pytest.raises(ShapeError, match=r"x must have shape \(N, 1\), got \(\)"):
            Network([Dense(1)], (1,)).logits(3.0)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (Y[:4], ShapeError, r"y must be 5 labels, one per image, but has shape \(4,\)$"),
        (np.eye(3)[Y], ShapeError, r"shape \(5, 3\); y.argmax\(axis=1\) turns one-hot rows"),
        (Y / 1, InputError, r"whole numbers from 0 to 2, got float64; y.astype\(int\)"),
        ([0, 1, 3, 0, 0], InputError, "label 3 of image 2 is out of range: .* for labels 0 to 2"),
        ([0, -1, 2, 0, 0], InputError, "label -1 of image 1 is out of range"),
    ],
)
def test_what_are_no_labels(y, error, message):
    for method in (small().trace, small().evaluate, small().loss_and_gradients):
        with pytest.raises(error, match=message):
            method(X, y)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.zeros(5), ShapeError, r"y must have shape \(5, 2\), one row of 2 numbers per image"),
        ([["a", "b"]] * 5, InputError, "targets must be numbers, got <U1"),
        ([[0, 0], [0, np.nan]] + [[0, 0]] * 3, InputError, "target of image 1 is not finite"),
    ],
)
def test_what_are_no_targets(y, error, message):
    with pytest.raises(error, match=message):
        flat(loss=MeanSquaredError()).trace(np.ones((5, 3)), y)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (
            [1, 2],
            ShapeError,
            r"sample_weight must be 5 numbers, one per image, but has shape \(2,\)",
        ),
        ([1, 2, -1, 0, 0], InputError, "finite, not negative and not all zero"),
        ([1, 2, np.inf, 0, 0], InputError, "finite, not negative and not all zero"),
        ([0] * 5, InputError, "finite, not negative and not all zero"),
    ],
)
def test_what_are_no_sample_weights(weights, error, message):
    with pytest.raises(error, match=message):
        small().trace(X, Y, sample_weight=weights)


class TestPrediction:
    def test_classes(self):
        net = small(dtype="float32")
        p = net.predict_proba(X)
        assert p.dtype == np.float32
        # rounding of three float32 quotients that add up to 1
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=3 * np.finfo(np.float32).eps)
        np.testing.assert_array_equal(net.predict(X), p.argmax(axis=1))
        assert net.score(X, Y) == accuracy_score(Y, net.predict(X))
        evaluation = net.evaluate(X, Y)
        assert evaluation.score == net.score(X, Y)
        # three float32 sums, in another order
        assert evaluation.loss == pytest.approx(-np.log(p[np.arange(5), Y]).mean(), rel=1e-6)

    def test_numbers(self):
        net = flat(outputs=3, loss=MeanSquaredError())
        x, targets = np.random.default_rng(1).normal(size=(2, 20, 3))
        np.testing.assert_array_equal(net.predict(x), net.logits(x))
        # sums of 20 float64 numbers
        assert net.score(x, targets) == pytest.approx(r2_score(targets, net.predict(x)), rel=1e-12)
        assert net.evaluate(x, targets).loss == pytest.approx(
            ((net.logits(x) - targets) ** 2).mean(), rel=1e-12
        )
        with pytest.raises(
            OptionError, match=r"needs a classifier, but the loss is MeanSquaredErr"
        ):
            net.predict_proba(x)
        assert net.score(x, np.ones((20, 3))) == 0  # as scikit-learn has it, without any spread
        one = flat(outputs=1, loss=MeanSquaredError())
        assert one.score(x, targets[:, 0]) == one.score(x, targets[:, :1])


class TestFreezing:
    def test_by_name_and_by_kind(self):
        net = Network.parse("conv2 batchnorm relu conv2 flatten dense3", (1, 4, 4))
        net.freeze("conv1", "dense")
        assert net.frozen == {"conv1", "dense1"}
        assert net.trainable() == [
            "batchnorm1.weight", "batchnorm1.bias", "conv2.weight", "conv2.bias"
        ]  # fmt: skip
        net.freeze("conv")
        net.unfreeze("conv1")
        assert net.frozen == {"conv2", "dense1"}
        for name in ("relu", "pool1", "conv3"):
            message = f"no layer .* is called '{name}'; there are conv1, batchnorm1, conv2, dense1$"
            with pytest.raises(OptionError, match=message):
                net.freeze(name)
        assert "Conv2D(2) frozen" in net.summary()

    def test_a_frozen_batchnorm_uses_its_running_statistics(self):
        net = small()
        net.statistics["batchnorm1.mean"] = [0.1, 0.2, 0.3, 0.4]
        training = net.trace(X, Y).activations["batchnorm1"]
        prediction = net.trace(X, Y, training=False).activations["batchnorm1"]
        assert (training != prediction).all()
        net.freeze("batchnorm")
        np.testing.assert_array_equal(net.trace(X, Y).activations["batchnorm1"], prediction)


class TestNormalize:
    def test_adapt_measures_every_channel(self):
        net = Network([Normalize(), Flatten(), Dense(2)], (2, 6, 7), dtype="float64")
        x = np.random.default_rng(1).normal(size=(600, 2, 6, 7)) * [[[2]], [[0.5]]] + [
            [[3]],
            [[-5]],
        ]
        np.testing.assert_array_equal(net.trace(x[:2], [0, 1]).activations["normalize1"], x[:2])
        net.adapt(x)
        y = net.trace(x, np.zeros(600, int)).activations["normalize1"]
        # sums of 25 200 float64 numbers
        np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-12)
        np.testing.assert_allclose(y.std(axis=(0, 2, 3)), 1, rtol=1e-12)
        assert net.statistics["normalize1.images"] == 600

    def test_uint8_is_measured_as_it_will_be_seen(self):
        net = Network([Normalize(), Flatten(), Dense(2)], (1, 2, 2), dtype="float64")
        net.adapt(np.array([0, 255, 255, 0], np.uint8).reshape(1, 1, 2, 2))
        assert net.statistics["normalize1.mean"] == [0.5]
        assert net.statistics["normalize1.deviation"] == [0.5]

    @pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, 1e-30, 12345.678])
    def test_a_channel_without_spread_is_only_shifted(self, value):
        net = Network([Normalize(), Flatten(), Dense(2)], (1, 5, 5))
        net.adapt(np.full((1000, 1, 5, 5), value))
        assert net.statistics["normalize1.deviation"] == [1]

    def test_it_must_be_there(self):
        with pytest.raises(OptionError, match=r"adapt needs Normalize\(\) as .* is Conv2D\(4\)"):
            small().adapt(X)


def test_layers_and_losses_are_frozen():
    for described in (Conv2D(2), BatchNorm2D(), SoftmaxCrossEntropy()):
        field = dataclasses.fields(described)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot .* field '{field}'"):
            setattr(described, field, 1)


def test_options_may_be_numpy_numbers():
    labels = np.array([0, 3, 9])
    layer = fullback.Dense(labels.max() + 1)
    assert layer == fullback.Dense(10)
    assert repr(layer) == "Dense(10)"
    assert fullback.Conv2D(np.int32(4), (np.int64(3), 5)) == fullback.Conv2D(4, (3, 5))
    assert fullback.SGD(np.float64(0.5)) == fullback.SGD(0.5)


def test_attributes_that_cannot_be_replaced():
    """Only entries may be assigned: another dict would not be the one that the layers use."""
    net = fullback.Network.parse("flatten dense2", (1, 2, 2))
    for name in ("parameters", "statistics", "frozen"):
        with pytest.raises(AttributeError):
            setattr(net, name, {})


def test_prediction_names_the_layer_whose_output_is_not_finite():
    net = fullback.Network.parse("conv1 relu flatten dense2", (1, 2, 2))
    x = np.ones((3, 1, 2, 2))
    net.parameters["dense1.bias"] = [0, np.nan]
    for answer in (net.logits, net.predict, net.predict_proba):
        with pytest.raises(InputError, match=r"^dense1 is the first whose output is not finite"):
            answer(x)
    net = fullback.Network.parse("flatten dense2", (1, 2, 2))
    with pytest.raises(InputError, match=r"^input is the first .* not finite in float32"):
        net.logits(x * 1e300)


@pytest.mark.parametrize("seed", [-1, 1.5, (0, -1), "a"])
def test_trace_checks_its_seed(seed):
    net = fullback.Network.parse("flatten dropout dense2", (1, 2, 2))
    with pytest.raises(fullback.OptionError, match="seed must be a whole number of at least 0"):
        net.trace(np.ones((3, 1, 2, 2)), [0, 1, 0], seed=seed)


def test_r2_of_one_image_is_nan():
    net = fullback.Network.parse("dense1", (2,), loss=MeanSquaredError())
    assert np.isnan(net.score(np.ones((1, 2)), [1.0]))


def test_a_layer_is_not_a_list_of_layers():
    with pytest.raises(fullback.OptionError, match=r"layers must be a list of layers, got Dense"):
        fullback.Network(fullback.Dense(2), (8,))


@pytest.mark.parametrize(
    "text",
    [
        "conv8 relu pool conv16 relu pool flatten dense10",
        "conv4(kernel_size=5x3, stride=2, padding=valid, bias=false) leakyrelu0.25 pool3(stride=2)",
        "conv6(kernel_size=1x5, padding=0x2, dilation=2, groups=2) batchnorm(epsilon=0.0000001)",
        "normalize avgpool(size=2x3, padding=1) tanh sigmoid dropout0.125 globalavgpool dense3",
    ],
)
def test_layers_are_written_as_they_are_read(text):
    layers = parse_layers(text)
    assert layers_text(layers) == text
    assert parse_layers(layers_text(layers)) == layers


class TestWithHead:
    """A trained network goes on to other classes: all is kept but the last layer."""

    text = "normalize conv3 batchnorm relu pool flatten dense5 relu dense4"

    def trained(self, **options):
        rng = np.random.default_rng(0)
        net = Network.parse(self.text, (1, 6, 6), **options)
        x = 255 * rng.random((40, 1, 6, 6))
        net.fit(x, np.arange(40) % 4, epochs=2, pixel_range=(0, 255), verbose=False)
        net.class_names, net.data_options = ("a", "b", "c", "d"), {"resize": "pad"}
        return net, x

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("classes", [2, ("ja", "nein")])
    def test_keeps_all_but_the_last_layer(self, dtype, classes):
        net, x = self.trained(dtype=dtype)
        net.freeze("conv", "dense2")
        new = net.with_head(classes, seed=3)
        assert new.output_shape == (2,)
        assert new.class_names == (() if classes == 2 else classes)
        assert (new.trained_on, new.data_options) == (net.trained_on, {"resize": "pad"})
        assert (new.dtype, new.frozen) == (net.dtype, {"conv1"})
        for arrays, known in ((new.parameters, net.parameters), (new.statistics, net.statistics)):
            for name, array in arrays.items():
                if not name.startswith("dense2."):
                    np.testing.assert_array_equal(array, known[name], err_msg=name)
        assert (
            new.parameters["dense2.weight"] != net.with_head(2).parameters["dense2.weight"]
        ).any()
        before = new.parameters["conv1.weight"].copy()
        new.fit(x, np.arange(40) % 2, epochs=2, verbose=False)
        np.testing.assert_array_equal(new.parameters["conv1.weight"], before)
        np.testing.assert_array_equal(net.parameters["conv1.weight"], before)

    def test_for_numbers(self):
        net, x = self.trained()
        new = net.with_head(1, loss=MeanSquaredError())
        new.fit(x, x.mean((1, 2, 3)), epochs=1, verbose=False)
        assert new.predict(x).shape == (40, 1)

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            (0, "classes must be a whole number of at least 1"),
            (2.5, "classes must be a whole number"),
            ((), "classes must be a whole number of at least 1, got 0"),
            (["a", "a"], "class names must be different texts"),
            ([1, 2], "class names must be different texts"),
            ("cat", "class names must be different texts, got 'cat'"),
        ],
    )
    def test_classes_that_are_none(self, classes, message):
        with pytest.raises(OptionError, match=message):
            Network.parse("flatten dense3", (1, 2, 2)).with_head(classes)

    def test_needs_a_dense_layer_at_the_end(self):
        net = Network.parse("conv3 globalavgpool", (1, 6, 6))
        with pytest.raises(OptionError, match="needs a Dense layer as the last one"):
            net.with_head(2)


class TestModel:
    """What every room takes: a network without what users call."""

    @pytest.fixture
    def model(self):
        return Model.parse(TEXT, (2, 6, 7), seed=3)

    def test_it_is_the_network_without_its_face(self, model):
        assert repr(model) == repr(Network.parse(TEXT, (2, 6, 7))).replace("Network", "Model", 1)
        assert not {"fit", "predict", "save", "explore", "program"} & set(dir(model))

    def test_a_copy_has_the_same_type(self, model):
        net = Network.parse(TEXT, (2, 6, 7))
        for copy in (Model.copy, lambda own: own.copy(seed=1), lambda own: own.with_head(2)):
            assert (type(copy(model)), type(copy(net))) == (Model, Network)

    def test_a_file_is_read_as_either(self, model, tmp_path):
        path = tmp_path / "m.safetensors"
        fullback.save(model, path)
        found, _ = read_model(path, Model)
        assert (type(found), type(fullback.load(path))) == (Model, Network)
        for name, array in model.parameters.items():
            np.testing.assert_array_equal(found.parameters[name], array)

    def test_it_is_trained(self, model):
        net = Network.parse(TEXT, (2, 6, 7), seed=3)
        for either in (model, net):
            fullback.fit(either, X, Y, epochs=2, validation_data=(X, Y), verbose=False)
        for name, array in net.parameters.items():
            np.testing.assert_array_equal(model.parameters[name], array)


class Small(Network):
    """A subclass whose ``__init__`` takes nothing that Network's does."""

    def __init__(self):
        super().__init__([Flatten(), Dense(3)], (1, 2, 2))


class TestSubclass:
    def test_what_is_made_of_it_is_a_network(self):
        for network in (Small().copy(), Small().copy(dtype="float64"), Small().with_head(2)):
            assert type(network) is Network

    def test_it_is_checked_like_a_network(self):
        x, y = np.linspace(0, 1, 8, dtype="f4").reshape(2, 1, 2, 2), [0, 2]
        net = Small()
        assert fullback.check_gradients(net, x, y).ok
        assert not fullback.diagnose(net, x, y, net.trace(x, y).gradients).findings
