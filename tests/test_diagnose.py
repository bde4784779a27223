"""``diagnose``: mistakes of an independent program are named, right programs are left in peace."""

import itertools

import numpy as np
import pytest

import fullback as fb
from fullback import MeanSquaredError, Network
from fullback.check.diagnose import diagnose
from fullback.check.mistakes import MISTAKES
from fullback.check.mistakes.forward import FORWARD_MISTAKES
from fullback.errors import InputError, OptionError, ShapeError
from support import byhand

ROWS = [
    (name, dtype, everything)
    for name in byhand.ARCHITECTURES
    for dtype in ("float64", "float32")
    for everything in (True, False)
]
EXACT = {"float64": 1e-12, "float32": 1e-5}  # a few thousand, or a hundred, roundings
SHARE = 9  # of the switches, each row tries every ninth; together they try them all


def ask(net, x, y, made, *, everything=True):
    if everything:
        return diagnose(
            net, x, y, made.gradients, made.deltas, made.activations, made.probabilities
        )
    return diagnose(net, x, y, made.gradients)


def named(found):
    return [finding.mistake for finding in found.findings]


def shows(one, other, dtype, *, everything=True):
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    return byhand.shows(
        one, other, tolerance, ("gradients", "deltas") if everything else ("gradients",)
    )


@pytest.mark.parametrize("row", range(len(ROWS)), ids=lambda i: "-".join(map(str, ROWS[i])))
def test_single_mistakes_are_named_with_their_layer(row):
    name, dtype, everything = ROWS[row]
    net = byhand.network(name, dtype=dtype)
    x, y = byhand.batch(net, dtype=dtype)
    right = byhand.run(net, x, y, dtype=dtype)
    assert ask(net, x, y, right, everything=everything).ok
    every = [(s, place) for s in byhand.SWITCHES for place in byhand.places(net, s)]
    for switch, place in every[row % SHARE :: SHARE]:
        made = byhand.run(net, x, y, [(switch, place)], dtype)
        if not shows(made, right, dtype, everything=everything):
            continue
        found = ask(net, x, y, made, everything=everything)
        mistake = byhand.SWITCHES[switch][0]
        if switch == "batch-sum":  # as right as the mean
            assert found.ok
            assert "the loss is the batch's sum here" in found.notes[0]
            continue
        first = found.findings[0]
        others = [other.mistake for other in first.alternatives]
        assert len(found.findings) == 1, (switch, place, named(found))
        assert mistake in (first.mistake, *others), (switch, place)
        assert first.exact
        assert first.evidence.error_after < EXACT[dtype]
        assert first.evidence.error_after < 1e-3 * first.evidence.error_before
        if first.mistake == mistake and place != "all":
            assert place in (first.layer, *(other.layer for other in first.alternatives))


PAIRS = [
    ("filter-not-turned conv2", "weight-gradient-turned conv1"),  # two layers
    ("filter-not-turned conv2", "bias-averaged-positions conv2"),  # one layer
    ("filter-not-turned conv2", "padding-cropped-wrong conv2"),  # one step
    ("batch-mean-twice all", "relu-mask-missing relu1"),
    ("softmax-twice loss", "pool-spread pool1"),
    ("pool-spread pool2", "filter-not-turned conv2"),  # nothing given in between
    ("weights-updated-early all", "rows-columns-swapped conv1"),
    ("l2-term all", "flatten-order flatten1"),
]


@pytest.mark.parametrize("everything", [True, False], ids=["all", "gradients"])
@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_pairs(pair, everything):
    net = byhand.network("small")
    x, y = byhand.batch(net)
    switches = [tuple(entry.split()) for entry in pair]
    found = ask(net, x, y, byhand.run(net, x, y, switches), everything=everything)
    told = [{f.mistake, *(other.mistake for other in f.alternatives)} for f in found.findings]
    assert len(told) == 2, named(found)
    for switch, _ in switches:
        assert any(byhand.SWITCHES[switch][0] in entry for entry in told)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", byhand.ARCHITECTURES)
