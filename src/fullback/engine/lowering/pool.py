"""Lowering of pooling."""

from __future__ import annotations

from fullback.engine.kernels import pool
from fullback.engine.loop import FOR_BLOCKS
from fullback.engine.lowering.plan import Lowered, Plan
from fullback.engine.lowering.steps import Step
from fullback.engine.program import Map
from fullback.engine.simd import LANES
from fullback.layers import GlobalAvgPool2D, MaxPool2D
from fullback.layers.window import pads, pair


def lower(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a pooling; GlobalAvgPool2D is one whose window is the map."""
    layer = step.layer
    counts: tuple[int, ...]
    if isinstance(layer, GlobalAvgPool2D):
        window = (*x.shape[1:], 1, 1, 0, 0)
        counts = (1, 1)
        y = plan.output(n, step, x)
        to = (y.place, LANES, LANES)
    else:
        (above, _), (left, _) = pads(layer.padding, step.given[1:], layer.size, layer.step)
        window = (*pair(layer.size), *layer.step, above, left)
        counts = step.made[1:]
        y = plan.output(n, step, x)
        to = y.view
    largest = isinstance(layer, MaxPool2D)
    winners = -1
    if largest and plan.backwards:
        winners = plan.arena.take(f"{step.name} winners", y.features * LANES)
    operands = (*x.view, *to, *x.shape, *counts, *window, winners)
    plan.emit(
        FOR_BLOCKS,
        pool.maxpool if largest else pool.avgpool,
        operands,
        step.names,
        (x.name,),
        (y.name,),
    )

    def back() -> None:
        if plan.needs_dx(n):
            dy, dx = plan.delta(n), plan.delta(n - 1)
            given = (dy.place, LANES, LANES) if isinstance(layer, GlobalAvgPool2D) else dy.view
            operands = (*dx.view, *given, *dx.shape, *counts, *window, winners)
            plan.emit(
                FOR_BLOCKS,
                pool.maxpool_dx if largest else pool.avgpool_dx,
                operands,
                step.names,
                (dy.name,),
                (dx.name,),
            )

    return y, back
