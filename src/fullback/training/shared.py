"""How ``fit`` shares its work with other ranks, and keeps what it trains the same on all of them.

Rank 0 alone has listeners: it shows, writes and calls back, and what it decides, all do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fullback.distributed.ranks import Ranks, require_communicator
from fullback.errors import InputError, OptionError
from fullback.layers.base import Array
from fullback.model import Model
from fullback.pixels import ImageRecord
from fullback.training.history import Epoch, History
from fullback.training.listeners import Listener, Listeners
from fullback.training.optimizers import State
from fullback.training.options import TrainingOptions
from fullback.training.run import TrainingRun
from fullback.training.training_data import TrainingData

_COMPARED = 16  # images, by which it is seen that all ranks have the same ones


@contextlib.contextmanager
def joined(comm: Any, *, fast: bool) -> Iterator[Ranks | None]:
    """Yield the ranks of a communicator, or None where there is one alone.

    An error in this context is an error on every rank: the others raise RankError.
    """
    if comm is not None:
        require_communicator(comm)
    if comm is None or comm.Get_size() == 1:
        yield None
        return
    ranks = Ranks(comm, fast=fast)
    try:
        yield ranks
        ranks.close()
    except BaseException as error:
        if error is ranks.expected:
            ranks.close()
        else:
            ranks.tell(error)
        raise


def leading(ranks: Ranks | None) -> bool:
    """Whether this process shows, writes and calls back."""
    return ranks is None or ranks.leads


def part_of(ranks: Ranks | None, *, given: bool) -> tuple[int, int] | None:
    """Return which part of the images is looked at here, as number 1 of 3; None for no images.

    Parameters
    ----------
    given : whether this rank has images: all have the same ones, or rank 0 has them alone

    Raises
    ------
    OptionError
        Some ranks have images, and others do not.
    """
    if ranks is None:
        return 0, 1
    have = ranks.every(given)
    if all(have):
        return ranks.rank, ranks.size
    if any(have[1:]):
        without = [str(rank) for rank, has in enumerate(have) if not has]
        raise OptionError(
            f"x and y must be given on all {ranks.size} ranks, or on rank 0 alone; "
            f"rank{'s' * (len(without) > 1)} {', '.join(without[:8])} had none"
        )
    return (0, 1) if ranks.leads or not have[0] else None


def shared_data(ranks: Ranks | None, data: TrainingData | None) -> TrainingData:
    """Return what a network is trained on, where rank 0 alone may have it; others give None."""
    if data is not None and (ranks is None or all(ranks.every(True))):
        return data
    assert ranks is not None  # noqa: S101 -- one process alone has the data
    if data is None:
        ranks.every(False)
    layout = None
    if data is not None:
        arrays = (data.images, data.targets, data.weights)
        layout = [None if array is None else [array.dtype.str, array.shape] for array in arrays]
    images, targets, weights = ranks.first(layout)
    if data is None:
        data = TrainingData(
            np.broadcast_to(np.zeros((), images[0]), images[1]),
            np.zeros(targets[1], targets[0]),
            None if weights is None else np.zeros(weights[1], weights[0]),
        )
    data = dataclasses.replace(data, targets=np.ascontiguousarray(data.targets), scattered=True)
    ranks.broadcast(data.targets, *([] if data.weights is None else [data.weights]))
    return data


def require_same(
    ranks: Ranks | None, net: Model, data: TrainingData, options: TrainingOptions
) -> None:
    """Raise InputError where a rank was given something else than rank 0."""
    if ranks is None:
        return
    _require_same_kernels(ranks, options)
    some = np.linspace(0, len(data) - 1, min(len(data), _COMPARED)).astype(int)
    arrays = {
        "labels": data.targets,
        "image weights": data.weights,
    }
    given = {
        "layers": [str(layer) for layer in net.layers],
        "input shape": net.input_shape,
        "loss": str(net.loss),
        "frozen layers": sorted(net.frozen),
        "options": options.described(),
        "images": (data.images.shape, str(data.images.dtype)),
        **{
            name: None if array is None else zlib.crc32(np.ascontiguousarray(array).data)
            for name, array in arrays.items()
        },
        "pixels": None
        if data.scattered
        else [zlib.crc32(np.ascontiguousarray(data.images[place]).data) for place in some],
    }
    every = ranks.every([repr(value) for value in given.values()])
    for rank, others in enumerate(every):
        for name, other, first in zip(given, others, every[0], strict=True):
            if other != first:
                raise InputError(
                    f"rank {rank} was given other {name} than rank 0: {other:.80}, and not "
                    f"{first:.80}; all ranks take the same"
                )


def _require_same_kernels(ranks: Ranks, options: TrainingOptions) -> None:
    """Raise InputError where the engine of a rank may round otherwise than that of rank 0."""
    if options.engine != "lanes":
        return
    from fullback.engine.cpu import cpu
    from fullback.engine.library import cache_path

    every = ranks.every([cpu()[0], cache_path().name])
    for rank, (name, kernels) in enumerate(every):
        if kernels != every[0][1]:
            raise InputError(
                f"the kernels of rank {rank} (CPU {name or 'generic'}) are not those of rank 0 "
                f"(CPU {every[0][0] or 'generic'}), and would round otherwise; set NUMBA_CPU_NAME "
                "on all ranks to a CPU whose instructions all of them have, like x86-64-v3, and "
                "install the same fullback and Numba"
            )


def begin(run: TrainingRun, record: ImageRecord | None, history: History) -> None:
    """Begin a run, on all ranks as on rank 0, which has the record of the images."""
    ranks = run.ranks
    if ranks is None:
        assert record is not None  # noqa: S101
        run.begin(record)
        return
    epochs = ranks.first([vars(epoch) for epoch in history.epochs])
    history.epochs[:] = [Epoch(**each) for each in epochs]
    run.begin(ImageRecord(**ranks.first(None if record is None else vars(record))))
    share_network(ranks, run.net, run.state)


def rounding_of(run: TrainingRun) -> str:
    """Say where the weights depend on the number of ranks."""
    if run.ranks is None or not run.ranks.fast:
        return ""
    return (
        f"fast sums: the gradients of {run.ranks.size} ranks are rounded otherwise than those of "
        "another number of them"
    )


def share_network(ranks: Ranks, net: Model, state: State | None = None) -> None:
    """Make a network what it is on rank 0, and the state of its optimizer."""
    frozen = frozenset(ranks.first(sorted(net.frozen)))
    net.unfreeze(*(net.frozen - frozen))
    net.freeze(*(frozen - net.frozen))
    arrays: list[Array] = [*net.parameters.values(), *net.statistics.values()]
    ranks.broadcast(*arrays, *(state or {}).values())


def listeners_of(run: TrainingRun, listeners: Sequence[Listener]) -> Listeners:
    """Return the listeners of a run; of several ranks, those of rank 0."""
    if run.ranks is None:
        return Listeners(listeners, run.net, run.state)
    return SharedListeners(listeners, run.net, run.state, run.ranks)


class SharedListeners(Listeners):
    """The listeners of rank 0; what they make of the network and decide is so on every rank."""

    def __init__(
        self, listeners: Sequence[Listener], net: Model, state: State, ranks: Ranks
    ) -> None:
        super().__init__(listeners, net, state)
        self.ranks = ranks

    def begin(self, history: History) -> bool:
        """Tell of the beginning; return whether training is to end at once."""
        return self._agreed(super().begin(history))

    def __call__(self, epoch: Epoch) -> bool:
        """Tell of an epoch; return whether training is to end."""
        return self._agreed(super().__call__(epoch))

    def finish(self, history: History, *, diverged: bool = False) -> None:
        """Give the network its averages, and tell of the end."""
        super().finish(history, diverged=diverged)
        share_network(self.ranks, self.net)
        dead = {name: units.tolist() for name, units in history.dead_units.items()}
        found = self.ranks.first(dead)
        history.dead_units = {name: np.array(units, np.intp) for name, units in found.items()}

    def _agreed(self, enough: bool) -> bool:
        enough = bool(self.ranks.first(enough))
        share_network(self.ranks, self.net)
        return enough
