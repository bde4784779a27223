"""What ``diagnose`` calls right: conventions, factors, undecided units, a saturated loss."""

import numpy as np
import pytest

import fullback as fb
from fullback.check.diagnose.chain import Chain, gradient_in
from fullback.check.diagnose.ensemble import build_ensemble
from fullback.check.diagnose.layouts import Reading
from fullback.check.diagnose.sketches import Sketches
from fullback.check.mistakes import mutants_of
from support import byhand

NET = byhand.network("small")
X, Y = byhand.batch(NET)
MADE = byhand.run(NET, X, Y)


def times(factor, arrays):
    return {name: array * factor for name, array in arrays.items()}


class TestConventions:
    """The batch's sum is as right as its mean, unless the user says which it is."""

    @pytest.mark.parametrize("deltas", [False, True])
    def test_the_sum_is_a_note(self, deltas):
        n = len(X)
        given = times(n, MADE.gradients), times(n, MADE.deltas) if deltas else None
        found = fb.diagnose(NET, X, Y, *given)
        assert found.ok
        assert found.judged == found.right
        assert any("the loss is the batch's sum here" in note for note in found.notes)
        assert fb.diagnose(NET, X, Y, *given, reduction="sum").ok
        (finding,) = fb.diagnose(NET, X, Y, *given, reduction="mean").findings
        assert finding.mistake == "batch-scale"

    def test_the_mean_where_the_sum_was_meant(self):
        (finding,) = fb.diagnose(NET, X, Y, MADE.gradients, reduction="sum").findings
        assert finding.mistake == "batch-scale"
        assert "the batch's mean stands where the sum belongs" in finding.message

    def test_a_true_convolution_is_a_note(self):
        turned = NET.copy()
        gradients = dict(MADE.gradients)
        for name in ("conv1.weight", "conv2.weight"):
            turned.parameters[name] = NET.parameters[name][:, :, ::-1, ::-1]
            gradients[name] = gradients[name][:, :, ::-1, ::-1]
        found = fb.diagnose(turned, X, Y, gradients)
        assert found.ok
        assert any("a true convolution" in note for note in found.notes)


@pytest.mark.parametrize(
    ("factor", "mistake", "words"),
    [
        (0.5, "constant-factor", "everything is 0.5 times right: 1/2"),
        (5.0, "constant-factor", "everything is 5 times right: the number of classes"),
        (0.37, "constant-factor", "everything is 0.37 times right"),
        (2.0, "gradients-not-cleared", "everything is 2 times right: 2"),
        (-1.0, "sign-flipped", "t - p stands for p - t"),
        (1 / len(X), "batch-scale", "divided by N once more"),
    ],
)
def test_one_factor_on_everything_is_one_finding(factor, mistake, words):
    (finding,) = fb.diagnose(NET, X, Y, times(factor, MADE.gradients)).findings
    assert finding.mistake == mistake
    assert finding.layer == "loss"
    assert words in finding.message


@pytest.mark.parametrize("factor", [0.3, 10.0, -2.0, 7.5])
@pytest.mark.parametrize("name", [n for n in MADE.gradients if n.endswith("weight")])
def test_one_factor_on_one_gradient_is_one_finding(factor, name):
    """Two mistakes whose factors multiply to it, or one on all the others, are no better."""
    given = {**MADE.gradients, name: factor * MADE.gradients[name]}
    found = fb.diagnose(NET, X, Y, given)
    (finding,) = found.findings
    assert (finding.mistake, finding.layer) == ("constant-factor", name.split(".")[0])
    assert f"(the factor is {factor:g})" in finding.message
    assert set(found.right) == {*given} - {name}


def test_what_is_right_is_not_explained_by_two_mistakes_that_cancel():
    given = {**MADE.gradients, "conv1.weight": -2 * MADE.gradients["conv1.weight"]}
    found = fb.diagnose(NET, X, Y, given)
    assert "conv1.bias" in found.right


def test_a_factor_and_a_mistake_below_are_two():
    made = byhand.run(NET, X, Y, [("filter-not-turned", "conv2")])
    found = fb.diagnose(NET, X, Y, times(0.5, made.gradients))
    assert {finding.mistake for finding in found.findings} == {
        "constant-factor",
        "filter-not-turned",
    }