def test_no_false_alarms(name, dtype):
    for seed, images in itertools.product((1, 2, 3), (1, 2, 7)):
        net = byhand.network(name, seed, dtype)
        x, y = byhand.batch(net, images, seed, dtype)
        for kind in (x, (x > 0.5).astype(dtype), np.where(x > 0, x, 1).astype(dtype)):
            made = byhand.run(net, kind, y, dtype=dtype)
            found = ask(net, kind, y, made, everything=bool(seed % 2))
            assert found.findings == []
            assert found.wrong == []


class TestWhatIsSaid:
    net = byhand.network("small")
    x, y = byhand.batch(net)

    def found(self, *mistakes, everything=True):
        made = byhand.run(self.net, self.x, self.y, mistakes)
        return ask(self.net, self.x, self.y, made, everything=everything)

    def test_nothing_wrong(self):
        found = self.found()
        assert found.ok
        assert found.precision == "float64"
        assert len(found.right) == 8 + 11 + 11 + 1  # gradients, outputs, deltas, probabilities
        lines = str(found).splitlines()
        assert lines[0] == "nothing is wrong: 31 arrays right to float64"
        heading = "from the loss down probabilities output delta weight bias"
        assert " ".join(lines[2].split()) == heading
        assert lines[4].split() == ["dense2", *["right"] * 4]
        assert lines[-1].split() == ["input", "right", "right"]

    def test_a_finding(self):
        found = self.found(("filter-not-turned", "conv2"))
        (finding,) = found.findings
        assert (finding.mistake, finding.layer) == ("filter-not-turned", "conv2")
        assert finding.quantity == "next delta"
        assert finding.exact
        assert finding.evidence.array == "delta of pool1"
        assert finding.evidence.error_before > 0.1 > 1e-12 > finding.evidence.error_after
        assert "without turning the filters by 180 degrees" in finding.message
        assert finding.mend.startswith("dx[n,c,i,j] = sum over k, r, s")
        assert "w[:, :, ::-1, ::-1]" in finding.hint
        assert finding.expect.startswith("Everything is right: delta of pool1, delta of relu1, ")
        assert "conv2.weight" in found.right
        assert found.wrong == ["delta of pool1"]
        below = ["delta of relu1", "delta of conv1", "conv1.weight", "conv1.bias", "delta of input"]
        assert found.inherited == below  # each is right for the delta that it was made from

    def test_the_page(self):
        lines = str(self.found(("filter-not-turned", "conv2"))).splitlines()
        assert lines[0].startswith("╭─ conv2: filter-not-turned ─")
        assert max(map(len, lines)) <= 100
        text = " ".join(lines)
        for words in ("proof", "right is", "after it"):
            assert words in text
        rows = [line.split() for line in lines]
        assert ["pool2", "right", "right"] in rows
        assert ["pool1", "right", "wrong"] in rows
        assert ["conv1", "right", "follows", "follows", "follows"] in rows
        assert lines[-1] == "follows: wrong, but only because of what it was computed from"

    def test_no_line_of_code_is_cut_off(self):
        for mistake in (*MISTAKES.values(), *FORWARD_MISTAKES.values()):
            assert max(map(len, mistake.hint.splitlines())) <= 74, mistake.id  # of 80 columns
            assert len(mistake.hint.splitlines()) <= 3

    def test_what_is_wrong_only_because_of_it(self):
        found = self.found(("filter-not-turned", "conv2"), everything=False)
        assert found.inherited == ["conv1.weight", "conv1.bias"]
        assert found.findings[0].expect == "Everything is right: conv1.weight, conv1.bias too."

    def test_the_same_mistake_in_several_layers_is_one(self):
        (finding,) = self.found(
            ("bias-averaged-all", "conv1"), ("bias-averaged-all", "conv2")
        ).findings
        assert finding.layer == "conv2"
        assert "The same again in conv1 (bias gradient)." in finding.message

    @pytest.mark.parametrize("everything", [True, False])
    def test_a_learning_rate_and_a_coefficient_are_found(self, everything):
        (finding,) = self.found(("weights-updated-early", "all"), everything=everything).findings
        assert f"the learning rate is {byhand.RATE:g}" in finding.message
        (finding,) = self.found(("l2-term", "all"), everything=everything).findings
        assert f"the coefficient is {byhand.DECAY:g}" in finding.message

    def test_what_the_data_cannot_tell_is_said(self):
        net = byhand.network("small")
        x, y = byhand.batch(net, 4)  # as many images as filters
        made = byhand.run(net, x, y)
        deltas = {"conv2": made.deltas["conv2"], "pool1": made.deltas["pool1"] / 4}
        (finding,) = diagnose(net, x, y, deltas=deltas).findings
        both = {finding.mistake, *(other.mistake for other in finding.alternatives)}
        assert both == {"batch-scale", "filter-sum-lost"}
        assert finding.alternatives[0].separated_by.startswith(
            "Another batch would distinguish them"
        )

    def test_which_deltas_would_tell(self):
        made = byhand.run(self.net, self.x, self.y)
        theirs = {"dense2.bias": made.gradients["dense2.bias"], "pool2": -made.deltas["pool2"]}
        found = diagnose(
            self.net,
            self.x,
            self.y,
            {"dense2.bias": theirs["dense2.bias"]},
            {"pool2": theirs["pool2"]},
        )
        assert named(found) == ["sign-flipped"]
        (finding,) = found.findings
        assert {other.layer for other in finding.alternatives} | {finding.layer} == {
            "dense1",
            "dense2",
        }
        assert "The delta of relu3 would distinguish them." in finding.alternatives[0].separated_by


