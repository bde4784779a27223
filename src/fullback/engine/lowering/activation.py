"""Lowering of activations and of Dropout."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from fullback.engine.kernels import activation
from fullback.engine.kernels.dropout import dropout as dropout_kernel
from fullback.engine.lowering.grouping import Step
from fullback.engine.lowering.plan import Lowered, LowerTable, Plan
from fullback.engine.program import Map
from fullback.engine.simd import Kernel
from fullback.layers import Dropout, Layer, LeakyReLU, ReLU, Sigmoid, Tanh

ACTIVATIONS: dict[type[Layer], tuple[Kernel, str, Kernel, str]] = {
    ReLU: (
        activation.relu,
        "cuts off what is negative.",
        activation.relu_dx,
        "{y} lets a delta pass where its output was positive, and stops it elsewhere.",
    ),
    LeakyReLU: (
        activation.leaky_relu,
        "makes what is negative small.",
        activation.leaky_relu_dx,
        "{y} lets a delta pass where its output was positive, and shrinks it elsewhere.",
    ),
    Sigmoid: (
        activation.sigmoid,
        "squeezes every number to between 0 and 1.",
        activation.sigmoid_dx,
        "Each delta is multiplied by the slope of {y} there, y (1 - y).",
    ),
    Tanh: (
        activation.tanh_of,
        "squeezes every number to between -1 and 1.",
        activation.tanh_dx,
        "Each delta is multiplied by the slope of {y} there, 1 - y^2.",
    ),
}
"""Of every activation: its kernels, forward and backward, and what they do."""


def lower(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write an activation; it works in place where nothing else reads its input."""
    forward, does, backward, does_back = ACTIVATIONS[type(step.layer)]
    y = plan.output(n, step, x)
    slope = plan.constant(step.layer.slope) if isinstance(step.layer, LeakyReLU) else None
    plan.emit(forward, f"{step.name} {does}", x=x, y=y, shape=y.shape, slope=slope)

    def back() -> None:
        if plan.needs_dx(n):
            dy, dx = plan.delta(n), plan.delta(n - 1)
            sentence = does_back.format(y=step.name)
            plan.emit(backward, sentence, dy=dy, y=y, dx=dx, shape=y.shape, slope=slope)

    return y, back


def relu_dx(plan: Plan, step: Step, dy: Map, y: Map) -> None:
    """Write the backward pass of a ReLU that has joined a step."""
    _, _, kernel, sentence = ACTIVATIONS[ReLU]
    layers = step.names[1:2]
    sentence = sentence.format(y=layers[0])
    plan.emit(kernel, sentence, layers=layers, dy=dy, y=y, dx=dy, shape=dy.shape, slope=None)


def dropout(plan: Plan, n: int, step: Step, x: Map) -> Lowered:
    """Write a Dropout that is in force."""
    rate = step.layer.rate
    y = plan.output(n, step, x)
    draws: dict[str, Any] = {
        "shape": x.shape,
        "number": plan.random.index(step.name),
        "threshold": ceil(rate * 2**53),
        "scale": plan.constant(float(np.float32(1) / np.float32(1 - rate))),
    }
    says = f"{step.name} leaves features out at random and scales up those that stay."
    plan.emit(dropout_kernel, says, x=x, y=y, **draws)

    def back() -> None:
        if plan.needs_dx(n):
            dy, dx = plan.delta(n), plan.delta(n - 1)
            says = (
                f"{step.name} hands on the deltas of what stayed, scaled the same; the others "
                "get 0."
            )
            plan.emit(dropout_kernel, says, x=dy, y=dx, **draws)

    return y, back


LOWER: LowerTable = {**dict.fromkeys(ACTIVATIONS, lower), Dropout: dropout}
