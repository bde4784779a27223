"""The backward pass with mistakes: one layer's step, and a whole pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fullback.check.mistakes.base import Memo, Mutant, Target
from fullback.check.mistakes.catalogue import rules_of
from fullback.check.mistakes.layer_pass import ForwardPass, LayerPass
from fullback.check.mistakes.loss import first_delta
from fullback.layers.base import Array
from fullback.passes import Trace


def propagate(
    p: LayerPass,
    target: Target,
    dy: Array,
    mutants: Sequence[Mutant] = (),
    memo: Memo | None = None,
) -> Array:
    """Return a layer's next delta or a gradient as a backward pass with these mistakes does.

    Many mutants of one pass and one delta go faster with a ``memo``, a dict that is empty at first.
    """
    rules = rules_of(p.layer)
    return rules.run(rules.stages[target], p, dy, mutants, memo)


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """What a backward pass computed, by the names of ``Network.trace``.

    Attributes
    ----------
    deltas : of every layer's output, and of "input"
    gradients : of every parameter
    """

    deltas: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)


def named_arrays(result: BackwardPass | Trace) -> dict[str, Array]:
    """Return gradients and deltas by their names in a diagnosis: conv1.weight, delta of conv1."""
    return {**result.gradients, **{f"delta of {name}": dy for name, dy in result.deltas.items()}}


def backward(
    forward: ForwardPass,
    mutants: Mapping[str, Sequence[Mutant]],
    *,
    rate: float,
    decay: float,
    right: BackwardPass | None = None,
) -> BackwardPass:
    """Run the backward pass of a forward pass with these mistakes.

    Parameters
    ----------
    forward : the forward pass
    mutants : the mistakes by the layer's name, or "loss"
    rate, decay : learning rate of an early update, and coefficient of an L2 term
    right : the pass without mistakes, whose arrays are handed on where no mistake reaches
    """

    def at(layer: str, target: str) -> tuple[Mutant, ...]:
        return tuple(m for m in mutants.get(layer, ()) if m.target == target)

    result, wrong = BackwardPass(), at("loss", "delta")
    names = list(reversed(forward.layers))
    untouched = right is not None and not wrong
    delta = right.deltas[names[0]] if right and untouched else first_delta(forward.loss, wrong)
    for name in names:
        result.deltas[name] = delta
        p = forward.layers[name].with_rates(rate, decay)
        targets: list[Target] = ["weight", "bias"]
        for target in targets:
            key, wrong = f"{name}.{target}", at(name, target)
            if target not in p.layer.parameter_shapes(p.x.shape[1:]):
                continue
            if right and untouched and not wrong:
                result.gradients[key] = right.gradients[key]
            else:
                result.gradients[key] = propagate(p, target, delta, wrong)
        wrong = at(name, "delta")
        untouched = untouched and not wrong
        delta = (
            right.deltas[p.before] if right and untouched else propagate(p, "delta", delta, wrong)
        )
    result.deltas["input"] = delta
    return result