class TestNoMatch:
    net = byhand.network("C is not F")
    x, y = byhand.batch(net)
    made = byhand.run(net, x, y)

    def test_a_gradient_alone(self):
        wrong = np.random.default_rng(0).normal(size=self.made.gradients["conv2.weight"].shape)
        found = diagnose(
            self.net,
            self.x,
            self.y,
            {**self.made.gradients, "conv2.weight": wrong},
            self.made.deltas,
        )
        (finding,) = found.findings
        assert (finding.mistake, finding.layer, finding.exact) == (None, "conv2", False)
        assert finding.quantity == "weight gradient"
        assert "no mistake of the catalogue, nor two at once, explains it" in finding.message
        assert (
            "The delta of conv2 was submitted: it is the gradient's own formula." in finding.message
        )
        assert "conv1.weight" in found.right

    def test_a_delta(self):
        wrong = self.made.deltas["relu1"] * np.linspace(1, 2, 4)[:, None, None]
        found = diagnose(self.net, self.x, self.y, deltas={**self.made.deltas, "relu1": wrong})
        assert (found.findings[0].layer, found.findings[0].quantity) == ("conv2", "next delta")
        assert "it is conv2's own backward pass" in found.findings[0].message
        assert "only 3 of 4 channels are wrong: 1, 2, 3" in found.findings[0].evidence.sentence

    def test_a_factor_is_told(self):
        wrong = self.made.gradients["dense1.bias"] * 1.7
        given = {**self.made.gradients, "dense1.bias": wrong}
        (finding,) = diagnose(self.net, self.x, self.y, given).findings
        assert finding.mistake == "constant-factor"
        assert "it was multiplied by a number (the factor is 1.7)" in finding.message

    def test_zeros(self):
        wrong = np.zeros_like(self.made.gradients["conv1.weight"])
        found = diagnose(self.net, self.x, self.y, {**self.made.gradients, "conv1.weight": wrong})
        (finding,) = found.findings
        assert (finding.mistake, finding.layer) == (None, "conv1")
        assert "it is zero everywhere, and should not be" in finding.evidence.sentence

    def test_the_gap_is_named(self):
        wrong = self.made.deltas["conv1"][::-1] * 1.3
        (finding,) = diagnose(
            self.net, self.x, self.y, deltas={"pool1": self.made.deltas["pool1"], "conv1": wrong}
        ).findings
        assert "It lies between pool1 and conv1" in finding.message
        assert "relu1, conv2, relu2" in finding.message


