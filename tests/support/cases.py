"""The cases that every test of a layer runs over, and how far two results may lie apart.

Whatever computes a layer is given the same three things, ``inputs(case, dtype)``, and answers with
the same dict, ``{"y": ..., "dx": ..., "dweight": ..., "dbias": ...}``. ``reference`` is the answer
of the layer's own page, and ``rounding`` says cell by cell by how much another right answer, in
another order of summation or with float32 for float64, can differ from it.

For whole networks such bounds would be products of worst cases; there ``noisy_trace`` puts
rounding's usual size on everything that a network computes, and ``assert_rounded`` compares with
what comes of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fullback import Network
from fullback.layers import (
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    LeakyReLU,
    MaxPool2D,
    MeanSquaredError,
    Normalize,
    ReLU,
    Sigmoid,
    Tanh,
)
from fullback.passes import Seed, Trace, random_key, scaled

Array: TypeAlias = NDArray[Any]
Results: TypeAlias = dict[str, Array]


@dataclass(frozen=True)
class Case:
    """One layer on one shape of batch.

    ``values`` says what the cells are: "distinct" ones, apart from each other and from 0, where
    every layer has a derivative; or "ties", mostly zeros and otherwise a few whole numbers, as in
    a drawn digit, where max pooling and the rectifiers have to choose one.
    """

    name: str
    layer: Layer
    input_shape: tuple[int, ...]
    batch: int
    training: bool = False
    values: Literal["distinct", "ties"] = "distinct"
    key: int = 7

    def __str__(self) -> str:
        return self.name

    @property
    def differentiable(self) -> bool:
        """Whether the layer has a derivative at the case's input."""
        chooses = isinstance(self.layer, MaxPool2D | ReLU | LeakyReLU)
        return not (chooses and self.values == "ties")

    @property
    def by_image(self) -> bool:
        """Whether an image's results depend on that image alone, and not on the batch."""
        return not (self.training and isinstance(self.layer, BatchNorm2D | Dropout))


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a layer is given: x (N, *input_shape), its parameters and statistics, the delta dy."""

    x: Array
    parameters: dict[str, Array]
    dy: Array


def _cases() -> Iterator[Case]:
    # Convolution: shapes
    yield Case("conv-one-filter", Conv2D(1), (1, 6, 6), 3)
    yield Case("conv-one-image", Conv2D(4), (3, 6, 7), 1)
    yield Case("conv-17-images", Conv2D(3), (2, 5, 4), 17)
    yield Case("conv-one-row", Conv2D(2), (3, 1, 6), 3)
    yield Case("conv-one-column", Conv2D(2), (3, 6, 1), 3)
    yield Case("conv-one-cell", Conv2D(3), (2, 1, 1), 3)
    yield Case("conv-9-filters", Conv2D(9), (5, 4, 5), 17)
    yield Case("conv-ties", Conv2D(2), (2, 5, 6), 3, values="ties")
    # Convolution: filters
    yield Case("conv-1x1", Conv2D(5, 1), (3, 4, 5), 3)
    yield Case("conv-2x2-same", Conv2D(3, 2), (2, 5, 4), 3)
    yield Case("conv-4x4-same", Conv2D(2, 4), (3, 6, 5), 1)
    yield Case("conv-3x5", Conv2D(4, (3, 5)), (2, 6, 7), 3)
    yield Case("conv-5x2-valid", Conv2D(2, (5, 2), padding="valid"), (3, 7, 4), 17)
    yield Case("conv-1x3", Conv2D(3, (1, 3)), (2, 4, 5), 3)
    yield Case("conv-2x3-9-filters", Conv2D(9, (2, 3), padding="valid"), (3, 3, 18), 3)
    yield Case("conv-5x5-9-filters", Conv2D(9, 5), (3, 5, 11), 17)
    yield Case("conv-7x7", Conv2D(5, 7), (2, 8, 7), 3)
    yield Case("conv-1x1-9-channels", Conv2D(9, 1), (9, 3, 16), 17)
    yield Case("conv-whole-image", Conv2D(5, (4, 3), padding="valid"), (2, 4, 3), 3)
    yield Case("conv-wider-than-image", Conv2D(2, 5), (3, 2, 3), 3)
    # Convolution: padding
    yield Case("conv-valid", Conv2D(3, padding="valid"), (2, 5, 6), 3)
    yield Case("conv-padding-2", Conv2D(2, padding=2), (3, 4, 5), 3)
    yield Case("conv-padding-0x2", Conv2D(4, padding=(0, 2)), (2, 4, 5), 1)
    yield Case("conv-padding-wider-than-filter", Conv2D(2, 2, padding=3), (3, 3, 4), 3)
    # Convolution: stride
    yield Case("conv-stride-2-same", Conv2D(3, stride=2), (2, 7, 6), 3)
    yield Case("conv-stride-2-valid-leftover", Conv2D(3, stride=2, padding="valid"), (2, 6, 8), 17)
    yield Case("conv-stride-3-leftovers", Conv2D(2, stride=3, padding="valid"), (3, 8, 7), 3)
    yield Case("conv-stride-3-same", Conv2D(2, stride=3), (1, 7, 8), 3)
    yield Case("conv-stride-2x1", Conv2D(4, stride=(2, 1)), (2, 6, 5), 3)
    yield Case("conv-stride-1x3", Conv2D(2, stride=(1, 3), padding=1), (3, 5, 9), 1)
    yield Case("conv-stride-skips-cells", Conv2D(3, 2, stride=3, padding="valid"), (2, 7, 9), 3)
    yield Case("conv-1x1-stride-2", Conv2D(3, 1, stride=2), (2, 5, 6), 3)
    # Convolution: dilation, groups, bias
    yield Case("conv-dilation-2-same", Conv2D(3, dilation=2), (2, 6, 7), 3)
    yield Case("conv-dilation-2x3", Conv2D(2, dilation=(2, 3), padding="valid"), (3, 7, 8), 3)
    yield Case("conv-dilated-2x2-same", Conv2D(2, 2, dilation=3), (1, 6, 5), 3)
    yield Case("conv-dilation-stride", Conv2D(3, 3, 2, "same", 2), (2, 8, 9), 1)
    yield Case("conv-stride-4-dilation-2", Conv2D(2, 5, 4, "same", 2), (2, 13, 10), 3)
    yield Case("conv-stride-6-dilation-4", Conv2D(2, 4, 6, "same", 4, groups=2), (4, 15, 9), 3)
    yield Case("conv-stride-longer-than-image", Conv2D(3, 2, stride=(5, 9)), (2, 4, 6), 17)
    yield Case("conv-groups-2", Conv2D(6, groups=2), (4, 5, 6), 3)
    yield Case("conv-groups-3", Conv2D(3, groups=3, padding="valid"), (6, 4, 5), 17)
    yield Case("conv-depthwise", Conv2D(4, groups=4), (4, 5, 6), 3)
    yield Case("conv-depthwise-double", Conv2D(6, groups=3, padding=(1, 0)), (3, 4, 6), 3)
    yield Case("conv-no-bias", Conv2D(3, bias=False), (2, 5, 6), 3)
    yield Case(
        "conv-all-options", Conv2D(6, (3, 2), (2, 3), (2, 1), (1, 2), 2, False), (4, 8, 9), 3
    )
    # Pooling, of both kinds
    for pool in (MaxPool2D, AvgPool2D):
        kind = pool.kind
        yield Case(f"{kind}-2", pool(), (2, 4, 6), 3)
        yield Case(f"{kind}-leftovers", pool(), (3, 5, 7), 17)
        yield Case(f"{kind}-overlapping", pool(3, stride=2), (2, 7, 6), 3)
        yield Case(f"{kind}-3-stride-1", pool(3, stride=1), (1, 5, 6), 1)
        yield Case(f"{kind}-pairs", pool((2, 3), stride=(1, 2)), (2, 5, 8), 3)
        yield Case(f"{kind}-padding-1", pool(3, stride=2, padding=1), (2, 5, 6), 3)
        yield Case(f"{kind}-padding-1x0", pool((2, 3), padding=(1, 0)), (3, 5, 7), 1)
        yield Case(f"{kind}-same", pool(padding="same"), (2, 5, 7), 3)
        yield Case(f"{kind}-3-same", pool(3, stride=1, padding="same"), (2, 4, 5), 3)
        yield Case(f"{kind}-skips-cells", pool(2, stride=3), (2, 8, 7), 3)
        yield Case(f"{kind}-skips-cells-same", pool(2, stride=3, padding="same"), (1, 7, 5), 3)
        yield Case(f"{kind}-1-stride-2", pool(1, stride=2), (2, 5, 4), 3)
        yield Case(f"{kind}-whole-image", pool((3, 4)), (4, 3, 4), 3)
        yield Case(f"{kind}-ties", pool(), (2, 6, 8), 17, values="ties")
        yield Case(f"{kind}-overlapping-ties", pool(3, stride=2), (2, 7, 7), 3, values="ties")
        yield Case(f"{kind}-padding-ties", pool(3, 1, 1), (2, 5, 4), 3, values="ties")
    yield Case("globalavgpool", GlobalAvgPool2D(), (3, 4, 5), 3)
    yield Case("globalavgpool-17-images", GlobalAvgPool2D(), (2, 3, 3), 17)
    yield Case("globalavgpool-one-cell", GlobalAvgPool2D(), (4, 1, 1), 1)
    # Fully connected layers
    for batch in (1, 3, 17):
        yield Case(f"flatten-{batch}-images", Flatten(), (2, 3, 4), batch)
        yield Case(f"dense-{batch}-images", Dense(5), (7,), batch)
    yield Case("flatten-flat", Flatten(), (6,), 3)
    yield Case("dense-no-bias", Dense(4, bias=False), (9,), 3)
    yield Case("dense-one-unit", Dense(1), (33,), 3)
    yield Case("dense-one-feature", Dense(3), (1,), 17)
    yield Case("dense-11-units", Dense(11), (70,), 17)
    yield Case("dense-many-units", Dense(515), (21,), 3)
    yield Case("dense-1024-features", Dense(3), (1024,), 3)
    # Activations
    for layer in (ReLU(), LeakyReLU(), LeakyReLU(0.25), Sigmoid(), Tanh()):
        kind = f"{layer.kind}{getattr(layer, 'slope', '')}"
        yield Case(f"{kind}-image", layer, (2, 3, 5), 3)
        yield Case(f"{kind}-flat", layer, (11,), 17)
        yield Case(f"{kind}-ties", layer, (3, 4, 2), 1, values="ties")
    # Dropout and normalisation
    for training, mode in ((True, "training"), (False, "prediction")):
        yield Case(f"dropout-{mode}", Dropout(), (2, 4, 5), 3, training)
        yield Case(f"dropout0.2-{mode}-flat", Dropout(0.2), (13,), 17, training)
        yield Case(f"dropout0-{mode}", Dropout(0.0), (1, 3, 3), 1, training)
        # A frozen BatchNorm2D runs as in prediction, and still has gradients.
        yield Case(f"batchnorm-{mode}", BatchNorm2D(), (3, 4, 5), 3, training)
        yield Case(f"batchnorm-{mode}-one-image", BatchNorm2D(), (2, 5, 3), 1, training)
        yield Case(f"batchnorm-{mode}-17-images", BatchNorm2D(epsilon=0.1), (2, 2, 3), 17, training)
        yield Case(f"batchnorm-{mode}-one-value", BatchNorm2D(), (4, 1, 1), 1, training)
        yield Case(f"normalize-{mode}", Normalize(), (3, 4, 5), 3, training)
    yield Case("normalize-flat", Normalize(), (6,), 17)
    yield Case("normalize-one-image", Normalize(), (1, 3, 3), 1)


CASES = list(_cases())


def inputs(case: Case, dtype: DTypeLike = "float64", seed: int = 0) -> Inputs:
    """Draw a case's inputs: numbers that float32 holds exactly, so the same in every dtype."""
    rng = np.random.default_rng([seed, *case.name.encode()])
    shapes = {
        **case.layer.parameter_shapes(case.input_shape),
        **case.layer.statistic_shapes(case.input_shape),
    }
    positive = ("variance", "deviation")
    parameters = {
        name: rng.uniform(0.5, 2.0, shape) if name in positive else rng.normal(size=shape)
        for name, shape in shapes.items()
    }
    dy = rng.normal(size=(case.batch, *case.layer.output_shape(case.input_shape)))
    x = (_distinct if case.values == "distinct" else _ties)(rng, case.batch, case.input_shape)
    return Inputs(
        _cast(x, dtype), {k: _cast(p, dtype) for k, p in parameters.items()}, _cast(dy, dtype)
    )


