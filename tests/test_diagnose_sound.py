"""``diagnose`` on plain pictures: nothing wrong is called right, and nothing right wrong.

``FULLBACK_SOUND=1000 pytest tests/test_diagnose_sound.py`` judges more cases, and
``python benchmarks/doctor.py --sound 10000`` judges them on all cores.
"""

import os

import numpy as np
import pytest

import fullback as fb
from support import backprops, plain

CASES = int(os.environ.get("FULLBACK_SOUND", "40"))


def test_plain_pictures_are_judged_soundly():
    answers = [answer for number in range(CASES) for answer in plain.search(number)]
    complaints = [complaint for _, _, complaint in answers if complaint]
    assert not complaints, "\n".join(complaints)
    judged = [verdict for kind, verdict, _ in answers if kind == "right"]
    assert judged.count("right") > 0.8 * len(judged)


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


def sliding_rectangles(dtype="float64", bias=0.0):
    net = fb.Network.parse(
        "conv1(padding=valid) relu pool flatten dense4", (1, 14, 14), dtype=dtype
    )
    net.parameters["conv1.weight"] = np.array([[1, 0, -1]] * 3, dtype)[None, None]
    net.parameters["conv1.bias"][:] = bias
    x = np.full((5, 1, 14, 14), 0.25, dtype)
    for i in range(5):
        x[i, 0, 2 + i : 8 + i, 3:9] = 0.75
    return net, x, np.arange(5) % 4


@pytest.mark.parametrize("bias", [0.0, 0.1])
@pytest.mark.parametrize("name", plain.ALTERATIONS)
def test_a_rectangle_that_slides(name, bias):
    net, x, y = sliding_rectangles(bias=bias)
    rng = np.random.default_rng(0)
    every = [program(x, y, "float64").gradients for program in backprops.programs(net).values()]
    for gradients in every:
        found = fb.diagnose(net, x, y, gradients)
        assert not found.findings, str(found)
        altered = plain.ALTERATIONS[name](gradients["conv1.weight"], rng)
        if any(np.allclose(altered, other["conv1.weight"], 1e-9, 1e-12) for other in every):
            continue  # no change, or right by another rule
        found = fb.diagnose(net, x, y, gradients | {"conv1.weight": altered})
        assert not found.ok
        assert "conv1.weight" not in found.right