class TestConventions:
    """Other right ways: a note at most."""

    net = byhand.network("small")
    x, y = byhand.batch(net)
    made = byhand.run(net, x, y)

    def test_deltas_of_the_sum_and_gradients_divided(self):
        deltas = {key: delta * len(self.x) for key, delta in self.made.deltas.items()}
        found = diagnose(self.net, self.x, self.y, self.made.gradients, deltas)
        assert found.ok
        assert "deltas are those of the batch's sum here" in found.notes[0]

    def test_a_mistake_under_that_convention(self):
        deltas = {key: delta * len(self.x) for key, delta in self.made.deltas.items()}
        gradients = {**self.made.gradients, "conv1.bias": self.made.gradients["conv1.bias"] * 6}
        found = diagnose(self.net, self.x, self.y, gradients, deltas)
        assert named(found) == ["batch-scale"]
        assert found.findings[0].layer == "conv1"

    def test_ties_to_the_last(self):
        net = Network.parse("pool flatten dense3", (1, 4, 4), dtype="float64")
        x = np.zeros((4, 1, 4, 4))
        x[:, :, 0] = 1.0
        y = np.array([0, 1, 2, 0])
        trace = net.trace(x, y)
        delta = np.zeros_like(x)
        for i, j in np.ndindex(2, 2):
            last = (0, 1) if i == 0 else (1, 1)
            delta[:, 0, 2 * i + last[0], 2 * j + last[1]] = trace.deltas["pool1"][:, 0, i, j]
        found = diagnose(net, x, y, deltas={"pool1": trace.deltas["pool1"], "input": delta})
        assert found.ok
        assert "ties go to the last maximum" in found.notes[0]

    def test_transposed_dense_weights(self):
        turned = {k: g.T if k.startswith("dense") else g for k, g in self.made.gradients.items()}
        found = diagnose(self.net, self.x, self.y, turned)
        assert found.ok
        assert "came as (inputs, outputs) and was read transposed" in found.notes[0]

    @pytest.mark.parametrize(("others", "ok"), [(True, True), (False, False)])
    def test_a_square_one_is_transposed_where_the_others_are(self, others, ok):
        net = Network.parse("dense4 relu dense4 relu dense3", (6,), dtype="float64")
        x, y = np.random.default_rng(0).random((5, 6)), np.array([0, 1, 2, 0, 1])
        g = dict(net.trace(x, y).gradients)
        g["dense2.weight"] = g["dense2.weight"].T
        if others:
            g["dense1.weight"], g["dense3.weight"] = g["dense1.weight"].T, g["dense3.weight"].T
        found = diagnose(net, x, y, g)
        assert found.ok == ok
        if not ok:
            assert (named(found), found.findings[0].layer) == (["rows-columns-swapped"], "dense2")

    def test_float32_in_float64_arrays(self):
        single = byhand.run(self.net, self.x, self.y, dtype="float32").gradients
        wide = {key: g.astype("float64") / 3 * 3 for key, g in single.items()}
        wide = {key: g * (1 + 1e-13) for key, g in wide.items()}
        found = diagnose(self.net, self.x, self.y, wide)
        assert found.ok
        assert found.precision == "float32"
        assert "agree no better than float32" in found.notes[0]


