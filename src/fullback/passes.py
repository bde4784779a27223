"""The two loops over a network's layers: forward, and backward, which is the same one reversed.

Images and targets come here checked: ``Network`` calls ``Model.check_images`` and the loss first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.errors import OptionError
from fullback.layers import Loss, Normalize
from fullback.layers.base import Array
from fullback.layers.loss import answered, share_right
from fullback.layers.loss import softmax as softmax
from fullback.memory import require_memory
from fullback.model import Model

Seed: TypeAlias = int | tuple[int, ...]

PREDICTION_BATCH = 256
_ADAPT_VALUES = 2**23  # that an input normalisation is measured on at a time, or one image
"""Images that prediction takes at a time, so that its memory does not grow with the data."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything one forward and backward pass computed, by layer name.

    Attributes
    ----------
    loss : the batch's loss
    activations : each layer's output, of shape (N, *output_shape); ``"input"`` is the images
    deltas : dL/d output of each layer, in the shapes of ``activations``; ``"input"`` is dL/d images
    gradients : dL/dp for every parameter p, in the shapes of ``Network.parameters``
    probabilities : softmax of the logits, or their sigmoids, of shape (N, outputs); None where the
        loss has none
    kept : every layer's cache, what its forward pass keeps for its backward pass, in order
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

        return trace_html(self.loss, self.activations, self.deltas, self.gradients)


def forward_batch(
    net: Model, x: Array, *, training: bool = False, seed: Seed = 0
) -> tuple[list[Array], list[Any]]:
    """Run checked images forward: the input and every layer's output, and every layer's cache."""
    require_memory(
        len(x) * net.pass_values * net.dtype.itemsize,
        f"a pass of {len(x)} images",
        "give fewer images at a time, or use a smaller network",
    )
    caches = []
    with np.errstate(all="ignore"):  # what is not finite is looked for, and named, by the callers
        activations = [scaled(x, net.dtype)]
        for index, (name, layer) in enumerate(zip(net.names, net.layers, strict=True)):
            y, cache = layer.forward(
                activations[-1],
                net.arrays_of(name),
                training=training and name not in net.frozen,
                rng_key=random_key(seed, index) if layer.random else 0,
            )
            activations.append(y)
            caches.append(cache)
    return activations, caches


def backward_batch(
    net: Model, delta: Array, caches: Sequence[Any]
) -> tuple[list[Array], dict[str, Array]]:
    """Run the delta of the last layer's output back: the delta of every output and of the input."""
    deltas, gradients = [delta], {}
    with np.errstate(all="ignore"):
        for name, layer, cache in zip(
            reversed(net.names), reversed(net.layers), reversed(caches), strict=True
        ):
            delta, found = layer.backward(delta, cache, net.arrays_of(name))
            deltas.append(delta)
            gradients.update({f"{name}.{key}": value for key, value in found.items()})
    return deltas[::-1], {name: gradients[name] for name in net.parameters}


def trace_batch(
    net: Model,
    x: Array,
    targets: Array,
    sample_weight: Array | None,
    *,
    training: bool,
    seed: Seed,
) -> Trace:
    """Run checked images and targets forward and backward."""
    activations, caches = forward_batch(net, x, training=training, seed=seed)
    with np.errstate(all="ignore"):
        loss, cache = net.loss.forward(activations[-1], targets, sample_weight)
        delta = net.loss.backward(cache)
    deltas, gradients = backward_batch(net, delta, caches)
    return Trace(
        loss=loss,
        activations=dict(zip(("input", *net.names), activations, strict=True)),
        deltas=dict(zip(("input", *net.names), deltas, strict=True)),
        gradients=gradients,
        probabilities=net.loss.probabilities(activations[-1]),
        kept=tuple(caches),
    )


def in_batches(images: Array, step: int = PREDICTION_BATCH) -> Iterator[Array]:
    """Yield images, so many at a time."""
    for start in range(0, len(images), step):
        yield images[start : start + step]


@dataclass(frozen=True)
class Evaluation:
    """Loss and score on a data set: the score is accuracy, or R^2 for MeanSquaredError."""

    loss: float
    score: float


def evaluate_logits(loss: Loss, logits: Array, y: ArrayLike) -> Evaluation:
    """Return the loss and the score of a network's answers (N, outputs) to images of targets y."""
    targets = loss.targets(y, *logits.shape)
    with np.errstate(all="ignore"):
        mean, _ = loss.forward(logits, targets)
    if loss.classifies:
        labels = answered(loss, logits)
        return Evaluation(mean, float(share_right(labels, targets).mean()))
    if len(logits) < 2:
        return Evaluation(mean, float("nan"))  # there is no spread to explain
    from sklearn.metrics import r2_score

    return Evaluation(mean, float(r2_score(targets, logits)))


def adapt(net: Model, images: Array, places: NDArray[np.int64] | None = None) -> None:
    """Measure checked images' mean and deviation for the Normalize layer that comes first.

    Parameters
    ----------
    images : which may be on the disk, and not fit into memory
    places : which of them; None for all

    Raises
    ------
    OptionError
        The first layer is not Normalize.
    """
    first = net.layers[0]
    if not isinstance(first, Normalize):
        raise OptionError(f"adapt needs Normalize() as the first layer, but it is {first}")
    step = max(1, min(PREDICTION_BATCH, _ADAPT_VALUES // max(1, images[0].size)))
    parts: Iterable[Array] = in_batches(images, step)
    if places is not None:
        parts = (images[some] for some in in_batches(places, step))
    measured = first.measured(scaled(part, np.dtype(np.float64)) for part in parts)
    for key, value in measured.items():
        net.statistics[f"{net.names[0]}.{key}"] = value


def scaled(x: Array, dtype: np.dtype[Any]) -> Array:
    """Return images as floats: uint8 is divided by 255, floats are used as they are."""
    return x.astype(dtype) / dtype.type(255) if x.dtype == np.uint8 else x.astype(dtype, copy=False)


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
