"""``diagnose_program``: training steps in many styles are called, judged, and leave no trace."""

import copy
import functools
import types
from typing import ClassVar

import numpy as np
import pytest

import fullback as fb
from support.programs import CASES, setting
from support.small_cnn import TEXT, batch, gradients, start

NAMES = ("W1", "b1", "W2", "b2")


def in_place(wrong):
    params = dict(zip(NAMES, start(), strict=True))

    def train_step(params, x, y, lr=0.1):
        grads = gradients([params[k] for k in NAMES], x, y, wrong)
        for key, grad in zip(NAMES, grads, strict=True):
            params[key] -= lr * grad
        return 0.5

    return train_step, params, *batch()


def returns_new_ones(wrong):
    def step(x, y, W1, b1, W2, b2, learning_rate):
        grads = gradients([W1, b1, W2, b2], x, y, wrong)
        return tuple(w - learning_rate * g for w, g in zip((W1, b1, W2, b2), grads, strict=True))

    return step, dict(zip(NAMES, start(), strict=True)), *batch()


def loss_and_gradients(wrong):
    def loss(params, X, Y):
        print("loss 1.3")
        grads = gradients([params[k] for k in NAMES], X, Y.argmax(axis=1), wrong)
        return 1.3, dict(zip(("dW1", "db1", "dW2", "db2"), grads, strict=True))

    return loss, dict(zip(NAMES, start(), strict=True)), *batch()


def one_image_at_a_time(wrong):
    class CNN:
        def __init__(self):
            self.filters, self.filter_bias, self.weights, self.bias = start()
            self.last_input = None

        def train(self, image, label, lr=0.01):
            self.last_input = image
            arrays = self.filters, self.filter_bias, self.weights, self.bias
            grads = gradients(arrays, image[None, None], np.array([label]), wrong)
            self.filters = self.filters - lr * grads[0]
            self.filter_bias = self.filter_bias - lr * grads[1]
            self.weights = self.weights - lr * grads[2]
            self.bias = self.bias - lr * grads[3]
            return 0.0

    model = CNN()
    x, y = batch()
    return model.train, model, x[:, 0], y


def lists_of_filters(wrong):
    w, b, matrix, c = start()
    net = {"filters": list(w[:, 0]), "bias1": b, "weights": matrix.T.copy(), "bias2": c}

    def train(net, image, target, eta):
        arrays = np.array(net["filters"])[:, None], net["bias1"], net["weights"].T, net["bias2"]
        grads = gradients(arrays, image[None, None], [int(target.argmax())], wrong)
        for k in range(3):
            net["filters"][k] -= eta * grads[0][k, 0]
        net["bias1"] -= eta * grads[1]
        net["weights"] -= eta * grads[2].T
        net["bias2"] -= eta * grads[3]

    x, y = batch()
    return train, net, x[:, 0], y


def dict_a_layer_with_momentum(wrong):
    class Model:
        def __init__(self):
            w, b, matrix, c = start()
            self.params = {"conv1": {"W": w, "b": b}, "fc": {"W": matrix.T.copy(), "b": c}}
            self.velocity = None

        def fit_batch(self, images, labels, learning_rate):
            conv, fc = self.params["conv1"], self.params["fc"]
            arrays = conv["W"], conv["b"], fc["W"].T, fc["b"]
            dw, db, dm, dc = gradients(arrays, images[:, None], labels, wrong)
            grads = [(conv, "W", dw), (conv, "b", db), (fc, "W", dm.T), (fc, "b", dc)]
            self.velocity = self.velocity or [np.zeros(g.shape) for *_, g in grads]
            for v, (layer, key, grad) in zip(self.velocity, grads, strict=True):
                v[...] = 0.9 * v - learning_rate * grad
                layer[key] = layer[key] + v

    model = Model()
    x, y = batch()
    return model.fit_batch, model.params, x[:, 0], y


def closure_over_a_list(wrong):
    weights = start()

    def step(xb, yb):
        for w, g in zip(weights, gradients(weights, xb, yb, wrong), strict=True):
            w -= 0.5 * g

    return step, weights, *batch()


