"""Lowering of Flatten and of fully connected layers."""

from __future__ import annotations

from typing import Any

from fullback.engine.kernels import dense
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.grouping import Step
from fullback.engine.lowering.plan import Lowered, LowerTable, Plan
from fullback.engine.lowering.trace import before
from fullback.engine.program import Map, Region
from fullback.engine.simd import LANES
from fullback.layers import Dense, Flatten

# Going down the columns of W is faster as long as its rows' lines stay in the cache from one tile
# of columns to the next: not where there are many, or where all fall into the same few places.
_MOST_ROWS, _PERIOD = 512, 1024  # floats; 4 KB are the period of a first-level cache


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
    w, y = plan.parameters[f"{name}.weight"], plan.output(n, step, x)
    says = (
        f"Each unit of {name} adds up all its inputs times its weights, and its bias"
        f"{step.then_relu}."
    )
    sizes: dict[str, Any] = {"units": units, "features": features, "w_step": features, "x_step": 1}
    b = plan.parameters.get(f"{name}.bias")
    plan.emit(dense.dense, says, x=x, y=y, w=w, b=b, relu=step.relu, **sizes)

    def back() -> None:
        dy = plan.delta(n)
        if step.relu:
            relu_dx(plan, step, dy, y)
        plan.layers = (name,)
        _write_gradients(plan, step, x, dy)
        if plan.needs_dx(n):
            says = (
                f"The next delta: each input of {name} collects the deltas of all units, through "
                "the weights by which it went to them."
            )
            _write_next_delta(plan, says, w, dy, plan.delta(n - 1))

    return y, back


def _write_next_delta(plan: Plan, says: str, w: Region, dy: Map, dx: Map) -> None:
    units, features = dy.features, dx.features
    if units > _MOST_ROWS or features % _PERIOD == 0:
        plan.emit(dense.dense_dx, says, dy=dy, dx=dx, w=w, units=units, features=features)
        return
    sizes: dict[str, Any] = {"units": features, "features": units}
    sizes |= {"w_step": 1, "x_step": features}
    plan.emit(dense.dense, says, x=dy, y=dx, w=w, b=None, relu=False, **sizes)


def _write_gradients(plan: Plan, step: Step, x: Map, dy: Map) -> None:
    """Write the gradients, sums over all images, for which every block leaves what it has."""
    (features,), units, name = step.input_shape, step.layer.units, step.name
    weight, bias = f"{name}.weight", f"{name}.bias"
    if not (plan.wants(weight) or plan.wants(bias)):
        return
    says = f"The delta of {name} is kept for the weights' gradient, which is a sum over all images."
    deltas = plan.take_by_block(f"{dy.name} of all images", units * LANES)
    plan.emit(dense.keep, says, dy=dy, deltas=deltas, units=units)
    if plan.wants(weight):
        length = -(-features // LANES) * LANES
        rows = plan.take_by_block(f"{x.name} in rows", LANES * length)
        source = before(plan.net, name)
        says = f"The input of {name}, {source}, is kept for the weights' gradient."
        plan.emit(dense.rows, says, x=x, rows=rows, length=length)
        piece = plan.piece(weight, units, features, padded=True)
        says = f"The gradient of each weight of {name} is the delta of its unit times its input."
        sizes: dict[str, Any] = {"length": length, "pitch": piece.pitch, "units": units}
        plan.emit(dense.dense_dw, says, late=True, x=rows, dy=deltas, dw=piece.region, **sizes)
    if plan.wants(bias):
        db = plan.piece(bias, units, 1).region
        says = f"The gradient of each bias of {name} is the delta of its unit."
        plan.emit(dense.dense_db, says, late=True, dy=deltas, db=db, units=units)


LOWER: LowerTable = {Dense: lower, Flatten: flatten}
