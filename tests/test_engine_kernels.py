"""Every kernel against the reference: layers by themselves, and those that are computed together.

A layer is lowered as in a network. Where a network has its loss, the test reads the output and puts
the delta in, and the plan believes that something below the layer waits for its delta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from fullback import Network
from fullback.engine.kernels.maps import even_part
from fullback.engine.loop import FOR_BLOCKS
from fullback.engine.lowering import write
from fullback.engine.lowering.plan import MOST_CHUNKS, Plan
from fullback.engine.machine import Machine, staged
from fullback.engine.program import Map, Phase
from fullback.engine.simd import LANES
from fullback.layers import (
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    Normalize,
    ReLU,
)
from fullback.layers.window import pad, pads, windows
from support.cases import CASES, Array, Case, Inputs, Results, inputs, reference, rounding

every_case = pytest.mark.parametrize("case", CASES, ids=str)


class AlonePlan(Plan):
    """Layers by themselves; the first is the network's first, or has others below it."""

    y: Map
    dy: Map

    def __init__(
        self, net: Network, *, blocks: int, training: bool, first: bool, chunks: int
    ) -> None:
        super().__init__(net, "gradients", blocks=blocks, training=training)
        self.backward = Phase(FOR_BLOCKS, [])
        self.chunks = min(chunks, self.chunks)
        if not first:
            self.lowest = -1
            self.deltas[-1] = self.map("d input", net.input_shape)

    def write_loss(self, x: Map) -> None:
        self.y, self.dy = x, self.delta(len(self.steps) - 1)
        self.phases.append(self.backward)

    def halves(self) -> tuple[list[Phase], list[Phase]]:
        """Return the forward phases and the backward ones."""
        split = next(n for n, phase in enumerate(self.phases) if phase is self.backward)
        return self.phases[:split], self.phases[split:]


def cells(machine: Machine, block: int, own: Map) -> Array:
    """Return a map of a block, of shape (C, H, W, lanes), where it lies."""
    start = block * machine.arena_size + own.place
    step = machine.arenas.itemsize
    return np.lib.stride_tricks.as_strided(
        machine.arenas[start:],
        (*own.shape, LANES),
        (own.plane * step, own.pitch * step, LANES * step, step),
    )


