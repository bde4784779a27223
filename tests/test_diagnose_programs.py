"""``diagnose`` on programs that people wrote: the names they use, and the mistakes they made."""

import contextlib

import numpy as np
import pytest

from fullback.check.diagnose import diagnose
from fullback.check.diagnose.names import Names
from fullback.errors import OptionError
from support.programs import CASES, own_weights, setting


def by_our_names(program, result, kind="gradients", dtype="float64"):
    return {
        program.NAMES[kind][own]: np.asarray(array, dtype) for own, array in result[kind].items()
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("program", CASES)
def test_exactly_their_mistakes_are_named(program, dtype):
    net, x, y = setting(program)
    result = program.run(dict(net.parameters), x, y)
    gradients, deltas, activations = (
        by_our_names(program, result, kind, dtype)
        for kind in ("gradients", "deltas", "activations")
    )
    weights = by_our_names(program, {"gradients": own_weights(program, net, result)})
    other = net.copy(seed=5)  # its own weights do not matter
    options = {"weights": weights, "reduction": "mean"}
    for found in (
        diagnose(other, x, y, gradients, **options),
        diagnose(other, x, y, gradients, deltas, **options),
        diagnose(
            other,
            x,
            y,
            gradients,
            deltas,
            activations,
            result.get("probabilities"),
            **options,
        ),
    ):
        assert {f.mistake for f in found.findings} == {mistake for _, mistake in program.MISTAKES}
        for one in found.findings:  # what concerns every array is said once, at the loss
            assert (one.layer, one.mistake) in program.MISTAKES or one.layer == "loss"
        assert found.ok == (not program.MISTAKES)


@pytest.mark.parametrize("program", CASES)
def test_a_name_is_told_rightly_or_not_at_all(program):
    net, x, y = setting(program)
    result = program.run(dict(net.parameters), x, y)
    outputs = {"input": net.input_shape, **dict(zip(net.names, net.shapes, strict=True))}
    own = {name: array.shape for name, array in net.parameters.items()}
    told = {}
    for kind, shapes, images in (
        ("gradients", own, None),
        ("deltas", outputs, len(x)),
        ("activations", outputs, len(x)),
    ):
        theirs = {name: np.asarray(array) for name, array in result[kind].items()}
        with contextlib.suppress(OptionError):
            told[kind] = Names(kind, shapes, images).match(theirs)
    assert told == {kind: program.NAMES[kind] for kind in told}
    assert any(told.values())


@pytest.mark.parametrize("program", CASES)
def test_a_right_program_is_right_without_its_weights(program):
    net, x, y = setting(program)
    found = diagnose(net, x, y, program.run(dict(net.parameters), x, y, wrong=False)["gradients"])
    assert found.ok
