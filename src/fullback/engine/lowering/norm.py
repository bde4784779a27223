"""Lowering of normalisation."""

from __future__ import annotations

from typing import Any

from fullback.engine.kernels import norm
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.grouping import Step
from fullback.engine.lowering.plan import Gradient, Lowered, LowerTable, Plan
from fullback.engine.lowering.trace import before
from fullback.engine.program import Map, Region
from fullback.engine.simd import LANES
from fullback.layers import BatchNorm2D, Normalize


def normalize(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a Normalize; it comes first, so nothing below it has a gradient."""
    y = plan.output(n, step, x)
    maps: dict[str, Any] = {"x": x, "y": y, "shape": x.shape}
    if len(step.output_shape) == 1:  # every feature is a channel
        shape = (x.features, 1, 1)
        maps = {"x": x.reshaped(*shape), "y": y.reshaped(*shape), "shape": shape}
    says = f"{step.name} subtracts the training images' mean and divides by their deviation."
    plan.emit(norm.normalize, says, **maps, **write_scale(plan, step))

    return y, lambda: None


def write_scale(plan: Plan, step: Step) -> dict[str, Any]:
    """Write what makes a Normalize's scale; return where the mean and the scale are."""
    mean, deviation = (plan.statistics[f"{step.name}.{short}"] for short in ("mean", "deviation"))
    scale = plan.shared.take(f"{step.name} scale", deviation.size)
    says = f"{step.name} takes 1 / deviation."
    numbers: dict[str, Any] = {"deviation": deviation, "count": deviation.size}
    plan.emit(norm.inverse, says, layers=(step.name,), early=True, scale=scale, **numbers)
    return {"mean": mean, "scale": scale}


def batchnorm(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a BatchNorm2D, with the ReLU and the pooling that have joined it."""
    name, channels = step.name, step.input_shape[0]
    of_batch = plan.training and name not in plan.net.frozen
    statistics = plan.shared.take(f"{name} mean and scale", 2 * channels)
    rows = None
    if plan.backwards:
        rows = plan.take_by_block(f"{name} moments", 2 * channels, whole=True)
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
            says = (
                f"The next delta: the delta of {name}, less the part of it that mean and variance "
                "took back, times the scale."
            )
            kernel = norm.batchnorm_pool_dx if step.pooled else norm.batchnorm_dx
            maps: dict[str, Any] = {"x": x, "dy": dy, "dx": plan.delta(n - 1), "shape": dy.shape}
            scale: dict[str, Any] = {
                "statistics": statistics,
                "weight": plan.parameters[f"{name}.weight"],
            }
            sums = (dweight, dbias) if of_batch else (None, None)
            plan.emit(kernel, says, **maps, **scale, dweight=sums[0], dbias=sums[1], **kept)

    return y, back


def _write_statistics(
    plan: Plan, step: Step, x: Map, statistics: Region, rows: Region | None
) -> None:
    """Write what takes the batch's statistics, or, without rows for these, the running ones."""
    if rows is None:
        write_running(plan, step, statistics)
    else:
        name, running = step.name, _running(plan, step)
        plan.layers = (name,)
        says = f"{name} adds up each channel's values and squares."
        plan.emit(norm.moments, says, x=x, rows=rows, shape=x.shape)
        says = f"{name} makes each channel's mean and variance of them."
        sizes: dict[str, Any] = {"cells": x.shape[1] * x.shape[2], **running}
        plan.emit(norm.merge_moments, says, rows=rows, statistics=statistics, **sizes)
    plan.layers = step.names


def write_running(plan: Plan, step: Step, statistics: Region) -> None:
    """Write what takes the running statistics."""
    says = f"{step.name} takes the running mean and variance."
    operands = _running(plan, step)
    plan.emit(
        norm.running, says, layers=(step.name,), early=True, statistics=statistics, **operands
    )


def _running(plan: Plan, step: Step) -> dict[str, Any]:
    """Return where the running statistics are, and what goes with them."""
    name, layer = step.name, step.layer
    settings = plan.constant(layer.epsilon, layer.momentum)
    found: dict[str, Any] = {"channels": step.input_shape[0], "settings": settings}
    return found | {short: plan.statistics[f"{name}.{short}"] for short in ("mean", "variance")}


def _write_forward(
    plan: Plan, step: Step, x: Map, y: Map, statistics: Region, winners: Region | None
) -> None:
    name = step.name
    operands: dict[str, Any] = {"x": x, "y": y, "shape": y.shape, "statistics": statistics}
    operands |= {short: plan.parameters[f"{name}.{short}"] for short in ("weight", "bias")}
    if step.pooled:
        _, relu, pool = step.names
        says = (
            f"{name} brings each channel to mean 0 and variance 1, scales and shifts it, {relu} "
            f"cuts off what is negative, and {pool} keeps the largest cell of every window."
        )
        plan.emit(norm.batchnorm_pool, says, winners=winners, **operands)
    else:
        says = (
            f"{name} brings each channel to mean 0 and variance 1, then scales and shifts it"
            f"{step.then_relu}."
        )
        plan.emit(norm.batchnorm, says, relu=step.relu, **operands)


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
    operands: dict[str, Any] = {"dy": dy, "rows": rows, "shape": dy.shape}
    adds = f"{name} adds up each channel's deltas, and deltas times normalised values."
    source = f"a:{before(plan.net, name)}"
    if step.pooled:
        _, relu, pool = step.names
        adds = f"Each delta of {pool} goes to its window's winner, through {relu}; {adds}"
        sources = (f"d:{pool}", source)  # whose values lie with the winners
        plan.emit(norm.batchnorm_pool_sums, adds, sources=sources, winners=winners, **operands)
    else:
        plan.emit(norm.batchnorm_sums, adds, x=x, statistics=statistics, **operands)
    gradients: dict[str, Any] = {}
    for short in ("weight", "bias"):
        parameter = f"{name}.{short}"
        gradients[f"d{short}"] = plan.shared.take(f"d {parameter}", channels)
        if plan.wants(parameter):
            plan.pieces[parameter] = Gradient(
                gradients[f"d{short}"], 1, channels, channels, whole=True
            )
    says = f"These sums are the gradients of the scale and the shift of {name}."
    names: dict[str, Any] = {"layers": (name,), "sources": (f"d:{name}", source)}
    plan.emit(norm.merge_sums, says, **names, rows=rows, channels=channels, **gradients)
    return gradients["dweight"], gradients["dbias"]


LOWER: LowerTable = {BatchNorm2D: batchnorm, Normalize: normalize}
