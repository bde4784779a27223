"""Nothing submitted is left out in silence: weights beside gradients, two names of one array."""

from types import SimpleNamespace

import numpy as np
import pytest

import fullback as fb
from fullback.errors import OptionError

NET = fb.Network.parse("conv4 relu pool conv4 relu flatten dense4", (1, 8, 8), dtype="float64")
X, Y = np.random.default_rng(0).normal(size=(3, 1, 8, 8)), [0, 1, 2]
TRACE = NET.trace(X, Y)
GRADIENTS = {name: np.array(g) for name, g in TRACE.gradients.items()}
WEIGHTS = {name: np.array(p) for name, p in NET.parameters.items()}
NAMES = ("W1", "b1", "W2", "b2", "W3", "b3")
SHORT = {f"d{name}": g for name, g in zip(NAMES, GRADIENTS.values(), strict=True)}
SHORT_WEIGHTS = dict(zip(NAMES, WEIGHTS.values(), strict=True))
MODULE = SimpleNamespace(
    **{name: SimpleNamespace(data=w, grad=GRADIENTS[name]) for name, w in WEIGHTS.items()}
)


@pytest.mark.parametrize("second", ["db1", "b1", "grad_conv1.bias", "conv1.bias.grad", "conv1_b"])
@pytest.mark.parametrize("first", [True, False])
def test_two_names_of_one_gradient_are_refused(first, second):
    other = {second: -GRADIENTS["conv1.bias"]}
    given = {**other, **GRADIENTS} if first else {**GRADIENTS, **other}
    with pytest.raises(OptionError, match=f"both {second} and conv1.bias are conv1.bias"):
        fb.diagnose(NET, X, Y, given)


@pytest.mark.parametrize("second", ["conv2.weight", "W2", "W2_grad", "grad_W2", "dw2"])
def test_a_second_name_of_another_style_is_refused(second):
    with pytest.raises(OptionError, match=r"both .* and .* are conv2\.weight"):
        fb.diagnose(NET, X, Y, {**SHORT, second: -GRADIENTS["conv2.weight"]})


def test_nested_second_names_are_refused():
    nested = {"conv1": {"dW": GRADIENTS["conv1.weight"], "W": -GRADIENTS["conv1.weight"]}}
    with pytest.raises(OptionError, match=r"both conv1\.W and conv1\.dW are conv1\.weight"):
        fb.diagnose(NET, X, Y, nested)


@pytest.mark.parametrize("second", ["dconv1", "dZ1", "grad_conv1"])
@pytest.mark.parametrize("rest", [True, False])
def test_two_names_of_one_delta_or_output_are_refused(rest, second):
    for what in ("deltas", "activations"):
        arrays = getattr(TRACE, what)
        given = dict(arrays) if rest else {"conv1": arrays["conv1"]}
        with pytest.raises(OptionError, match=f"both {second} and conv1 are conv1"):
            fb.diagnose(NET, X, Y, **{what: {**given, second: -arrays["conv1"]}})


@pytest.mark.parametrize(
    "given",
    [
        {**SHORT_WEIGHTS, **SHORT},
        {**SHORT, **SHORT_WEIGHTS},
        {**SHORT, "W2": WEIGHTS["conv2.weight"]},
        {**WEIGHTS, **SHORT},
        {**WEIGHTS, **{f"{name}.grad": g for name, g in GRADIENTS.items()}},
        {**{name: 2 * w for name, w in WEIGHTS.items()}, **SHORT},
        SimpleNamespace(**SHORT_WEIGHTS, **SHORT, rate=0.1),
        {"net": MODULE},
    ],
)
def test_weights_beside_gradients_are_not_taken_for_them(given):
    found = fb.diagnose(NET, X, Y, given)
    assert found.ok, found
    assert len(found.right) == len(GRADIENTS)
    assert any("for the weights" in note for note in found.notes)


def test_gradients_beside_weights_are_judged():
    found = fb.diagnose(NET, X, Y, {**SHORT_WEIGHTS, **SHORT, "dW2": -SHORT["dW2"]})
    assert found.wrong == ["conv2.weight"]
    weights = {name: 2 * w for name, w in SHORT_WEIGHTS.items()}
    other = NET.copy()
    other.parameters.update(zip(WEIGHTS, weights.values(), strict=True))
    right = dict(zip(SHORT, other.trace(X, Y).gradients.values(), strict=True))
    found = fb.diagnose(NET, X, Y, {**right, "W1": weights["W1"]}, weights=weights)
    assert found.ok, found


def test_a_state_beside_gradients_is_told():
    found = fb.diagnose(NET, X, Y, {**SHORT, "vW2": SHORT["dW2"]})
    assert found.ok
    assert any(note.startswith("vW2 beside the gradients") for note in found.notes)


def test_a_gap_in_a_list_is_no_gradient():
    assert len(fb.diagnose(NET, X, Y, [*GRADIENTS.values(), None]).right) == len(GRADIENTS)


def test_gradients_of_layers_that_are_called_d_are_all_judged():
    net = fb.Network.parse("conv4 relu flatten dense4", (1, 6, 6), dtype="float64")
    x = X[:, :, :6, :6]
    names = ("c1.weight", "c1.bias", "d1.weight", "d1.bias")
    right = dict(zip(names, net.trace(x, Y).gradients.values(), strict=True))
    assert len(fb.diagnose(net, x, Y, right).right) == len(names)
    assert not fb.diagnose(net, x, Y, {**right, "d1.bias": -right["d1.bias"]}).ok


@pytest.mark.parametrize("names", [("F1", "W1"), ("conv1", "conv1_act"), ("dense", "dense_1")])
def test_names_that_are_alike_may_be_two_arrays(names):
    if names[0] == "conv1":
        given = dict(zip(names, (TRACE.activations[k] for k in ("conv1", "relu1")), strict=True))
        assert fb.diagnose(NET, X, Y, activations=given).ok
        return
    text = "conv4 flatten dense4" if names[0] == "F1" else "flatten dense4 relu dense4"
    net = fb.Network.parse(text, (1, 8, 8), dtype="float64")
    weights = [g for name, g in net.trace(X, Y).gradients.items() if name.endswith("weight")]
    suffix = "" if names[0] == "F1" else "/kernel"
    given = {f"{name}{suffix}": g for name, g in zip(names, weights, strict=True)}
    assert fb.diagnose(net, X, Y, given).ok
