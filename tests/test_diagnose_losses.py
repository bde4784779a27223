"""What the doctor says of mistakes at the loss, and of sigmoid and tanh outputs."""

import numpy as np
import pytest

from fullback import MeanSquaredError, Network, diagnose
from support import losses

KINDS = ["binary", "softmax", "squares sigmoid", "squares tanh"]


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_program_is_right(kind, outputs, dtype):
    outputs = max(outputs, 2) if kind == "softmax" else outputs
    net = losses.network(kind, outputs)
    x, y = losses.batch(outputs)
    gradients, deltas, a = losses.run(net, x, y, kind)
    gradients, deltas = (
        {k: v.astype(dtype) for k, v in arrays.items()} for arrays in (gradients, deltas)
    )
    p = {"probabilities": a.astype(dtype)} if net.loss.classifies else {}
    for given in (deltas, None):
        found = diagnose(net, x, y, gradients, given, **p)
        assert found.ok, found
        assert not p or "probabilities" in found.right


@pytest.mark.parametrize("given", ["gradients", "deltas too"])
@pytest.mark.parametrize("switch", losses.SWITCHES)
def test_a_mistake_at_the_loss_is_named(switch, given):
    mistake, kind = losses.SWITCHES[switch]
    net = losses.network(kind)
    x, y = losses.batch()
    gradients, deltas, _ = losses.run(net, x, y, kind, switch)
    found = diagnose(net, x, y, gradients, deltas if given == "deltas too" else None)
    assert [finding.mistake for finding in found.findings] == [mistake], found


def test_of_one_sigmoid_the_probabilities_may_be_a_line():
    net = losses.network("binary", 1)
    x, y = losses.batch(1)
    gradients, _, p = losses.run(net, x, y, "binary")
    assert diagnose(net, x, y, gradients, probabilities=p[:, 0]).ok


def test_labels_mean_one_hot_rows_for_squared_errors():
    net = losses.network("squares sigmoid")
    x, y = losses.batch()
    gradients, deltas, _ = losses.run(net, x, y, "squares sigmoid")
    for targets in (y, np.eye(4)[y]):
        found = diagnose(net, x, targets, gradients, deltas)
        assert found.ok
        told = [note for note in found.notes if "the labels were taken as one-hot rows" in note]
        assert len(told) == (targets is y)


def test_labels_of_minus_one_and_one_are_shifted_too():
    net = Network.parse("dense3 tanh", (4,), loss=MeanSquaredError(), dtype="float64")
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(5, 4)), 2 * np.eye(3)[[0, 2, 1, 0, 2]] - 1
    trace = net.trace(x, np.roll(t, 1, axis=1))
    assert [f.mistake for f in diagnose(net, x, t, trace.gradients).findings] == ["labels-shifted"]