class TestUndecidedUnits:
    """A picture whose edges a filter answers with exact zeros, and sums that only rounding ends."""

    net = fb.Network.parse("conv2(padding=valid) relu flatten dense4", (1, 9, 8), dtype="float64")
    net.parameters["conv1.weight"] = np.array([[[[0.1, 0.2, -0.3]] * 3], [[[0.3, -0.1, -0.2]] * 3]])
    rng = np.random.default_rng(0)
    x = np.full((3, 1, 9, 8), 0.7)
    x[:, :, 2:6, 3:6] += rng.random((3, 1, 1, 1))
    y = np.array([0, 1, 2])

    def decided(self, open_units):
        """The gradients of a program in which these units of the first layer let a delta pass."""
        trace = self.net.trace(self.x, self.y)
        delta = np.where(open_units, trace.deltas["relu1"], 0)
        seen = np.lib.stride_tricks.sliding_window_view(self.x, (3, 3), axis=(2, 3))
        dw = np.einsum("nkpq,ncpqrs->kcrs", delta, seen)
        changed = {"conv1.weight": dw, "conv1.bias": delta.sum(axis=(0, 2, 3))}
        return {**trace.gradients, **changed}

    def test_each_its_own_way_is_not_wrong(self):
        z = self.net.trace(self.x, self.y).activations["conv1"]
        near = abs(z) < 1e-12
        assert near.sum() > 20
        open_units = np.where(near, self.rng.random(z.shape) < 0.5, z > 0)
        found = fb.diagnose(self.net, self.x, self.y, self.decided(open_units))
        assert found.findings == []
        assert not found.ok
        assert found.not_judged == ["conv1.weight", "conv1.bias"]
        assert found.right == ["dense1.weight", "dense1.bias"]
        assert "cannot be judged here (conv1.weight, conv1.bias)" in " ".join(found.notes)
        assert "what was judged is right" in str(found)

    @pytest.mark.parametrize("opened", [False, True])
    def test_all_one_way_is_right(self, opened):
        z = self.net.trace(self.x, self.y).activations["conv1"]
        open_units = np.where(abs(z) < 1e-12, opened, z > 0)
        assert fb.diagnose(self.net, self.x, self.y, self.decided(open_units)).ok

    def test_a_delta_shows_how_they_were_decided(self):
        z = self.net.trace(self.x, self.y).activations["conv1"]
        open_units = np.where(abs(z) < 1e-12, self.rng.random(z.shape) < 0.5, z > 0)
        above = self.net.trace(self.x, self.y).deltas["relu1"]
        deltas = {"relu1": above, "conv1": np.where(open_units, above, 0)}
        assert fb.diagnose(self.net, self.x, self.y, self.decided(open_units), deltas).ok


def test_nothing_is_judged_by_a_saturated_loss():
    net = byhand.network("small", dtype="float32")
    net.parameters["dense2.bias"] = [1e4, 0, 0, 0, 0]
    y = np.zeros(len(X), int)
    trace = net.trace(X.astype("float32"), y)
    found = fb.diagnose(net, X.astype("float32"), y, trace.gradients)
    assert found.findings == []
    wrong = {**trace.gradients, "conv1.weight": -trace.gradients["conv1.weight"]}
    if np.abs(wrong["conv1.weight"]).max() > 0:
        assert not fb.diagnose(net, X.astype("float32"), y, wrong).ok


def test_an_unknown_reduction():
    with pytest.raises(fb.errors.OptionError, match="reduction must be 'mean' or 'sum'"):
        fb.diagnose(NET, X, Y, MADE.gradients, reduction="median")


def test_inner_products_rule_out_what_a_gradient_would():
    """A sketch may keep what does not fit, but never drops what does."""
    targets = NET.loss.targets(Y, len(X), 5)
    ensemble = build_ensemble(NET, X, targets, 2.0**-52, {}, None, training=True, seed=0)
    sketches = Sketches(ensemble)
    right = Chain(ensemble, None, "loss")
    for mutant in mutants_of(ensemble.exact.loss):
        wrong = Chain(ensemble, None, "loss", (mutant,))
        for target in ("weight", "bias"):
            array = gradient_in(wrong, "dense2", target, (), 1.0, 0.0)(0)
            reading = Reading(array)
            assert not sketches.rule_out(wrong, "dense2", target, 1.0, reading)
            apart = np.linalg.norm(
                array - gradient_in(right, "dense2", target, (), 1.0, 0.0)(0)
            ) > 1e-3 * np.linalg.norm(array)
            assert sketches.rule_out(right, "dense2", target, 1.0, reading) == apart


