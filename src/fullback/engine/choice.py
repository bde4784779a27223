"""What a network computes, by the engine that is asked for: the lanes, or the pages of layers/.

The lane engine is imported when it is first used: compiling brings Numba with it.
"""

from __future__ import annotations

import numpy as np

from fullback.errors import InputError
from fullback.layers import SoftmaxCrossEntropy
from fullback.layers.base import Array
from fullback.layers.loss import class_probabilities
from fullback.model import Engine, Model
from fullback.passes import (
    PREDICTION_BATCH,
    Seed,
    first_not_finite,
    forward_batch,
    in_batches,
    trace_batch,
)

_PASS_VALUES = 2**26  # that prediction with the reference holds at a time, where it has a choice


def answers(
    net: Model, images: Array, engine: Engine | None = None, *, probabilities: bool = False
) -> Array:
    """Return the logits of checked images, or the probabilities, of shape (N, outputs).

    Raises
    ------
    OptionError
        There is no such engine, or it cannot compute in the network's dtype.
    InputError
        What the network computes is not finite.
    """
    if net.choose_engine(engine) == "lanes":
        from fullback.engine import lanes

        softmax = probabilities and isinstance(net.loss, SoftmaxCrossEntropy)
        found: Array
        found, finite = lanes.answers(net, images, probabilities=softmax)
        if finite and (softmax or not probabilities):
            return found
        probabilities = probabilities and not softmax
    else:
        step = max(1, min(PREDICTION_BATCH, _PASS_VALUES // net.pass_values))
        logits = [forward_batch(net, batch)[0][-1] for batch in in_batches(images, step)]
        found = np.concatenate(logits)
    found = class_probabilities(net.loss, found) if probabilities else found
    good = np.isfinite(found)
    if not good.all():
        wrong = images[np.flatnonzero(~good.all(axis=1))[:1]]
        activations, _ = forward_batch(net, wrong)
        where = first_not_finite(zip(("input", *net.names), activations, strict=True))
        raise InputError(
            f"{where or net.names[-1]} is the first whose output is not finite in "
            f"{net.dtype}: the network's weights or the images are too large, or not finite"
        )
    return found


def loss_and_gradients(
    net: Model,
    images: Array,
    targets: Array,
    sample_weight: Array | None,
    *,
    training: bool,
    seed: Seed,
    engine: Engine | None = None,
) -> tuple[float, dict[str, Array]]:
    """Return the loss and the gradients of a checked batch.

    Raises
    ------
    OptionError
        There is no such engine, or it cannot compute in the network's dtype.
    """
    batch = (images, targets, sample_weight)
    if net.choose_engine(engine) == "lanes":
        from fullback.engine import lanes

        return lanes.loss_and_gradients(net, *batch, training=training, seed=seed)
    trace = trace_batch(net, *batch, training=training, seed=seed)
    return trace.loss, trace.gradients
