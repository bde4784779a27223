"""The catalogue of mistakes as mutants, and the tests' own backward pass that they must meet."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from fullback import Network, ReLU, check, layers
from fullback.check.diagnose.ensemble import build_ensemble
from fullback.check.diagnose.probe_images import Place, coincidences, probe
from fullback.check.mistakes import (
    MISTAKES,
    RULES,
    LayerPass,
    Mutant,
    backward,
    compatible,
    every_mutant,
    first_delta,
    mutants_of,
    propagate,
)
from fullback.check.mistakes.common import CONSTANT_FACTOR
from fullback.check.mistakes.kinks import hashed
from fullback.errors import OptionError
from support import byhand, losses
from support.cases import CASES, inputs


def ensemble_of(net, images=5, **options):
    x, y = byhand.batch(net, images)
    given = {"training": True, "seed": 0, **options}
    return build_ensemble(net, x, y, 2.0**-52, {}, None, **given)


def layer_pass_of(case):
    given = inputs(case)
    y, kept = case.layer.forward(
        given.x, given.parameters, training=case.training, rng_key=case.key
    )
    activations = {"input": given.x, "own": y}
    return LayerPass(
        "own", case.layer, given.x, y, kept, given.parameters, activations, "input"
    ), given


@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_a_mistake_a_mutant_s_stages_are_the_layer_s_own_pass(case):
    scene, given = layer_pass_of(case)
    dx, gradients = case.layer.backward(given.dy, scene.cache, given.parameters)
    np.testing.assert_allclose(propagate(scene, "delta", given.dy), dx, rtol=1e-12, atol=1e-12)
    for target, wanted in gradients.items():
        made = propagate(scene, target, given.dy)
        np.testing.assert_allclose(made, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_mutant_gives_an_array_of_the_right_shape_and_changes_no_input(case):
    scene, given = layer_pass_of(case)
    scene = scene.with_rates(0.1, 0.01)
    given.dy.flags.writeable = scene.x.flags.writeable = False
    for mutant in mutants_of(scene):
        if mutant.target == "delta":
            assert propagate(scene, "delta", given.dy, [mutant]).shape == scene.x.shape, mutant
        else:
            made = propagate(scene, mutant.target, given.dy, [mutant])
            assert made.shape == given.parameters[mutant.target].shape, mutant


def test_each_room_of_the_checks_uses_those_before_it():
    rooms = ["mistakes", "gradients", "diagnose", "layer"]
    root = Path(check.__path__[0])
    for place, room in enumerate(rooms):
        text = "".join(path.read_text(encoding="utf-8") for path in (root / room).glob("*.py"))
        for later in rooms[place + 1 :]:
            assert f"fullback.check.{later}" not in text, (room, later)


def test_the_catalogue():
    for mistake in MISTAKES.values():
        assert mistake.sentence.endswith(".")
        assert mistake.mend
        assert 1 <= len(mistake.hint.splitlines()) <= 4


def test_every_entry_of_the_catalogue_is_a_mutant_somewhere():
    found = set()
    for name in byhand.ARCHITECTURES:
        ensemble = ensemble_of(byhand.network(name))
        for scene in (ensemble.exact.loss, *ensemble.exact.layers.values()):
            found |= {mutant.mistake for mutant in mutants_of(scene)}
    net = Network.parse("conv2 dropout relu flatten dense3", (1, 4, 4), dtype="float64")
    found |= {m.mistake for m in mutants_of(ensemble_of(net).exact.layers["dropout1"])}
    for kind in ("binary", "squares sigmoid"):
        net, (x, y) = losses.network(kind), losses.batch()
        ensemble = build_ensemble(
            net, x, net.loss.targets(y, len(x), 4), 2.0**-52, {}, None, training=True, seed=0
        )
        for scene in (ensemble.exact.loss, *ensemble.exact.layers.values()):
            found |= {mutant.mistake for mutant in mutants_of(scene)}
    assert found - {None} == {*MISTAKES}


def test_every_kind_of_layer_has_rules_with_stages_for_all_that_it_computes():
    kinds = {kind for kind in vars(layers).values() if isinstance(kind, type)}
    kinds = {kind for kind in kinds if issubclass(kind, layers.Layer)} - {layers.Layer}
    assert set(RULES) == kinds
    for case in CASES:
        targets = {"delta", *case.layer.parameter_shapes(case.input_shape)}
        assert targets <= set(RULES[type(case.layer)].stages)


def test_a_mutant_s_stage_is_one_of_its_kind_s_stages():
    for case in CASES:
        rules = RULES[type(case.layer)]
        for mutant in mutants_of(layer_pass_of(case)[0]):
            assert mutant.stage in dict(rules.stages[mutant.target]), mutant


def test_every_entry_of_the_catalogue_has_a_switch():
    switches = (*byhand.SWITCHES.values(), *losses.SWITCHES.values())
    assert {mistake for mistake, _ in switches} == {*MISTAKES}


@pytest.mark.parametrize("name", byhand.ARCHITECTURES)
def test_the_program_by_hand_is_right(name):
    net = byhand.network(name)
    x, y = byhand.batch(net)
    trace, made = net.trace(x, y), byhand.run(net, x, y)
    np.testing.assert_allclose(made.probabilities, trace.probabilities, rtol=1e-10)
    for kind in ("activations", "deltas", "gradients"):
        for key, wanted in getattr(trace, kind).items():
            np.testing.assert_allclose(getattr(made, kind)[key], wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("switch", byhand.SWITCHES)
def test_what_a_switch_computes_a_mutant_of_its_mistake_computes_too(switch):
    mistake, kind = byhand.SWITCHES[switch]
    if switch == CONSTANT_FACTOR.id:
        return  # of everything, which no mutant makes
    tried = 0
    for name in byhand.ARCHITECTURES:
        net = byhand.network(name, dropout=kind == "dropout")
        x, y = byhand.batch(net)
        right = byhand.run(net, x, y)
        forward = ensemble_of(net, 6).exact
        for place in byhand.places(net, switch)[:2]:
            made = byhand.run(net, x, y, [(switch, place)])
            if byhand.shows(made, right, 1e-9):
                assert any(alike(made, computed) for computed in passes(forward, mistake, place))
                tried += 1
        if tried > 1:
            return
    assert tried


def passes(forward, mistake, place):
    """The backward passes with one mutant of a mistake, at a place, or with it in all layers."""
    every = [(layer, m) for layer, m in every_mutant(forward) if m.mistake == mistake]
    every = [(layer, m) for layer, m in every if place in ("all", layer)]
    for description in dict.fromkeys(m.description for _, m in every):
        for targets in (["delta"], ["weight"], ["bias"], ["weight", "bias"]):
            chosen = {}
            for layer, m in every:
                if m.description == description and m.target in targets:
                    chosen.setdefault(layer, []).append(m)
            for number in (byhand.DECAY, byhand.CLIP, byhand.FACTOR) if chosen else ():
                yield backward(forward, chosen, rate=byhand.RATE, decay=number)


def alike(made, computed):
    pairs = [(made.gradients, computed.gradients), (made.deltas, computed.deltas)]
    return all(
        np.allclose(one[name], other[name], rtol=1e-9, atol=1e-13)
        for one, other in pairs
        for name in other
    )


def test_mutants_of_one_stage_are_no_pair():
    def mutant(mistake, stage):
        return Mutant("delta", stage, "", lambda s, v, dy: v, mistake=mistake)

    assert compatible([mutant("a", "sum"), mutant("b", "crop")])
    assert not compatible([mutant("a", "sum"), mutant("b", "sum")])
    assert compatible([mutant("a", "out"), mutant("b", "out")])
    assert not compatible([mutant("a", "out"), mutant("a", "out")])


def test_the_softmax_mistakes_by_hand():
    net = Network.parse("dense2", (2,), dtype="float64")
    net.parameters["dense1.weight"] = np.zeros((2, 2))
    x, y = np.ones((1, 2)), np.array([0])
    loss = build_ensemble(net, x, y, 2.0**-52, {}, None, training=True, seed=0).exact.loss
    made = {m.description[:24]: first_delta(loss, (m,)) for m in mutants_of(loss)}
    # p = (1/2, 1/2), t = (1, 0), p - t = (-1/2, 1/2)
    np.testing.assert_allclose(made["the softmax's Jacobian w"], [[-0.25, 0.25]])
    np.testing.assert_allclose(made["p - t was multiplied by "], [[-0.125, 0.125]])
    np.testing.assert_allclose(made["the label's own logit ha"], [[-0.5, 0.0]])
    np.testing.assert_allclose(made["t - p stands for p - t"], [[0.5, -0.5]])


class TestWorlds:
    def test_the_true_world_is_the_network(self):
        net = byhand.network("strided")
        x, y = byhand.batch(net, 5)
        trace = net.trace(x, y)
        for name, scene in ensemble_of(net).exact.layers.items():
            np.testing.assert_array_equal(scene.y, trace.activations[name])

    def test_noisy_worlds_are_as_far_off_as_float32_is(self):
        net = byhand.network("small", dtype="float64")
        x, y = byhand.batch(net, 5, dtype="float32")
        ensemble = build_ensemble(net, x, y, 2.0**-23, {}, None, training=True, seed=0)
        single = byhand.run(net, x, y, dtype="float32").activations["dense2"]
        exact = ensemble.exact.activations["dense2"]
        noise = np.mean([(w.activations["dense2"] - exact) ** 2 for w in ensemble.noisy]) ** 0.5
        assert np.sqrt(((single - exact) ** 2).mean()) < 6 * noise < 1e-4 * abs(exact).max()

    def test_equal_values_get_equal_noise(self):
        values = np.array([0.5, -1.0, 0.5, 0.0, 0.0])
        noise = hashed(values, 3)
        assert noise[0] == noise[2]
        assert noise[3] == noise[4]
        assert len(set(noise)) == 3
        assert (abs(noise) <= 1).all()

    def test_a_unit_next_to_0_is_a_kink(self):
        net = Network([*Network.parse("dense2 relu dense2", (2,)).layers], (2,), dtype="float64")
        net.parameters["dense1.weight"] = [[1.0, -1.0], [1.0, 1.0]]
        x = np.array([[0.1 + 0.2, 0.3]])  # apart by one rounding
        ensemble = build_ensemble(net, x, np.array([0]), 2.0**-52, {}, None, training=True, seed=0)
        assert {name: units.tolist() for name, units in ensemble.undecided.items()} == {
            "relu1": [[True, False]]
        }
        passes = (ensemble.exact, *ensemble.others)
        assert [bool(p.layers["relu1"].cache[0, 0] > 0) for p in passes] == [True, False]

    def test_cells_that_tie_exactly_are_undecided(self):
        net = byhand.network("question")
        assert isinstance(net.layers[1], ReLU)
        assert list(ensemble_of(net).undecided) == ["pool1"]


class TestProbe:
    @pytest.mark.parametrize("name", ["small", "C is not F", "strided", "overlapping"])
    def test_it_separates_every_mistake(self, name):
        net = byhand.network(name)
        batch = probe(net)
        x, y = batch
        assert len(x) >= 4
        assert len(x) not in (*net.output_shape, *(shape[0] for shape in net.shapes))
        for image in x[::3].reshape(-1, *net.input_shape[1:]):
            values, counts = np.unique(image, return_counts=True)
            assert counts.max() > 0.2 * image.size
            assert values[counts.argmax()] != 0
        assert len(set(y)) == min(len(x), *net.output_shape)
        assert coincidences(net, x, y) == []
        assert batch.hidden == ()
        assert "every mistake of the catalogue shows" in str(batch)
        again = pickle.loads(pickle.dumps(batch))
        np.testing.assert_array_equal(again[0], x)
        assert again.hidden == batch.hidden

    @pytest.mark.parametrize(
        ("text", "shape", "images"),
        [
            ("conv2 relu flatten dense4", (1, 12, 4), 5),
            ("conv2 relu flatten dense5", (1, 12, 4), 7),  # not the classes
            ("conv7 relu flatten dense5", (1, 12, 4), 11),  # not the filters
            (
                "conv2 relu pool flatten dense4",
                (1, 20, 14),
                11,
            ),  # 5 and 7 divide the rows and columns
            ("dense10 relu dropout0.8 dense3", (49,), 11),  # 1 / (1 - 0.8) is 5
        ],
    )
    def test_its_number_of_images_is_in_no_factor_of_the_network(self, text, shape, images):
        assert len(probe(Network.parse(text, shape))[0]) == images

    def test_it_says_what_cannot_show(self):
        net = Network.parse("conv1 relu flatten dense2", (1, 4, 1))
        text = " ".join(probe(net).hidden)
        assert "conv1.bias, dense1.bias are all 0" in text
        assert "flatten-order in flatten1 changes nothing here" in text
        one = Network.parse("conv3(bias=false) relu flatten dense2", (1, 4, 4))
        assert "dense1.bias is all 0" in " ".join(probe(one).hidden)

    def test_a_net_as_large_as_people_have_takes_seconds(self):
        text = "conv32 relu pool conv64 relu pool flatten dense128 relu dense10"
        net = Network.parse(text, (3, 32, 32))
        start = time.perf_counter()
        assert not [remark for remark in probe(net).hidden if "all 0" not in remark]
        assert time.perf_counter() - start < 6  # 1.3 s on two slow cores

    def test_what_a_batch_cannot_distinguish(self):
        net = byhand.network("small")
        right = Place("", "")
        # one image is its own neighbour, and what needs several images cannot be made
        assert coincidences(net, *byhand.batch(net, 1)) == [
            (right, Place("labels-shifted", "loss"))
        ]
        x = np.full((4, *net.input_shape), 0.5)
        pairs = coincidences(net, x, np.zeros(4, int))
        assert (right, Place("labels-shifted", "loss")) in pairs
        assert (right, Place("images-mixed", "conv2")) not in pairs

    def test_seeds(self):
        net = byhand.network("question")
        (x, y), (again, _), (other, _) = probe(net), probe(net), probe(net, 1)
        np.testing.assert_array_equal(x, again)
        assert (x != other).any()
        assert x.dtype == net.dtype
        assert y.max() < net.output_shape[0]
        with pytest.raises(OptionError, match="seed must be a whole number of at least 0, got -1"):
            probe(net, -1)