def pairs_channels_last(wrong):
    w, b, matrix, c = start(channels=2)
    order = matrix.reshape(4, 3, 3, 2).transpose(2, 3, 1, 0).reshape(-1, 4)
    params = [(w.transpose(2, 3, 1, 0).copy(), b), (order.copy(), c)]

    def update_mini_batch(params, mini_batch, eta=0.5):
        (f, b), (m, c) = params
        x = np.array([image for image, _ in mini_batch]).transpose(0, 3, 1, 2)
        y = np.array([label for _, label in mini_batch])
        matrix = m.reshape(3, 2, 3, 4).transpose(3, 2, 0, 1).reshape(4, -1)
        dw, db, dm, dc = gradients((f.transpose(3, 2, 0, 1), b, matrix, c), x, y, wrong)
        dm = dm.reshape(4, 3, 3, 2).transpose(2, 3, 1, 0).reshape(-1, 4)
        return [
            (f - eta * dw.transpose(2, 3, 1, 0), b - eta * db),
            (m - eta * dm, c - eta * dc),
        ]

    x, y = batch(channels=2)
    return update_mini_batch, params, x.transpose(0, 2, 3, 1), y


def layers_keep_their_gradients(wrong):
    class Layer:
        def __init__(self, W, b):
            self.params, self.grads = {"W": W, "b": b}, {}

    class Net:
        def __init__(self):
            w, b, matrix, c = start()
            self.layers = [Layer(w, b), Layer(matrix, c)]

        def backprop(self, x, y):
            arrays = [p for layer in self.layers for p in layer.params.values()]
            dw, db, dm, dc = gradients(arrays, x, y, wrong)
            self.layers[0].grads = {"W": dw, "b": db}
            self.layers[1].grads = {"W": dm, "b": dc}

    net = Net()
    return net.backprop, net, *batch()


def globals_of_a_script(wrong):
    script = types.ModuleType("script")
    script.__dict__.update(
        zip(NAMES, start(), strict=True), gradients=gradients, wrong=wrong, __file__="script.py"
    )
    exec(
        "def step(x, y):\n"
        "    global W1, b1, W2, b2, calls\n"
        "    calls = globals().get('calls', 0) + 1\n"
        "    dw, db, dm, dc = gradients((W1, b1, W2, b2), x, y, wrong)\n"
        "    W1 = W1 - 0.25 * dw; b1 = b1 - 0.25 * db\n"
        "    W2 = W2 - 0.25 * dm; b2 = b2 - 0.25 * dc\n",
        script.__dict__,
    )
    return script.step, lambda: {name: getattr(script, name) for name in NAMES}, *batch()


STYLES = [
    in_place,
    returns_new_ones,
    loss_and_gradients,
    one_image_at_a_time,
    lists_of_filters,
    dict_a_layer_with_momentum,
    closure_over_a_list,
    pairs_channels_last,
    layers_keep_their_gradients,
    globals_of_a_script,
]
ROUNDED = {closure_over_a_list, pairs_channels_last}
"""Where the step's rate is not a power of 2 and not known, gradients are rounded differently."""


@pytest.mark.parametrize("named", [True, False], ids=["net", "no net"])
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
def test_a_right_program_is_right(style, named, capsys):
    step, weights, x, y = style(wrong=False)
    held = weights() if callable(weights) else weights
    before = copy.deepcopy(vars(held) if hasattr(held, "__dict__") else held)
    channels = 2 if style is pairs_channels_last else 1
    net = fb.Network.parse(TEXT, (channels, 8, 7)) if named else None
    found = fb.diagnose_program(step, weights, x, y, net=net)
    assert found.ok, str(found)
    assert len(found.right) == 4
    assert found.notes[0].startswith("called as step(")
    assert any("the network was assumed to be conv3" in note for note in found.notes) != named
    assert capsys.readouterr().out == ""
    after = weights() if callable(weights) else weights
    np.testing.assert_equal(
        vars(after) if hasattr(after, "__dict__") and style is one_image_at_a_time else 0,
        before if style is one_image_at_a_time else 0,
    )
    if isinstance(held, dict):
        np.testing.assert_equal(after, before)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
def test_its_mistake_is_named(style):
    step, weights, x, y = style(wrong=True)
    found = fb.diagnose_program(step, weights, x, y)
    assert [(f.layer, f.mistake) for f in found.findings] == [("conv1", "bias-averaged")]


@pytest.mark.parametrize("program", CASES)
def test_programs_by_others(program):
    net, x, y = setting(program)

    def step(parameters, x, y):
        return program.to_fullback(program.run(parameters, x, y))

    weights = dict(net.parameters)
    found = fb.diagnose_program(step, weights, x, y, net=net.copy(seed=3), reduction="mean")
    assert {f.mistake for f in found.findings} == {mistake for _, mistake in program.MISTAKES}


