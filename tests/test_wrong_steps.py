"""The training steps in wrong_programs: right without their mistakes, and wrong with each."""

import numpy as np
import pytest

from support.steps import RIGHT, gradients, mistakes, setting
from wrong_programs import training_step

TOLERANCE = 1e-9  # of differences of weights, which are some thousand times larger


def factor(program, images):
    return getattr(program, "FACTOR", images if getattr(program, "SUM", False) else 1)


def same(actual, expected):
    return np.linalg.norm(actual - expected) <= TOLERANCE * np.linalg.norm(expected)


def truth(net, x, y):
    targets = y if net.loss.classifies else np.eye(net.output_shape[0])[y]
    return net.trace(x, targets, training=True).gradients


@pytest.mark.parametrize("name", RIGHT)
def test_without_its_mistakes_a_step_is_right(name):
    program = training_step(name)
    net, x, y = setting(program)
    found = gradients(program, net, x, y)
    expected = truth(net, x, y)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        assert found[key].shape == gradient.shape
        assert gradient.any()
        assert same(found[key], gradient * factor(program, len(x))), key


@pytest.mark.parametrize(("name", "wrong"), mistakes())
def test_with_a_mistake_a_step_is_wrong(name, wrong):
    program = training_step(name)
    net, x, y = setting(program, flat=wrong == "ties")
    found = gradients(program, net, x, y, wrong)
    expected = truth(net, x, y)
    place = program.MISTAKES[wrong][0]
    names = ["input", *net.names, "loss"]
    wrong_arrays = {
        key for key, g in expected.items() if not same(found[key], g * factor(program, len(x)))
    }
    assert wrong_arrays
    for key in wrong_arrays:  # none above the mistake, unless it is made in several layers
        assert names.index(key.split(".")[0]) <= names.index(place)
