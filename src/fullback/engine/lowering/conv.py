"""Lowering of convolutions."""

from __future__ import annotations

from itertools import product
from typing import Any

from fullback.engine.kernels import conv, conv_gradients
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.grouping import Step, is_3x3
from fullback.engine.lowering.plan import Lowered, LowerTable, Plan
from fullback.engine.lowering.trace import before
from fullback.engine.lowering.window import StridePhase
from fullback.engine.program import Map, Region
from fullback.engine.simd import LANES
from fullback.layers import Conv2D


def lower(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a convolution, with what has joined it."""
    window = step.window
    seen = x.moved(-window.pads[0][0], -window.pads[1][0])
    y = plan.output(n, step, x)
    winners = None
    if step.pooled and plan.backwards:
        winners = plan.arena.take(f"{step.names[2]} winners", y.features * LANES)
    _write_forward(plan, step, seen, y, winners)

    def back() -> None:
        dy = plan.delta(n)
        if step.pooled and not plan.needs_dx(n):
            _write_pooled_gradients(plan, step, seen, dy, winners)
            return
        if step.pooled:
            dy = _write_unpooling(plan, step, dy, winners)
        elif step.relu:
            relu_dx(plan, step, dy, y)
        plan.layers = step.names[:1]
        _write_gradients(plan, step, seen, dy)
        if plan.needs_dx(n):
            _write_next_delta(plan, step, dy, plan.delta(n - 1))

    return y, back


def _write_forward(plan: Plan, step: Step, x: Map, y: Map, winners: Region | None) -> None:
    name, source = step.name, before(plan.net, step.name)
    weights: dict[str, Any] = {"w": _pack(plan, step), "b": plan.parameters.get(f"{name}.bias")}
    if step.pooled:
        _, relu, pool = step.names
        says = (
            f"Each filter of {name} slides over {source}, {relu} cuts off what is negative, and "
            f"{pool} keeps the largest cell of every 2 x 2 window and remembers which one it was. "
            "All three in one instruction: the maps between them are never stored."
        )
        sizes: dict[str, Any] = _sizes(step) | {"counts": y.shape[1:]}
        plan.emit(conv.conv3x3_pool, says, x=x, y=y, winners=winners, **weights, **sizes)
        return
    nine = is_3x3(step.layer, (step.layer.filters, *step.window.counts))
    if nine:
        kernel = conv.conv3x3
        products = "nine weights times the nine cells under them, added up over the channels,"
    else:
        kernel = conv.conv2d
        weights["apart"] = 1
        products = "the products of its weights and the cells under them are added up,"
    says = (
        f"Each filter of {name} slides over {source}: at every place, {products} with the bias"
        f"{step.then_relu}."
    )
    plan.emit(kernel, says, x=x, y=y, relu=step.relu, **weights, **_sizes_by_group(step, nine=nine))


def _write_unpooling(plan: Plan, step: Step, dy: Map, winners: Region | None) -> Map:
    """Write what hands a pooled delta to the winners; return the convolution's delta."""
    name, relu, pool = step.names
    dx = plan.map(f"d {name}", (step.layer.filters, *step.window.counts), step.delta_ring)
    says = (
        f"{pool} hands each delta to the cell that won its window; {relu} lets it pass where that "
        "cell was positive. All other cells of the delta are 0."
    )
    plan.layers = (relu, pool)
    sources = (f"d:{pool}", f"a:{relu}")  # whose largest cells won
    operands: dict[str, Any] = {"dy": dy, "dx": dx, "winners": winners, "shape": dy.shape}
    plan.emit(conv_gradients.unpool2x2, says, sources=sources, **operands)
    return dx


def _write_pooled_gradients(
    plan: Plan, step: Step, x: Map, dy: Map, winners: Region | None
) -> None:
    """Write the gradients of the first layer that is trained: nothing below waits for a delta."""
    name, relu, pool = step.names
    says = (
        f"The delta of {pool} goes to the winners of its windows, through {relu} where they were "
        f"positive, and meets the part of {before(plan.net, name)} that lay under the filter "
        "there: input times delta, added up over all places, is the gradient of the filters of "
        f"{name}, and the deltas alone that of their biases. The deltas between are never stored."
    )
    sizes: dict[str, Any] = _sizes(step) | {"counts": dy.shape[1:], "winners": winners}
    sums = _sums(plan, step, "weight", "dw") | _sums(plan, step, "bias", "db")
    plan.emit(conv_gradients.conv3x3_pool_dw, says, x=x, dy=dy, **sums, **sizes)


def _write_gradients(plan: Plan, step: Step, x: Map, dy: Map) -> None:
    name, nine = step.name, is_3x3(step.layer, dy.shape)
    dw, db = _sums(plan, step, "weight", "dw"), _sums(plan, step, "bias", "db")
    if dw["dw"]:
        which = "each of the 3 x 3 weights" if nine else "each weight"
        says = (
            f"The gradient of {which} of {name}: the delta slides over {before(plan.net, name)} as "
            "the filter did, and input times delta is added up over all places."
        )
        kernel = conv_gradients.conv3x3_dw if nine else conv_gradients.conv_dw
        plan.emit(kernel, says, x=x, dy=dy, **dw, **_sizes_by_group(step, nine=nine))
    if db["db"]:
        says = f"The gradient of each bias of {name} is the sum of the delta over all places."
        plan.emit(conv_gradients.conv_db, says, dy=dy, shape=dy.shape, **db)


def _write_next_delta(plan: Plan, step: Step, dy: Map, dx: Map) -> None:
    """Write the full convolution of the delta with the filters, by phases of the stride."""
    name, window = step.name, step.window
    says = (
        f"The next delta: the full convolution of the delta of {name} with its filters, which are "
        "turned by 180 degrees, and with zeros around the delta."
    )
    filters, channels = _group(step)
    rows, columns = window.phases(step.input_shape[1:])
    for down, right in product(rows, columns):
        sizes: dict[str, Any] = {"filters": channels, "channels": filters}
        sizes |= {"counts": (down.count, right.count), "groups": step.layer.groups}
        where = ""
        if is_3x3(step.layer, step.input_shape):
            kernel = conv.conv3x3
        else:
            kernel = conv.conv2d
            sizes |= {"size": (down.taps, right.taps), "stride": (1, 1)}
            sizes |= {"dilation": (down.dilation, right.dilation), "apart": window.stride[1]}
        if window.stride != (1, 1):
            where = (
                f" Here for {_every('row', window.stride[0], down.cell)} and "
                f"{_every('column', window.stride[1], right.cell)}, over which the stride brings "
                f"{down.taps} x {right.taps} of the weights."
            )
        maps: dict[str, Any] = {
            "x": dy.moved(down.start, right.start),
            "y": dx.moved(down.cell, right.cell).every(window.stride[0]),
        }
        w = _pack_turned(plan, step, down, right)
        plan.emit(kernel, says + where, **maps, w=w, b=None, relu=False, **sizes)


def _every(line: str, stride: int, first: int) -> str:
    """Return which rows or columns are a stride apart, in words."""
    if stride == 1:
        return f"every {line}"
    return f"every {({2: '2nd', 3: '3rd'}).get(stride, f'{stride}th')} {line} from {first} on"


def _group(step: Step) -> tuple[int, int]:
    """Return the filters and the channels of a group."""
    groups = step.layer.groups
    return step.layer.filters // groups, step.input_shape[0] // groups


def _sizes(step: Step) -> dict[str, Any]:
    """Return the sizes that all kernels take."""
    filters, channels = _group(step)
    return {"filters": filters, "channels": channels, "counts": step.window.counts}


def _sizes_by_group(step: Step, *, nine: bool) -> dict[str, Any]:
    """Return the sizes that kernels for several groups take: those for 3 x 3, or any filters."""
    window, sizes = step.window, _sizes(step) | {"groups": step.layer.groups}
    if not nine:
        sizes |= {"size": window.size, "stride": window.stride, "dilation": window.dilation}
    return sizes


def _sums(plan: Plan, step: Step, short: str, operand: str) -> dict[str, Any]:
    """Plan the gradient of the weights or the biases, where it is wanted; return its operands."""
    name, filters = f"{step.name}.{short}", step.layer.filters
    if not plan.wants(name):
        return {operand: None, f"{operand}_step": 0}
    rows = 1 if short == "bias" else filters
    columns = plan.net.parameters[name].size // rows
    piece = plan.piece(name, rows, columns, chunked=True)
    return {operand: piece.region, f"{operand}_step": piece.chunk_step}


def _pack(plan: Plan, step: Step) -> Region:
    """Plan packed weights, and write the instruction that fills them before every batch."""
    name, (filters, channels), (rows, columns) = step.name, _group(step), step.window.size
    w, size = plan.parameters[f"{name}.weight"], filters * channels * rows * columns
    says = f"The filters of {name} are laid out in the order in which the convolution reads them."
    packed = plan.shared.take(f"{w.name} packed", step.layer.groups * size)
    order: dict[str, Any] = {
        "groups": step.layer.groups,
        "group_step": size,
        "filters": filters,
        "filter_step": channels * rows * columns,
        "channels": channels,
        "channel_step": rows * columns,
        "taps": (rows, columns),
        "tap_step": (columns, 1),
    }
    plan.emit(conv.pack, says, layers=(name,), early=True, w=w, packed=packed, **order)
    return packed


def _pack_turned(plan: Plan, step: Step, down: StridePhase, right: StridePhase) -> Region | None:
    """Plan the weights that the next delta's convolution takes, of one phase of the stride.

    They are turned by 180 degrees, and filters and channels change places.
    """
    name, (filters, channels), (rows, columns) = step.name, _group(step), step.window.size
    w, taps = plan.parameters[f"{name}.weight"], down.taps * right.taps
    if not taps:
        return None
    says = (
        f"The filters of {name} are turned by 180 degrees, ready for the full convolution on the "
        "way back."
    )
    packed = plan.shared.take(f"{w.name} turned", step.layer.groups * filters * channels * taps)
    order: dict[str, Any] = {
        "groups": step.layer.groups,
        "group_step": filters * channels * rows * columns,
        "filters": channels,
        "filter_step": rows * columns,
        "channels": filters,
        "channel_step": channels * rows * columns,
        "taps": (down.taps, right.taps),
        "tap_step": (-down.tap_step * columns, -right.tap_step),
    }
    w = w.at(down.last_tap * columns + right.last_tap)
    plan.emit(conv.pack, says, layers=(name,), early=True, w=w, packed=packed, **order)
    return packed


LOWER: LowerTable = {Conv2D: lower}