def test_a_module_of_pytorch_and_its_optimizer():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(48, 5),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(x, y):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    before = [p.detach().clone() for p in model.parameters()]
    x, y = torch.rand(4, 2, 8, 8), torch.tensor([0, 1, 2, 4])
    assert fb.diagnose_program(step, model, x, y, lr=0.1).ok
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())

    def without_zero_grad(x, y):
        torch.nn.functional.cross_entropy(model(x), y).backward()

    found = fb.diagnose_program(without_zero_grad, model, x, y)
    assert [f.mistake for f in found.findings] == ["gradients-not-cleared"]
    assert (
        "a second call gave other gradients than the first; judged are the second's" in found.notes
    )

    adam = torch.optim.Adam(model.parameters())

    def with_adam(x, y):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        adam.step()

    with pytest.raises(fb.OptionError, match="every weight by the same amount, as Adam"):
        fb.diagnose_program(with_adam, model, x, y)


class TestColumns:
    """Features by images, biases of shape (units, 1), as textbooks and courses write them."""

    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, 12)), rng.normal(size=(3, 8))
    x, labels = rng.random((12, 6)), np.array([0, 1, 2, 0, 1, 1])

    def test_a_course_with_a_dict_of_gradients(self):
        parameters = {"W1": self.weights[0], "b1": np.zeros((8, 1)),
                      "W2": self.weights[1], "b2": np.zeros((3, 1))}  # fmt: skip

        def model(X, Y, parameters, learning_rate=0.0075, wrong=False):
            m = X.shape[1]
            Z1 = parameters["W1"] @ X + parameters["b1"]
            A1 = np.maximum(0, Z1)
            Z2 = parameters["W2"] @ A1 + parameters["b2"]
            A2 = np.exp(Z2) / np.exp(Z2).sum(axis=0)
            dZ2 = A2 - Y
            dZ1 = parameters["W2"].T @ dZ2 * (1 if wrong else Z1 > 0)
            grads = {"dW2": dZ2 @ A1.T / m, "db2": dZ2.sum(axis=1, keepdims=True) / m,
                     "dW1": dZ1 @ X.T / m, "db1": dZ1.sum(axis=1, keepdims=True) / m}  # fmt: skip
            return {k: w - learning_rate * grads[f"d{k}"] for k, w in parameters.items()}

        for y in (self.labels, np.eye(3)[self.labels].T):
            assert fb.diagnose_program(model, parameters, self.x, y).ok
        wrong = functools.partial(model, wrong=True)
        found = fb.diagnose_program(wrong, parameters, self.x, self.labels)
        assert [f.mistake for f in found.findings] == ["relu-mask-missing"]

    def test_a_textbook_with_a_mini_batch_of_pairs(self):
        class Network:
            def __init__(self, weights):
                self.weights = list(weights)
                self.biases = [np.full((len(w), 1), 0.1) for w in weights]

            def update_mini_batch(self, mini_batch, eta):
                nabla_w = [np.zeros(w.shape) for w in self.weights]
                nabla_b = [np.zeros(b.shape) for b in self.biases]
                for x, y in mini_batch:
                    x, y = x.reshape(-1, 1), y.reshape(-1, 1)
                    a = 1 / (1 + np.exp(-self.weights[0] @ x - self.biases[0]))
                    e = np.exp(self.weights[1] @ a + self.biases[1])
                    delta = e / e.sum() - y
                    nabla_w[1] += delta @ a.T
                    nabla_b[1] += delta
                    delta = self.weights[1].T @ delta * a * (1 - a)
                    nabla_w[0] += delta @ x.T
                    nabla_b[0] += delta
                rate = eta / len(mini_batch)
                self.weights = [w - rate * n for w, n in zip(self.weights, nabla_w, strict=True)]
                self.biases = [b - rate * n for b, n in zip(self.biases, nabla_b, strict=True)]

        net = Network(self.weights)
        found = fb.diagnose_program(net.update_mini_batch, net, self.x.T, self.labels)
        assert found.ok
        assert "assumed to be dense8 sigmoid dense3" in found.notes[2]


