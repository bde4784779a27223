"""Lowering of Flatten and of fully connected layers."""

from __future__ import annotations

from fullback.engine.kernels import dense
from fullback.engine.loop import FOR_BLOCKS
from fullback.engine.lowering.activation import relu_dx
from fullback.engine.lowering.plan import Lowered, Plan
from fullback.engine.lowering.steps import Step
from fullback.engine.program import Instruction, Map
from fullback.engine.simd import LANES


def flatten(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a Flatten, which moves nothing forward: the cells lie in its order."""

    def back() -> None:
        dy, dx = plan.delta(n), plan.delta(n - 1) if plan.needs_dx(n) else None
        if dx is not None and dy.place != dx.place:
            source = (dy.place, dx.shape[1] * dx.shape[2] * LANES, dx.shape[2] * LANES)
            plan.emit(
                FOR_BLOCKS,
                dense.copy,
                (*source, *dx.view, *dx.shape),
                step.names,
                (dy.name,),
                (dx.name,),
            )

    return x.flat(step.name), back


def lower(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a fully connected layer, with the ReLU that has joined it."""
    layer, (features,), units = step.layer, step.given, step.layer.units
    weight, bias = f"{step.name}.weight", f"{step.name}.bias"
    w, b = plan.parameters[weight], plan.parameters[bias] if layer.bias else -1
    y = plan.output(n, step, x)
    operands = (x.place, y.place, w, features, 1, b, units, features, step.relu)
    plan.emit(FOR_BLOCKS, dense.dense, operands, step.names, (x.name, weight), (y.name,))

    def back() -> None:
        dy = plan.delta(n)
        if step.relu:
            relu_dx(plan, step, dy, y)
        kept, in_rows = f"{dy.name} of all images", f"{x.name} in rows"
        if plan.wants(weight) or plan.wants(bias):
            deltas = plan.shared.take(kept, plan.blocks * units * LANES)
            plan.emit(
                FOR_BLOCKS,
                dense.keep,
                (dy.place, deltas, units),
                step.names[:1],
                (dy.name,),
                (kept,),
            )
        if plan.wants(weight):
            length = -(-features // LANES) * LANES
            rows = plan.shared.take(in_rows, plan.blocks * LANES * length)
            plan.emit(
                FOR_BLOCKS,
                dense.rows,
                (x.place, rows, length, length),
                step.names[:1],
                (x.name,),
                (in_rows,),
            )
            dw, pitch, _ = plan.piece(weight, units, features, padded=True)
            plan.late.append(
                Instruction(
                    dense.dense_dw,
                    (rows, length, deltas, dw, pitch, units, pitch // LANES),
                    step.names[:1],
                    (in_rows, kept),
                    (f"d {weight}",),
                )
            )
        if layer.bias and plan.wants(bias):
            db, _, _ = plan.piece(bias, units, 1)
            plan.late.append(
                Instruction(
                    dense.dense_db,
                    (deltas, db, units),
                    step.names[:1],
                    (kept,),
                    (f"d {bias}",),
                )
            )
        if plan.needs_dx(n):
            dx = plan.delta(n - 1)
            operands = (dy.place, dx.place, w, 1, features, -1, features, units, 0)
            plan.emit(
                FOR_BLOCKS, dense.dense, operands, step.names[:1], (dy.name, weight), (dx.name,)
            )

    return y, back
