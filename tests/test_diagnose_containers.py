"""``diagnose_program``: what programs keep their weights in, and what lies beside them."""

import numpy as np
import pytest

import fullback as fb
from fullback.errors import InputError
from support.small_cnn import TEXT, batch, gradients, start


class Holder:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def objects_a_filter_and_a_unit():
    w, b, matrix, c = start()
    model = Holder(
        filters=[Holder(kernel=k[0], bias=float(v)) for k, v in zip(w, b, strict=True)],
        units=[Holder(weights=row, bias=float(v)) for row, v in zip(matrix, c, strict=True)],
    )

    def step(image, label, lr=0.05):
        arrays = (
            np.array([f.kernel for f in model.filters])[:, None],
            np.array([f.bias for f in model.filters]),
            np.array([unit.weights for unit in model.units]),
            np.array([unit.bias for unit in model.units]),
        )
        dw, db, dm, dc = gradients(arrays, np.asarray(image)[None, None], np.array([label]))
        for f, d, e in zip(model.filters, dw, db, strict=True):
            f.kernel, f.bias = f.kernel - lr * d[0], f.bias - lr * e
        for unit, d, e in zip(model.units, dm, dc, strict=True):
            unit.weights, unit.bias = unit.weights - lr * d, unit.bias - lr * e

    x, y = batch()
    return step, model, x[:, 0], y


def values_with_gradients_and_names_of_their_own():
    arrays = [Holder(data=a, grad=np.zeros_like(a)) for a in start()]
    model = Holder(**dict(zip(("k1", "c1", "out", "o"), arrays, strict=True)))

    def step(x, y):
        for value, g in zip(arrays, gradients([v.data for v in arrays], x, y), strict=True):
            value.grad = g
            value.data = value.data - 0.25 * g

    return step, model, *batch()


def layers_with_momentum_and_gradients():
    w, b, matrix, c = start()
    layers = [
        Holder(weights=w, biases=b, weight_momentums=w * 0, bias_cache=b * 0),
        Holder(weights=matrix.T, biases=c[None], weight_momentums=matrix.T * 0, bias_cache=c * 0),
    ]

    def step(x, y, lr=0.125):
        one, two = layers
        arrays = one.weights, one.biases, two.weights.T, two.biases[0]
        dw, db, dm, dc = gradients(arrays, x, y)
        one.dweights, one.output = dw, np.ones((5, 4))
        one.weights, one.biases = one.weights - lr * dw, one.biases - lr * db
        two.weights, two.biases = two.weights - lr * dm.T, two.biases - lr * dc

    return step, Holder(layers=layers), *batch()


def a_dict_that_the_step_fills():
    m = dict(zip(("W1", "b1", "weights", "bias"), start(), strict=True))
    m |= {"cache": {"x": np.zeros((7, 7))}, "dW1": np.zeros_like(m["W1"]), "lr": 0.25}

    def step(m, x, y):
        keys = ("W1", "b1", "weights", "bias")
        for key, g in zip(keys, gradients([m[k] for k in keys], x, y), strict=True):
            m[f"d{key}"], m[key] = g, m[key] - m["lr"] * g
        m["cache"] = {"x": x}

    return step, m, *batch()


def columns_of_a_vector():
    arrays = start()
    ends = np.cumsum([a.size for a in arrays])[:-1]

    def step(theta, x, y, alpha=0.1):
        parts = zip(np.split(theta, ends), arrays, strict=True)
        g = gradients([part.reshape(a.shape, order="F") for part, a in parts], x, y)
        return theta - alpha * np.concatenate([a.ravel(order="F") for a in g])

    return step, np.concatenate([a.ravel(order="F") for a in arrays]), *batch()


STYLES = [
    objects_a_filter_and_a_unit,
    values_with_gradients_and_names_of_their_own,
    layers_with_momentum_and_gradients,
    a_dict_that_the_step_fills,
    columns_of_a_vector,
]


@pytest.mark.parametrize("named", [True, False], ids=["net", "no net"])
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.__name__)
def test_a_right_program_is_right(style, named):
    step, weights, x, y = style()
    net = fb.Network.parse(TEXT, (1, 8, 7))
    if style is columns_of_a_vector and not named:
        with pytest.raises(fb.OptionError, match="no network of"):
            fb.diagnose_program(step, weights, x, y)
        return
    found = fb.diagnose_program(step, weights, x, y, net=net if named else None)
    assert found.ok, str(found)
    assert len(found.right) == 4


def test_a_batch_is_judged_as_a_batch():
    def step(params, x, y):  # of a single image nothing is lost
        last = gradients(params, x[-1:], y[-1:])
        return [p - 0.5 * g / len(x) for p, g in zip(params, last, strict=True)]

    found = fb.diagnose_program(step, start(), *batch(), lr=0.5)
    assert [f.mistake for f in found.findings] == ["last-sample-only"]