def _distinct(rng: np.random.Generator, batch: int, shape: tuple[int, ...]) -> Array:
    """Cells of about -1.3 to 2.7, in each image at least half a step of 4 / cells apart, and at
    least a quarter of a step from 0."""
    cells = int(np.prod(shape))
    places = rng.permuted(np.tile(np.arange(cells), (batch, 1)), axis=1)
    places = places - cells // 3 + 0.5 + rng.uniform(-0.25, 0.25, places.shape)
    return (places * (4 / cells)).reshape(batch, *shape)


def _ties(rng: np.random.Generator, batch: int, shape: tuple[int, ...]) -> Array:
    """Three quarters zeros, otherwise -1, 1 or 2."""
    size = (batch, *shape)
    return np.where(rng.random(size) < 0.75, 0.0, rng.choice([-1.0, 1.0, 2.0], size))


def _cast(array: Array, dtype: DTypeLike) -> Array:
    return np.asarray(array, np.float32).astype(dtype)


def reference(case: Case, given: Inputs) -> Results:
    """Return the layer's output, next delta and gradients."""
    y, kept = case.layer.forward(
        given.x, given.parameters, training=case.training, rng_key=case.key
    )
    dx, gradients = case.layer.backward(given.dy, kept, given.parameters)
    return {"y": y, "dx": dx, **{f"d{name}": value for name, value in gradients.items()}}


