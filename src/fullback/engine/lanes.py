"""The lane engine's answers: what a network asks of it, and what training does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fullback.engine.kernels.optimizer import sgd
from fullback.engine.listing import Program, listing
from fullback.engine.lowering import lower
from fullback.engine.lowering.plan import Purpose, Update
from fullback.engine.machine import STAGED, Machine, readable, staged, threads
from fullback.engine.simd import LANES
from fullback.layers import BinaryCrossEntropy
from fullback.layers.base import Array
from fullback.layers.loss import one_hot
from fullback.model import Model
from fullback.passes import Seed, random_key


def lane_targets(net: Model, targets: Array) -> Array:
    """Return targets as the kernel of the loss reads them: labels (N,), or rows (N, outputs)."""
    rows = isinstance(net.loss, BinaryCrossEntropy)
    return np.ascontiguousarray(one_hot(targets, net.output_shape[0]) if rows else targets)


def answers(net: Model, images: Array, *, probabilities: bool = False) -> NDArray[np.float32]:
    """Return the logits of checked images, or the probabilities, of shape (N, outputs)."""
    purpose: Purpose = "probabilities" if probabilities else "logits"
    return _outputs(net, purpose, net.output_shape[0], images)


def unit_means(net: Model, images: Array) -> dict[str, NDArray[np.float32]]:
    """Return what the units of every ReLU layer answer to checked images, by the layer's name.

    Each is of shape (N, units): the mean of a channel over an image, or a feature.
    """
    layers = zip(net.names, net.layers, net.shapes, strict=True)
    units = {name: shape[0] for name, layer, shape in layers if layer.rectifies}
    means = _outputs(net, "units", sum(units.values()), images)
    ends = np.cumsum(list(units.values()))
    return dict(zip(units, np.split(means, ends[:-1], axis=1), strict=True))


def _outputs(net: Model, purpose: Purpose, width: int, images: Array) -> NDArray[np.float32]:
    """Return the rows of so many numbers that a program writes for checked images."""
    idle = net.machines.setdefault(purpose, [])
    try:
        machine = idle.pop()  # threads that predict at the same time have a machine each
    except IndexError:
        machine = Machine(lower(net, purpose), threads())
    try:
        machine.load()
        output = np.empty((len(images), width), np.float32)
        if readable(images):
            machine.run(images, batch=len(images), total=len(images), output=output)
            return output
        size = max(LANES, STAGED // images[0].size)
        for start in range(0, len(images), size):
            part = staged(images[start : start + size])
            machine.run(part, batch=len(part), total=len(part), output=output[start : start + size])
        return output
    finally:
        machine.rest()
        if len(idle) < machine.workers:  # more than there are threads at a time have no use
            idle.append(machine)


def loss_and_gradients(
    net: Model,
    images: Array,
    targets: Array,
    sample_weight: Array | None,
    *,
    training: bool,
    seed: Seed,
    workers: int | None = None,
) -> tuple[float, dict[str, Array]]:
    """Return the loss and the gradients of a checked batch."""
    count = len(images)
    plan = lower(net, "gradients", blocks=-(-count // LANES), training=training)
    machine = Machine(plan, threads() if workers is None else workers)
    machine.load()
    _, figures = machine.run(
        images if readable(images) else staged(images),
        batch=count,
        total=count,
        targets=lane_targets(net, targets),
        weights=sample_weight,
        keys=keys(net, [seed]),
    )
    gradients: dict[str, Array] = {
        name: machine.view(place, net.parameters[name].shape).copy()
        for name, place in plan.gradients.items()
    }
    return float(figures[0, 0]), {name: gradients[name] for name in net.parameters}


def program_of(net: Model, batch_size: int, *, training: bool) -> Program:
    """Return a network's program for reading."""
    if not training:
        return listing(lower(net, "logits"))
    update = Update(sgd, ("velocity",), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    blocks = -(-batch_size // LANES)
    return listing(lower(net, "training", blocks=blocks, training=True, update=update))


def keys(net: Model, seeds: Sequence[Seed]) -> NDArray[np.uint64]:
    """Return what fixes the draws of every batch and random layer."""
    places = [n for n, layer in enumerate(net.layers) if layer.random]
    return np.array([[random_key(seed, n) for n in places] for seed in seeds], np.uint64)
