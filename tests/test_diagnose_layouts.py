"""Layouts: the weights', which gradients must have; and right values that lie in another order."""

import itertools

import numpy as np
import pytest

import fullback as fb
from fullback.check.diagnose.layouts import (
    CONV_ORDERS,
    FOLD_ORDERS,
    ProgramLayout,
    axes_of,
)
from fullback.check.diagnose.reader import Given
from fullback.check.diagnose.submission import receive
from fullback.errors import InputError, OptionError, ShapeError
from fullback.passes import trace_batch


def mistakes(found):
    return [finding.mistake for finding in found.findings]


def laid(net, arrays, program, form="full"):
    """The network's arrays as a program lays them out: filters whole, as matrices or flat."""
    found = {}
    for name, axes in axes_of(net).items():
        order = axes.order(program)
        sizes = [axes.sizes[axes.letters.index(letter)] for letter in order]
        if axes.letters == "UCHW" or (axes.letters == "KCRS" and form == "matrix"):
            ends = (sizes[0], -1) if order[0] == axes.letters[0] else (-1, sizes[-1])
            sizes = ends if axes.letters[0] in (order[0], order[-1]) else sizes
        elif axes.letters == "KCRS" and form == "flat":
            sizes = (-1,)
        places = [axes.letters.index(letter) for letter in order]
        found[name] = arrays[name].reshape(axes.sizes).transpose(places).reshape(sizes)
    return found


class TestExchanges:
    """What was accepted once because another layout has that shape."""

    rng = np.random.default_rng(2)

    def given(self, text, shape, images=4):
        net = fb.Network.parse(text, shape, dtype="float64", seed=4)
        for name in net.parameters:
            if name.endswith("bias"):
                net.parameters[name] = self.rng.uniform(0.1, 0.4, net.parameters[name].shape)
        x = self.rng.random((images, *shape))
        y = self.rng.integers(0, net.output_shape[0], images)
        return net, x, y, dict(net.trace(x, y).gradients)

    def test_rows_and_columns_in_a_matrix(self):
        net, x, y, g = self.given("conv3 relu conv4 relu flatten dense5", (2, 7, 6))
        turned = g["conv2.weight"].transpose(0, 1, 3, 2)
        for shape in (turned.shape, (4, -1)):
            found = fb.diagnose(net, x, y, {**g, "conv2.weight": turned.reshape(shape)})
            assert mistakes(found) == ["rows-columns-swapped"]

    def test_another_order_in_a_matrix(self):
        net, x, y, g = self.given("conv2 relu conv3 relu flatten dense4", (1, 7, 6))
        for order in ((2, 3, 0, 1), (2, 3, 1, 0), (0, 2, 3, 1), (3, 0, 2, 1)):
            matrix = g["conv2.weight"].transpose(order).reshape(3, -1)
            found = fb.diagnose(net, x, y, {**g, "conv2.weight": matrix})
            assert mistakes(found) == ["memory-order"], order
            letters = ", ".join("KCRS"[axis] for axis in order)
            assert f"its values lie in the order ({letters})" in found.findings[0].message

    def test_column_by_column(self):
        net, x, y, g = self.given("conv2 relu conv3 relu flatten dense4", (1, 7, 6))
        filled = g["conv2.weight"].ravel().reshape(g["conv2.weight"].shape, order="F")
        found = fb.diagnose(net, x, y, {**g, "conv2.weight": filled})
        assert mistakes(found) == ["memory-order"]
        assert "column by column (order='F')" in found.findings[0].message

    def test_dense_weights_reshaped_without_a_transpose(self):
        net, x, y, g = self.given("conv2 relu flatten dense4", (1, 5, 6))
        wrong = np.ascontiguousarray(g["dense1.weight"].T).reshape(4, -1)
        found = fb.diagnose(net, x, y, {**g, "dense1.weight": wrong})
        assert mistakes(found) == ["memory-order"]
        assert "(channels, rows, columns, units)" in found.findings[0].message

    def test_one_gradient_in_another_layout_than_its_weight(self):
        net, x, y, g = self.given("conv2 relu flatten dense4 relu dense3", (1, 5, 6))
        weights = {n: w.T.copy() if n == "dense1.weight" else w for n, w in net.parameters.items()}
        weights["dense2.weight"] = weights["dense2.weight"].T.copy()
        right = {n: v.T if n.startswith("dense") else v for n, v in g.items()}
        assert fb.diagnose(net.copy(seed=9), x, y, right, weights=weights).ok
        wrong = {**right, "dense1.weight": g["dense1.weight"]}
        found = fb.diagnose(net.copy(seed=9), x, y, wrong, weights=weights)
        assert mistakes(found) == ["memory-order"]