def rounding(case: Case, given: Inputs, dtype: DTypeLike) -> Results:
    """Return how far each result in ``dtype`` may be from the exact one, cell by cell.

    A sum of n products, in any order, is off by at most n u / (1 - n u) times the sum of the
    products' absolute values, where u is half of eps (Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, section 3.1). Here n eps is allowed, so that two computed results may be
    compared, with n + 4 for n, for the few operations beside the sum. The sum of the absolute
    values is the layer's own result for absolute values.
    """
    terms, sizes = _terms(case), _magnitudes(case, given)
    eps = float(np.finfo(dtype).eps)
    return {name: (terms[name] + 4) * eps * size for name, size in sizes.items()}


def _terms(case: Case) -> dict[str, int]:
    """Count the products that are added up in one cell of each result."""
    layer, batch = case.layer, case.batch
    output_shape = layer.output_shape(case.input_shape)
    everywhere = batch * int(np.prod(output_shape[1:]))  # N P Q
    count = {"y": 1, "dx": 1, "dweight": everywhere, "dbias": everywhere}
    if isinstance(layer, Conv2D):
        filters, channels, rows, columns = layer.parameter_shapes(case.input_shape)["weight"]
        count["y"] = channels * rows * columns + 1
        count["dx"] = filters // layer.groups * rows * columns
    elif isinstance(layer, Dense):
        count["y"], count["dx"] = case.input_shape[0] + 1, layer.units
    elif isinstance(layer, MaxPool2D | AvgPool2D):
        rows, columns = (layer.size, layer.size) if isinstance(layer.size, int) else layer.size
        count["y"] = count["dx"] = rows * columns
    elif isinstance(layer, GlobalAvgPool2D):
        count["y"] = case.input_shape[1] * case.input_shape[2]
    elif isinstance(layer, BatchNorm2D) and case.training:
        count["y"] = count["dx"] = everywhere
    return count


