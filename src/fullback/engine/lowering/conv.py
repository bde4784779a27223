"""Lowering of convolutions."""

from __future__ import annotations

from typing import Any

from fullback.engine.kernels import conv
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.grouping import Step, is_3x3
from fullback.engine.lowering.plan import Gradient, Lowered, Plan
from fullback.engine.lowering.trace import before
from fullback.engine.program import Map, Region
from fullback.engine.simd import LANES


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
    weights: dict[str, Any] = {"w": _pack(plan, step)}
    weights["b"] = plan.parameters.get(f"{name}.bias")
    if step.pooled:
        _, relu, pool = step.names
        plan.emit(
            conv.conv3x3_pool,
            f"Each filter of {name} slides over {source}, {relu} cuts off what is negative, and "
            f"{pool} keeps the largest cell of every 2 x 2 window and remembers which one it was. "
            "All three in one instruction: the maps between them are never stored.",
            x=x,
            y=y,
            winners=winners,
            **weights,
            **_sizes(step, nine=True) | {"counts": y.shape[1:]},
        )
        return
    nine = is_3x3(step.layer, (step.layer.filters, *step.window.counts))
    products = (
        "nine weights times the nine cells under them, added up over the channels"
        if nine
        else "the products of its weights and the cells under them are added up"
    )
    plan.emit(
        conv.conv3x3 if nine else conv.conv2d,
        f"Each filter of {name} slides over {source}: at every place, {products}, with the bias"
        f"{step.then_relu}.",
        x=x,
        y=y,
        relu=step.relu,
        **weights,
        **_sizes(step, nine=nine),
    )


def _write_unpooling(plan: Plan, step: Step, dy: Map, winners: Region | None) -> Map:
    """Write what hands a pooled delta to the winners; return the convolution's delta."""
    name, relu, pool = step.names
    dx = plan.map(f"d {name}", (step.layer.filters, *step.window.counts), step.delta_ring)
    plan.emit(
        conv.unpool2x2,
        f"{pool} hands each delta to the cell that won its window; {relu} lets it pass where that "
        "cell was positive. All other cells of the delta are 0.",
        layers=(relu, pool),
        takes=(f"d:{pool}", f"a:{relu}"),  # whose largest cells won
        dy=dy,
        dx=dx,
        winners=winners,
        shape=dy.shape,
    )
    return dx


def _write_pooled_gradients(
    plan: Plan, step: Step, x: Map, dy: Map, winners: Region | None
) -> None:
    """Write the gradients of the first layer that is trained: nothing below waits for a delta."""
    name, relu, pool = step.names
    dw, db = _piece(plan, step, "weight"), _piece(plan, step, "bias")
    plan.emit(
        conv.conv3x3_pool_dw,
        f"The delta of {pool} goes to the winners of its windows, through {relu} where they were "
        f"positive, and meets the part of {before(plan.net, name)} that lay under the filter "
        "there: input times delta, added up over all places, is the gradient of the filters of "
        f"{name}, and the deltas alone that of their biases. The deltas between are never stored.",
        x=x,
        dy=dy,
        dw=dw.region if dw else None,
        dw_step=dw.chunk_step if dw else 0,
        db=db.region if db else None,
        db_step=db.chunk_step if db else 0,
        winners=winners,
        **_sizes(step, nine=True) | {"counts": dy.shape[1:]},
    )


def _write_gradients(plan: Plan, step: Step, x: Map, dy: Map) -> None:
    name = step.name
    dw, db = _piece(plan, step, "weight"), _piece(plan, step, "bias")
    if dw:
        nine = is_3x3(step.layer, dy.shape)
        which = "each of the 3 x 3 weights" if nine else "each weight"
        plan.emit(
            conv.conv3x3_dw if nine else conv.conv_dw,
            f"The gradient of {which} of {name}: the delta slides over {before(plan.net, name)} as "
            "the filter did, and input times delta is added up over all places.",
            x=x,
            dy=dy,
            dw=dw.region,
            dw_step=dw.chunk_step,
            **_sizes(step, nine=nine),
        )
    if db:
        plan.emit(
            conv.conv_db,
            f"The gradient of each bias of {name} is the sum of the delta over all places.",
            dy=dy,
            db=db.region,
            db_step=db.chunk_step,
            shape=dy.shape,
        )


