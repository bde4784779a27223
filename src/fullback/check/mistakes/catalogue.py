"""The rules of every kind of layer, and the catalogue of all their mistakes."""

from __future__ import annotations

from collections.abc import Iterator

from fullback import layers
from fullback.check.mistakes import activation, conv, dense, loss, norm, pool
from fullback.check.mistakes.base import Mistake, Mutant
from fullback.check.mistakes.layer_pass import ForwardPass, LayerPass, LossPass
from fullback.check.mistakes.rules import Rules
from fullback.layers import Layer

RULES: dict[type[Layer], Rules] = {
    layers.Conv2D: conv.RULES,
    layers.MaxPool2D: pool.MAX_RULES,
    layers.AvgPool2D: pool.AVERAGE_RULES,
    layers.GlobalAvgPool2D: pool.GLOBAL_RULES,
    layers.ReLU: activation.RECTIFIER_RULES,
    layers.LeakyReLU: activation.RECTIFIER_RULES,
    layers.Sigmoid: activation.SIGMOID_RULES,
    layers.Tanh: activation.TANH_RULES,
    layers.Dropout: activation.DROPOUT_RULES,
    layers.BatchNorm2D: norm.BATCHNORM_RULES,
    layers.Normalize: norm.NORMALIZE_RULES,
    layers.Dense: dense.RULES,
    layers.Flatten: dense.FLATTEN_RULES,
}
"""What the checks know about each kind of layer."""

MISTAKES: dict[str, Mistake] = {
    mistake.id: mistake
    for mutants in (*(rules.mutants for rules in RULES.values()), loss.MUTANTS)
    for mistake in mutants.mistakes
}
"""Every mistake of the catalogue, by its id."""


def rules_of(layer: Layer) -> Rules:
    """Return what the checks know about a layer."""
    return RULES[type(layer)]


def mutants_of(p: LayerPass | LossPass) -> list[Mutant]:
    """Return every mutant that makes sense for this layer or loss, the likelier ones first."""
    return list((loss.MUTANTS if isinstance(p, LossPass) else rules_of(p.layer).mutants).of(p))


def every_mutant(forward: ForwardPass) -> Iterator[tuple[str, Mutant]]:
    """Yield every mutant that makes sense in a forward pass, with its layer, from the loss down."""
    for mutant in mutants_of(forward.loss):
        yield "loss", mutant
    for name in reversed(forward.layers):
        for mutant in mutants_of(forward.layers[name]):
            yield name, mutant
