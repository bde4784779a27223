"""check_layer on the layers of the package as plain functions, by finite differences."""

import numpy as np
import pytest

from fullback.check.layer import check_layer
from support.cases import CASES, inputs


def plain(case):
    """A layer of ours as two plain functions, with its input and its parameters."""
    given = inputs(case)
    trained = list(case.layer.parameter_shapes(case.input_shape))
    fixed = {name: array for name, array in given.parameters.items() if name not in trained}

    def forward(x, *own):
        parameters = {**fixed, **dict(zip(trained, own, strict=True))}
        return case.layer.forward(x, parameters, training=case.training, rng_key=case.key)

    def backward(dy, cache, *own):
        parameters = {**fixed, **dict(zip(trained, own, strict=True))}
        dx, gradients = case.layer.backward(dy, cache, parameters)
        return (dx, *gradients.values())

    return forward, backward, given.x, [given.parameters[name] for name in trained]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_false_alarm(case):
    forward, backward, x, params = plain(case)
    result = check_layer(forward, backward, x, params=params, samples=8)
    assert result.ok, str(result)
    assert max(row.error for row in result.rows) < 1e-7
    assert sum(row.checked - row.kinks for row in result.rows) > 0


SPOILED = {
    "scaled": lambda g: g * 1.001,
    "one entry": lambda g: g + 0.01 * np.abs(g).max() * (np.arange(g.size) == 1).reshape(g.shape),
    "sign": lambda g: -g,
    "shifted": lambda g: np.roll(g.ravel(), 1).reshape(g.shape),
    "turned": lambda g: g[..., ::-1],
}


@pytest.mark.parametrize("mistake", SPOILED)
@pytest.mark.parametrize("case", CASES[2::23], ids=str)
def test_no_mistake_is_missed(case, mistake):
    forward, backward, x, params = plain(case)
    for wrong in range(len(params) + 1):
        changed = []

        def spoiled(dy, cache, *own, wrong=wrong, changed=changed):
            gradients = list(backward(dy, cache, *own))
            right = gradients[wrong]
            gradients[wrong] = SPOILED[mistake](right)
            changed.append(not np.allclose(gradients[wrong], right, rtol=1e-6, atol=1e-12))
            return gradients

        result = check_layer(forward, spoiled, x, params=params, samples=8)
        if changed[0]:
            assert not result.ok
