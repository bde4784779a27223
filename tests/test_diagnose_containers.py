"""``diagnose_program``: what programs keep their weights in, and what lies beside them."""

import numpy as np
import pytest

import fullback as fb
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
