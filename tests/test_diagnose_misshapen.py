"""Steps whose result fails in a shape, or that fail with the batch, are never told right."""

import re

import numpy as np
import pytest

import fullback as fb
from support.small_cnn import batch, gradients, start

NAMES = ("W1", "b1", "W2", "b2")
X, Y = batch()


def weights():
    return dict(zip(NAMES, start(), strict=True))


def right(params, x, y):
    found = gradients([params[name] for name in NAMES], x, y)
    return {f"d{name}": g for name, g in zip(NAMES, found, strict=True)}


def by_image(params, x, y):
    """Return each gradient with an axis of the images that it has to be summed over."""
    each = [right(params, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return {name: np.stack([one[name] / len(x) for one in each]) for name in each[0]}


def changed(name, make):
    def step(params, x, y):
        found = right(params, x, y)
        found[name] = make(found[name], by_image(params, x, y)[name])
        return found

    return step


@pytest.mark.parametrize("returns", [None, "gradients"])
@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("db1", lambda g, each: each, "db1 has shape (5, 3) where b1 has (3,): the sum over the"),
        ("db2", lambda g, each: each.T, "db2 has shape (4, 5) where b2 has (4,): the sum over the"),
        ("dW2", lambda g, each: each, "dW2 has shape (5, 4, 18) where W2 has (4, 18): the sum"),
        ("dW1", lambda g, each: each, "dW1 has shape (5, 3, 1, 3, 3) where W1 has (3, 1, 3, 3)"),
        ("db2", lambda g, each: g[:3] if len(each) > 1 else g, "db2 has shape (3,) where b2"),
        ("db1", lambda g, each: g.sum(), "db1 is one number, of shape (), where b1 has (3,)"),
        ("db1", lambda g, each: float(g.sum()), "db1 is one number, of shape (), where b1 has"),
        ("db1", lambda g, each: None, "db1 is None where b1 has shape (3,)"),
    ],
)
def test_a_returned_gradient_of_a_wrong_shape_is_told(name, make, message, returns):
    with pytest.raises(fb.OptionError, match=re.escape(message)):
        fb.diagnose_program(changed(name, make), weights(), X, Y, returns=returns)


def test_all_of_them_by_image_and_one_that_is_missing():
    with pytest.raises(fb.OptionError, match="the sum over the batch is missing"):
        fb.diagnose_program(by_image, weights(), X, Y)

    def lacking(params, x, y):
        return {name: g for name, g in right(params, x, y).items() if name != "db1"}

    with pytest.raises(fb.OptionError, match=r"nothing stands for b1 of shape \(3,\)"):
        fb.diagnose_program(lacking, weights(), X, Y)


@pytest.mark.parametrize("value", [0.5, None, np.zeros((5, 3))])
def test_in_a_tuple(value):
    def step(W1, b1, W2, b2, x, y):  # noqa: N803 -- names as programs have them
        dw, _, dm, dc = gradients((W1, b1, W2, b2), x, y)
        return 0.1, dw, value, dm, dc

    with pytest.raises(fb.OptionError, match="what stands for b1"):
        fb.diagnose_program(step, weights(), X, Y)


@pytest.mark.parametrize("lr", [None, 0.1])
def test_weights_that_a_step_leaves_in_another_shape(lr):
    def step(params, x, y, lr=0.1):
        for name, g in changed("db1", lambda g, each: each)(params, x, y).items():
            params[name[1:]] = params[name[1:]] - lr * g

    message = r"b1 has shape \(5, 3\) after it where it had \(3,\): the sum over the batch"
    with pytest.raises(fb.OptionError, match=message):
        fb.diagnose_program(step, weights(), X, Y, lr=lr)


def test_an_axis_of_length_1_does_no_harm():
    def step(params, x, y, lr=0.1):
        for name, g in changed("db1", lambda g, each: g[None])(params, x, y).items():
            params[name[1:]] = params[name[1:]] - lr * g

    found = fb.diagnose_program(step, weights(), X, Y)
    assert len(found.right) == 4
    assert "b1 has shape (1, 3) after the step where it had (3,)" in found.notes


def test_a_step_that_raises_on_every_batch_is_not_told_right():
    def step(params, x, y):
        if len(x) > 1:
            raise ValueError("operands could not be broadcast")
        return right(params, x, y)

    message = "but the batch, x as .*, raised ValueError: operands could not be broadcast"
    with pytest.raises(fb.OptionError, match=message):
        fb.diagnose_program(step, weights(), X, Y)
    assert fb.diagnose_program(step, weights(), X[:1], Y[:1]).ok


def test_a_step_for_one_image_is_told_with_what_the_batch_raised():
    def step(params, image, label):
        rows, columns = image.shape
        return right(params, image.reshape(1, 1, rows, columns), np.array([label]))

    found = fb.diagnose_program(step, weights(), X, Y)
    assert found.ok
    assert any(re.match("the batch, x as .*, raised ValueError: too many", n) for n in found.notes)


def test_a_learning_rate_needs_a_step():
    net = fb.Network.parse("conv1 relu flatten dense3", (1, 4, 4), dtype="float64")
    x, y = fb.probe(net)
    with pytest.raises(fb.OptionError, match="lr is the learning rate of a step: give after"):
        fb.diagnose(net, x, y, net.trace(x, y).gradients, lr=0.1)


@pytest.mark.parametrize("lr", [None, 0.05])
@pytest.mark.parametrize("decay", [0.01, 0.2])
def test_the_weight_decay_of_pytorch(lr, decay):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(48, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=decay)

    def step(x, y):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    x, y = torch.rand(4, 2, 8, 8), torch.tensor([0, 1, 2, 4])
    found = fb.diagnose_program(step, model, x, y, l2=decay, lr=lr)
    assert found.ok
    assert any(note.startswith("the step decays the biases") for note in found.notes)
    found = fb.diagnose_program(step, model, x, y, lr=lr)
    assert {finding.mistake for finding in found.findings} == {"l2-term"}


def test_a_penalty_is_taken_off_at_a_rate_that_is_not_known():
    def step(params, x, y):
        for name, g in right(params, x, y).items():
            own = params[name[1:]]
            params[name[1:]] = own - 0.3 * (g + 0.05 * own * (own.ndim > 1))

    found = fb.diagnose_program(step, weights(), X, Y, l2=0.05)
    assert len(found.right) == 4
    assert "the learning rate was not given, and taken to be 0.3" in found.notes
