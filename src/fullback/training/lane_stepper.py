"""Training on the lane engine: whole runs of batches in compiled code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fullback.distributed.ranks import Ranks
from fullback.distributed.share import scattered, threads_of_rank
from fullback.engine.context import AVERAGE, MIXTURE, RATES_EACH
from fullback.engine.kernels.optimizer import adam, sgd
from fullback.engine.lanes import keys, lane_targets
from fullback.engine.lowering import lower
from fullback.engine.lowering.plan import Sums, Update
from fullback.engine.machine import STAGED, Machine, readable, staged, threads
from fullback.engine.ranks import own_images
from fullback.engine.simd import LANES
from fullback.errors import OptionError
from fullback.layers.base import Array
from fullback.model import Model
from fullback.training.averages import average_share
from fullback.training.batches import Batches
from fullback.training.optimizers import SGD, Adam, AdamW, Optimizer, State
from fullback.training.options import TrainingOptions
from fullback.training.training_data import TrainingData

Kinds: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]

_LARGE = 2**18  # values of gradients that are told while others are computed
_TRIED = 8  # part of a run, one in so many batches, that tries another number of threads


class Pace:
    """Chooses the number of threads by measuring, since results do not depend on it.

    Threads meet several times a batch. Where other programs take some of the cores, a thread waits
    at a meeting for one that has none, and then fewer threads are faster, by far. So now and then a
    short run tries the next larger or smaller number; the more rarely, the more often in vain.
    """

    _SHORTEST = 0.004  # seconds of a run that tells anything
    _SHORT, _LONG = 4, 64  # runs from one try to the next, at least and at most

    def __init__(self, most: int, *, fixed: bool = False) -> None:
        self.choices = [most]
        while self.choices[-1] > 1 and not fixed:
            self.choices.append(self.choices[-1] // 2)
        self.speeds = dict.fromkeys(self.choices, 0.0)  # batches a second
        self.best = most
        self._patience, self._wait, self._up = self._SHORT, 2, False

    def rival(self) -> int | None:
        """Return the number of threads to try now, if any."""
        if self._wait or len(self.choices) == 1:
            return None
        place = self.choices.index(self.best)
        self._up = (not self._up and place > 0) or place == len(self.choices) - 1
        return self.choices[place - 1 if self._up else place + 1]

    def note(self, workers: int, batches: int, seconds: float) -> None:
        """Take note of how long a run took."""
        if seconds < self._SHORTEST or not batches:
            return
        speed = batches / seconds
        if workers == self.best:
            self.speeds[workers] = max(speed, 0.75 * self.speeds[workers])
            self._wait = max(0, self._wait - 1)
            return
        self.speeds[workers] = speed
        better = speed > self.speeds[self.best]
        self.best = workers if better else self.best
        self._patience = self._SHORT if better else min(2 * self._patience, self._LONG)
        self._wait = self._patience


def when_told(net: Model) -> Sums:
    """Return when ranks add up their gradients: large ones while they go back."""
    values = sum(array.size for array in net.parameters.values())
    return "layer" if values >= _LARGE else "end"


class LaneStepper:
    """Training with a lowered network; see Stepper. ``workers`` fixes the number of threads.

    Of several ranks, each has the stepper of its own share of every batch.
    """

    def __init__(
        self,
        net: Model,
        data: TrainingData,
        options: TrainingOptions,
        state: State,
        workers: int | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.net, self.data, self.options, self.state = net, data, options, state
        self.ranks = ranks
        self.optimizer = options.optimizer
        self.targets = lane_targets(net, data.targets)
        self.blocks = -(-options.batch_size // LANES)
        fixed = workers is not None
        if workers is None:
            workers = threads() if ranks is None else threads_of_rank(ranks)
            fixed = ranks is not None  # they wait for each other: what one measures tells little
        self.pace = Pace(min(workers, self.blocks), fixed=fixed)
        self.workers = workers
        self._lower()

    def _lower(self) -> None:
        """Write the program for the layers that are not frozen."""
        self.frozen = self.net.frozen
        plan = lower(
            self.net,
            "training",
            blocks=self.blocks,
            training=True,
            update=_update(self.optimizer, averages=self.options.average > 0),
            augment=self.options.augment,
            mixes=self.options.mixup > 0,
            sums=when_told(self.net) if self.ranks and self.ranks.fast else None,
        )
        self.chunks = plan.chunks
        self.machine = Machine(plan, self.workers, self.ranks)
        self.memories = [
            (self.machine.view(place, self.state[name].shape), self.state[name])
            for name, place in plan.memories.items()
        ]

    def begin(self) -> None:
        """Read the network's arrays and the optimizer's state."""
        if self.net.frozen != self.frozen:
            self._lower()
        self.machine.load()
        for in_machine, array in self.memories:
            in_machine[...] = array

    def end(self) -> None:
        """Write what was learned to both."""
        self.machine.save()
        for in_machine, array in self.memories:
            array[...] = in_machine

    def own(self, count: int) -> NDArray[np.intp]:
        """See Stepper. What rank 0 alone has, it reads for all."""
        ranks = self.ranks
        if ranks is None or self.data.scattered:
            return np.arange(count)
        return own_images(ranks.rank, ranks, self.options.batch_size, count, self.chunks)

    def train(self, batches: Batches) -> NDArray[np.float64]:
        """See Stepper."""
        rival, count = self.pace.rival(), len(batches.factors)
        if rival is None or count < _TRIED:
            return self._train(batches, self.pace.best)
        trial, rest = batches.split(count // _TRIED)
        figures = self._train(trial, rival)
        if len(figures) < len(trial.factors):
            return figures
        return np.concatenate([figures, self._train(rest, self.pace.best)])

    def _train(self, batches: Batches, workers: int) -> NDArray[np.float64]:
        """Train with so many threads."""
        images, weights = self.data.images, self.data.weights
        if readable(images) and not self.data.scattered:
            return self._run(batches, images, self.targets, weights, batches.order, workers)
        at_once = max(1, STAGED // (images[0].size * batches.size))  # batches to copy
        part, rest = batches.split(at_once)
        images, targets = self._staged(part), self.targets[part.order]
        weights = None if weights is None else weights[part.order]
        figures = self._run(part, images, targets, weights, None, workers)
        if len(figures) < len(part.factors) or not rest.factors:
            return figures
        return np.concatenate([figures, self._train(rest, workers)])

    def _staged(self, part: Batches) -> Array:
        """Return a copy of the images of some batches; of several ranks, of its own images."""
        images, ranks = self.data.images, self.ranks
        if ranks is None:
            return staged(images[part.order])
        places = [
            own_images(rank, ranks, part.size, len(part.order), self.chunks)
            for rank in range(ranks.size)
        ]
        own = places[ranks.rank]
        if self.data.scattered:
            found = scattered(ranks, images, [part.order[each] for each in places])
        else:
            found = images[part.order[own]]
        return staged(found, len(part.order), own)

    def _run(
        self,
        batches: Batches,
        images: Array,
        targets: Array,
        weights: Array | None,
        order: NDArray[np.int64] | None,
        workers: int,
    ) -> NDArray[np.float64]:
        """Train on images that the machine can read; without an order, on all of them in turn."""
        steps = int(self.state["step"]) + 1 + np.arange(len(batches.factors))
        factors = np.asarray(batches.factors, np.float64)
        start = time.perf_counter()
        done, figures = self.machine.run(
            images,
            batch=batches.size,
            total=len(batches.order),
            order=None if order is None else np.ascontiguousarray(order, np.int64),
            targets=targets,
            weights=weights,
            keys=keys(self.net, batches.seeds),
            rates=self._rates(self.optimizer.learning_rate * factors, steps, batches.mixtures),
            draws=batches.keys,
            workers=workers,
        )
        self.pace.note(workers, done, time.perf_counter() - start)
        self.state["step"] += done
        return figures[:done]

    def _rates(
        self, rates: NDArray[np.float64], steps: NDArray[np.int64], mixtures: Sequence[float]
    ) -> NDArray[np.float64]:
        """Return the numbers that kernels take for every step."""
        table = np.zeros((len(rates), RATES_EACH))
        table[:, 0] = rates
        if isinstance(self.optimizer, Adam):
            table[:, 1] = rates / (1 - self.optimizer.beta1**steps)
            table[:, 2] = 1 / (1 - self.optimizer.beta2**steps)
        if mixtures:
            table[:, MIXTURE] = mixtures
        if self.options.average:
            table[:, AVERAGE] = [average_share(self.options.average, int(n)) for n in steps]
        return table


def _update(optimizer: Optimizer, *, averages: bool) -> Update:
    """Return the kernel of an optimizer, and its numbers in the kernel's order."""
    decay = float(getattr(optimizer, "weight_decay", 0.0))
    if type(optimizer) is SGD:
        numbers: tuple[float, ...] = (optimizer.momentum, float(optimizer.nesterov))
        kinds: Kinds = (decay, *numbers), (0.0, *numbers)
        return Update(sgd, optimizer.memories, *kinds, optimizer.clip_norm, averages)
    if isinstance(optimizer, Adam) and type(optimizer) in (Adam, AdamW):
        numbers = (optimizer.beta1, optimizer.beta2, optimizer.epsilon)
        new = (1 - optimizer.beta1, 1 - optimizer.beta2)  # rounded once, not as 1 - float32(b)
        on_gradient, on_weight = (0.0, decay) if isinstance(optimizer, AdamW) else (decay, 0.0)
        kinds = (on_gradient, *numbers, on_weight, *new), (0.0, *numbers, 0.0, *new)
        return Update(adam, optimizer.memories, *kinds, optimizer.clip_norm, averages)
    raise OptionError(f"the lane engine has no {optimizer!r}; give engine='reference'")
