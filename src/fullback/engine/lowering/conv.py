"""Lowering of convolutions."""

from __future__ import annotations

from fullback.engine.kernels import conv
from fullback.engine.loop import FOR_BLOCKS, FOR_WORKERS
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.plan import Lowered, Plan
from fullback.engine.lowering.steps import Step, is_3x3
from fullback.engine.lowering.window import Window
from fullback.engine.program import Map
from fullback.engine.simd import LANES


def lower(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a convolution, with what has joined it."""
    layer, name = step.layer, step.name
    place = step.window
    filters, channels = layer.filters // layer.groups, step.given[0] // layer.groups
    taps = place.size[0] * place.size[1]
    weight, bias = f"{name}.weight", f"{name}.bias"
    packed = _pack(plan, step)
    b = plan.parameters[bias] if layer.bias else -1
    seen = x.moved(-place.pads[0][0], -place.pads[1][0])
    y = plan.output(n, step, x)
    made = (layer.filters, *place.counts)
    winners = -1
    operands: tuple[int, ...]
    if step.pooled:
        _, height, width = y.shape
        if plan.backwards:
            winners = plan.arena.take(
                f"{step.names[2]} winners", layer.filters * height * width * LANES
            )
        operands = (*seen, *y.view, packed, b, layer.filters, channels, height, width, winners)
        plan.emit(FOR_BLOCKS, conv.conv3x3_pool, operands, step.names, (x.name,), (y.name,))
    else:
        kernel = conv.conv3x3 if is_3x3(layer, made) else conv.conv2d
        operands = (
            *seen,
            *y.view,
            packed,
            b,
            filters,
            channels,
            *place.counts,
            *place.steps,
            layer.groups,
            step.relu,
        )
        plan.emit(FOR_BLOCKS, kernel, operands, step.names, (x.name,), (y.name,))

    def back() -> None:
        dy = plan.delta(n)
        operands: tuple[int, ...]
        shared_step = 0
        if step.pooled and not plan.needs_dx(n):
            dw = db = -1
            if plan.wants(weight):
                dw, _, shared_step = plan.piece(
                    weight, layer.filters, channels * taps, chunked=True
                )
            db_step = 0
            if layer.bias and plan.wants(bias):
                db, _, db_step = plan.piece(bias, 1, layer.filters, chunked=True)
            operands = (
                *seen,
                *dy.view,
                dw,
                shared_step,
                layer.filters,
                channels,
                *dy.shape[1:],
                winners,
                db,
                db_step,
            )
            plan.emit(
                FOR_BLOCKS,
                conv.conv3x3_pool_dw,
                operands,
                step.names,
                (x.name, dy.name),
                tuple(f"d {own}" for own in (weight, bias) if plan.wants(own)),
            )
            return
        if step.pooled:
            pooled, dy = dy, plan.map(f"d {name}", made, step.delta_ring)
            operands = (*dy.view, *pooled.view, winners, *pooled.shape)
            plan.emit(
                FOR_BLOCKS, conv.unpool2x2, operands, step.names[1:], (pooled.name,), (dy.name,)
            )
        elif step.relu:
            relu_dx(plan, step, dy, y)
        if plan.wants(weight):
            dw, _, shared_step = plan.piece(weight, layer.filters, channels * taps, chunked=True)
            kernel = conv.conv3x3_dw if is_3x3(layer, made) else conv.conv_dw
            operands = (
                *seen,
                *dy.view,
                dw,
                shared_step,
                filters,
                channels,
                *place.counts,
                *place.steps,
                layer.groups,
            )
            plan.emit(
                FOR_BLOCKS,
                kernel,
                operands,
                step.names[:1],
                (x.name, dy.name),
                (f"d {weight}",),
            )
        if layer.bias and plan.wants(bias):
            db, _, shared_step = plan.piece(bias, 1, layer.filters, chunked=True)
            operands = (*dy.view, *dy.shape, db, shared_step)
            plan.emit(
                FOR_BLOCKS, conv.conv_db, operands, step.names[:1], (dy.name,), (f"d {bias}",)
            )
        if plan.needs_dx(n):
            _next_delta(plan, n, step, place, dy)

    return y, back


def _next_delta(plan: Plan, n: int, step: Step, place: Window, dy: Map) -> None:
    """Write the next delta: the full convolution of the delta with the filters."""
    layer, name = step.layer, step.name
    dx = plan.delta(n - 1)
    filters, channels = layer.filters // layer.groups, step.given[0] // layer.groups
    if place.stride != (1, 1):
        length = tuple(
            (count - 1) * own + 1 for count, own in zip(place.counts, place.stride, strict=True)
        )
        wide = plan.map(
            f"d {name}, spread", (layer.filters, *length), place.full_ring(step.given[1:])
        )
        operands = (*wide.view, *dy.view, *dy.shape, *place.stride)
        plan.emit(FOR_BLOCKS, conv.spread, operands, step.names[:1], (dy.name,), (wide.name,))
        dy = wide
    turned = _pack(plan, step, turned=True)
    first = [p[0] - s + 1 for p, s in zip(place.pads, place.spans, strict=True)]
    steps = (*place.size, 1, 1, *place.dilation)
    kernel = conv.conv3x3 if is_3x3(layer, step.given) else conv.conv2d
    operands = (
        *dy.moved(*first),
        *dx.view,
        turned,
        -1,
        channels,
        filters,
        *step.given[1:],
        *steps,
        layer.groups,
        0,
    )
    plan.emit(FOR_BLOCKS, kernel, operands, step.names[:1], (dy.name,), (dx.name,))


def _pack(plan: Plan, step: Step, *, turned: bool = False) -> int:
    """Plan packed weights, and write the instruction that fills them before every batch.

    Turned by 180 degrees, and with filters and channels changing places, they are what the next
    delta's convolution takes.
    """
    layer, weight = step.layer, f"{step.name}.weight"
    filters, channels = layer.filters // layer.groups, step.given[0] // layer.groups
    taps = step.window.size[0] * step.window.size[1]
    size = filters * channels * taps
    by_filter, by_channel = (filters, channels * taps), (channels, taps)
    packed = plan.shared.take(f"{weight} {'turned' if turned else 'packed'}", layer.groups * size)
    w = plan.parameters[weight]
    operands = (packed, w, layer.groups, size, *by_filter, *by_channel, taps, 1)
    if turned:
        operands = (packed, w + taps - 1, layer.groups, size, *by_channel, *by_filter, taps, -1)
    names = (f"{weight} {'turned' if turned else 'packed'}",)
    plan.emit(FOR_WORKERS, conv.pack, operands, step.names[:1], (weight,), names, early=True)
    return packed
