"""check_gradients: no false alarm on right gradients, no mistake missed, and what it says."""

import numpy as np
import pytest

import fullback as fb
from fullback.check.gradients import check_gradients
from fullback.check.gradients.differences import central, measured_noise, slope_across
from fullback.errors import InputError, OptionError, ShapeError
from support.networks import batch_for

NETWORKS = {
    "pooled": ((2, 9, 8), "conv5 relu pool conv6 relu pool dropout0.2 flatten dense9 relu dense4"),
    "normed": (
        (3, 9, 8),
        "normalize conv6(groups=3) batchnorm relu conv4(kernel_size=2x3, stride=2x1, padding=2) "
        "tanh avgpool3(stride=2, padding=1) batchnorm leakyrelu0.1 conv7 sigmoid "
        "pool3(stride=1, padding=same) dropout globalavgpool dense4",
    ),
    "flat": ((40,), "dense20 sigmoid dropout0.5 dense9(bias=false) leakyrelu dense4"),
}


@pytest.fixture(scope="module")
def digits():
    data = fb.load_data("digits")
    return data.x_train[:4], data.y_train[:4]


def all_gradients(net, x, y):
    trace = net.trace(x, y)
    return {"input": trace.deltas["input"], **trace.gradients}


class TestRightGradients:
    @pytest.mark.parametrize("name", fb.zoo.NETWORKS)
    def test_the_zoo(self, name, digits):
        """Empty backgrounds and biases of 0 put many units at their kink."""
        x, y = digits
        result = check_gradients(fb.zoo.NETWORKS[name](), x[:2], y[:2], samples=4, directions=1)
        assert result.ok
        assert result.relative < 1e-7
        assert result.precision < 1e-6
        assert [row.name for row in result.rows][:2] == ["input", "conv1.weight"]

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(
        "loss",
        [None, fb.SoftmaxCrossEntropy(0.1), fb.BinaryCrossEntropy(), fb.MeanSquaredError()],
        ids=str,
    )
    @pytest.mark.parametrize("name", NETWORKS)
    def test_every_kind_of_layer_with_ties_and_zeros(self, name, loss, training):
        shape, text = NETWORKS[name]
        net = fb.Network.parse(text, shape, loss=loss, seed=1)
        rng = np.random.default_rng(0)
        x, y = batch_for(net, 4, rng)
        for images in (x, np.where(rng.random(x.shape) < 0.7, 0, np.round(x)), x * 1e-3):
            result = check_gradients(net, images, y, training=training, samples=8)
            assert result.ok, str(result)
            assert result.relative < 1e-6

    @pytest.mark.parametrize("name", NETWORKS)
    def test_the_lane_engine(self, name):
        shape, text = NETWORKS[name]
        net = fb.Network.parse(text, shape, seed=1)
        x, y = batch_for(net, 5, np.random.default_rng(0))
        result = check_gradients(net, x, y, engine="lanes", samples=10)
        assert result.ok, str(result)
        assert "input" not in [row.name for row in result.rows]
        assert "lane engine" in str(result)

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_given_ones(self, dtype, digits):
        net = fb.zoo.question(dtype="float64")
        given = {name: g.astype(dtype) for name, g in all_gradients(net, *digits).items()}
        assert check_gradients(net, *digits, gradients=given, samples=10).ok

    def test_frozen_batchnorm_and_dropout_of_a_seed(self):
        net = fb.Network.parse("conv3 batchnorm dropout flatten dense3", (2, 5, 4))
        net.freeze("batchnorm")
        x, y = batch_for(net, 4, np.random.default_rng(0))
        assert check_gradients(net, x, y, seed=3).ok

    def test_a_dead_network(self):
        net = fb.Network.parse("flatten dense4 relu dense2", (1, 3, 3))
        net.parameters["dense1.bias"] = np.full(4, -100.0)
        result = check_gradients(net, np.ones((2, 1, 3, 3)), [0, 1])
        assert result.ok
        assert result.relative < 1e-9


def wrong(gradient, mistake):
    rng = np.random.default_rng(0)
    if mistake == "scaled":
        return gradient * 1.001
    if mistake == "one entry":
        gradient = gradient.copy()
        gradient.ravel()[rng.choice(np.flatnonzero(gradient))] *= 1.5
        return gradient
    if mistake == "sign":
        return -gradient
    if mistake == "shifted":
        return np.roll(gradient.ravel(), 1).reshape(gradient.shape)
    return np.swapaxes(gradient, -1, -2)


