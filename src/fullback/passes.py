"""The two loops over a network's layers: forward, and backward, which is the same one reversed.

Images and targets come here checked; ``Network`` is the place where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from fullback.layers.base import Array
from fullback.memory import require_memory

if TYPE_CHECKING:
    from fullback.network import Network

Seed: TypeAlias = int | tuple[int, ...]

Engine: TypeAlias = Literal["lanes", "reference"]
"""What computes: ``"lanes"``, the fast one, in float32; ``"reference"``, the layers' own pages."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything one forward and backward pass computed, by layer name.

    Attributes
    ----------
    loss : the batch's loss
    activations : each layer's output, of shape (N, *output_shape); ``"input"`` is the images
    deltas : dL/d output of each layer, in the shapes of ``activations``; ``"input"`` is dL/d images
    gradients : dL/dp for every parameter p, in the shapes of ``Network.parameters``
    probabilities : softmax of the logits, of shape (N, classes); None for other losses
    kept : what each layer's forward pass kept for its backward pass, in order
    """

    loss: float
    activations: dict[str, Array]
    deltas: dict[str, Array]
    gradients: dict[str, Array]
    probabilities: Array | None
    kept: tuple[Any, ...] = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"Trace(loss={self.loss:.6g}, layers={list(self.activations)}, "
            f"gradients={list(self.gradients)})"
        )

    def _repr_html_(self) -> str:
        from fullback.show.notebook import trace_html

        return trace_html(self)


def forward_batch(
    net: Network, x: Array, *, training: bool = False, seed: Seed = 0
) -> tuple[list[Array], list[Any]]:
    """Run checked images forward: the input and every layer's output, and what each kept."""
    require_memory(
        len(x) * net.pass_values * net.dtype.itemsize,
        f"a pass of {len(x)} images",
        "give fewer images at a time, or use a smaller network",
    )
    kept = []
    with np.errstate(all="ignore"):  # what is not finite is looked for, and named, by the callers
        activations = [scaled(x, net.dtype)]
        for index, (name, layer) in enumerate(zip(net.names, net.layers, strict=True)):
            y, memory = layer.forward(
                activations[-1],
                net.arrays_of(name),
                training=training and name not in net.frozen,
                key=random_key(seed, index) if layer.random else 0,
            )
            activations.append(y)
            kept.append(memory)
    return activations, kept


def backward_batch(
    net: Network, delta: Array, kept: Sequence[Any]
) -> tuple[list[Array], dict[str, Array]]:
    """Run the delta of the last layer's output back: the delta of every output and of the input."""
    deltas, gradients = [delta], {}
    with np.errstate(all="ignore"):
        for name, layer, memory in zip(
            reversed(net.names), reversed(net.layers), reversed(kept), strict=True
        ):
            delta, own = layer.backward(delta, memory, net.arrays_of(name))
            deltas.append(delta)
            gradients.update({f"{name}.{key}": value for key, value in own.items()})
    return deltas[::-1], {name: gradients[name] for name in net.parameters}


def trace_batch(
    net: Network,
    x: Array,
    targets: Array,
    sample_weight: Array | None,
    *,
    training: bool,
    seed: Seed,
) -> Trace:
    """Run checked images and targets forward and backward."""
    activations, kept = forward_batch(net, x, training=training, seed=seed)
    with np.errstate(all="ignore"):
        loss, memory = net.loss.forward(activations[-1], targets, sample_weight)
        delta = net.loss.backward(memory)
    deltas, gradients = backward_batch(net, delta, kept)
    return Trace(
        loss=loss,
        activations=dict(zip(("input", *net.names), activations, strict=True)),
        deltas=dict(zip(("input", *net.names), deltas, strict=True)),
        gradients=gradients,
        probabilities=softmax(activations[-1]) if net.loss.classifies else None,
        kept=tuple(kept),
    )


def scaled(x: Array, dtype: np.dtype[Any]) -> Array:
    """Return images as floats: uint8 is divided by 255, floats are used as they are."""
    return x.astype(dtype) / dtype.type(255) if x.dtype == np.uint8 else x.astype(dtype, copy=False)


def softmax(logits: Array) -> Array:
    """Return each row's exponentials divided by their sum, of shape (N, classes)."""
    with np.errstate(all="ignore"):
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def first_not_finite(activations: Iterable[tuple[str, Array]]) -> str | None:
    """Return the name of the first layer, or "input", whose output is not finite."""
    for name, y in activations:
        if not np.isfinite(y).all():
            return name
    return None


def random_key(seed: Seed, index: int) -> int:
    """Mix the step's seed and the layer's place into the 64-bit number of its draws."""
    entropy = [*seed, index] if isinstance(seed, tuple) else [seed, index]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
