"""check_layer on layers in the styles of others, right and wrong."""

import copy
import functools
import itertools

import numpy as np
import pytest

import fullback as fb
from fullback.check.layer import check_layer
from layer_styles import classes, functions, others

RNG = np.random.default_rng(1)


def negative_crop(dout, cache):
    return functions.conv_backward_naive(dout, cache, "negative")


def assigned(dout, cache):
    return functions.max_pool_backward_naive(dout, cache, add=False)


def turned(delta, images, w):
    return functions.cnn_convolve_grad(delta, images, w, turned=True)


def convolution(**options):
    return classes.Convolution(RNG.normal(size=(3, 2, 3, 3)), np.zeros(3), 2, 1, **options)


RIGHT = {
    "affine": ((functions.affine_forward, functions.affine_backward), "dense"),
    "conv-param": ((functions.conv_forward_naive, functions.conv_backward_naive), "conv2d"),
    "pool-param": (
        (functions.max_pool_forward_naive, functions.max_pool_backward_naive),
        "maxpool2d",
    ),
    "bn-param": ((functions.batchnorm_forward, functions.batchnorm_backward), "batchnorm"),
    "dropout-param": ((functions.dropout_forward, functions.dropout_backward), "dropout"),
    "loss-and-dx": ((functions.softmax_loss,), "softmax_cross_entropy"),
    "hparameters-average": ((functions.pool_forward, functions.pool_backward), "avgpool2d"),
    "columns": ((functions.linear_forward, functions.linear_backward), "dense"),
    "cache-is-z": ((functions.sigmoid, functions.sigmoid_backward), "sigmoid"),
    "softmax-columns": ((functions.softmax_columns, functions.softmax_columns_backward), "softmax"),
    "one-channel": ((classes.Conv3x3(5),), "conv2d"),
    "bias-by-cell": ((classes.Convolutional((2, 6, 7), 3, 4),), "conv2d"),
    "one-column": ((classes.ColumnDense(5, 3),), "dense"),
    "im2col": ((convolution(),), "conv2d"),
    "loss-object": ((classes.SoftmaxWithLoss(),), "softmax_cross_entropy"),
    "dropout-object": ((classes.Dropout(),), "dropout"),
    "sigmoid-object": ((classes.Sigmoid(),), "sigmoid"),
    "optimizer-inside": ((classes.OptimizedDense(4, (5,)),), "dense"),
    "module": ((classes.Linear(5, 4),), "dense"),
    "pure-tuple": ((functions.apply, functions.apply_vjp), "dense"),
    "pure-dict": ((functions.apply_dict, functions.apply_dict_vjp), "dense"),
    "images-last": ((functions.cnn_convolve, functions.cnn_convolve_grad), "conv2d"),
    "true-convolution": ((classes.TrueConvolution(),), "conv2d"),
    "loops": ((classes.LoopDense(5, 4),), "dense"),
    "first-shape": ((classes.FirstShape(),), "tanh"),
    "own-rate": ((classes.ChannelsLastConv(),), "conv2d"),
    "tanh": ((functions.smooth("tanh").f, functions.smooth("tanh").back), "tanh"),
    "no-bias": ((functions.filter_images, functions.filter_images_backward), "conv2d"),
    "late-weights": ((others.LateWeights(4),), "dense"),
    "bias-first": ((others.bias_first, others.bias_first_backward), "dense"),
    "leaky": ((others.Leaky(0.3),), "leaky_relu"),
    "masked": ((others.MaskedRelu(),), "relu"),
    "lists-of-parameters": ((others.ListedAffine(),), "dense"),
    "batchnorm-object": ((others.BatchNormalization(),), "batchnorm"),
    "derivative-handed-in": ((others.Activation(np.tanh, lambda x: 1 - np.tanh(x) ** 2),), "tanh"),
    "softmax-column": ((others.SoftmaxColumn(),), "softmax"),
    "targets-first": ((others.TargetsFirst(),), "softmax_cross_entropy"),
    "plain-lists": ((others.NeuronLists(),), "dense"),
    "float32": ((others.SinglePrecision(),), "dense"),
    "float32-mean": ((others.SinglePrecision(average=True),), "dense"),
    "momentum": ((others.Momentum(),), "dense"),
    "generator": ((others.GeneratorDropout(0.3),), "dropout"),
    "closure": ((others.tanh_with_closure,), "tanh"),
}


@pytest.mark.parametrize("style", RIGHT)
def test_right_styles(style):
    arguments, kind = RIGHT[style]
    result = check_layer(*arguments, kind=kind)
    assert result.ok, str(result)
    assert len(result.judged) >= (kind in ("conv2d", "dense", "batchnorm")) + 1 - (
        style == "one-channel"
    )
    assert max(row.error for row in result.rows) < (1e-2 if "float32" in style else 1e-6)


