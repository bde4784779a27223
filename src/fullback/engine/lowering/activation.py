"""Lowering of activations and of Dropout."""

from __future__ import annotations

from math import ceil

import numpy as np

from fullback.engine.kernels import activation
from fullback.engine.kernels.dropout import dropout as dropout_kernel
from fullback.engine.loop import FOR_BLOCKS
from fullback.engine.lowering.plan import Lowered, Plan
from fullback.engine.lowering.steps import Step
from fullback.engine.program import Map
from fullback.engine.simd import Kernel
from fullback.layers import Layer, LeakyReLU, ReLU, Sigmoid, Tanh

_ACTIVATIONS: dict[type[Layer], tuple[Kernel, Kernel]] = {
    ReLU: (activation.relu, activation.relu_dx),
    LeakyReLU: (activation.leaky_relu, activation.leaky_relu_dx),
    Sigmoid: (activation.sigmoid, activation.sigmoid_dx),
    Tanh: (activation.tanh_of, activation.tanh_dx),
}


def lower(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write an activation; it works in place where nothing else reads its input."""
    forward, backward = _ACTIVATIONS[type(step.layer)]
    y = plan.output(n, step, x)
    slope = plan.constant(step.layer.slope) if isinstance(step.layer, LeakyReLU) else -1
    plan.emit(
        FOR_BLOCKS,
        forward,
        (*x.view, *y.view, *y.shape, slope),
        step.names,
        (x.name,),
        (y.name,),
    )

    def back() -> None:
        if plan.needs_dx(n):
            dy, dx = plan.delta(n), plan.delta(n - 1)
            plan.emit(
                FOR_BLOCKS,
                backward,
                (*dx.view, *dy.view, *y.view, *y.shape, slope),
                step.names,
                (dy.name, y.name),
                (dx.name,),
            )

    return y, back


def relu_dx(plan: Plan, step: Step, dy: Map, y: Map) -> None:
    """Write the backward pass of a ReLU that has joined a step."""
    operands = (*dy.view, *dy.view, *y.view, *dy.shape)
    plan.emit(
        FOR_BLOCKS,
        activation.relu_dx,
        operands,
        step.names[1:2] or step.names,
        (dy.name, y.name),
        (dy.name,),
    )


def dropout(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a Dropout that is in force."""
    number = plan.random.index(step.name)
    rate = step.layer.rate
    threshold = ceil(rate * 2**53)
    scale = plan.constant(float(np.float32(1) / np.float32(1 - rate)))
    y = plan.output(n, step, x)
    plan.emit(
        FOR_BLOCKS,
        dropout_kernel,
        (*x.view, *y.view, *x.shape, number, threshold, scale),
        step.names,
        (x.name,),
        (y.name,),
    )

    def back() -> None:
        if plan.needs_dx(n):
            dy, dx = plan.delta(n), plan.delta(n - 1)
            plan.emit(
                FOR_BLOCKS,
                dropout_kernel,
                (*dy.view, *dx.view, *x.shape, number, threshold, scale),
                step.names,
                (dy.name,),
                (dx.name,),
            )

    return y, back
