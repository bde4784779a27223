"""The catalogue of mistakes, as mutants of the reference's backward pass, by kind of layer."""

from __future__ import annotations

from collections.abc import Sequence

from fullback.check.mistakes import activation, common, conv, dense, loss, pool
from fullback.check.mistakes.base import Mutant, Stages, Target, compatible, run_stages
from fullback.check.mistakes.layer_pass import LossScene, Scene
from fullback.check.mistakes.texts import MISTAKES, Mistake
from fullback.layers import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Sigmoid,
    Tanh,
)
from fullback.layers.base import Array


def mutants_of(scene: Scene | LossScene) -> list[Mutant]:
    """Return every mutant that makes sense for this layer or loss, the likelier ones first."""
    if isinstance(scene, LossScene):
        return list(loss.mutants(scene))
    layer = scene.layer
    if isinstance(layer, Conv2D):
        return list(conv.mutants(scene))
    if isinstance(layer, Dense):
        return list(dense.mutants(scene))
    if isinstance(layer, MaxPool2D | AvgPool2D):
        return list(pool.mutants(scene))
    if isinstance(layer, GlobalAvgPool2D):
        return [
            Mutant(
                "pool-spread",
                "delta",
                "out",
                lambda s, v, dy: v * s.x.shape[2] * s.x.shape[3],
                "every cell of the map got the whole delta",
            )
        ]
    if isinstance(layer, ReLU | LeakyReLU | Sigmoid | Tanh | Dropout):
        return list(activation.mutants(scene))
    if isinstance(layer, Flatten):
        return list(dense.flatten_mutants(scene))
    found = list(common.delta_mutants(scene)) if scene.layer.parameter_shapes((1, 1, 1)) else []
    for target in layer.parameter_shapes(scene.x.shape[1:]):
        found += common.gradient_mutants(scene, "weight" if target == "weight" else "bias")
    return found


def next_delta(scene: Scene, dy: Array, mutants: Sequence[Mutant] = ()) -> Array:
    """Return dL/dx as a backward pass with these mistakes computes it from the delta dy."""
    layer = scene.layer
    if isinstance(layer, Conv2D):
        return conv.by_group(conv.DELTA, scene, dy, tuple(mutants))
    stages = activation.STAGES
    if isinstance(layer, Dense):
        stages = dense.DELTA
    elif isinstance(layer, Flatten):
        stages = dense.FLATTEN
    elif isinstance(layer, MaxPool2D | AvgPool2D):
        stages = pool.STAGES
    delta: Array = run_stages(stages, scene, dy, dy, mutants)
    return delta


def gradient(scene: Scene, target: Target, dy: Array, mutants: Sequence[Mutant] = ()) -> Array:
    """Return dL/dw or dL/db as a backward pass with these mistakes computes it."""
    layer = scene.layer
    made: Array
    if isinstance(layer, Conv2D):
        if target == "weight":
            return conv.by_group(conv.WEIGHT, scene, dy, tuple(mutants))
        made = run_stages(conv.BIAS, scene, dy, dy, mutants)
        return made
    if isinstance(layer, Dense):
        stages = dense.WEIGHT if target == "weight" else dense.BIAS
        made = run_stages(stages, scene, dy, dy, mutants)
        return made

    def rule(scene: Scene, value: Array, dy: Array) -> Array:
        _, gradients = layer.backward(value, scene.kept, scene.parameters)
        return gradients[target]

    own: Stages = (("delta", lambda s, v, dy: v), ("rule", rule), ("out", lambda s, v, dy: v))
    made = run_stages(own, scene, dy, dy, mutants)
    return made


__all__ = [
    "MISTAKES",
    "Mistake",
    "Mutant",
    "compatible",
    "gradient",
    "mutants_of",
    "next_delta",
]