WRONG = {
    "pool-assigned": (
        (functions.max_pool_forward_naive, assigned),
        "maxpool2d",
        {("pool-overlap-assigned", "dx")},
    ),
    "pool-ties": ((functions.pool_forward, functions.pool_backward), "maxpool2d",
                  {("pool-ties-all", "dx")}),
    "pool-ties-one-image": ((classes.MaxPool2(),), "maxpool2d", {("pool-ties-all", "dx")}),
    "dropout": ((functions.dropout_forward, functions.dropout_backward_no_mask), "dropout",
                {("dropout-mask-lost", "dx")}),
    "padding-0": ((functions.conv_forward_naive, negative_crop), "conv2d", {(None, "dx")}),
    "padding-0-fails": ((functions.conv_forward, functions.conv_backward), "conv2d",
                        {(None, "backward")}),
    "last-region": ((classes.Conv3x3LastRegion(5),), "conv2d", {("taps-overwritten", "dfilters")}),
    "not-turned": ((classes.Convolutional((2, 6, 7), 3, 4, turn=False),), "conv2d",
                   {("filter-not-turned", "dx")}),
    "early": ((classes.ColumnDense(5, 3, early=True),), "dense", {("weights-updated-early", "dx")}),
    "columns-mixed": ((convolution(mixed=True),), "conv2d",
                      {("images-mixed", "dx"), ("images-mixed", "dW")}),
    "sigmoid-twice": ((classes.SigmoidOfSigmoid(),), "sigmoid", {("slope-at-wrong-place", "dx")}),
    "tanh-of-z": ((functions.smooth("tanh-of-z").f, functions.smooth("tanh-of-z").back), "tanh",
                  {("slope-at-wrong-place", "dx")}),
    "softmax-diagonal": ((functions.softmax_columns, lambda dy, cache: dy * cache * (1 - cache)),
                         "softmax", {("softmax-diagonal", "dx")}),
    "turned": (
        (functions.cnn_convolve, turned),
        "conv2d",
        {("weight-gradient-turned", "dw")},
    ),
    "first-input": ((classes.FirstInput(),), "tanh", {("cache-overwritten", "dx")}),
    "added": ((classes.ChannelsLastConv(sign=-1),), "conv2d", {("sign-flipped", "dkernels")}),
}  # fmt: skip


@pytest.mark.parametrize("style", WRONG)
def test_wrong_styles(style):
    arguments, kind, wanted = WRONG[style]
    result = check_layer(*arguments, kind=kind)
    assert not result.ok
    assert {(one.mistake, one.quantity) for one in result.findings} == wanted, str(result)


def test_a_failure_is_told_with_its_setting_and_the_others_are_judged():
    result = check_layer(functions.conv_forward, functions.conv_backward, kind="conv2d")
    (finding,) = result.findings
    assert "could not broadcast" in finding.message
    assert finding.message.endswith("at stride 1, padding 0 and stride 2, padding 0")
    assert {row.probe.partition(":")[0] for row in result.rows} == {
        "stride 1, padding 1",
        "stride 2, padding 1",
    }
    assert result.judged == ("dx", "dw", "db")
    result = check_layer(functions.conv_forward_naive, negative_crop, kind="conv2d")
    assert "a slice like [p:-p] is empty where p is 0" in result.findings[0].message


def test_forward_that_fails_at_a_setting():
    def forward(x, w, b, conv_param):
        inside = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
        cut = conv_param["pad"] - 2
        return functions.conv_forward_naive(inside[:, :, -cut:cut, -cut:cut], w, b,
                                         {**conv_param, "pad": 0})  # fmt: skip

    def backward(dout, cache):
        dx, dw, db = functions.conv_backward_naive(dout, cache)
        return dx[:, :, 1:-1, 1:-1], dw, db

    result = check_layer(forward, backward, kind="conv2d", padding=1)
    assert result.ok, str(result)
    with pytest.raises(fb.OptionError, match="cannot call"):
        check_layer(lambda x, w, b: 1 / 0, backward, kind="conv2d")


def test_sizes_that_forward_refuses_are_not_judged():
    def forward(x):
        n, c, height, width = x.shape
        return x.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))

    def backward(dy):
        return dy.repeat(2, axis=2).repeat(2, axis=3) / 4

    result = check_layer(forward, backward, kind="avgpool2d")
    assert result.ok
    assert "right where it was judged" in str(result)
    assert any("cannot reshape" in what for what in result.not_judged)


def test_conventions_are_notes():
    result = check_layer(functions.linear_forward, functions.linear_backward, kind="dense")
    assert result.ok
    assert any("divided by the number of images" in note for note in result.notes)
    result = check_layer(classes.TrueConvolution(), kind="conv2d")
    assert any("a true convolution" in note for note in result.notes)


