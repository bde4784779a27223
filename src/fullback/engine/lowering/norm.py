"""Lowering of normalisation."""

from __future__ import annotations

from typing import Any

from fullback.engine.kernels import norm
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.grouping import Step
from fullback.engine.lowering.plan import Gradient, Lowered, Plan
from fullback.engine.lowering.trace import before
from fullback.engine.program import Map, Region
from fullback.engine.simd import LANES


def normalize(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a Normalize; it comes first, so nothing below it has a gradient."""
    y, features = plan.output(n, step, x), step.output_shape[0]
    is_image = len(step.output_shape) == 3
    plan.emit(
        norm.normalize,
        f"{step.name} subtracts the training images' mean and divides by their deviation.",
        x=x if is_image else x.reshaped(features, 1, 1),
        y=y if is_image else y.reshaped(features, 1, 1),
        shape=x.shape if is_image else (features, 1, 1),
        mean=plan.statistics[f"{step.name}.mean"],
        deviation=plan.statistics[f"{step.name}.deviation"],
    )

    return y, lambda: None


def batchnorm(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a BatchNorm2D, with the ReLU and the pooling that have joined it."""
    name, channels = step.name, step.input_shape[0]
    of_batch = plan.training and name not in plan.net.frozen
    statistics = plan.shared.take(f"{name} mean and scale", 2 * channels)
    rows = None
    if plan.backwards:
        rows = plan.shared.take(f"{name} moments", plan.blocks * 2 * channels)
    _write_statistics(plan, step, x, statistics, rows if of_batch else None)
    y = plan.output(n, step, x)
    winners = None
    if step.pooled and plan.backwards:
        winners = plan.arena.take(f"{step.names[2]} winners", 2 * y.features * LANES)
    _write_forward(plan, step, x, y, statistics, winners)
    kept: dict[str, Any] = {"winners": winners} if step.pooled else {}

    def back() -> None:
        dy, dweight, dbias = plan.delta(n), None, None
        if step.relu and not step.pooled:
            relu_dx(plan, step, dy, y)
        plan.layers = step.names if step.pooled else (name,)
        if of_batch or plan.wants(f"{name}.weight"):
            dweight, dbias = _write_sums(plan, step, x, dy, statistics, rows, winners)
        if plan.needs_dx(n):
            plan.emit(
                norm.batchnorm_pool_dx if step.pooled else norm.batchnorm_dx,
                f"The next delta: the delta of {name}, less the part of it that mean and variance "
                "took back, times the scale.",
                x=x,
                dy=dy,
                dx=plan.delta(n - 1),
                shape=dy.shape,
                statistics=statistics,
                weight=plan.parameters[f"{name}.weight"],
                dweight=dweight if of_batch else None,
                dbias=dbias if of_batch else None,
                **kept,
            )

    return y, back


def _write_statistics(
    plan: Plan, step: Step, x: Map, statistics: Region, rows: Region | None
) -> None:
    """Write what takes the batch's statistics, or, without rows for these, the running ones."""
    name, layer = step.name, step.layer
    settings = plan.constant(layer.epsilon, layer.momentum)
    running: dict[str, Any] = {"channels": step.input_shape[0], "settings": settings}
    running |= {short: plan.statistics[f"{name}.{short}"] for short in ("mean", "variance")}
    if rows is None:
        plan.emit(
            norm.running,
            f"{name} takes the running mean and variance.",
            layers=(name,),
            early=True,
            statistics=statistics,
            **running,
        )
        return
    plan.emit(
        norm.moments,
        f"{name} adds up each channel's values and squares.",
        layers=(name,),
        x=x,
        rows=rows,
        shape=x.shape,
    )
    plan.emit(
        norm.merge_moments,
        f"{name} makes each channel's mean and variance of them.",
        layers=(name,),
        rows=rows,
        statistics=statistics,
        cells=x.shape[1] * x.shape[2],
        **running,
    )


def _write_forward(
    plan: Plan, step: Step, x: Map, y: Map, statistics: Region, winners: Region | None
) -> None:
    name = step.name
    operands: dict[str, Any] = {"x": x, "y": y, "shape": y.shape, "statistics": statistics}
    operands |= {short: plan.parameters[f"{name}.{short}"] for short in ("weight", "bias")}
    if step.pooled:
        _, relu, pool = step.names
        plan.emit(
            norm.batchnorm_pool,
            f"{name} brings each channel to mean 0 and variance 1, scales and shifts it, {relu} "
            f"cuts off what is negative, and {pool} keeps the largest cell of every window.",
            winners=winners,
            **operands,
        )
    else:
        plan.emit(
            norm.batchnorm,
            f"{name} brings each channel to mean 0 and variance 1, then scales and shifts it"
            f"{step.then_relu}.",
            relu=step.relu,
            **operands,
        )


def _write_sums(
    plan: Plan,
    step: Step,
    x: Map,
    dy: Map,
    statistics: Region,
    rows: Region | None,
    winners: Region | None,
) -> tuple[Region, Region]:
    """Write the gradients of scale and shift, which the next delta takes too; return them."""
    name, channels = step.name, step.input_shape[0]
    adds = f"{name} adds up each channel's deltas, and deltas times normalised values."
    if step.pooled:
        _, relu, pool = step.names
        plan.emit(
            norm.batchnorm_pool_sums,
            f"Each delta of {pool} goes to its window's winner, through {relu}; {adds}",
            takes=(f"d:{pool}", f"a:{before(plan.net, name)}"),  # whose values the winners keep
            dy=dy,
            rows=rows,
            shape=dy.shape,
            winners=winners,
        )
    else:
        plan.emit(
            norm.batchnorm_sums,
            adds,
            x=x,
            dy=dy,
            rows=rows,
            shape=dy.shape,
            statistics=statistics,
        )
    gradients = {}
    for short in ("weight", "bias"):
        own = f"{name}.{short}"
        gradients[short] = plan.shared.take(f"d {own}", channels)
        if plan.wants(own):
            plan.pieces[own] = Gradient(gradients[short], 1, channels, channels)
    plan.emit(
        norm.merge_sums,
        f"These sums are the gradients of the scale and the shift of {name}.",
        layers=(name,),
        takes=(f"d:{name}", f"a:{before(plan.net, name)}"),
        rows=rows,
        dweight=gradients["weight"],
        dbias=gradients["bias"],
        channels=channels,
    )
    return gradients["weight"], gradients["bias"]