def _magnitudes(case: Case, given: Inputs) -> Results:
    """Return the sums of absolute values behind every result, in float64."""
    x, dy = given.x.astype(np.float64), np.abs(given.dy, dtype=np.float64)
    parameters = {name: np.abs(p, dtype=np.float64) for name, p in given.parameters.items()}
    if isinstance(case.layer, Sigmoid | Tanh):  # outputs and slopes are at most 1
        return {"y": np.ones_like(x), "dx": dy}
    if isinstance(case.layer, Normalize):  # x - m has an error of |x| + |m|, which 1 / s magnifies
        mean, deviation = (
            parameters[name].reshape(-1, *itertools.repeat(1, x.ndim - 2))
            for name in ("mean", "deviation")
        )
        return {"y": (abs(x) + mean) / deviation, "dx": dy / deviation}
    if isinstance(case.layer, BatchNorm2D):
        return _batchnorm_magnitudes(case, x, parameters, dy)
    if not isinstance(case.layer, MaxPool2D | ReLU | LeakyReLU):  # these choose by the sign of x
        x = abs(x)
    results = reference(case, Inputs(x, parameters, dy))
    return {**results, "y": abs(results["y"])}


def _batchnorm_magnitudes(case: Case, x: Array, parameters: dict[str, Array], dy: Array) -> Results:
    """Follow the errors of mean m and variance v, which x itself moves, through the formulas.

    z = (x - m) / sqrt(v + eps) has errors of Z = (|x| + 2 mean |x|) / sqrt(v + eps): m has those
    of mean |x|, and that of v is a share of z. The sums over dy z have those of |dy| z, and of
    dy Z. In dx, the product of z and such a sum has both.
    """
    over = (0, 2, 3)
    around = abs(x).mean(axis=over, keepdims=True)
    variance = x.var(axis=over, keepdims=True)
    weight, bias = (parameters[name][:, None, None] for name in ("weight", "bias"))
    if not case.training:
        around, variance = (parameters[n][:, None, None] for n in ("mean", "variance"))
    scale = 1 / np.sqrt(variance + case.layer.epsilon)
    z = (abs(x) + 2 * around) * scale
    through = dy
    if case.training:
        through = dy + dy.mean(axis=over, keepdims=True)
        through = through + 4 * z * (dy * z).mean(axis=over, keepdims=True)
    return {
        "y": weight * z + bias,
        "dx": weight * scale * through,
        "dweight": 2 * (dy * z).sum(axis=over),
        "dbias": dy.sum(axis=over),
    }