def candidates(g, sizes, shape, rng):
    """Wrong memory orders of a gradient, in the shape of its weight."""
    order = rng.permutation(len(sizes))
    yield np.ascontiguousarray(g.reshape(sizes).transpose(order)).reshape(shape)
    yield g.reshape(sizes).transpose(order).ravel().reshape(shape, order="F")


@pytest.mark.parametrize("seed", range(12))
def test_no_other_order_is_read_as_right(seed):
    """Random networks and layouts, with many sizes that are equal: with the weights, one layout."""
    rng = np.random.default_rng(seed)
    channels, first, second = (int(n) for n in rng.integers(1, 5, 3))
    rows, columns = (int(n) for n in rng.integers(6, 9, 2))
    size = tuple(int(n) for n in rng.integers(2, 4, 2))
    layers = [fb.Conv2D(first, size, padding="valid"), fb.Tanh(), fb.Conv2D(second), fb.Tanh()]
    layers += [fb.MaxPool2D(), fb.Flatten(), fb.Dense(6), fb.Tanh(), fb.Dense(4)]
    net = fb.Network(layers, (channels, rows, columns), dtype="float64", seed=seed)
    x, y = rng.random((5, channels, rows, columns)), rng.integers(0, 4, 5)

    def run(one):
        return trace_batch(one, x, y, None, training=True, seed=0)

    truth, axes = run(net).gradients, axes_of(net)
    other = net.copy(seed=99)
    every = list(itertools.product(CONV_ORDERS, (False, True), FOLD_ORDERS))
    for conv, transposed, fold in (every[i] for i in rng.choice(len(every), 4, replace=False)):
        program = ProgramLayout(conv, transposed, fold)
        form = ("full", "matrix", "flat")[rng.integers(3)]
        weights = laid(net, net.parameters, program, form)
        right = laid(net, truth, program, form)
        _, _, read = receive(other, 5, Given(right, weights=weights), run)
        for name, m in read.gradients.items():
            assert m.readings[0].mistake is None
            np.testing.assert_allclose(m.values, truth[name], rtol=1e-9)
        name = ("conv1.weight", "conv2.weight", "dense1.weight")[rng.integers(3)]
        for wrong in candidates(truth[name], axes[name].sizes, weights[name].shape, rng):
            if np.allclose(wrong, right[name]):
                continue
            _, _, read = receive(other, 5, Given({**right, name: wrong}, weights=weights), run)
            for reading in read.gradients[name].readings:
                assert reading.mistake or not np.allclose(reading.values, truth[name])