def test_a_mistake_wins_over_undecided_units_and_over_two():
    """Flat areas leave windows undecided; a filter that is positive everywhere needs no mask."""
    net = fb.Network.parse(
        "conv1(padding=valid) relu pool flatten dense4", (1, 14, 14), dtype="float64"
    )
    net.parameters["conv1.weight"] = np.ones((1, 1, 3, 3))
    x = np.full((5, 1, 14, 14), 0.25)
    for image, i in zip(x, range(5), strict=True):
        image[0, 2 + i : 8 + i, 3:9] = 0.75
    y = np.array([0, 1, 2, 3, 0])
    gradients = dict(net.trace(x, y).gradients)
    gradients["conv1.weight"] = gradients["conv1.weight"][:, :, ::-1, ::-1]
    (finding,) = fb.diagnose(net, x, y, gradients).findings
    assert (finding.mistake, finding.layer) == ("weight-gradient-turned", "conv1")


class TestDoublesInSinglePrecision:
    """Where other arrays are right to double precision, one that is not is wrong."""

    rng = np.random.default_rng(0)
    net = fb.Network.parse("dense10 relu dense4", (12,), dtype="float64", seed=0)
    x, y = rng.normal(size=(5, 12)), np.array([0, 1, 2, 3, 0])

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls):
        net = cls.net.copy(dtype="float64")
        for _ in range(1500):
            for name, g in net.trace(cls.x, cls.y).gradients.items():
                net.parameters[name] = net.parameters[name] - 0.5 * g
        return net

    @pytest.mark.parametrize("factor", [1.00001, 1.001, 1.2])
    @pytest.mark.parametrize("name", net.parameters)
    def test_one_number_off(self, trained, name, factor):
        gradients = {n: g.copy() for n, g in trained.trace(self.x, self.y).gradients.items()}
        gradients[name].flat[abs(gradients[name]).argmax()] *= factor
        found = fb.diagnose(trained, self.x, self.y, gradients)
        assert found.wrong == [name]

    def test_one_array_alone_is_not_judged_where_its_sums_cancel(self, trained):
        g = trained.trace(self.x, self.y).gradients["dense2.weight"].copy()
        g.flat[abs(g).argmax()] *= 1.001
        found = fb.diagnose(trained, self.x, self.y, {"dense2.weight": g})
        assert "dense2.weight" not in found.right

    def test_one_layer_computed_in_single_precision_is_right(self):
        trace = self.net.trace(self.x, self.y)
        delta = trace.deltas["dense1"].astype(np.float32)
        single = {
            "dense1.weight": (delta.T @ self.x.astype(np.float32)).astype(np.float64),
            "dense1.bias": delta.sum(axis=0).astype(np.float64),
        }
        found = fb.diagnose(self.net, self.x, self.y, {**trace.gradients, **single})
        assert found.ok
        assert found.precision == "float32"


class TestMostDecide:
    """One array that is N times another's share is the one that is wrong, not all the others."""

    @pytest.mark.parametrize("name", ["dense1.weight", "conv1.weight"])
    def test_one_gradient_of_a_sum_among_means(self, name):
        given = {**MADE.gradients, name: len(X) * MADE.gradients[name]}
        assert fb.diagnose(NET, X, Y, given).wrong == [name]

    @pytest.mark.parametrize("name", ["dense1.weight", "conv1.weight"])
    def test_one_gradient_of_a_mean_among_sums(self, name):
        given = {n: g if n == name else len(X) * g for n, g in MADE.gradients.items()}
        assert fb.diagnose(NET, X, Y, given).wrong == [name]

    @pytest.mark.parametrize("name", ["dense1", "relu2", "conv2", "conv1"])
    @pytest.mark.parametrize("change", [lambda d: len(X) * d, lambda d: -d, lambda d: d[::-1]])
    def test_a_wrong_copy_of_a_delta_is_the_only_one_that_is_wrong(self, name, change):
        deltas = {**MADE.deltas, name: change(MADE.deltas[name])}
        found = fb.diagnose(NET, X, Y, MADE.gradients, deltas)
        assert found.wrong == [f"delta of {name}"]
        assert len(found.findings) == 1


def test_rounding_of_a_saturated_loss_is_no_factor():
    """In float32 the only image's delta is 1e-4 off, and all that follows from it likewise."""
    net = fb.Network.parse("dense2", (3,), dtype="float32", seed=0)
    x, y = np.array([[2.0, -1.0, 3.0]], np.float32), [0]
    w = np.array([[1.0, 0.5, 1.0], [-0.4, 0.0, -0.6]], np.float32)
    net.parameters["dense1.weight"] = w
    trace = net.trace(x, y)
    off = (
        trace.gradients["dense1.weight"][0, 0]
        / net.copy(dtype="float64").trace(x, y).gradients["dense1.weight"][0, 0]
    )
    assert 2e-5 < abs(off - 1) < 1e-2
    assert fb.diagnose(net, x, y, trace.gradients).findings == []
