"""The programs in wrong_programs: right without their mistakes, and wrong with them."""

from pathlib import Path

import numpy as np
import pytest

import wrong_programs
from fullback import Network
from support.programs import CASES, setting
from wrong_programs import PROGRAMS

WRONG = [pytest.param(program, id=name) for name, program in PROGRAMS.items() if program.MISTAKES]

# Sums of a few hundred float64 products, in another order or by Fourier transform, relative to an
# array's largest number: a few hundred roundings of 1e-16.
TOLERANCE = 1e-13


def same(actual, expected):
    return abs(actual - expected).max() <= TOLERANCE * abs(expected).max()


def in_order(array):
    """The numbers of an array in the program's own layout, which may be any."""
    return np.sort(array, axis=None)


@pytest.mark.parametrize("program", CASES)
def test_without_its_mistakes_a_program_is_right(program):
    net, x, y = setting(program)
    truth = net.trace(x, y)
    result = program.run(dict(net.parameters), x, y, wrong=False)
    assert result["loss"] == pytest.approx(truth.loss, rel=TOLERANCE)
    gradients = program.to_fullback(result)
    assert list(gradients) == list(truth.gradients)
    for name, expected in truth.gradients.items():
        assert gradients[name].shape == expected.shape
        assert same(gradients[name], expected), name
    if "probabilities" in result:
        assert same(in_order(result["probabilities"]), in_order(truth.probabilities))
    for kind in ("gradients", "deltas", "activations"):
        assert result[kind].keys() == program.NAMES[kind].keys()
        for own, name in program.NAMES[kind].items():
            expected = getattr(truth, kind)[name]
            if kind == "deltas" and getattr(program, "DELTAS_PER_IMAGE", False):
                expected = expected * len(x)
            assert same(in_order(result[kind][own]), in_order(expected)), own


@pytest.mark.parametrize("program", WRONG)
def test_with_its_mistakes_a_program_is_wrong(program):
    net, x, y = setting(program)
    truth = net.trace(x, y).gradients
    gradients = program.to_fullback(program.run(dict(net.parameters), x, y))
    assert {name: g.shape for name, g in gradients.items()} == {
        name: g.shape for name, g in truth.items()
    }
    wrong = {name for name, expected in truth.items() if not same(gradients[name], expected)}
    assert wrong
    names = ["input", *net.names, "loss"]
    highest = max(names.index(layer) for layer, _ in program.MISTAKES)
    for name in wrong:
        assert names.index(name.split(".")[0]) <= highest, "wrong above its mistakes"


@pytest.mark.parametrize("program", CASES)
def test_a_program_changes_nothing_that_it_is_given(program):
    net, x, y = setting(program)
    parameters = {name: array.copy() for name, array in net.parameters.items()}
    for array in (*parameters.values(), x, y):
        array.flags.writeable = False
    first = program.to_fullback(program.run(parameters, x, y))
    again = program.to_fullback(program.run(parameters, x, y))
    for name, gradient in first.items():
        np.testing.assert_array_equal(gradient, again[name])


def test_mistakes_are_listed_from_the_loss_downwards():
    for program in PROGRAMS.values():
        net = Network.parse(program.ARCHITECTURE, program.INPUT_SHAPE)
        places = [("loss", *net.names[::-1]).index(layer) for layer, _ in program.MISTAKES]
        assert places == sorted(places)


def test_the_programs_cover_the_mistakes():
    mistakes = [{mistake for _, mistake in program.MISTAKES} for program in PROGRAMS.values()]
    assert len(set().union(*mistakes)) == 31
    assert sum(len(own) == 0 for own in mistakes) == 3
    assert sum(len(own) == 1 for own in mistakes) >= 20
    assert sum(len(own) == 2 for own in mistakes) == 6


def test_every_program_is_listed():
    files = Path(wrong_programs.__file__).parent.glob("*.py")
    assert {file.stem for file in files} == {
        *wrong_programs.NAMES,
        *wrong_programs.STEPS,
        "__init__",
    }
