"""Every layer, on every case of ``cases.py``: shapes, derivatives, purity and rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fullback.errors import OptionError, ShapeError
from fullback.layers import (
    LAYERS,
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    LeakyReLU,
    MaxPool2D,
)
from fullback.layers.dropout import uniform
from support.cases import CASES, Array, Case, Inputs, inputs, reference, rounding

STEP = 2.0**-15
"""Step of the central differences.

Their error is a third derivative times STEP^2 / 6 = 1.6e-10, and the rounding of the outputs, some
1e-16, divided by 2 STEP = 6e-5, which is 2e-12 for each cell that moved. And no cell of a case is
as near as STEP to another one or to 0, where the derivative jumps.
"""

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def assert_within(actual: Array, desired: Array, tolerance: Array) -> None:
    """Assert that no cell differs by more than its tolerance."""
    assert actual.shape == desired.shape
    excess = np.abs(actual.astype(np.float64) - desired) - tolerance
    assert excess.max() <= 0, f"{(excess > 0).sum()} cells differ, by up to {excess.max()} more"


def test_cases_cover_every_layer_with_1_3_and_17_images() -> None:
    batches: dict[str, set[int]] = {}
    for case in CASES:
        batches.setdefault(case.layer.kind, set()).add(case.batch)
    assert batches == {kind: {1, 3, 17} for kind in LAYERS}
    assert len({case.name for case in CASES}) == len(CASES)


@every_case
@every_dtype
def test_shapes_and_dtypes_are_those_declared(case: Case, dtype: str) -> None:
    given = inputs(case, dtype)
    results = reference(case, given)
    assert results["y"].shape == (case.batch, *case.layer.output_shape(case.input_shape))
    assert results["dx"].shape == (case.batch, *case.input_shape)
    gradients = {name[1:]: a.shape for name, a in results.items() if name not in ("y", "dx")}
    assert gradients == case.layer.parameter_shapes(case.input_shape)
    assert {a.dtype for a in results.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("case", [case for case in CASES if case.differentiable], ids=str)
def test_gradients_equal_finite_differences(case: Case) -> None:
    given = inputs(case)
    results = reference(case, given)
    trained = case.layer.parameter_shapes(case.input_shape)
    for name in ("x", *trained):
        gradient = results[f"d{name}"]
        # Relative to the largest entry: a single one may be as small as cancellation makes it.
        tolerance = 1e-7 * np.abs(gradient).max()
        for direction in directions(gradient.shape):
            measured = slope(case, given, name, direction)
            assert abs(measured - (gradient * direction).sum()) <= tolerance, name


def directions(shape: tuple[int, ...]) -> list[Array]:
    """One direction with all cells, and up to 40 single cells."""
    rng = np.random.default_rng(1)
    size = int(np.prod(shape))
    every = rng.uniform(-1, 1, size)
    chosen = rng.permutation(size)[:40]
    singles = (np.arange(size) == cell for cell in chosen)
    # of length 1, so that the tolerance for a direction is the same as for a cell
    return [d.reshape(shape) for d in (every / np.linalg.norm(every), *singles)]


def slope(case: Case, given: Inputs, name: str, direction: Array) -> float:
    """Measure how sum(dy * y) changes in a direction of x or of a parameter."""

    def output(step: float) -> Array:
        if name == "x":
            moved = replace(given, x=given.x + step * direction)
        else:
            parameter = given.parameters[name] + step * direction
            moved = replace(given, parameters={**given.parameters, name: parameter})
        return case.layer.forward(
            moved.x, moved.parameters, training=case.training, rng_key=case.key
        )[0]

    # The outputs are subtracted before they are added up: those that did not move cancel exactly.
    return float((given.dy * (output(STEP) - output(-STEP))).sum() / (2 * STEP))


@every_case
def test_backward_is_linear_in_the_delta(case: Case) -> None:
    given = inputs(case)
    other = inputs(case, seed=1).dy
    both = reference(case, replace(given, dy=0.75 * given.dy - 3 * other))
    first, second = reference(case, given), reference(case, replace(given, dy=other))
    # Twice the rounding of the absolute deltas: once for the sum's gradients, once for theirs.
    size = replace(given, dy=0.75 * np.abs(given.dy) + 3 * np.abs(other))
    tolerance = rounding(case, size, "float64")
    for name in both.keys() - {"y"}:
        assert_within(both[name], 0.75 * first[name] - 3 * second[name], 2 * tolerance[name])


@every_case
@every_dtype
def test_nothing_given_is_modified_and_results_repeat(case: Case, dtype: str) -> None:
    given, untouched = inputs(case, dtype), inputs(case, dtype)
    for array in (given.x, given.dy, *given.parameters.values()):
        array.flags.writeable = False  # so that writing to it raises
    first, second = reference(case, given), reference(case, given)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_array_equal(given.x, untouched.x)
    np.testing.assert_array_equal(given.dy, untouched.dy)
    for name, array in given.parameters.items():
        np.testing.assert_array_equal(array, untouched.parameters[name])


@every_case
def test_float32_differs_from_float64_by_rounding(case: Case) -> None:
    single, double = inputs(case, "float32"), inputs(case, "float64")
    tolerance = rounding(case, double, "float32")
    desired = reference(case, double)
    for name, result in reference(case, single).items():
        assert_within(result, desired[name], tolerance[name])


@pytest.mark.parametrize("case", [case for case in CASES if case.by_image], ids=str)
def test_a_batch_equals_its_images_one_at_a_time(case: Case) -> None:
    given = inputs(case)
    together = reference(case, given)
    alone = [
        reference(case, Inputs(given.x[n : n + 1], given.parameters, given.dy[n : n + 1]))
        for n in range(case.batch)
    ]
    tolerance = rounding(case, given, "float64")
    for name, result in together.items():
        each = [results[name] for results in alone]
        joined = np.concatenate(each) if name in ("y", "dx") else np.sum(each, axis=0)
        assert_within(result, joined, tolerance[name])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_leaves_out_its_rate_and_keeps_the_mean(rate: float) -> None:
    x = np.ones((100, 1000))
    y, _ = Dropout(rate).forward(x, {}, training=True, rng_key=3)
    assert set(np.unique(y)) == {0.0, 1 / (1 - rate)}
    # 100 000 draws: the share's standard deviation is sqrt(rate (1 - rate) / 100 000) <= 0.0016,
    # and five of them are allowed.
    assert (y == 0).mean() == pytest.approx(rate, abs=0.008)


def test_dropout_draws_are_fixed_by_the_key_and_the_position() -> None:
    draws = uniform(5, 1000)
    np.testing.assert_array_equal(uniform(5, 10), draws[:10])
    assert not np.isin(uniform(6, 1000), draws).any()
    assert draws.min() >= 0
    assert draws.max() < 1
    # Steele, Lea and Flood's SplitMix64 from seed 1234567 starts with 6457827717110365317 (the
    # value that every implementation lists as its check).
    assert uniform(1234567, 1)[0] == (6457827717110365317 >> 11) * 2.0**-53


def test_batchnorm_moves_its_statistics_towards_the_batch() -> None:
    layer, x = BatchNorm2D(momentum=0.25), np.array([1.0, 2.0, 6.0]).reshape(3, 1, 1, 1)
    ones = {name: np.ones(1) for name in ("weight", "bias", "mean", "variance")}
    _, kept = layer.forward(x, ones, training=True)
    moved = layer.next_statistics(kept, ones)
    # mean 3; unbiased variance (4 + 1 + 9) / 2 = 7; approx's 1e-6 is far below any other result
    assert moved["mean"] == pytest.approx([0.75 * 1 + 0.25 * 3])
    assert moved["variance"] == pytest.approx([0.75 * 1 + 0.25 * 7])
    _, kept = layer.forward(x, ones, training=False)
    assert layer.next_statistics(kept, ones) == {}


ONE_OR_PAIR = r"must be a whole number of at least 1, or a pair \(rows, columns\) of them, got "


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (Conv2D, {"filters": 0}, "Conv2D: filters must be a whole number of at least 1, got 0"),
        (Conv2D, {"filters": 2.0}, "filters must be a whole number of at least 1, got 2.0"),
        (Conv2D, {"filters": True}, "filters must be a whole number of at least 1, got True"),
        (Conv2D, {"kernel_size": 0}, "Conv2D: kernel_size " + ONE_OR_PAIR + "0"),
        (Conv2D, {"kernel_size": (3, 3, 3)}, "kernel_size " + ONE_OR_PAIR + r"\(3, 3, 3\)"),
        (Conv2D, {"stride": (1, 0)}, "Conv2D: stride " + ONE_OR_PAIR + r"\(1, 0\)"),
        (Conv2D, {"dilation": 1.5}, "Conv2D: dilation " + ONE_OR_PAIR + "1.5"),
        (Conv2D, {"padding": "full"}, "padding must be 'same', 'valid', .* got 'full'"),
        (Conv2D, {"padding": -1}, "Conv2D: padding must be a whole number of at least 0"),
        (Conv2D, {"groups": 0}, "Conv2D: groups must be a whole number of at least 1, got 0"),
        (Conv2D, {"groups": 3}, r"filters \(=4\) must be divisible by groups \(=3\)"),
        (Conv2D, {"bias": 1}, "Conv2D: bias must be True or False, got 1"),
        (MaxPool2D, {"size": 0}, "MaxPool2D: size " + ONE_OR_PAIR + "0"),
        (MaxPool2D, {"stride": 0}, "MaxPool2D: stride " + ONE_OR_PAIR + "0"),
        (AvgPool2D, {"padding": "all"}, "AvgPool2D: padding must be 'same', 'valid'"),
        (MaxPool2D, {"padding": 2}, r"padding \(=2\) must be smaller than size \(=2\), or a win"),
        (AvgPool2D, {"size": (3, 2), "padding": (1, 2)}, "must be smaller than size"),
        (Dense, {"units": -1}, "Dense: units must be a whole number of at least 1, got -1"),
        (Dense, {"units": 1, "bias": None}, "Dense: bias must be True or False, got None"),
        (LeakyReLU, {"slope": 1.5}, r"LeakyReLU: slope must be a number in \[0, 1\], got 1.5"),
        (Dropout, {"rate": 1.0}, r"Dropout: rate must be a number in \[0, 1\), got 1.0"),
        (Dropout, {"rate": float("nan")}, r"rate must be a number in \[0, 1\), got nan"),
        (Dropout, {"rate": "half"}, r"rate must be a number in \[0, 1\), got 'half'"),
        (BatchNorm2D, {"momentum": -0.1}, r"BatchNorm2D: momentum must be a number in \[0, 1\]"),
        (BatchNorm2D, {"epsilon": 2}, r"BatchNorm2D: epsilon must be a number in \[0, 1\], got 2"),
    ],
)
def test_options_that_make_no_sense(layer: type, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        layer(**({"filters": 4} if layer is Conv2D else {}) | options)


@pytest.mark.parametrize(
    ("layer", "input_shape", "message"),
    [
        (
            Conv2D(4),
            (9,),
            r"Conv2D takes images of shape .*has shape \(9,\); put it before Flatten",
        ),
        (Conv2D(4, groups=2), (3, 5, 5), r"channels \(=3\) must be divisible by groups \(=2\)"),
        (Conv2D(4, 5, padding="valid"), (1, 4, 6), "a window over 5x5 cells does not fit into 4x6"),
        (Conv2D(4, 3, padding=1, dilation=4), (1, 6, 9), "over 9x9 .* into 8x11 .padding included"),
        (MaxPool2D(3), (1, 2, 5), "MaxPool2D: a window over 3x3 cells does not fit into 2x5"),
        (AvgPool2D(), (4,), "AvgPool2D takes images of shape"),
        (GlobalAvgPool2D(), (4,), "GlobalAvgPool2D takes images of shape"),
        (BatchNorm2D(), (4,), "BatchNorm2D takes images of shape"),
        (Dense(3), (1, 2, 2), r"Dense takes one row of features.*\(1, 2, 2\); put Flatten\(\)"),
    ],
)
def test_inputs_that_do_not_fit(layer: object, input_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        layer.output_shape(input_shape)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Conv2D(8), "Conv2D(8)"),
        (Conv2D(8, (3, 5), padding="valid"), "Conv2D(8, kernel_size=(3, 5), padding='valid')"),
        (MaxPool2D(), "MaxPool2D()"),
        (Dropout(0.25), "Dropout(rate=0.25)"),
        (Dense(3, bias=False), "Dense(3, bias=False)"),
        (Flatten(), "Flatten()"),
    ],
)
def test_repr_shows_what_differs_from_the_defaults(layer: object, text: str) -> None:
    assert repr(layer) == text
    assert eval(text) == layer
