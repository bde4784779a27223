"""Lowering for one image: a program with lanes along filters, for the few images of a prediction.

The program is run for every image by itself. Its first phase packs the weights, and is run when
they have changed. ``OnePlan.most`` says for how many images it is the faster one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

from fullback.engine.kernels import one, one_conv
from fullback.engine.kernels.one_conv import TILES
from fullback.engine.loop import FOR_WORKERS
from fullback.engine.lowering.activation import ACTIVATIONS
from fullback.engine.lowering.grouping import Step
from fullback.engine.lowering.norm import write_running, write_scale
from fullback.engine.lowering.plan import Plan, Purpose
from fullback.engine.lowering.trace import before
from fullback.engine.program import NO_RING, Map, Phase, Region, Ring
from fullback.engine.simd import LANES
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
    Normalize,
)
from fullback.layers.base import Shape
from fullback.layers.window import pads, pair
from fullback.model import Model


@dataclass(frozen=True)
class Sheet(Map):
    """Where the maps of one image lie; ``step`` is that from a cell to the next one of its row.

    Mostly the plane is 1: the channels of a cell lie side by side, counted up to sixteen.
    """

    step: int

    @property
    def size(self) -> int:
        """Floats in all."""
        return self.features if self.step == 1 else prod(self.shape[1:]) * self.step

    def moved(self, rows: int, columns: int) -> Sheet:
        """Return the map that begins some rows and columns further down and right."""
        return replace(self, place=self.place + rows * self.pitch + columns * self.step)

    def flat(self, name: str) -> Sheet:
        """Return the same cells as features, which are taken channel after channel."""
        return replace(self, name=name)


class OnePlan(Plan):
    """Writes a network's program for one image.

    Attributes
    ----------
    work, work_in_block : vector operations for one image, and for a block of sixteen
    rings : the padding around the input and the output of the step that is being lowered
    """

    images = 1

    def __init__(self, net: Model, purpose: Purpose, *, guard: int = 0) -> None:
        super().__init__(net, purpose, blocks=1, guard=guard)
        self.work = self.work_in_block = 0
        self.rings: tuple[Ring, Ring] = (NO_RING, NO_RING)

    def map(self, name: str, shape: tuple[int, ...], ring: Ring = NO_RING) -> Sheet:
        """Plan a map with the channels of a cell side by side; features are a row."""
        if len(shape) == 1:
            return self.planes(name, (1, 1, shape[0]))
        channels, height, width = shape
        (above, below), (left, right) = ring
        deep = vectors(channels) * LANES
        pitch = (left + width + right) * deep
        place = self.arena.take(name, (above + height + below) * pitch).place
        return self._keep(
            Sheet(
                name, place + above * pitch + left * deep, (channels, height, width), 1, pitch, deep
            )
        )

    def planes(self, name: str, shape: Shape, ring: Ring = NO_RING) -> Sheet:
        """Plan a map with channels one after the other, as images come."""
        channels, height, width = shape if len(shape) == 3 else (1, 1, shape[0])
        (above, below), (left, right) = ring
        pitch = left + width + right
        plane = (above + height + below) * pitch
        place = self.arena.take(name, channels * plane + LANES).place + above * pitch + left
        return self._keep(Sheet(name, place, (channels, height, width), plane, pitch, 1))

    def _keep(self, sheet: Sheet) -> Sheet:
        self.maps[sheet.name] = sheet
        return sheet

    def count(self, cells: int, outputs: int, *, groups: int = 1, times: int = 1) -> None:
        """Count the operations of a step: for every output so many, for cells of one image."""
        self.work += cells * groups * vectors(outputs // groups) * times
        self.work_in_block += cells * outputs

    @property
    def most(self) -> int:
        """For how many images the program takes less time than a block of sixteen.

        The rule is measured: an operation of a block takes a share of the time of one here, and to
        start a run of a block takes as long as so many operations.
        """
        of_block = _SHARE * (self.work_in_block + _RUN)
        return max(1, min(LANES - 1, int(of_block / max(1, self.work))))


_SHARE, _RUN = 0.7, 15_000
_WEIGHT = 2  # operations: what a vector of weights takes that is used once, as dense layers do
_LEAST, _TILE = 6, 40  # vector operations: the least at a time, and what a tile takes itself


def vectors(count: int) -> int:
    """Return how many vectors hold so many numbers."""
    return -(-count // LANES)


def write_one(plan: OnePlan) -> OnePlan:
    """Write the program; layers that it has no kernels for are those that blocks have none for."""
    done = 0
    x = _write_image(plan, plan.steps[0] if plan.steps else None)
    if plan.steps and isinstance(plan.steps[0].layer, Normalize):
        done = 1
    for n, step in enumerate(plan.steps[done:], done):
        plan.layers, plan.rings = step.names, (plan.ring_before(n), plan.ring_before(n + 1))
        x = _LOWER[type(step.layer)](plan, step, x)
    plan.layers, outputs = ("loss",), x.features
    if x.shape[:2] != (1, 1) or x.step != 1:
        row = plan.map("answers", (outputs,))
        flat = replace(row, shape=x.shape, plane=x.shape[1] * x.shape[2], pitch=x.shape[2])
        _write_turn(plan, x, flat)
        x = row
    if plan.purpose == "probabilities":
        plan.emit(one.softmax_one, x=x, classes=outputs)
    plan.emit(one.output_one, x=x, units=outputs)
    plan.phases.insert(0, Phase(FOR_WORKERS, plan.early))
    return plan


def knows(net: Model) -> bool:
    """Return whether there is a kernel for every layer."""
    return {type(layer) for layer in net.layers} <= _LOWER.keys() | {Normalize, Dropout}


# Steps --------------------------------------------------------------------------------------------


def _write_image(plan: OnePlan, first: Step | None) -> Sheet:
    """Write what reads an image, with a Normalize where that comes first."""
    says = "The image is read; bytes become numbers on the scale that the network takes"
    name, scale, reader = "input", dict[str, Any](mean=None, scale=None), 0
    if first and isinstance(first.layer, Normalize):
        name, reader, plan.layers = first.name, 1, first.names
        says += f"; {name} subtracts the training images' mean and divides by their deviation"
        scale = write_scale(plan, first)
    x = plan.planes(name, plan.net.input_shape, plan.ring_before(reader))
    by_feature = len(plan.net.input_shape) == 1
    plan.emit(one.image_one, f"{says}.", y=x, shape=x.shape, by_feature=by_feature, **scale)
    return x


def _write_turn(plan: OnePlan, x: Sheet, y: Sheet) -> None:
    says = "The cells are laid out in another order."
    plan.emit(one.turn_one, says, x=x, y=y, shape=x.shape, x_step=x.step, y_step=y.step)


def _side_by_side(plan: OnePlan, x: Sheet, ring: Ring = NO_RING) -> Sheet:
    """Return a map with the channels of a cell side by side."""
    if x.plane == 1 or (x.shape[:2] == (1, 1) and x.step == 1 and x.pitch == x.shape[2]):
        return x
    y = plan.map(f"{x.name}, turned", x.shape, ring)
    _write_turn(plan, x, y)
    return y


def _conv(plan: OnePlan, step: Step, x: Sheet) -> Sheet:
    layer, window, name = step.layer, step.window, step.name
    groups, counts = layer.groups, window.counts
    filters, channels = layer.filters // groups, step.input_shape[0] // groups
    taps = prod(window.size)
    depthwise = groups > 1 and filters == channels == 1
    if depthwise:
        x = _side_by_side(plan, x, plan.rings[0])
    seen = x.moved(-window.pads[0][0], -window.pads[1][0])
    y = plan.map(step.names[-1], step.output_shape, plan.rings[1])
    says = (
        f"Each filter of {name} slides over {before(plan.net, name)}: at every place, the products "
        f"of its weights and the cells under them are added up, with the bias{step.then_relu}"
    )
    operands: dict[str, Any] = {
        "x": seen, "y": y, "x_step": x.step, "b": _bias(plan, step),
        "channels": layer.filters if depthwise else channels, "counts": counts,
        "size": window.size, "stride": window.stride, "dilation": window.dilation,
        "relu": step.relu,
    }  # fmt: skip
    if depthwise:
        w = _pack(plan, step, 1, layer.filters, taps)
        plan.count(prod(counts) * taps, layer.filters)
        plan.emit(one_conv.depthwise_one, f"{says}.", w=w, y_step=y.step, **operands)
        return y
    plan.count(prod(counts) * channels * taps, layer.filters, groups=groups)
    line = None
    if step.pooled:
        says += f"; {step.names[2]} keeps the largest cell of every 2 x 2 window"
        operands["counts"] = counts = (2 * y.shape[1], 2 * y.shape[2])
        line = plan.arena.take(f"rows of {name}", 2 * counts[1] * vectors(filters) * LANES)
    elif groups > 1 and filters % LANES:
        line = plan.arena.take(f"rows of {name}", 2 * counts[1] * vectors(filters) * LANES)
    w = _pack(plan, step, groups, filters, channels * taps)
    operands |= {"filters": filters, "groups": groups, "line": line}
    operands["tile"] = _tile(counts[1], filters, channels * taps)
    plan.emit(one_conv.conv_one, f"{says}.", w=w, **operands)
    return y


def _tile(width: int, filters: int, products: int) -> int:
    """Return the tile by which a row takes the least time.

    Every tile takes some time of its own, and sums in too few registers wait for each other.
    """

    def cost(tile: tuple[int, int]) -> int:
        tiles = -(-width // tile[0]) * -(-vectors(filters) // tile[1])
        return tiles * (products * max(prod(tile), _LEAST) + _TILE)

    fitting = [each for each in TILES if each[0] <= width and each[1] <= vectors(filters)]
    places, high = min(fitting, key=cost)
    return high * LANES + places


def _dense(plan: OnePlan, step: Step, x: Sheet) -> Sheet:
    name, units = step.name, step.layer.units
    y = plan.map(step.names[-1], step.output_shape)
    says = (
        f"Each unit of {name} adds up all its inputs times its weights, and its bias"
        f"{step.then_relu}."
    )
    w = _pack(plan, step, 1, units, x.features)
    plan.count(x.features, units, times=_WEIGHT)
    operands: dict[str, Any] = {"x_step": x.step, "units": units, "relu": step.relu}
    plan.emit(one.dense_one, says, x=x, y=y, shape=x.shape, w=w, b=_bias(plan, step), **operands)
    return y


def _activation(plan: OnePlan, step: Step, x: Sheet) -> Sheet:
    """Write an activation, in place: to its kernel, rows of cells are longer rows of vectors."""
    forward, does, _, _ = ACTIVATIONS[type(step.layer)]
    y = _side_by_side(plan, x, plan.rings[0])
    _, height, width = y.shape
    long = Map(y.name, y.place, (1, height, vectors(width * y.step)), 0, y.pitch)
    slope = plan.constant(step.layer.slope) if isinstance(step.layer, LeakyReLU) else None
    plan.emit(forward, f"{step.name} {does}", x=long, y=long, shape=long.shape, slope=slope)
    plan.count(prod(y.shape[1:]) if y.step > 1 else 1, y.shape[0] if y.step > 1 else width)
    return y


def _pool(plan: OnePlan, step: Step, x: Sheet) -> Sheet:
    layer, name = step.layer, step.name
    x, y = _side_by_side(plan, x), plan.map(name, step.output_shape, plan.rings[1])
    largest = isinstance(layer, MaxPool2D)
    does = "keeps the largest cell" if largest else "takes the mean"
    if isinstance(layer, GlobalAvgPool2D):
        _write_pool(plan, x, y, f"{name} {does} of every map.", (1, 1), x.shape[1:], (1, 1))
        return y
    (above, _), (left, _) = pads(layer.padding, step.input_shape[1:], layer.size, layer.step)
    windows: dict[str, Any] = {"stride": layer.step, "before": (above, left), "largest": largest}
    says = f"{name} {does} of every window."
    _write_pool(plan, x, y, says, step.output_shape[1:], pair(layer.size), **windows)
    return y


def _write_pool(
    plan: OnePlan,
    x: Sheet,
    y: Sheet,
    says: str,
    counts: Shape,
    size: Shape,
    stride: Shape,
    before: Shape = (0, 0),
    largest: bool = False,
) -> None:
    plan.count(prod(counts) * prod(size), x.shape[0])
    windows: dict[str, Any] = {"size": size, "stride": stride, "before": before}
    steps: dict[str, Any] = {"x_step": x.step, "y_step": y.step, "largest": largest}
    plan.emit(one.pool_one, says, x=x, y=y, shape=x.shape, counts=counts, **windows, **steps)


def _batchnorm(plan: OnePlan, step: Step, x: Sheet) -> Sheet:
    name, channels = step.name, step.input_shape[0]
    x = _side_by_side(plan, x)
    statistics = plan.shared.take(f"{name} mean and scale", 2 * channels)
    write_running(plan, step, statistics)
    ring = NO_RING if step.pooled else plan.rings[1]
    y = plan.map(step.names[min(1, len(step.names) - 1)], step.input_shape, ring)
    says = (
        f"{name} brings each channel to mean 0 and variance 1, then scales and shifts it"
        f"{step.then_relu}."
    )
    plan.count(prod(y.shape[1:]), channels)
    operands: dict[str, Any] = {"x_step": x.step, "y_step": y.step, "relu": step.relu}
    operands |= {short: plan.parameters[f"{name}.{short}"] for short in ("weight", "bias")}
    plan.layers = step.names[:2]
    plan.emit(one.batchnorm_one, says, x=x, y=y, shape=x.shape, statistics=statistics, **operands)
    if not step.pooled:
        return y
    plan.layers = step.names[2:]
    pooled = plan.map(step.names[2], step.output_shape, plan.rings[1])
    says = f"{step.names[2]} keeps the largest cell of every window."
    counts = step.output_shape[1:]
    _write_pool(plan, y, pooled, says, counts, (2, 2), (2, 2), largest=True)
    return pooled


# Weights ------------------------------------------------------------------------------------------


def _pack(plan: OnePlan, step: Step, groups: int, rows: int, columns: int) -> Region:
    """Plan packed weights, and write the instruction that fills them when they have changed."""
    w = plan.parameters[f"{step.name}.weight"]
    packed = plan.shared.take(f"{w.name} packed", groups * columns * vectors(rows) * LANES)
    says = f"The weights of {step.name} are laid out with its outputs side by side."
    names: dict[str, Any] = {"layers": (step.name,), "early": True}
    plan.emit(
        one.pack_one, says, w=w, packed=packed, groups=groups, rows=rows, columns=columns, **names
    )
    return packed


def _bias(plan: OnePlan, step: Step) -> Region:
    """Return the biases, or zeros for a layer without."""
    bias = plan.parameters.get(f"{step.name}.bias")
    outputs = step.layer.filters if isinstance(step.layer, Conv2D) else step.layer.units
    return plan.constant(*[0.0] * outputs) if bias is None else bias


_Lower: TypeAlias = "Callable[[OnePlan, Step, Sheet], Sheet]"
_LOWER: dict[type[Layer], _Lower] = {
    Conv2D: _conv,
    Dense: _dense,
    Flatten: lambda _, step, x: x.flat(step.name),
    BatchNorm2D: _batchnorm,
    **dict.fromkeys((MaxPool2D, AvgPool2D, GlobalAvgPool2D), _pool),
    **dict.fromkeys(ACTIVATIONS, _activation),
}
