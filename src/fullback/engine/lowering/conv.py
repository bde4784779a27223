"""Lowering of convolutions."""

from __future__ import annotations

from typing import Any

from fullback.engine.kernels import conv, conv_gradients
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.grouping import Step, is_3x3
from fullback.engine.lowering.plan import Lowered, LowerTable, Plan
from fullback.engine.lowering.trace import before
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
    """Write the full convolution of the delta with the filters."""
    layer, name, window = step.layer, step.name, step.window
    counts = step.input_shape[1:]
    if window.stride != (1, 1):
        shape = (layer.filters, *window.between_strides)
        wide = plan.map(f"d {name}, spread", shape, window.full_ring(counts))
        says = f"The delta of {name} is spread out with zeros, as the stride had left cells out."
        plan.emit(
            conv_gradients.spread, says, dy=dy, wide=wide, shape=dy.shape, stride=window.stride
        )
        dy = wide
    turned = _pack(plan, step, turned=True)
    nine = is_3x3(layer, step.input_shape)
    sizes: dict[str, Any] = _sizes_by_group(step, nine=nine)
    sizes |= {"filters": sizes["channels"], "channels": sizes["filters"], "counts": counts}
    sizes |= {} if nine else {"stride": (1, 1)}
    says = (
        f"The next delta: the full convolution of the delta of {name} with its filters, which are "
        "turned by 180 degrees, and with zeros around the delta."
    )
    kernel, x = conv.conv3x3 if nine else conv.conv2d, dy.moved(*window.before_full)
    plan.emit(kernel, says, x=x, y=dx, w=turned, b=None, relu=False, **sizes)


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


def _pack(plan: Plan, step: Step, *, turned: bool = False) -> Region:
    """Plan packed weights, and write the instruction that fills them before every batch.

    Turned by 180 degrees, and with filters and channels changing places, they are what the next
    delta's convolution takes.
    """
    name, groups = step.name, step.layer.groups
    w, (filters, channels) = plan.parameters[f"{name}.weight"], _group(step)
    taps = step.window.size[0] * step.window.size[1]
    size = filters * channels * taps
    by_filter, by_channel, tap_step = (filters, channels * taps), (channels, taps), 1
    says = f"The filters of {name} are laid out in the order in which the convolution reads them."
    if turned:
        w, by_filter, by_channel, tap_step = w.at(taps - 1), by_channel, by_filter, -1
        says = (
            f"The filters of {name} are turned by 180 degrees, ready for the full convolution on "
            "the way back."
        )
    packed = plan.shared.take(f"{w.name} {'turned' if turned else 'packed'}", groups * size)
    order: dict[str, Any] = {
        "groups": groups,
        "group_step": size,
        "taps": taps,
        "tap_step": tap_step,
    }
    order |= dict(zip(("filters", "filter_step"), by_filter, strict=True))
    order |= dict(zip(("channels", "channel_step"), by_channel, strict=True))
    plan.emit(conv.pack, says, layers=(name,), early=True, w=w, packed=packed, **order)
    return packed


LOWER: LowerTable = {Conv2D: lower}
