"""Lowering of Flatten and of fully connected layers."""

from __future__ import annotations

from fullback.engine.kernels import dense
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.grouping import Step
from fullback.engine.lowering.plan import Lowered, Plan
from fullback.engine.lowering.trace import before
from fullback.engine.program import Map
from fullback.engine.simd import LANES


def flatten(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a Flatten, which moves nothing forward: the cells lie in its order."""

    def back() -> None:
        dy, dx = plan.delta(n), plan.delta(n - 1) if plan.needs_dx(n) else None
        if dx is not None and dy.place != dx.place:
            plan.emit(dense.copy, x=dy.reshaped(*dx.shape), y=dx, shape=dx.shape)

    return x.flat(step.name), back


def lower(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a fully connected layer, with the ReLU that has joined it."""
    name, (features,), units = step.name, step.input_shape, step.layer.units
    weight, bias = f"{name}.weight", f"{name}.bias"
    y = plan.output(n, step, x)
    plan.emit(
        dense.dense,
        f"Each unit of {name} adds up all its inputs times its weights, and its bias"
        f"{step.then_relu}.",
        x=x,
        y=y,
        w=plan.parameters[weight],
        w_step=features,
        x_step=1,
        b=plan.parameters.get(bias),
        units=units,
        features=features,
        relu=step.relu,
    )

    def back() -> None:
        dy = plan.delta(n)
        if step.relu:
            relu_dx(plan, step, dy, y)
        plan.layers = step.names[:1]
        if plan.wants(weight) or plan.wants(bias):
            _gradients(plan, step, x, dy)
        if plan.needs_dx(n):
            plan.emit(
                dense.dense,
                f"The next delta: each input of {name} collects the deltas of all units, through "
                "the weights by which it went to them.",
                x=dy,
                y=plan.delta(n - 1),
                w=plan.parameters[weight],
                w_step=1,
                x_step=features,
                b=None,
                units=features,
                features=units,
                relu=False,
            )

    return y, back


def _gradients(plan: Plan, step: Step, x: Map, dy: Map) -> None:
    """Write the gradients, sums over all images, for which every block leaves what it has."""
    (features,), units, name = step.input_shape, step.layer.units, step.name
    weight, bias = f"{name}.weight", f"{name}.bias"
    deltas = plan.shared.take(f"{dy.name} of all images", plan.blocks * units * LANES)
    plan.emit(
        dense.keep,
        f"The delta of {name} is kept for the weights' gradient, which is a sum over all images.",
        dy=dy,
        deltas=deltas,
        units=units,
    )
    if plan.wants(weight):
        length = -(-features // LANES) * LANES
        rows = plan.shared.take(f"{x.name} in rows", plan.blocks * LANES * length)
        source = before(plan.net, name)
        plan.emit(
            dense.rows,
            f"The input of {name}, {source}, is kept for the weights' gradient.",
            x=x,
            rows=rows,
            length=length,
        )
        dw = plan.piece(weight, units, features, padded=True)
        plan.emit(
            dense.dense_dw,
            f"The gradient of each weight of {name} is the delta of its unit times its input.",
            late=True,
            x=rows,
            dy=deltas,
            dw=dw.region,
            length=length,
            pitch=dw.pitch,
            units=units,
        )
    if plan.wants(bias):
        plan.emit(
            dense.dense_db,
            f"The gradient of each bias of {name} is the delta of its unit.",
            late=True,
            dy=deltas,
            db=plan.piece(bias, units, 1).region,
            units=units,
        )
