"""``diagnose_program`` on training steps as people write them: mistakes and conventions."""

import pytest

import fullback as fb
from support.steps import RIGHT, ask, mistakes, named, narrowed, setting
from wrong_programs import training_step


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_step_is_right(name):
    program = training_step(name)
    net, x, y = setting(program)
    found = ask(program, net, x, y)
    assert not found.findings, str(found)
    assert found.ok, found.not_judged
    if getattr(program, "SUM", False):
        assert any("sum" in note for note in found.notes)


@pytest.mark.parametrize(("name", "wrong"), mistakes())
def test_a_mistake_in_a_step_is_found(name, wrong):
    program = training_step(name)
    net, x, y = setting(program, flat=wrong == "ties")
    found = ask(program, net, x, y, wrong)
    assert not found.ok
    if program.MISTAKES[wrong][1] is None:
        assert narrowed(program, net, wrong, found), str(found)
    else:
        assert named(program, wrong, found), str(found)


def test_a_mistake_at_the_loss_is_named_without_the_learning_rate():
    net = fb.Network.parse(
        "conv3 relu pool flatten dense4", (1, 8, 6), loss=fb.BinaryCrossEntropy(), dtype="float64"
    )
    x, y = fb.probe(net)
    before = dict(net.parameters)
    last = net.trace(x[-1:], y[-1:]).gradients
    after = {name: w - 0.07 * last[name] for name, w in before.items()}
    found = fb.diagnose(net, x, y, weights=before, after=after)
    assert [finding.mistake for finding in found.findings] == ["last-sample-only"]
