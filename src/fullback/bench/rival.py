# ruff: noqa: D102 -- documented once, in Rival
"""The same training step in every framework: fullback's, and those it is compared with.

Each is made and called in a process of its own (``children``), where its framework is imported and
nothing else runs. Weights come from the problem's network, in its layout, and gradients go back so.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from fullback.bench.problem import MOMENTUM, RATE, Problem
from fullback.errors import OptionError
from fullback.layers import Layer
from fullback.layers.base import Array


class Rival(ABC):
    """A framework that trains the network of a problem.

    Attributes
    ----------
    framework : its name
    module : what must be there to be imported
    install : how to install it
    variants : its ways that are measured, one by one
    styles : ways to write a step of which each variant takes the fastest, with ``settle``

    Parameters
    ----------
    problem, variant : what is trained, and which way
    threads : how many it may use
    """

    framework: ClassVar[str]
    module: ClassVar[str]
    install: ClassVar[str]
    variants: ClassVar[tuple[str, ...]]
    styles: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, problem: Problem, variant: str, threads: int) -> None:
        self.problem, self.variant, self.threads = problem, variant, threads
        self.style = self.styles[0]

    @abstractmethod
    def gradients(self) -> dict[str, Array]:
        """Return the gradients of the first batch."""

    @abstractmethod
    def parameters(self) -> dict[str, Array]:
        """Return the weights as they are now."""

    @abstractmethod
    def train(self, steps: int) -> None:
        """Make the first ``steps`` steps of the order, and wait until they are done."""

    def settle(self, seconds: float) -> float:
        """Take the fastest style, and return the seconds of a step in it.

        ``seconds`` is how long to try each style.
        """
        times = {}
        for style in self.styles:
            self.style = style
            self.train(1)  # some compile here
            times[style] = self._seconds_a_step(seconds)
        self.style = min(times, key=lambda style: times[style])
        return times[self.style]

    def _seconds_a_step(self, seconds: float) -> float:
        steps = 1
        while True:
            start = time.perf_counter()
            self.train(steps)
            elapsed = time.perf_counter() - start
            if elapsed >= seconds / 2:
                return elapsed / steps
            steps = max(steps + 1, min(10 * steps, int(steps * seconds / elapsed)))


class Lanes(Rival):
    """fullback, on its lane engine."""

    framework = "fullback"
    module = "fullback"
    install = ""
    variants = ("float32", "uint8")

    def __init__(self, problem: Problem, variant: str, threads: int) -> None:
        super().__init__(problem, variant, threads)
        from fullback.training.lane_stepper import LaneStepper
        from fullback.training.optimizers import SGD
        from fullback.training.options import TrainingOptions
        from fullback.training.training_data import TrainingData

        options = TrainingOptions(
            batch_size=problem.batch, optimizer=SGD(RATE, momentum=MOMENTUM), engine="lanes"
        )
        net = problem.net
        self.images: Array = problem.pixels if variant == "uint8" else problem.floats
        data = TrainingData(self.images, problem.labels)
        state = options.optimizer.initial_state(net.parameters, net.trainable())
        self.stepper = LaneStepper(net, data, options, state, workers=threads)
        self.stepper.begin()

    def gradients(self) -> dict[str, Array]:
        from fullback.engine.lanes import loss_and_gradients

        first, labels = self.problem.first, self.problem.labels
        batch = (self.problem.net, self.images[first], labels[first], None)
        return loss_and_gradients(*batch, training=True, seed=0, workers=self.threads)[1]

    def parameters(self) -> dict[str, Array]:
        self.stepper.end()
        return {name: array.copy() for name, array in self.problem.net.parameters.items()}

    def train(self, steps: int) -> None:
        from fullback.training.batches import Batches

        batch = self.problem.batch
        order = np.resize(self.problem.order, steps * batch)
        figures = self.stepper.train(Batches(order, batch, [1.0] * steps, [0] * steps))
        if len(figures) < steps:
            raise OptionError("the loss is no longer finite")


def unknown(layer: Layer) -> OptionError:
    """Return the error of a rival that does not know a layer."""
    return OptionError(f"{layer} is not among the layers that are compared")