def _write_next_delta(plan: Plan, step: Step, dy: Map, dx: Map) -> None:
    """Write the full convolution of the delta with the filters."""
    layer, name, window = step.layer, step.name, step.window
    _, height, width = step.input_shape
    if window.stride != (1, 1):
        wide = plan.map(
            f"d {name}, spread",
            (layer.filters, *window.between_strides),
            window.full_ring((height, width)),
        )
        plan.emit(
            conv.spread,
            f"The delta of {name} is spread out with zeros, as the stride had left cells out.",
            dy=dy,
            wide=wide,
            shape=dy.shape,
            stride=window.stride,
        )
        dy = wide
    turned = _pack(plan, step, turned=True)
    sizes = _sizes(step, nine=is_3x3(layer, step.input_shape))
    sizes |= {"filters": sizes["channels"], "channels": sizes["filters"]}
    sizes |= {"counts": (height, width)}
    if "stride" in sizes:
        sizes["stride"] = (1, 1)
    plan.emit(
        conv.conv2d if "stride" in sizes else conv.conv3x3,
        f"The next delta: the full convolution of the delta of {name} with its filters, which are "
        "turned by 180 degrees, and with zeros around the delta.",
        x=dy.moved(*window.before_full),
        y=dx,
        w=turned,
        b=None,
        relu=False,
        **sizes,
    )


def _group(step: Step) -> tuple[int, int]:
    """Return the filters and the channels of a group."""
    groups = step.layer.groups
    return step.layer.filters // groups, step.input_shape[0] // groups


def _sizes(step: Step, *, nine: bool) -> dict[str, Any]:
    """Return the sizes that kernels take: those for any filters, or those for 3 x 3."""
    (filters, channels), window = _group(step), step.window
    sizes: dict[str, Any] = {"filters": filters, "channels": channels, "counts": window.counts}
    if not nine:
        sizes |= {"size": window.size, "stride": window.stride, "dilation": window.dilation}
        sizes |= {"groups": step.layer.groups}
    return sizes


def _piece(plan: Plan, step: Step, short: str) -> Gradient | None:
    """Plan the gradient of the weights or the biases, where it is wanted."""
    name, filters = f"{step.name}.{short}", step.layer.filters
    if not plan.wants(name):
        return None
    if short == "bias":
        return plan.piece(name, 1, filters, chunked=True)
    return plan.piece(name, filters, plan.net.parameters[name].size // filters, chunked=True)


def _pack(plan: Plan, step: Step, *, turned: bool = False) -> Region:
    """Plan packed weights, and write the instruction that fills them before every batch.

    Turned by 180 degrees, and with filters and channels changing places, they are what the next
    delta's convolution takes.
    """
    name, groups = step.name, step.layer.groups
    w = plan.parameters[f"{name}.weight"]
    filters, channels = _group(step)
    taps = step.window.size[0] * step.window.size[1]
    size = filters * channels * taps
    packed = plan.shared.take(f"{w.name} {'turned' if turned else 'packed'}", groups * size)
    order: dict[str, Any] = {"groups": groups, "group_step": size, "taps": taps}
    by_filter, by_channel = (filters, channels * taps), (channels, taps)
    if turned:
        w, by_filter, by_channel = w.at(taps - 1), by_channel, by_filter
        sentence = (
            f"The filters of {name} are turned by 180 degrees, ready for the full convolution on "
            "the way back."
        )
    else:
        sentence = (
            f"The filters of {name} are laid out in the order in which the convolution reads them."
        )
    plan.emit(
        conv.pack,
        sentence,
        layers=step.names[:1],
        early=True,
        w=w,
        packed=packed,
        filters=by_filter[0],
        filter_step=by_filter[1],
        channels=by_channel[0],
        channel_step=by_channel[1],
        tap_step=-1 if turned else 1,
        **order,
    )
    return packed