# Networks -----------------------------------------------------------------------------------------

EPS = float(np.finfo(np.float32).eps)


def in_float64(net: Network) -> Network:
    """Return a float64 network with the same layers, numbers and frozen layers."""
    double = Network(net.layers, net.input_shape, loss=net.loss, dtype="float64")
    for own, theirs in ((double.parameters, net.parameters), (double.statistics, net.statistics)):
        for name, array in theirs.items():
            own[name] = array
    if net.frozen:
        double.freeze(*net.frozen)
    return double


def noisy_trace(
    net: Network,
    x: Array,
    targets: Array,
    sample_weight: Array | None = None,
    *,
    training: bool,
    seed: Seed,
    rng: np.random.Generator,
) -> Trace:
    """Run checked images and targets through a float64 network, with the noise of float32.

    A sum of n terms that are rounded one by one is off by about eps sqrt(n) of what it usually is
    (Higham, section 4.2: the errors are as good as random, and so is their sum): that is what every
    cell of every layer's output, next delta and gradients is changed by, with n + 4 for n as in
    ``rounding``. What only chooses among cells changes nothing. The exponentials, which are at most
    1, and their logarithms get 4 eps. Batch normalisation subtracts what is alike, so that little
    may be left: there the mean gets noise, and every term of the backward pass.
    """

    def signs(shape: tuple[int, ...] = ()) -> Array:
        return rng.integers(0, 2, shape) * 2.0 - 1

    def shaken(array: Array, terms: int) -> Array:
        return array * (1 + EPS * (terms + 4) ** 0.5 * signs(array.shape))

    images = scaled(x, net.dtype)
    activations = [images if x.dtype == np.float32 else shaken(images, 0)]
    kept, counts = [], []
    for index, (name, layer) in enumerate(zip(net.names, net.layers, strict=True)):
        given = activations[-1]
        active = training and name not in net.frozen
        own = net.arrays_of(name)
        y, memory = layer.forward(given, own, training=active, rng_key=random_key(seed, index))
        exact = y
        terms = _terms(Case(name, layer, given.shape[1:], len(given), active))
        if isinstance(layer, BatchNorm2D):
            z, scale, batch = memory
            mean = own["mean"] if batch is None else batch[0]
            z = z + ((shaken(mean, terms["y"]) - mean) * scale)[:, None, None]
            memory = z, scale, batch
            y = own["weight"][:, None, None] * z + own["bias"][:, None, None]
        chooses = isinstance(layer, Flatten | MaxPool2D | ReLU)
        y = y if chooses else shaken(y, terms["y"])
        activations.append(y)
        kept.append(y if memory is exact else memory)  # a Sigmoid and a Tanh keep their y
        counts.append(None if chooses else terms)
    if isinstance(net.loss, MeanSquaredError):
        targets = shaken(targets, 0)
    loss, memory = net.loss.forward(activations[-1], targets, sample_weight)
    loss += 4 * EPS * signs() * (1 + abs(loss))
    shares = 1 / len(x) if sample_weight is None else (sample_weight / sum(sample_weight))[:, None]
    delta = net.loss.backward(memory)
    delta += 4 * EPS * signs(delta.shape) * shares
    deltas, gradients = [delta], {}
    for name, layer, memory, terms in zip(
        net.names[::-1], net.layers[::-1], kept[::-1], counts[::-1], strict=True
    ):
        dy = delta
        delta, own = layer.backward(dy, memory, net.arrays_of(name))
        if isinstance(layer, BatchNorm2D):
            sizes = _terms_of_batchnorm(dy, memory, net.arrays_of(name)["weight"])
            results = {"dx": delta, **own}
            for key, size in sizes.items():
                results[key] = results[key] + EPS * signs(size.shape) * size
            delta, own = results.pop("dx"), results
        if terms is not None:
            delta = shaken(delta, terms["dx"])
            own = {key: shaken(gradient, terms[f"d{key}"]) for key, gradient in own.items()}
        deltas.append(delta)
        gradients |= {f"{name}.{key}": gradient for key, gradient in own.items()}
    names = ("input", *net.names)
    return Trace(
        loss=loss,
        activations=dict(zip(names, activations, strict=True)),
        deltas=dict(zip(names, deltas[::-1], strict=True)),
        gradients={name: gradients[name] for name in net.parameters},
        probabilities=net.loss.probabilities(activations[-1]),
        kept=tuple(kept),
    )


