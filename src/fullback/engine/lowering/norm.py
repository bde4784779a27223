"""Lowering of normalisation."""

from __future__ import annotations

from fullback.engine.kernels import norm
from fullback.engine.loop import FOR_BLOCKS, FOR_WORKERS
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.plan import Lowered, Plan
from fullback.engine.lowering.steps import Step
from fullback.engine.program import Map
from fullback.engine.simd import LANES


def normalize(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a Normalize; it comes first, so nothing below it has a gradient."""
    shape = x.shape if len(step.made) == 3 else (step.made[0], 1, 1)
    mean, deviation = (plan.statistics[f"{step.name}.{key}"] for key in ("mean", "deviation"))
    y = plan.output(n, step, x)
    views = (
        (x.view, y.view)
        if len(step.made) == 3
        else ((x.place, LANES, LANES), (y.place, LANES, LANES))
    )
    plan.emit(
        FOR_BLOCKS,
        norm.normalize,
        (*views[0], *views[1], *shape, mean, deviation),
        step.names,
        (x.name,),
        (y.name,),
    )

    return y, lambda: None


def batchnorm(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a BatchNorm2D, with the ReLU and the pooling that have joined it."""
    layer, name, channels = step.layer, step.name, step.given[0]
    weight, bias = f"{name}.weight", f"{name}.bias"
    mean, variance = (plan.statistics[f"{name}.{key}"] for key in ("mean", "variance"))
    numbers = plan.constant(layer.epsilon, layer.momentum)
    moments = plan.shared.take(f"{name} mean and scale", 2 * channels)
    batch = plan.training and name not in plan.net.frozen
    rows = plan.shared.take(f"{name} moments", plan.blocks * 2 * channels) if plan.backwards else 0
    cells = x.shape[1] * x.shape[2]
    if batch:
        plan.emit(
            FOR_BLOCKS,
            norm.moments,
            (*x.view, *x.shape, rows),
            (name,),
            (x.name,),
            (f"{name} moments",),
        )
        plan.emit(
            FOR_WORKERS,
            norm.merge_moments,
            (rows, channels, cells, moments, mean, variance, numbers),
            (name,),
            (f"{name} moments",),
            (f"{name} mean and scale",),
        )
    else:
        plan.emit(
            FOR_WORKERS,
            norm.running,
            (mean, variance, channels, moments, numbers),
            (name,),
            (),
            (f"{name} mean and scale",),
            early=True,
        )
    y = plan.output(n, step, x)
    operands: tuple[int, ...] = (
        *x.view,
        *y.view,
        *(y.shape if step.pooled else x.shape),
        moments,
        plan.parameters[weight],
        plan.parameters[bias],
    )
    winners = -1
    if step.pooled:
        if plan.backwards:
            winners = plan.arena.take(f"{step.names[2]} winners", 2 * y.features * LANES)
        operands = (*operands, winners)
        plan.emit(FOR_BLOCKS, norm.batchnorm_pool, operands, step.names, (x.name,), (y.name,))
    else:
        operands = (*operands, step.relu)
        plan.emit(FOR_BLOCKS, norm.batchnorm, operands, step.names, (x.name,), (y.name,))

    def back() -> None:
        dy = plan.delta(n)
        if step.relu and not step.pooled:
            relu_dx(plan, step, dy, y)
        names = step.names if step.pooled else (name,)
        sums = -1
        if batch or plan.wants(weight):
            sums = plan.shared.take(f"d {weight}", 2 * channels)
            given = (winners,) if step.pooled else x.view
            plan.emit(
                FOR_BLOCKS,
                norm.batchnorm_pool_sums if step.pooled else norm.batchnorm_sums,
                (*given, *dy.view, *dy.shape, *(() if step.pooled else (moments,)), rows),
                names,
                (dy.name,) if step.pooled else (x.name, dy.name),
                (f"{name} moments",),
            )
            plan.emit(
                FOR_WORKERS,
                norm.merge_sums,
                (rows, channels, sums),
                (name,),
                (f"{name} moments",),
                (f"d {weight}", f"d {bias}"),
            )
            for own, place in ((weight, sums), (bias, sums + channels)):
                if plan.wants(own):
                    plan.pieces[own] = (place, 1, channels, channels, 0)
        if plan.needs_dx(n):
            dx = plan.delta(n - 1)
            operands = (
                *x.view,
                *dy.view,
                *dy.shape,
                moments,
                *dx.view,
                plan.parameters[weight],
                sums if batch else -1,
                winners,
            )
            kernel = norm.batchnorm_pool_dx if step.pooled else norm.batchnorm_dx
            plan.emit(FOR_BLOCKS, kernel, operands, names, (x.name, dy.name), (dx.name,))

    return y, back