class TestNamesAndShapes:
    net = byhand.network("small")
    x, y = byhand.batch(net)
    made = byhand.run(net, x, y)

    @pytest.mark.parametrize(
        "names",
        [
            "W1 b1 W2 b2 W3 b3 W4 b4",
            "dW1 db1 dW2 db2 dW3 db3 dW4 db4",
            "W0 b0 W1 b1 W2 b2 W3 b3",
            "conv1_w conv1_b conv2_w conv2_b fc1_w fc1_b fc2_w fc2_b",
            "conv1.weight.grad conv1.bias.grad conv2.weight.grad conv2.bias.grad fc1.weight.grad "
            "fc1.bias.grad fc2.weight.grad fc2.bias.grad",
            "grad_conv_0_kernel grad_conv_0_bias grad_conv_1_kernel grad_conv_1_bias "
            "linear_0_kernel linear_0_bias linear_1_kernel linear_1_bias",
            "0.weight 0.bias 3.weight 3.bias 7.weight 7.bias 9.weight 9.bias",
            "net.conv1.weight net.conv1.bias net.conv2.weight net.conv2.bias net.dense1.weight "
            "net.dense1.bias net.dense2.weight net.dense2.bias",
            "conv1.weight conv1.bias conv2.weight conv2.bias fc3.weight fc3.bias fc4.weight "
            "fc4.bias",
        ],
    )
    def test_names(self, names):
        theirs = dict(zip(names.split(), self.made.gradients.values(), strict=True))
        keys = ["conv1", "conv2", "dense1", "dense2"]
        ordered = [self.made.gradients[f"{k}.{p}"] for k in keys for p in ("weight", "bias")]
        theirs = dict(zip(names.split(), ordered, strict=True))
        found = diagnose(self.net, self.x, self.y, theirs)
        assert found.ok
        assert sorted(found.right) == sorted(self.net.parameters)

    def test_a_name_that_says_nothing_is_matched_by_its_shape(self):
        g = self.made.gradients
        theirs = {"matrix": g["dense1.weight"], "Wc_grad": g["conv2.weight"]}
        found = diagnose(self.net, self.x, self.y, theirs)
        assert found.ok
        assert (
            "matched by shape alone: matrix as dense1.weight, Wc_grad as conv2.weight"
            in found.notes
        )

    def test_shapes_of_gradients(self):
        g = self.made.gradients
        theirs = {
            "conv1.weight": g["conv1.weight"].transpose(2, 3, 1, 0),
            "conv2.weight": g["conv2.weight"].transpose(2, 3, 1, 0),
            "conv1.bias": g["conv1.bias"][:, None],
            "dense1.bias": g["dense1.bias"][None],
            "dense2.weight": g["dense2.weight"].ravel(),
        }
        found = diagnose(self.net, self.x, self.y, theirs)
        assert found.ok
        assert "conv1.weight was read as conv1.weight in the order (R, S, C, K)" in found.notes
        assert "dense2.weight was read as dense2.weight flattened" in found.notes

    def test_shapes_of_deltas(self):
        d = self.made.deltas
        theirs = {
            "conv1": d["conv1"].transpose(0, 2, 3, 1),
            "relu2": d["relu2"].reshape(6, -1),
            "dense1": d["dense1"].T,
            "input": d["input"][:, 0],
            "logits": d["dense2"],
        }
        found = diagnose(self.net, self.x, self.y, deltas=theirs)
        assert found.ok
        assert len(found.right) == 5

    def test_one_image_without_its_batch_axis(self):
        x, y = self.x[:1], self.y[:1]
        made = byhand.run(self.net, x, y)
        deltas = {key: delta[0] for key, delta in made.deltas.items()}
        assert diagnose(self.net, x, y, deltas=deltas).ok

    def test_maps_flattened_channels_last_are_told(self):
        flat = self.made.deltas["pool2"].transpose(0, 2, 3, 1).reshape(6, -1)
        found = diagnose(self.net, self.x, self.y, deltas={"pool2": flat})
        assert found.ok
        assert "in the order (N, H, W, C), flattened" in found.notes[0]

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_dtypes(self, dtype):
        theirs = {key: g.astype(dtype) for key, g in self.made.gradients.items()}
        found = diagnose(self.net, self.x, self.y, theirs)
        assert found.ok
        assert found.precision == dtype

    def test_lists_and_tensors(self):
        class Tensor:
            def __init__(self, array):
                self.array = array

            def detach(self):
                return self

            def numpy(self):
                return self.array

        g = self.made.gradients
        theirs = {
            "conv1.bias": g["conv1.bias"].tolist(),
            "dense2.weight": Tensor(g["dense2.weight"]),
        }
        assert diagnose(self.net, self.x, self.y, theirs).ok