def read(machine: Machine, own: Map, images: int) -> Array:
    """Return a map of all images, in rows."""
    blocks = [cells(machine, n, own).reshape(-1, LANES).T for n in range(-(-images // LANES))]
    return np.concatenate(blocks)[:images]


def lanes(
    layers: Sequence[Layer],
    given: Inputs,
    *,
    training: bool = False,
    key: int = 0,
    first: bool = False,
    workers: int = 1,
    chunks: int = MOST_CHUNKS,
) -> Results:
    """Return what the kernels make of layers of which the first one has the parameters.

    Beside the output, the next delta and the gradients, these are the statistics after the step.
    """
    images, shape = len(given.x), given.x.shape[1:]
    output_shape = given.dy.shape[1:]
    end = [Flatten()] if len(output_shape) == 3 else []
    net = Network([*layers, *end], shape)
    name = net.names[0]
    for short, value in given.parameters.items():
        arrays = net.parameters if f"{name}.{short}" in net.parameters else net.statistics
        arrays[f"{name}.{short}"] = value
    blocks = -(-images // LANES)
    plan = AlonePlan(net, blocks=blocks, training=training, first=first, chunks=chunks)
    write(plan)
    machine = Machine(plan, workers)  # with an arena for every block, as the plan has two phases
    forward, backward = plan.halves()
    machine.load()
    run = {"batch": images, "total": images, "keys": np.array([[key]], np.uint64)}
    with np.errstate(all="ignore"):  # of the plain-Python engine
        machine.set_phases(forward)
        machine.run(staged(given.x), **run)
    results = {"y": read(machine, plan.y, images).reshape(images, *output_shape)}

    dy = np.zeros((blocks * LANES, plan.dy.features), np.float32)
    dy[:images] = given.dy.reshape(images, -1)  # the loss gives empty lanes no share: they have 0
    for block, own in enumerate(dy.reshape(-1, LANES, plan.dy.features)):
        cells(machine, block, plan.dy)[:] = own.T.reshape(*plan.dy.shape, LANES)
    with np.errstate(all="ignore"):
        machine.set_phases(backward)
        machine.run(staged(given.x), **run)
    if not first and not isinstance(layers[0], Normalize):  # it is first, and hands nothing on
        results["dx"] = read(machine, plan.deltas[-1], images).reshape(given.x.shape)
    for full_name, place in plan.gradients.items():
        gradient = machine.view(place, net.parameters[full_name].shape)
        results[f"d{full_name.split('.')[1]}"] = gradient.copy()
    for full_name, place in plan.statistics.items():
        results[full_name.split(".")[1]] = machine.view(
            place, net.statistics[full_name].shape
        ).copy()
    return results


def lanes_of(case: Case, given: Inputs, **options: int) -> Results:
    return lanes([case.layer], given, training=case.training, key=case.key, **options)


def assert_near(actual: Results, desired: Results, tolerance: Results) -> None:
    """Assert that results are of the same kind, cell by cell, and within their tolerance."""
    missing = desired.keys() - actual.keys()
    assert missing <= {"dx"}, missing
    for name in desired.keys() - missing:
        given, wanted = actual[name].astype(np.float64), desired[name].astype(np.float64)
        assert given.shape == wanted.shape, name
        for kind in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(kind(given), kind(wanted), err_msg=name)
        finite = np.isfinite(wanted)
        excess = np.abs(given[finite] - wanted[finite]) - tolerance[name][finite]
        wrong = ~(excess <= 0)
        assert not wrong.any(), f"{name}: {wrong.sum()} cells differ, by {excess[wrong].max()} more"


@every_case
def test_layers_equal_the_reference(case: Case) -> None:
    """Within the rounding of two results: ``rounding`` allows for the errors of both.

    The hyperbolic tangent's 2 units in the last place, at most eps as it is at most 1, are less
    than the 5 eps that it allows a Tanh or Sigmoid.
    """
    given = inputs(case, "float32")
    tolerance = rounding(case, given, "float32")
    assert_near(lanes_of(case, given), reference(case, given), tolerance)


FIRST = {(case.layer.kind, case.training): case for case in reversed(CASES)}
SIZES = [
    case
    for case in CASES
    if case in FIRST.values()
    or case.name
    in [
        "conv-9-filters",
        "conv-2x3-9-filters",
        "conv-all-options",
        "conv-stride-2-same",
        "conv-depthwise",
        "pool-overlapping",
        "avgpool-padding-1",
        "dense-11-units",
        "leakyrelu0.25-flat",
        "tanh-flat",
    ]
]


@pytest.mark.parametrize(
    ("images", "workers", "chunks"), [(1, 1, 1), (16, 1, 1), (33, 1, 3), (33, 3, 2), (50, 2, 1)]
)
@pytest.mark.parametrize("case", SIZES, ids=str)
def test_blocks_that_are_full_and_that_are_not(
    case: Case, images: int, workers: int, chunks: int
) -> None:
    case = replace(case, batch=images)
    given = inputs(case, "float32")
    actual = lanes_of(case, given, workers=workers, chunks=chunks)
    assert_near(actual, reference(case, given), rounding(case, given, "float32"))


@pytest.mark.parametrize("images", [3, 16, 33])
@pytest.mark.parametrize("training", [False, True])
def test_batchnorm_moves_its_statistics_as_the_reference_does(training: bool, images: int) -> None:
    case = Case("statistics", BatchNorm2D(momentum=0.25), (3, 4, 5), images, training)
    given = inputs(case, "float32")
    actual = lanes_of(case, given)
    _, kept = case.layer.forward(given.x, given.parameters, training=training)
    moved = case.layer.next_statistics(kept, given.parameters)
    old = {name: given.parameters[name] for name in ("mean", "variance")}
    desired = {**old, **moved}
    # The mean is a sum of M terms, divided by M; so is the variance, of squares of differences
    # whose errors are those of the mean. (M + 4) eps of the terms' absolute values is allowed, as
    # in ``rounding``, and what the old ones' share adds is among the 4.
    size, over = images * 4 * 5, (0, 2, 3)
    mean = abs(given.x).mean(axis=over)
    magnitudes = {
        "mean": abs(old["mean"]) + mean,
        "variance": old["variance"] + (2 * (given.x**2).mean(axis=over)),
    }
    eps = float(np.finfo(np.float32).eps)
    tolerance = {name: (size + 4) * eps * m * training for name, m in magnitudes.items()}
    assert_near({name: actual[name] for name in desired}, desired, tolerance)
    results = reference(case, given)
    assert_near(actual, results, rounding(case, given, "float32"))


@pytest.mark.parametrize("images", [1, 17, 40])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("key", [0, 7, 2**63, 2**64 - 1])
def test_dropout_leaves_out_what_the_reference_leaves_out(
    rate: float, key: int, images: int
) -> None:
    ones = np.ones((images, 2, 3, 5), np.float32)
    given = Inputs(ones, {}, ones)
    y, kept = Dropout(rate).forward(ones, {}, training=True, rng_key=key)
    actual = lanes([Dropout(rate)], given, training=True, key=key)
    np.testing.assert_array_equal(actual["y"], y)  # of ones: the mask itself, bit for bit
    np.testing.assert_array_equal(actual["dx"], Dropout(rate).backward(ones, kept, {})[0])


# NaN and infinity ---------------------------------------------------------------------------------


every_kind_of_value = pytest.mark.parametrize(
    "values", [(np.nan,), (np.inf,), (-np.inf,), (np.nan, np.inf, -np.inf)], ids=str
)


def with_special_values(case: Case, given: Inputs, values: Sequence[float]) -> Inputs:
    """Return the inputs with a few special values in x, each in one cell."""
    rng = np.random.default_rng([len(values), *case.name.encode()])
    x = given.x.copy().reshape(len(given.x), -1)
    for value in values:
        x[rng.integers(len(x)), rng.integers(x.shape[1])] = value
    return replace(given, x=x.reshape(given.x.shape))


def tolerance_of(case: Case, special: Inputs, given: Inputs) -> Results:
    """Return the rounding of special inputs, and that of the given ones where it is not finite."""
    with np.errstate(invalid="ignore"):
        tolerance = rounding(case, special, "float32")
    usual = rounding(case, given, "float32")
    return {name: np.where(np.isfinite(own), own, usual[name]) for name, own in tolerance.items()}


def windows_met(layer: Conv2D, x: Array) -> Array:
    """Return the cells that every filter's every weight met, (N, C, P, Q, R, S)."""
    around = pads(layer.padding, x.shape[2:], layer.kernel_size, layer.stride, layer.dilation)
    return windows(pad(x, around), layer.kernel_size, layer.stride, layer.dilation)


def filter_gradient(layer: Conv2D, met: Array, dy: Array) -> Array:
    """Return the sum of every delta times the cell that it was met by, in float64."""
    parts = zip(np.split(met, layer.groups, 1), np.split(dy, layer.groups, 1), strict=True)
    with np.errstate(invalid="ignore"):
        made = [np.einsum("ncpqrs,nkpq->kcrs", *map(np.float64, part)) for part in parts]
    return np.concatenate(made)


@every_case
@every_kind_of_value
def test_nan_and_infinity_go_where_the_reference_lets_them(
    case: Case, values: Sequence[float]
) -> None:
    """Also where the reference has NaN only because it multiplies what a stride skips by zeros."""
    given = inputs(case, "float32")
    special = with_special_values(case, given, values)
    with np.errstate(invalid="ignore"):
        desired = reference(case, special)
    if isinstance(case.layer, Conv2D) and case.layer.stride != 1:
        met = windows_met(case.layer, special.x)
        desired["dweight"] = filter_gradient(case.layer, met, special.dy)
    assert_near(lanes_of(case, special), desired, tolerance_of(case, special, given))


# Layers that are computed together ----------------------------------------------------------------


TOGETHER = [
    # first layer, whether a pooling joins, input, images
    (Conv2D(1), True, (1, 4, 4), 3),
    (Conv2D(3), True, (1, 5, 7), 1),
    (Conv2D(4), True, (2, 7, 6), 17),
    (Conv2D(5), True, (3, 2, 3), 3),
    (Conv2D(9, bias=False), True, (2, 3, 2), 16),
    (Conv2D(6, padding="valid"), True, (3, 5, 4), 3),
    (Conv2D(2, padding=2), True, (1, 3, 4), 33),
    (Conv2D(1), False, (2, 2, 2), 3),
    (Conv2D(4), False, (1, 3, 5), 17),
    (Conv2D(7, padding=(0, 2)), False, (2, 5, 3), 3),
    (Conv2D(5, 5), False, (1, 6, 9), 3),
    (Conv2D(6, (2, 3), 2, groups=2), False, (4, 5, 17), 1),
    (Conv2D(3), False, (2, 1, 6), 3),
    (Dense(13), False, (9,), 17),
    (Dense(1), False, (70,), 3),
    (BatchNorm2D(), False, (3, 4, 5), 17),
]

together = pytest.mark.parametrize(
    ("layer", "pooled", "shape", "images"),
    TOGETHER,
    ids=[f"{layer}-{'pool-' * pooled}{shape}" for layer, pooled, shape, _ in TOGETHER],
)
either_place = pytest.mark.parametrize("first", [True, False], ids=["first", "not-first"])


def reference_of(
    layers: Sequence[Layer], given: Inputs, *, training: bool
) -> tuple[Results, Array]:
    """Return what layers make of their inputs, and the delta of the first one's output."""
    x, kept = given.x, []
    first, parameters = layers[0], given.parameters
    for layer in layers:
        x, memory = layer.forward(x, parameters if layer is first else {}, training=training)
        kept.append(memory)
    delta = given.dy
    for layer, memory in zip(layers[:0:-1], kept[:0:-1], strict=True):
        delta, _ = layer.backward(delta, memory, {})
    dx, gradients = first.backward(delta, kept[0], parameters)
    return {"y": x, "dx": dx, **{f"d{name}": g for name, g in gradients.items()}}, delta


def drawn(case: Case, layers: Sequence[Layer]) -> Inputs:
    """Draw inputs of layers, of which the first is the case's; ReLU and pooling choose clearly.

    No output of the first layer is as near to 0, and none that wins a window as near to another
    one, as rounding may take it, so that the choices are the same however sums are rounded.
    """
    for seed in count():
        given = inputs(case, "float32", seed)
        around = rounding(case, given, "float32")["y"].max()
        z, _ = case.layer.forward(given.x, given.parameters, training=case.training)
        clear = (abs(z) > around).all()
        y = np.maximum(z, 0)
        if len(layers) > 2:
            seen = windows(y, 2, 2)
            top = np.sort(seen.reshape(*seen.shape[:4], 4))[..., -2:]
            clear &= ((top[..., 1] == 0) | (top[..., 1] - top[..., 0] > 2 * around)).all()
            y = layers[2].forward(y, {})[0]
        if clear:
            dy = np.random.default_rng(seed).normal(size=y.shape).astype(np.float32)
            return replace(given, dy=dy)
    raise AssertionError


def tolerance_together(case: Case, layers: Sequence[Layer], given: Inputs, delta: Array) -> Results:
    """Return the rounding of the first layer for the delta that the others leave it.

    They choose among its outputs, the largest of which has at most the largest error.
    """
    tolerance = rounding(case, replace(given, dy=delta), "float32")
    for layer in layers[1:]:
        tolerance["y"] = layer.forward(tolerance["y"], {})[0]
    return tolerance


@together
@either_place
def test_layers_together_equal_the_reference(
    layer: Layer, pooled: bool, shape: tuple[int, ...], images: int, first: bool
) -> None:
    layers = [layer, ReLU(), *[MaxPool2D()] * pooled]
    case = Case("together", layer, shape, images, training=True)
    given = drawn(case, layers)
    desired, delta = reference_of(layers, given, training=True)
    tolerance = tolerance_together(case, layers, given, delta)
    for chunks in (1, 2):
        actual = lanes(layers, given, training=True, first=first, chunks=chunks)
        assert_near(actual, desired, tolerance)


@together
@either_place
@every_kind_of_value
def test_nan_and_infinity_go_through_layers_together(
    layer: Layer,
    pooled: bool,
    shape: tuple[int, ...],
    images: int,
    first: bool,
    values: Sequence[float],
) -> None:
    """But not from cells that only the windows left over by the pooling saw, in a first layer.

    There the reference multiplies them by zeros, and the kernel does not touch them.
    """
    layers = [layer, ReLU(), *[MaxPool2D()] * pooled]
    case = Case("together", layer, shape, images, training=True)
    given = drawn(case, layers)
    special = with_special_values(case, given, values)
    with np.errstate(invalid="ignore"):
        desired, delta = reference_of(layers, special, training=True)
    if isinstance(layer, Conv2D) and ((first and pooled) or layer.stride != 1):
        met = windows_met(layer, special.x)
        rows, columns = (2 * n if pooled else n for n in given.dy.shape[2:])
        desired["dweight"] = filter_gradient(
            layer, met[:, :, :rows, :columns], delta[:, :, :rows, :columns]
        )
    with np.errstate(invalid="ignore"):
        tolerance = tolerance_together(case, layers, special, delta)
    usual = tolerance_together(case, layers, given, delta)
    tolerance = {
        name: np.where(np.isfinite(own), own, usual[name]) for name, own in tolerance.items()
    }
    assert_near(lanes(layers, special, training=True, first=first), desired, tolerance)


def test_rows_are_parted_into_tiles_that_are_compiled():
    for most, sizes in ((3, {1, 3}), (5, {1, 3, 4, 5})):
        for cells in range(1, 60):
            left, parts = cells, []
            while left > 0:
                parts.append(even_part(left, most))
                left -= parts[-1]
            assert sum(parts) == cells
            assert set(parts) <= sizes
    assert [even_part(left, 5) for left in (14, 9, 4)] == [5, 5, 4]