class TestWrongGradients:
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @pytest.mark.parametrize("mistake", ["scaled", "one entry", "sign", "shifted", "transposed"])
    def test_each_is_found(self, mistake, dtype, digits):
        net = fb.zoo.question(dtype="float64")
        for name, gradient in all_gradients(net, *digits).items():
            square = gradient.ndim > 1 and gradient.shape[-1] == gradient.shape[-2]
            if mistake == "transposed" and not square:
                continue
            bad = wrong(gradient, mistake)
            if np.array_equal(bad, gradient):
                continue
            given = {name: bad.astype(dtype)}
            result = check_gradients(net, *digits, gradients=given, samples=10, directions=1)
            assert not result.ok, name
            assert f"wrong: {name}" in result.sentence()

    def test_an_error_too_small_to_show_in_an_entry_shows_in_a_direction(self, digits):
        net = fb.zoo.question(dtype="float64")
        bad = all_gradients(net, *digits)["dense1.weight"]
        bad = bad + 5e-7 * np.abs(bad).max()  # an entry may be off by 1e-6 of the largest
        result = check_gradients(net, *digits, gradients={"dense1.weight": bad}, directions=0)
        (row,) = result.rows
        assert (row.wrong, row.ok, row.direction.ok, row.worst) == (0, False, False, None)
        assert "with all entries moved at once" in str(result)

    def test_nan(self, digits):
        net = fb.zoo.question()
        given = {"dense2.bias": np.full(10, np.nan)}
        assert not check_gradients(net, *digits, gradients=given).ok

    def test_what_it_says(self, digits):
        net = fb.zoo.question(dtype="float64")
        bad = net.trace(*digits).gradients["dense2.bias"].copy()
        bad[3] += 1
        result = check_gradients(net, *digits, gradients={"dense2.bias": bad})
        (row,) = result.rows
        assert (row.wrong, row.worst, row.given) == (1, (3,), bad[3])
        assert row.expected == pytest.approx(bad[3] - 1, abs=1e-10)
        assert "dense2.bias: 1 of 10 entries are wrong; dense2.bias[3] is" in str(result)


class TestKinks:
    def net(self):
        """One unit at its kink: x = 0, so that both slopes are known: 0 and the weight above."""
        net = fb.Network.parse("dense1 relu dense1", (1,), loss=fb.MeanSquaredError())
        net.parameters["dense1.weight"] = [[1.0]]
        net.parameters["dense2.weight"] = [[2.0]]
        return net

    @pytest.mark.parametrize(
        ("value", "ok", "unclear"), [(0, 1, 0), (-4, 1, 0), (-2, 1, 0), (-1, 1, 1), (1, 0, 0)]
    )
    def test_rules_for_a_kink(self, value, ok, unclear):
        # L = (2 relu(b) - 1)^2 at b = 0: slope 0 to the left and -4 to the right.
        result = check_gradients(
            self.net(), [[0.0]], [[1.0]], gradients={"dense1.bias": [value]}, directions=0
        )
        (row,) = result.rows
        assert (row.kinks, row.ok, row.unclear) == (1, bool(ok), unclear)

    def test_own_gradients_at_a_kink_are_set_apart(self):
        result = check_gradients(self.net(), [[0.0]], [[1.0]])
        assert result.ok
        assert "at a kink" in str(result)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"samples": 0}, OptionError, "samples must be a whole number"),
            ({"engine": "fast"}, OptionError, "engine must be 'lanes' or 'reference'"),
            ({"parameters": "conv7"}, OptionError, "no array is called 'conv7'; did you mean"),
            ({"parameters": []}, OptionError, "parameters names nothing to check"),
            ({"gradients": {}}, InputError, "gradients holds no arrays"),
            ({"gradients": {"conv1.wieght": 0}}, OptionError, "did you mean 'conv1.weight'"),
            ({"gradients": {"conv1.weight": [0.0]}}, ShapeError, r"must have shape \(1, 1, 3, 3\)"),
            ({"gradients": {"conv1.bias": ["a"]}}, InputError, "must hold numbers"),
            (
                {"gradients": {"conv1.bias": [0.0]}, "engine": "lanes"},
                OptionError,
                "not both",
            ),
        ],
    )
    def test_what_is_refused(self, options, error, message, digits):
        with pytest.raises(error, match=message):
            check_gradients(fb.zoo.question(), *digits, **options)

    def test_some_parameters(self, digits):
        net = fb.zoo.question()
        result = check_gradients(net, *digits, parameters=["conv2", "dense1.bias"])
        assert [row.name for row in result.rows] == ["conv2.weight", "conv2.bias", "dense1.bias"]

    def test_the_network_is_left_alone_and_the_result_is_repeatable(self, digits):
        net = fb.zoo.question()
        before = {name: array.copy() for name, array in net.parameters.items()}
        assert check_gradients(net, *digits, seed=5) == check_gradients(net, *digits, seed=5)
        for name, array in net.parameters.items():
            np.testing.assert_array_equal(array, before[name])

    def test_a_loss_that_is_not_finite(self, digits):
        net = fb.zoo.question()
        net.parameters["dense1.bias"] = np.full(49, np.inf)
        with pytest.raises(InputError, match=r"^dense1 is the first that is not finite"):
            check_gradients(net, *digits)


class TestDifferences:
    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_an_error_is_not_larger_than_estimated(self, scale):
        for f, slope in ((np.sin, 1), (lambda t: np.exp(3 * t), 3), (lambda t: (t - 2) ** 5, 80)):

            def scaled(t, f=f):
                return float(f(t / scale))

            noise = measured_noise(scaled, 1e-12 * scale)
            found = central(scaled, scale / 8, noise)
            assert abs(found.value * scale - slope) <= 10 * found.error * scale
            assert found.error * scale < 1e-9 * slope

    def test_a_kink_at_0_and_one_beside_it(self):
        here = slope_across(lambda t: abs(t) + t, 2.0**-7, 1e-16)
        assert here.kink
        assert (here.left, here.right) == pytest.approx((0, 2), abs=1e-6)
        beside = slope_across(lambda t: abs(t - 1e-4), 2.0**-7, 1e-16)
        assert not beside.kink
        assert beside.value == pytest.approx(-1, abs=1e-7)

    def test_noise_is_measured(self):
        def rough(t):
            return float(np.float32(1 + np.sin(t)))

        assert 1e-9 < measured_noise(rough, 1e-8) < 1e-6