class TestRefused:
    net = byhand.network("small")
    x, y = byhand.batch(net)

    @pytest.mark.parametrize(
        ("gradients", "error", "message"),
        [
            ({}, OptionError, "there is nothing to judge: give gradients, deltas, activations or"),
            ([1], OptionError, "gradients must be a dict of arrays by name, .* got list"),
            ({"conv1.wieght": np.zeros((3, 1, 3))}, OptionError, "did you mean 'conv1.weight'"),
            ({"foo": np.zeros(99)}, OptionError, r"no gradient is called 'foo' .*names: conv1"),
            (
                {"conv1.weight": np.zeros((5, 5))},
                ShapeError,
                r"has shape \(5, 5\), which cannot be",
            ),
            ({"conv1.weight": "text"}, InputError, "conv1.weight must be an array of numbers"),
            ({"conv1.weight": None}, InputError, "must be an array of numbers, got None$"),
            ({"conv1.weight": [[1], [1, 2]]}, InputError, "must be an array of numbers, got list"),
        ],
    )
    def test_gradients(self, gradients, error, message):
        with pytest.raises(error, match=message):
            diagnose(self.net, self.x, self.y, gradients)

    def test_deltas_and_data(self):
        with pytest.raises(OptionError, match="no delta is called 'conv9'"):
            diagnose(self.net, self.x, self.y, deltas={"conv9": np.zeros((6, 3, 2, 2))})
        with pytest.raises(ShapeError, match="y must be 6 labels"):
            diagnose(self.net, self.x, self.y[:3], {"conv1.bias": np.zeros(3)})
        net = Network.parse("dense2", (3,), loss=MeanSquaredError())
        with pytest.raises(OptionError, match="probabilities need a classifier"):
            diagnose(net, np.ones((2, 3)), np.ones((2, 2)), probabilities=np.ones((2, 2)))


class TestForward:
    net = byhand.network("small")
    x, y = byhand.batch(net)
    made = byhand.run(net, x, y)

    def test_a_wrong_activation_and_a_right_backward_pass(self):
        weights = {k: p.copy() for k, p in self.net.parameters.items()}
        other = byhand.network("small")
        other.parameters["conv2.bias"] = weights["conv2.bias"] + 0.1
        made = byhand.run(other, self.x, self.y)
        found = ask(self.net, self.x, self.y, made)
        (finding,) = found.findings
        assert (finding.mistake, finding.layer, finding.quantity) == (None, "conv2", "output")
        assert "The forward pass is wrong at conv2" in finding.message
        assert "conv1.weight" in found.right

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (lambda z: np.exp(z) / np.exp(z).sum(axis=0), "the softmax was taken over the images"),
            (np.exp, "the exponentials were not divided by their sum"),
            (lambda z: 1 / (1 + np.exp(-z)), "they are sigmoids"),
            (lambda z: z, "they are the logits: nothing was done with them"),
        ],
    )
    def test_wrong_probabilities(self, wrong, message):
        found = diagnose(
            self.net, self.x, self.y, probabilities=wrong(self.made.activations["dense2"])
        )
        assert (found.findings[0].layer, found.findings[0].quantity) == ("loss", "probabilities")
        assert message in found.findings[0].message


