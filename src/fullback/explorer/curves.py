"""Training with a mistake, and without: the same network from new weights, on the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from fullback.check.mistakes import Mutant
from fullback.explorer.lab import Batch, Choice, backward, chosen, finite
from fullback.layers import Normalize
from fullback.layers.base import Array
from fullback.network import Network
from fullback.training.optimizers import SGD
from fullback.training.schedules import warm_cosine

STEPS = 160

_BATCH = 32
_TESTED = 200  # test images on which accuracy is measured
_EVERY = 10  # steps from one measurement to the next


class Student:
    """A float64 network that learns from new weights, rightly or with a mistake."""

    def __init__(self, net: Network, choice: Choice | None, rate: float, seed: int) -> None:
        self.choice, self.rate = choice, rate
        self.net = net.copy(seed=seed, dtype="float64")
        for name, layer in zip(net.names, net.layers, strict=True):
            if isinstance(layer, Normalize):
                for key in layer.statistic_shapes(net.input_shape):
                    self.net.statistics[f"{name}.{key}"] = net.statistics[f"{name}.{key}"]
        self.optimizer = SGD(rate, momentum=0.9, nesterov=True)
        self.state = self.optimizer.initial_state(self.net.parameters, self.net.parameters)
        self.mutants: dict[str, tuple[Mutant, ...]] | None = None if choice else {}
        self.left: dict[str, Array] = {}  # gradients that were not cleared
        self.alive = True

    def learn(self, x: Array, y: Array, factor: float) -> float:
        """Make one step on a batch; return its loss. The rate is multiplied by the factor."""
        forward = Batch(self.net, self.net.check_images(x), y).forward_pass
        if self.mutants is None and self.choice is not None:
            self.mutants = chosen(forward, self.choice)
        mutants = self.mutants or {}
        if self.choice is not None and self.choice.mistake == "gradients-not-cleared":
            gradients = self._with_what_is_left(backward(forward, {}).gradients, mutants)
        else:
            gradients = backward(forward, mutants, self.rate * factor).gradients
        names = self.net.trainable()
        self.optimizer.step(self.net.parameters, gradients, self.state, names, factor=factor)
        for name, own in forward.layers.items():
            moved = own.layer.next_statistics(own.cache, self.net.arrays_of(name))
            for key, value in moved.items():
                self.net.statistics[f"{name}.{key}"] = value
        loss, _ = self.net.loss.forward(forward.loss.logits, y)
        arrays = self.net.parameters.values()
        self.alive = bool(np.isfinite(loss)) and all(np.isfinite(a).all() for a in arrays)
        return loss

    def _with_what_is_left(
        self, gradients: dict[str, Array], mutants: dict[str, tuple[Mutant, ...]]
    ) -> dict[str, Array]:
        """Add what earlier steps left, where gradients are not cleared."""
        for layer, own in mutants.items():
            for mutant in own:
                name = f"{layer}.{mutant.target}"
                self.left[name] = gradients[name] = gradients[name] + self.left.get(name, 0.0)
        return gradients


def curves(
    net: Network,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    choice: Choice,
    rate: float,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Train from new weights, rightly and with the mistake; yield the losses, step by step.

    Both see the same batches, at the learning rates of ``schedules.warm_cosine``. A
    network whose loss is no longer finite stops.
    """
    rng = np.random.default_rng(seed)
    size = min(_BATCH, len(train[0]))
    students = {
        "right": Student(net, None, rate, seed), "wrong": Student(net, choice, rate, seed),
    }  # fmt: skip
    for step in range(1, STEPS + 1):
        picked = rng.integers(0, len(train[0]), size)
        x, y = train[0][picked], train[1][picked]
        row: dict[str, Any] = {"step": step}
        for side, student in students.items():
            if not student.alive:
                continue
            with threadpool_limits(1, "blas"), np.errstate(all="ignore"):
                row[side] = finite(student.learn(x, y, warm_cosine((step - 1) / STEPS)))
                if student.alive and step % _EVERY == 0:
                    shown = test[0][:_TESTED], test[1][:_TESTED]
                    row[f"{side}_accuracy"] = student.net.score(*shown)
        yield row