def _terms_of_batchnorm(dy: Array, kept: Any, weight: Array) -> Results:
    """Return the sums of the absolute values of the terms of ``layers/norm.py``'s results."""
    z, scale, _ = kept
    over = (0, 2, 3)
    means = [abs(own).mean(axis=over, keepdims=True) for own in (dy, dy * z)]
    return {
        "dx": abs(weight * scale)[:, None, None] * (abs(dy) + means[0] + abs(z) * means[1]),
        "weight": abs(dy * z).sum(axis=over),
        "bias": abs(dy).sum(axis=over),
    }


def assert_rounded(
    actual: Results, exact: Results, noisy: list[Results], floor: dict[str, float] | None = None
) -> None:
    """Assert that float32 results are not further from the exact ones than noise takes them.

    Compared are root mean squares over an array, and over the noisy results. Of many numbers that
    of the noise is well above, as one rounding changes a number by eps / 2 at most; three times it
    is allowed, because that of a single number is measured badly by a few draws. What is below the
    smallest normal number, float32 results may count as 0. ``floor`` comes on top.
    """
    assert actual.keys() == exact.keys()
    for name, wanted in exact.items():
        assert actual[name].shape == wanted.shape
        assert np.isfinite(actual[name]).all(), name
        tiny = float(np.finfo(np.float32).tiny) + (floor[name] if floor else 0.0)
        usual = np.mean([_root_mean_square(other[name] - wanted) ** 2 for other in noisy]) ** 0.5
        error = _root_mean_square(actual[name] - wanted)
        assert error <= 3 * (usual + tiny), (
            f"{name}: off by {error:.3g}, where {usual:.3g} is usual"
        )


def _root_mean_square(array: Array) -> float:
    return float((np.asarray(array, np.float64) ** 2).mean() ** 0.5)