class TestRefused:
    x, y = batch()
    weights: ClassVar = dict(zip(NAMES, start(), strict=True))

    def test_an_exception_is_shown_as_the_programs(self):
        def step(params, x, y):
            raise KeyError("W9")

        with pytest.raises(
            fb.OptionError, match=r"works: step\(weights, x, y\).*KeyError: 'W9'$"
        ) as e:
            fb.diagnose_program(step, self.weights, self.x, self.y)
        assert isinstance(e.value.__cause__, KeyError)

    def test_dropout_of_its_own(self):
        state = np.random.get_state()[1].copy()  # noqa: NPY002

        def step(params, x, y):
            x = x * (np.random.rand(*x.shape) > 0.5)  # noqa: NPY002
            grads = gradients([params[k] for k in NAMES], x, y)
            for key, grad in zip(NAMES, grads, strict=True):
                params[key] -= 0.1 * grad

        with pytest.raises(fb.OptionError, match=r"two calls of the step .* it draws random"):
            fb.diagnose_program(step, self.weights, self.x, self.y)
        assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    def test_a_generator_of_its_own_and_images_that_it_changes(self):
        rng = np.random.default_rng(0)

        def step(params, x, y, noisy=True):
            seen = x * (rng.random(x.shape) > 0.5) if noisy else x.copy()
            x[...] = 0
            return dict(zip(NAMES, gradients([params[k] for k in NAMES], seen, y), strict=True))

        state = rng.bit_generator.state
        with pytest.raises(fb.OptionError, match="two calls of the step"):
            fb.diagnose_program(step, self.weights, self.x, self.y)
        assert rng.bit_generator.state == state
        quiet = functools.partial(step, noisy=False)
        x = self.x.copy()
        assert fb.diagnose_program(quiet, self.weights, self.x, self.y).ok
        np.testing.assert_array_equal(x, self.x)

    def test_what_may_be_weights_or_gradients(self):
        def step(params, x, y):
            grads = gradients([params[k] for k in NAMES], x, y)
            return {k: params[k] - 8 * g for k, g in zip(NAMES, grads, strict=True)}

        with pytest.raises(fb.OptionError, match="may be new weights or gradients; say which"):
            fb.diagnose_program(step, self.weights, self.x, self.y)
        found = fb.diagnose_program(step, self.weights, self.x, self.y, returns="weights")
        assert found.ok

    @pytest.mark.parametrize(
        ("step", "weights", "options", "message"),
        [
            (lambda params, x, y: None, {"a": 1}, {}, "weights must hold the program's arrays"),
            (lambda params, x, y: None, weights, {}, "neither changed the weights nor returned"),
            (lambda: None, start(), {}, "step cannot be called with weights"),
            (lambda params, x, y: None, weights, {"lr": -1}, r"lr must be a number in \(0, inf\)"),
            (lambda params, x, y: None, weights, {"returns": "x"}, "returns must be 'weights' or"),
            (
                lambda p, x, y: None,
                {"W": np.ones((5, 5))},
                {},
                "no network of .*net=",
            ),
        ],
    )
    def test_calls(self, step, weights, options, message):
        with pytest.raises(fb.OptionError, match=message):
            fb.diagnose_program(step, weights, self.x, self.y, **options)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    "names",
    [("conv", "conv_b", "fc", "fc_b"), ("conv1", "bias1", "fc1", "bias2"), ("f", "b", "fc", "fcb")],
)
def test_weights_that_are_called_as_layers_are_found_in_an_object(names, given):
    text = "conv3 relu pool flatten dense4"
    net = fb.Network.parse(text, (1, 8, 6), dtype="float64", seed=2)
    x, y = fb.probe(net)
    known = dict(zip(names, net.parameters, strict=True))
    model = types.SimpleNamespace(**{name: net.parameters[known[name]].copy() for name in names})

    def train(x, y):
        own = net.copy()
        own.parameters.update({known[name]: getattr(model, name) for name in names})
        trace = own.trace(x, y)
        model.flat, model.out = trace.activations["flatten1"], trace.activations["dense1"]
        for name in names:
            setattr(model, name, getattr(model, name) - 0.1 * trace.gradients[known[name]])

    found = fb.diagnose_program(train, model, x, y, net=net if given else None)
    assert found.ok
    assert len(found.judged) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": None}, "step must be a function"),
        ({"net": "conv3"}, "net must be a network"),
        ({"reduction": "foo"}, "reduction must be"),
        ({"l2": "foo"}, "l2 must be"),
        ({"convolution": "foo"}, "convolution must be"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_step_is_called(options, message):
    net = fb.Network.parse("conv3 relu pool flatten dense4", (1, 8, 6))
    x, y = fb.probe(net)
    step = options.pop("step", lambda weights, x, y: pytest.fail("called"))
    with pytest.raises(fb.OptionError, match=message):
        fb.diagnose_program(step, dict(net.parameters), x, y, **options)