def test_what_the_shapes_of_the_weights_do_not_confirm_is_refused():
    def step(params, x, y):  # no network has such gradients
        rng = np.random.default_rng(0)
        return [p - rng.normal(size=p.shape) for p in params]

    with pytest.raises(fb.OptionError, match=r"^nothing that the step computed confirms .* net="):
        fb.diagnose_program(step, start(), *batch(), returns="weights")


def test_a_gradient_is_not_left_out_in_silence():
    net = fb.Network.parse(TEXT, (1, 8, 7))
    with pytest.raises(fb.OptionError, match="no gradient is called 'nonsense'"):
        fb.diagnose(net, *batch(), {"W1": np.zeros((3, 1, 3, 3)), "nonsense": np.zeros(77)})


class TestWhatIsNoArray:
    """What stands where a gradient belongs is refused, and not left out."""

    net = fb.Network.parse("conv1 relu flatten dense3", (1, 4, 4), dtype="float64", seed=0)
    x, y = fb.probe(net)
    right = net.trace(x, y).gradients

    @pytest.mark.parametrize("value", [5.0, np.float64(5), [], {}, "x", None, True, np.array(None)])
    def test_in_a_dict(self, value):
        for given in (
            {**self.right, "conv1.weight": value},
            {"conv1": {"W": value, "b": self.right["conv1.bias"]}, "dense1": None}
            if value is not None
            else {"conv1.bias": None},
        ):
            with pytest.raises(InputError, match="must be an array of numbers"):
                fb.diagnose(self.net, self.x, self.y, given)

    @pytest.mark.parametrize("value", [5.0, np.float64(5), "x", True])
    def test_in_a_list(self, value):
        w, _, matrix, c = self.right.values()
        with pytest.raises(InputError, match="gradients: 1 must be an array of numbers"):
            fb.diagnose(self.net, self.x, self.y, [w, value, matrix, c])

    def test_a_single_number_is_the_bias_of_one_unit(self):
        given = {**self.right, "conv1.bias": float(self.right["conv1.bias"][0])}
        found = fb.diagnose(self.net, self.x, self.y, given)
        assert "conv1.bias" in found.right
        assert not any("left out" in note and "a number" in note for note in found.notes)

    def test_it_is_named(self):
        torch = pytest.importorskip("torch")
        half = {name: torch.tensor(g).bfloat16() for name, g in self.right.items()}
        for given in (half, list(half.values())):
            with pytest.raises(InputError, match=r"got an array of torch\.bfloat16"):
                fb.diagnose(self.net, self.x, self.y, given)

    def test_a_loss_beside_the_gradients_and_layers_without_any_are_none(self):
        found = fb.diagnose(self.net, self.x, self.y, {**self.right, "loss": 0.3, "epoch": 1})
        assert len(found.right) == 4
        assert "loss is a number and no gradient, and was left out" in found.notes
        w, b, matrix, c = self.right.values()
        layers = [{"W": w, "b": b}, {}, None, {"W": matrix, "b": c}]
        assert len(fb.diagnose(self.net, self.x, self.y, layers).right) == 4


class TestCircles:
    """Containers that refer to each other are read once each."""

    net = fb.Network.parse(TEXT, (1, 8, 7))

    @staticmethod
    def layers():
        w, b, matrix, c = start()
        one, two = {"W": w, "b": b}, {"W": matrix, "b": c}
        one["next"], two["prev"] = two, one
        return [one, two]

    @staticmethod
    def step(layers, x, y, lr=0.1):
        arrays = [layer[key] for layer in layers for key in ("W", "b")]
        dw, db, dm, dc = gradients(arrays, x, y)
        for layer, d, e in zip(layers, (dw, dm), (db, dc), strict=True):
            layer["W"], layer["b"] = layer["W"] - lr * d, layer["b"] - lr * e

    def test_of_dicts(self):
        layers, (x, y) = self.layers(), batch()
        assert len(fb.diagnose_program(self.step, layers, x, y).right) == 4
        found = fb.diagnose(self.net, x, y, self.right(x, y), weights=layers)
        assert len(found.right) == 4

    def test_of_objects(self):
        one, two = (Holder(W=layer["W"], b=layer["b"]) for layer in self.layers())
        model = Holder(a=one, c=two)
        one.next, two.prev, one.model, two.model = two, one, model, model

        def step(x, y, lr=0.1):
            self.step([vars(one), vars(two)], x, y, lr)

        assert len(fb.diagnose_program(step, model, *batch()).right) == 4

    def test_of_gradients(self):
        x, y = batch()
        given = self.right(x, y)
        given["self"] = given
        assert len(fb.diagnose(self.net, x, y, given, weights=self.layers()).right) == 4

    @staticmethod
    def right(x, y):
        return dict(zip(("dW1", "db1", "dW2", "db2"), gradients(start(), x, y), strict=True))