class TestNotTheBackwardPass:
    def test_nan(self):
        net = byhand.network("question")
        x, y = byhand.batch(net)
        made = byhand.run(net, x, y)
        made.gradients["conv1.weight"][0, 0, 0, 0] = np.nan
        found = ask(net, x, y, made)
        (finding,) = found.findings
        assert (finding.mistake, finding.layer, finding.quantity) == (None, "conv1", "conv1.weight")
        assert "1 of 9 cells are NaN" in finding.evidence.sentence

    def test_raw_pixels(self):
        net = byhand.network("question")
        x, y = byhand.batch(net)
        found = ask(net, x * 255, y, byhand.run(net, x * 255, y))
        assert found.ok
        assert [c.quantity for c in found.conditions] == ["images"]
        assert "The images are not scaled" in found.conditions[0].message

    def test_a_dead_layer(self):
        net = byhand.network("small")
        net.parameters["conv1.bias"] = [-50.0] * 3
        x, y = byhand.batch(net)
        found = ask(net, x, y, byhand.run(net, x, y))
        assert found.ok
        (remark,) = found.conditions
        assert (remark.layer, remark.quantity) == ("relu1", "output")
        assert "relu1 is dead on this batch" in remark.message
        assert "relu1 is dead on this batch" in str(found)

    def test_weights_that_are_all_zero(self):
        net = byhand.network("small")
        net.parameters["conv2.weight"] = np.zeros((4, 3, 3, 3))
        net.parameters["conv2.bias"] = np.ones(4)
        x, y = byhand.batch(net)
        found = ask(net, x, y, byhand.run(net, x, y))
        assert found.ok
        remark = found.conditions[0]
        assert (remark.layer, remark.quantity) == ("conv2", "initial weights")


class TestOtherLayers:
    TEXT = (
        "conv4(dilation=2) batchnorm leakyrelu avgpool conv4(groups=2) sigmoid pool2(padding=same) "
        "flatten dense6 tanh dropout0.3 dense3"
    )
    net = Network.parse(TEXT, (2, 11, 9), dtype="float64")
    x = np.random.default_rng(0).random((5, 2, 11, 9))
    y = np.array([0, 1, 2, 1, 0])

    @pytest.mark.parametrize("everything", [True, False])
    def test_right(self, everything):
        trace = self.net.trace(self.x, self.y)
        deltas = trace.deltas if everything else None
        assert diagnose(self.net, self.x, self.y, trace.gradients, deltas).ok

    @pytest.mark.parametrize(
        ("of", "wrong", "mistake", "layer"),
        [
            ("tanh1", lambda d, _, m: d, "dropout-mask-lost", "dropout1"),
            ("tanh1", lambda d, _, m: d * (m > 0), "dropout-mask-lost", "dropout1"),
            ("dense1", lambda d, x, m: d, "slope-missing", "tanh1"),
            ("dense1", lambda d, x, m: d * (1 - x**2), "slope-at-wrong-place", "tanh1"),
            ("conv2", lambda d, x, m: d * x * (1 - x), "slope-at-wrong-place", "sigmoid1"),
            ("leakyrelu1", lambda d, x, m: d.repeat(2, 2).repeat(2, 3), "pool-spread", "avgpool1"),
        ],
    )
    def test_a_wrong_delta(self, of, wrong, mistake, layer):
        trace = self.net.trace(self.x, self.y)
        index = self.net.names.index(layer)
        mask = trace.kept[index] if layer == "dropout1" else None
        x = trace.activations[self.net.names[index - 1]]
        if mistake == "pool-spread":
            made = np.zeros_like(x)
            part = wrong(trace.deltas[layer], x, mask)
            made[:, :, : part.shape[2], : part.shape[3]] = part
        else:
            made = wrong(trace.deltas[layer], x, mask)
        above = {layer: trace.deltas[layer], of: made}
        found = diagnose(self.net, self.x, self.y, deltas=above)
        assert (named(found), found.findings[0].layer) == ([mistake], layer)

    def test_a_loss_of_squares(self):
        net = Network.parse("dense3 tanh dense2", (4,), loss=MeanSquaredError(), dtype="float64")
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
        g = net.trace(x, y).gradients
        assert diagnose(net, x, y, g).ok
        found = diagnose(net, x, y, {key: value / 2 for key, value in g.items()})
        assert (named(found), found.findings[0].layer) == (["batch-scale"], "loss")
        assert "the 2 of the square's derivative is missing" in found.findings[0].message


def test_a_public_network_is_left_as_it_was():
    net = fb.zoo.question((1, 8, 8), 3)
    before = {key: p.copy() for key, p in net.parameters.items()}
    x, y = np.random.default_rng(0).random((4, 1, 8, 8)).astype("float32"), np.array([0, 1, 2, 0])
    trace = net.trace(x, y)
    assert diagnose(net, x, y, trace.gradients, trace.deltas).precision == "float32"
    for key, p in net.parameters.items():
        np.testing.assert_array_equal(p, before[key])


