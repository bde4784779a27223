"""The lane engine's answers: what a network asks of it, and what training does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fullback.engine.kernels.optimizer import sgd
from fullback.engine.listing import Program, listing
from fullback.engine.lowering import lower
from fullback.engine.lowering.one import OnePlan, knows, write_one
from fullback.engine.lowering.plan import Purpose, Update
from fullback.engine.machine import STAGED, Machine, readable, staged, threads
from fullback.engine.one import OneMachine
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


def answers(
    net: Model, images: Array, *, probabilities: bool = False
) -> tuple[NDArray[np.float32], bool]:
    """Return the logits of checked images, or the probabilities, of shape (N, outputs).

    Also return whether they are known to be finite; where they are not, they may be.
    """
    purpose: Purpose = "probabilities" if probabilities else "logits"
    if len(images) < LANES:
        few = _few(net, purpose, images)
        if few is not None:
            return few
    return _outputs(net, purpose, net.output_shape[0], images), False


def _few(net: Model, purpose: Purpose, images: Array) -> tuple[NDArray[np.float32], bool] | None:
    """Return the answers to few images, one after the other; None where a block is faster."""
    idle = net.machines.setdefault(_ONE[purpose], [])
    try:
        machine = idle.pop()
    except IndexError:
        if not knows(net):
            return None
        machine = OneMachine(net, purpose, threads())
    try:
        return machine.answers(images) if len(images) <= machine.most else None
    finally:
        if len(idle) < machine.threads:
            idle.append(machine)


_ONE = {purpose: f"{purpose} of one image" for purpose in ("logits", "probabilities")}


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
        packed = not machine.copies.refresh()
        output = np.empty((len(images), width), np.float32)
        in_place = readable(images)
        size = len(images) if in_place else max(LANES, STAGED // images[0].size)
        for start in range(0, len(images), size):
            part = images if in_place else staged(images[start : start + size])
            rows, count = output[start : start + size], len(part)
            machine.run(part, batch=count, total=count, output=rows, packed=packed)
            machine.copies.settle()
            packed = True
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
    """Return a network's program for reading; of a prediction, the one for so many images."""
    if not training:
        one = write_one(OnePlan(net, "logits")) if knows(net) else None
        return listing(one if one and batch_size <= one.most else lower(net, "logits"))
    update = Update(sgd, ("velocity",), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    blocks = -(-batch_size // LANES)
    return listing(lower(net, "training", blocks=blocks, training=True, update=update))


def keys(net: Model, seeds: Sequence[Seed]) -> NDArray[np.uint64]:
    """Return what fixes the draws of every batch and random layer."""
    places = [n for n, layer in enumerate(net.layers) if layer.random]
    return np.array([[random_key(seed, n) for n in places] for seed in seeds], np.uint64)