class TestOptions:
    net = fb.Network.parse("conv3 relu pool conv4 relu flatten dense5", (2, 8, 6), dtype="float64")
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 2, 8, 6)), np.array([0, 4, 2, 1])

    def trained(self, net=None):
        net = (net or self.net).copy(seed=6)
        return net, dict(net.parameters), dict(net.trace(self.x, self.y).gradients)

    def test_weights_take_the_place_of_the_networks(self):
        _, weights, g = self.trained()
        assert not fb.diagnose(self.net, self.x, self.y, g).ok
        assert fb.diagnose(self.net, self.x, self.y, g, weights=weights).ok
        assert not np.allclose(self.net.parameters["conv1.weight"], weights["conv1.weight"])

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @pytest.mark.parametrize("lr", [0.5, 0.1, 0.003])
    @pytest.mark.parametrize("known", [True, False])
    def test_a_step(self, lr, known, dtype):
        _, weights, g = self.trained()
        weights = {name: w.astype(dtype) for name, w in weights.items()}
        after = {name: (w - lr * g[name]).astype(dtype) for name, w in weights.items()}
        options = {"weights": weights, "after": after, "lr": lr if known else None}
        found = fb.diagnose(self.net, self.x, self.y, **options)
        assert found.ok, str(found)
        assert any("learning rate was not given" in note for note in found.notes) != known
        after["conv2.weight"] = (weights["conv2.weight"] + lr * g["conv2.weight"]).astype(dtype)
        assert mistakes(fb.diagnose(self.net, self.x, self.y, **options)) == ["sign-flipped"]

    def test_a_penalty(self):
        _, weights, g = self.trained()
        g = {n: v + 0.02 * weights[n] if n.endswith("weight") else v for n, v in g.items()}
        found = fb.diagnose(self.net, self.x, self.y, g, weights=weights)
        assert set(mistakes(found)) == {"l2-term"}
        assert fb.diagnose(self.net, self.x, self.y, g, weights=weights, l2=0.02).ok
        assert not fb.diagnose(self.net, self.x, self.y, g, weights=weights, l2=0.01).ok

    def test_a_true_convolution(self):
        _, weights, g = self.trained()

        def turned(arrays):
            return {n: a[:, :, ::-1, ::-1] if a.ndim == 4 else a for n, a in arrays.items()}

        options = {"weights": turned(weights), "convolution": "true"}
        assert fb.diagnose(self.net, self.x, self.y, turned(g), **options).ok
        wrong = {**turned(g), "conv2.weight": g["conv2.weight"]}
        found = fb.diagnose(self.net, self.x, self.y, wrong, **options)
        assert mistakes(found) == ["weight-gradient-turned"]

    def test_a_program_without_biases(self):
        other = self.net.copy(seed=6)
        for name in other.parameters:
            if name.endswith("bias"):
                other.parameters[name] = np.zeros_like(other.parameters[name])
        weights = {n: w for n, w in other.parameters.items() if n.endswith("weight")}
        g = {n: v for n, v in other.trace(self.x, self.y).gradients.items() if n in weights}
        self.net.parameters["conv1.bias"] = np.ones(3)
        found = fb.diagnose(self.net, self.x, self.y, g, weights=weights)
        assert found.ok
        assert "the weights have no conv1.bias, conv2.bias, dense1.bias" in " ".join(found.notes)

    @pytest.mark.parametrize("labels", ["one-hot", "columns", "floats"])
    def test_labels(self, labels):
        _, weights, g = self.trained()
        y = {"one-hot": np.eye(5)[self.y], "columns": np.eye(5)[self.y].T, "floats": self.y * 1.0}
        assert fb.diagnose(self.net, self.x, y[labels], g, weights=weights).ok

    @pytest.mark.parametrize(
        "order", [(0, 2, 3, 1), (2, 3, 1, 0), (1, 2, 3, 0)], ids=["NHWC", "HWCN", "CHWN"]
    )
    def test_images(self, order):
        _, weights, g = self.trained()
        found = fb.diagnose(self.net, self.x.transpose(order), self.y, g, weights=weights)
        assert found.ok
        assert found.notes[-1].startswith("the images were read as (")

    def test_images_of_one_channel(self):
        net = fb.Network.parse("conv3 relu flatten dense5", (1, 8, 6), dtype="float64")
        x = self.x[:, 0]
        g = net.trace(x[:, None], self.y).gradients
        assert fb.diagnose(net, x, self.y, dict(g)).ok
        one = net.trace(x[:1, None], self.y[:1]).gradients
        assert fb.diagnose(net, x[0], self.y[0], dict(one)).ok

    def test_one_vector_of_everything(self):
        _, weights, g = self.trained()
        weights_first = sorted(weights, key=lambda name: name.endswith("bias"))
        for order in (list(weights), weights_first):
            vector, gradient = (np.concatenate([a[n].ravel() for n in order]) for a in (weights, g))
            assert fb.diagnose(self.net, self.x, self.y, gradient, weights=vector).ok

    def test_names_and_containers(self):
        _, w, g = self.trained()
        for arrays in (
            lambda a: list(a.values()),
            lambda a: [(a["conv1.weight"], a["conv1.bias"]), (a["conv2.weight"], a["conv2.bias"]),
                       (a["dense1.weight"], a["dense1.bias"])],
            lambda a: {"conv1": {"W": a["conv1.weight"], "b": a["conv1.bias"]},
                       "conv2": {"W": a["conv2.weight"], "b": a["conv2.bias"]},
                       "fc": {"W": a["dense1.weight"], "b": a["dense1.bias"]}},
            lambda a: {"weights": [a[f"{n}.weight"] for n in ("conv1", "conv2", "dense1")],
                       "biases": [a[f"{n}.bias"] for n in ("conv1", "conv2", "dense1")]},
            lambda a: {f"{k}{i}": a[f"{n}.{p}"] for k, p in (("w", "weight"), ("b", "bias"))
                       for i, n in enumerate(("conv1", "conv2", "dense1"))},
            lambda a: {"F1": list(a["conv1.weight"]), "c1": a["conv1.bias"], "F2":
                       list(a["conv2.weight"]), "c2": a["conv2.bias"], "theta": a["dense1.weight"],
                       "theta0": a["dense1.bias"]},
        ):  # fmt: skip
            found = fb.diagnose(self.net, self.x, self.y, arrays(g), weights=arrays(w))
            assert found.ok, arrays(w)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"after": {}}, OptionError, "after needs weights"),
            ({"weights": {}}, OptionError, "conv1.weight, conv2.weight, dense1.weight are missing"),
            ({"lr": 0}, OptionError, r"lr must be a number in \(0, inf\), got 0"),
            ({"l2": -1}, OptionError, r"l2 must be a number in \[0, inf\), got -1"),
            ({"reduction": "max"}, OptionError, "reduction must be 'mean' or 'sum', got 'max'"),
            ({"convolution": "full"}, OptionError, "must be 'correlation' or 'true', got 'full'"),
            ({"weights": 3}, OptionError, "weights must be a dict of arrays .* got int"),
        ],
    )
    def test_refused(self, options, error, message):
        _, _, g = self.trained()
        with pytest.raises(error, match=message):
            fb.diagnose(self.net, self.x, self.y, g, **options)

    def test_weights_that_do_not_fit(self):
        _, weights, g = self.trained()
        for name, array, error, message in (
            (
                "dense1.weight",
                np.ones((3, 32)),
                ShapeError,
                "which cannot be read as dense1.weight",
            ),
            ("conv1.weight", np.full((3, 2, 3, 3), np.nan), InputError, "not finite"),
            ("conv1.weight", np.ones((2, 27)), ShapeError, "which cannot be read as conv1.weight"),
        ):
            with pytest.raises(error, match=message):
                fb.diagnose(self.net, self.x, self.y, g, weights={**weights, name: array})
        with pytest.raises(OptionError, match="the same arrays: no step was taken"):
            fb.diagnose(self.net, self.x, self.y, weights=weights, after=weights)
        with pytest.raises(OptionError, match="and not both"):
            fb.diagnose(self.net, self.x, self.y, g, weights=weights, after=weights)
        moved = {name: w - 0.001 * np.sign(g[name]) for name, w in weights.items()}
        with pytest.raises(OptionError, match="every weight by the same amount, as Adam"):
            fb.diagnose(self.net, self.x, self.y, weights=weights, after=moved, lr=0.001)


