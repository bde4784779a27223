"""``diagnose`` on plain pictures: nothing wrong is called right, and nothing right wrong.

``FULLBACK_SOUND=1000 pytest tests/test_diagnose_sound.py`` judges more cases, and
``python benchmarks/doctor.py --sound 10000`` judges them on all cores.
"""

import os

import numpy as np
import pytest

import fullback as fb
from support import backprops, plain

CASES = int(os.environ.get("FULLBACK_SOUND", "24"))


def test_plain_pictures_are_judged_soundly():
    answers = [answer for number in range(CASES) for answer in plain.search(number)]
    complaints = [complaint for _, _, complaint in answers if complaint]
    assert not complaints, "\n".join(complaints)
    judged = [verdict for kind, verdict, _ in answers if kind == "right"]
    assert judged.count("right") > 0.8 * len(judged)


def test_no_mistake_is_read_into_what_rounding_decides():
    drawn = plain.case(35611)  # a leaky slope of 0.01, were its own rounding an explanation
    verdict, found = plain.judged(drawn)
    assert verdict != "FALSE ALARM", str(found)
    assert not found.wrong


def test_the_right_programs_are_right():
    for number in range(40):
        drawn = plain.case(number)
        rng = np.random.default_rng(number)
        net = drawn.net.copy(dtype="float64")
        for name, array in net.parameters.items():
            net.parameters[name] = rng.normal(0, 0.5, array.shape)
        x = rng.random(drawn.x.shape)
        truth = net.trace(x, drawn.y)
        for name, program in backprops.programs(net).items():
            if "last" in name or "slope 1" in name:
                continue  # the zeros behind a ReLU tie
            computed = program(x, drawn.y, "float64")
            for kind in ("gradients", "deltas", "activations"):
                for key, expected in getattr(truth, kind).items():
                    np.testing.assert_allclose(
                        getattr(computed, kind)[key], expected, 1e-9, 1e-11, err_msg=name
                    )


JUDGED = {"taps, last of ties, slope 1", "PyTorch"}


def sliding_rectangles(bias):
    net = fb.Network.parse(
        "conv1(padding=valid) relu pool flatten dense4", (1, 14, 14), dtype="float64"
    )
    net.parameters["conv1.weight"] = np.array([[1, 0, -1]] * 3, float)[None, None]
    net.parameters["conv1.bias"][:] = bias
    x = np.full((5, 1, 14, 14), 0.25)
    for i in range(5):
        x[i, 0, 2 + i : 8 + i, 3:9] = 0.75
    return net, x, np.arange(5) % 4


@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_a_rectangle_that_slides(bias):
    net, x, y = sliding_rectangles(bias)
    programs = backprops.programs(net)
    every = {name: program(x, y, "float64").gradients for name, program in programs.items()}
    rng = np.random.default_rng(0)
    for name in programs.keys() & JUDGED:
        found = fb.diagnose(net, x, y, every[name])
        assert not found.findings, str(found)
        for how, alteration in plain.ALTERATIONS.items():
            altered = alteration(every[name]["conv1.weight"], rng)
            if any(plain.alike(altered, other["conv1.weight"]) for other in every.values()):
                continue  # no change, or right by another rule
            found = fb.diagnose(net, x, y, every[name] | {"conv1.weight": altered})
            assert not found.ok, how
            assert "conv1.weight" not in found.right, how


@pytest.mark.parametrize("filters", [[[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.ones((3, 3))])
def test_no_turn_of_filters_excuses_a_turned_gradient_where_it_changes_no_output(filters):
    text = "conv1(padding=valid) relu pool flatten dense4"
    net = fb.Network.parse(text, (1, 14, 14), dtype="float64")
    net.parameters["conv1.weight"] = np.reshape(filters, (1, 1, 3, 3))
    x, y = np.random.default_rng(0).normal(size=(5, 1, 14, 14)), [0, 1, 2, 3, 0]
    gradients = net.trace(x, y).gradients
    gradients["conv1.weight"] = gradients["conv1.weight"][:, :, ::-1, ::-1]
    found = fb.diagnose(net, x, y, gradients)
    assert [finding.mistake for finding in found.findings] == ["weight-gradient-turned"]


def test_filters_that_would_be_dead_if_turned_excuse_no_zeros():
    text = "conv1(padding=valid) relu flatten dense4"
    net = fb.Network.parse(text, (1, 6, 6), dtype="float64")
    net.parameters["conv1.weight"] = np.array([[[[1.0, 1, 1], [0, 0, 0], [-1, -1, -1]]]])
    x = np.random.default_rng(0).random((3, 1, 6, 6)) / 9 - np.arange(6.0)[:, None]
    gradients = net.trace(x, [0, 1, 2]).gradients
    assert gradients["conv1.weight"].any()
    gradients = {"conv1.weight": 0 * gradients["conv1.weight"]}
    assert not fb.diagnose(net, x, [0, 1, 2], gradients).ok