def test_any_one_of_equal_cells_may_win():
    """As where equal sums differ in the last digit; but not all of them."""
    net = Network.parse("relu pool flatten dense3", (2, 4, 4), dtype="float64", seed=1)
    x = np.random.default_rng(0).random((3, 2, 4, 4)).repeat(2, axis=2)[:, :, :4]
    x[..., 1::2] = x[..., ::2]  # four equal cells in every window
    y = np.array([0, 1, 2])
    trace = net.trace(x, y)
    below = trace.deltas["pool1"].repeat(2, axis=2).repeat(2, axis=3)
    last = np.zeros((4, 4))
    last[1::2, 1::2] = 1
    given = {"pool1": trace.deltas["pool1"], "relu1": below * last}
    assert diagnose(net, x, y, deltas=given).ok
    assert diagnose(net, x, y, deltas={"pool1": given["pool1"], "input": below * last}).ok
    found = diagnose(net, x, y, deltas={**given, "relu1": below})
    assert named(found) == ["pool-ties-all"]


class TestSettings:
    """A backward pass that is right, of another network than the one that was described."""

    net = Network.parse(
        "conv3 batchnorm relu pool dropout0.3 flatten dense6 relu dense4", (2, 6, 8), seed=2
    )
    x, y = fb.probe(net)

    @pytest.mark.parametrize("training", [True, False])
    def test_the_other_mode(self, training):
        theirs = self.net.trace(self.x, self.y, training=not training)
        for deltas in (None, theirs.deltas):
            found = diagnose(self.net, self.x, self.y, theirs.gradients, deltas, training=training)
            (finding,) = found.findings
            assert (finding.mistake, finding.quantity) == (None, "mode")
            assert finding.layer == "dropout1"
            assert f"training={not training}" in finding.mend
            assert found.wrong

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_features_in_another_order_than_the_weights(self, dtype):
        order = np.arange(3 * 3 * 4).reshape(3, 4, 3).transpose(2, 0, 1).ravel()
        other = Network.parse("conv3 relu pool flatten dense6 relu dense4", (2, 6, 8), dtype=dtype)
        net = Network.parse("conv3 relu pool flatten dense6 relu dense4", (2, 6, 8), dtype=dtype)
        x, y = fb.probe(net)
        other.parameters["dense1.weight"] = net.parameters["dense1.weight"][:, order]
        trace = other.trace(x, y)
        back = np.argsort(order)
        gradients = {
            k: g[:, back] if k == "dense1.weight" else g for k, g in trace.gradients.items()
        }
        deltas = {k: d[:, back] if k == "flatten1" else d for k, d in trace.deltas.items()}
        for given in (None, deltas):
            found = diagnose(net, x, y, gradients, given)
            (finding,) = found.findings
            assert (finding.mistake, finding.layer) == ("flatten-order", "flatten1")
            assert "each feature met another feature's weight" in finding.message
            assert max(map(len, finding.hint.splitlines())) <= 74
            assert "right" in str(found)


def test_probabilities_in_place_of_logits():
    """A softmax in front of a loss that takes one itself, as PyTorch's does."""
    net = byhand.network("small")
    x, y = byhand.batch(net)
    trace = net.trace(x, y)
    p, t = trace.probabilities, np.eye(net.output_shape[0])[y]
    again = np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
    g = (again - t) / len(x)
    delta = p * (g - (g * p).sum(axis=1, keepdims=True))
    gradients = {
        "dense2.weight": delta.T @ trace.activations["relu3"], "dense2.bias": delta.sum(axis=0)
    }  # fmt: skip
    (finding,) = diagnose(net, x, y, gradients).findings
    assert (finding.mistake, finding.layer) == ("softmax-twice", "loss")
    assert "was given probabilities in place of logits" in finding.message