def test_a_rate_that_is_not_known_is_asked_for():
    class Updating(classes.ChannelsLastConv):
        def __init__(self):
            super().__init__()
            self.how_fast = self.lr
            del self.lr

        def backward(self, dout):
            self.lr = self.how_fast
            return super().backward(dout)

    result = check_layer(Updating(), kind="conv2d")
    assert "give lr=" in str(result)
    assert result.judged == ("dx",)
    assert check_layer(Updating(), kind="conv2d", lr=0.05).judged == ("dx", "dkernels", "dbias")


def test_an_object_is_left_as_it_was():
    layer = classes.ChannelsLastConv()
    before = copy.deepcopy(vars(layer))
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    check_layer(layer, kind="conv2d")
    check_layer(classes.Dropout(), kind="dropout")
    assert np.random.rand() == expected  # noqa: NPY002
    assert vars(layer).keys() == before.keys()
    np.testing.assert_array_equal(layer.kernels, before["kernels"])


# Soundness ----------------------------------------------------------------------------------------

SPOILED = {
    "random": lambda g: RNG.normal(size=g.shape) * (g.std() + 1e-3),
    "negated": lambda g: -g,
    "zeroed": lambda g: 0 * g,
    "scaled": lambda g: 1.01 * g,
    "turned": lambda g: g[(slice(None, None, -1),) * g.ndim],
    "shifted": lambda g: np.roll(g.ravel(), 1).reshape(g.shape),
}


def spoiled(value, which, spoil, changed, counter):
    """Return a nested result with its array number ``which`` spoiled."""
    if isinstance(value, np.ndarray):
        if next(counter) != which:
            return value
        wrong = spoil(value)
        changed.append(not np.allclose(wrong, value, rtol=1e-4, atol=1e-9))
        return wrong
    if isinstance(value, dict):
        return {k: spoiled(v, which, spoil, changed, counter) for k, v in value.items()}
    return type(value)(spoiled(v, which, spoil, changed, counter) for v in value)


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("style", [name for name, (pair, _) in RIGHT.items() if len(pair) == 2])
def test_spoiled_gradients_are_never_right(style, how):
    (forward, backward), kind = RIGHT[style]
    for which in range(3):
        changed = []

        def wrong(*arguments, which=which, changed=changed, **options):
            found = backward(*arguments, **options)
            return spoiled(found, which, SPOILED[how], changed, itertools.count())

        result = check_layer(forward, functools.wraps(backward)(wrong), kind=kind)
        assert result.ok != any(changed), str(result)


def edges(x, w, b):
    """A convolution, a ReLU and a pooling in one function, with its backward pass."""
    seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    z = np.einsum("ncijrs,kcrs->nkij", seen, w) + b[:, None, None]
    n, k, rows, columns = z.shape
    cells = np.maximum(z, 0).reshape(n, k, rows // 2, 2, columns // 2, 2).swapaxes(3, 4)
    cells = cells.reshape(n, k, rows // 2, columns // 2, 4)
    return cells.max(axis=-1), (x, w, seen, z, cells.argmax(axis=-1))


def edges_backward(dy, cache):
    x, w, seen, z, winner = cache
    (n, k, rows, columns), dx = z.shape, np.zeros_like(x)
    dz = np.eye(4)[winner] * dy[..., None]
    dz = dz.reshape(n, k, rows // 2, columns // 2, 2, 2).swapaxes(3, 4).reshape(z.shape) * (z > 0)
    for i, j in np.ndindex(rows, columns):
        dx[:, :, i : i + 3, j : j + 3] += np.einsum("nk,kcrs->ncrs", dz[:, :, i, j], w)
    return dx, np.einsum("nkij,ncijrs->kcrs", dz, seen), dz.sum(axis=(0, 2, 3))


@pytest.mark.parametrize("how", [*SPOILED, "right"])
@pytest.mark.parametrize("pictures", ["plain", "binary"])
def test_plain_pictures_and_edge_filters(pictures, how):
    x = np.full((2, 1, 6, 8), 0.25)
    for n in range(2):
        x[n, 0, 1 + n : 4 + n, 2:6] = 0.75
    x = (RNG.random(x.shape) < 0.5).astype(float) if pictures == "binary" else x
    w = np.array([[[[1, 0, -1.0]] * 3], [[[1, 0, -1.0]] * 3]])
    for which in range(3):
        changed = []

        def wrong(dy, cache, which=which, changed=changed):
            spoil = SPOILED.get(how, lambda g: g)
            found = edges_backward(dy, cache)
            return spoiled(found, which, spoil, changed, itertools.count())

        result = check_layer(edges, wrong, x, params=(w, np.zeros(2)), samples=3)
        assert result.ok != any(changed), str(result)
