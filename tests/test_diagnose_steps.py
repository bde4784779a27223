"""``diagnose_program`` on training steps as people write them: mistakes and conventions."""

import pytest

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