def _outputs(text, shape, images):
    net = fb.Network.parse(text, shape, dtype="float64")
    rng = np.random.default_rng(0)
    for key, p in net.parameters.items():
        if key.endswith("bias"):
            net.parameters[key] = rng.normal(0, 0.2, p.shape)
    x, y = rng.normal(size=(images, *shape)), np.arange(images) % 4
    return net, x, y, net.trace(x, y)


def _channels_last(array):
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("fold", ["CHW", "HWC"])
def test_maps_with_channels_last_may_be_flattened_in_either_order(fold, with_weights):
    net, x, y, trace = _outputs("conv3 relu pool conv5 relu flatten dense4", (1, 8, 12), 7)
    weights = {key: np.array(p) for key, p in net.parameters.items()} if with_weights else None
    gradients = dict(trace.gradients)
    outputs, deltas = (
        {key: _channels_last(a) for key, a in arrays.items()}
        for arrays in (trace.activations, trace.deltas)
    )
    if fold == "HWC":
        folded = (slice(None), np.arange(5 * 4 * 6).reshape(5, 4, 6).transpose(1, 2, 0).ravel())
        outputs["flatten1"], deltas["flatten1"] = (
            outputs["flatten1"][folded],
            deltas["flatten1"][folded],
        )
        gradients["dense1.weight"] = gradients["dense1.weight"][folded]
        if weights:
            weights["dense1.weight"] = weights["dense1.weight"][folded]
    found = fb.diagnose(net, x, y, gradients, None, outputs, trace.probabilities, weights=weights)
    assert found.ok, found
    assert fb.diagnose(net, x, y, gradients, deltas, weights=weights).ok
    outputs["flatten1"] = outputs["flatten1"][:, ::-1]
    found = fb.diagnose(net, x, y, gradients, None, outputs, trace.probabilities, weights=weights)
    assert found.wrong == ["output of flatten1"]


def test_images_as_the_last_axis_are_so_in_square_arrays_too():
    net, x, y, trace = _outputs("conv4 relu pool conv4 relu flatten dense4", (1, 8, 8), 4)
    outputs, deltas = (
        {key: np.moveaxis(a, 0, -1) for key, a in arrays.items()}
        for arrays in (trace.activations, trace.deltas)
    )
    found = fb.diagnose(net, x, y, trace.gradients, None, outputs, trace.probabilities.T)
    assert found.ok, found
    assert fb.diagnose(net, x, y, trace.gradients, deltas).ok
    few = {key: deltas[key] for key in ("flatten1", "dense1")}
    assert fb.diagnose(net, x, y, trace.gradients, few).ok
    found = fb.diagnose(net, x, y, trace.gradients, {"dense1": deltas["dense1"]})
    assert not found.ok  # nothing else says that the images are last
    deltas["dense1"] = -deltas["dense1"]
    assert fb.diagnose(net, x, y, trace.gradients, deltas).wrong == ["delta of dense1"]
