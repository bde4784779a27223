"""A learning-rate finder: one short run in which the rate grows until the loss does.

Source: Smith, Cyclical learning rates (2017), section 3.3, with a rate that grows by a factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.errors import OptionError
from fullback.model import Engine, Model
from fullback.options import require_number, require_whole
from fullback.training.batches import Batches
from fullback.training.optimizers import DEFAULT, Optimizer
from fullback.training.options import TrainingOptions
from fullback.training.run import TrainingRun, adapt
from fullback.training.snapshot import restore, snapshot
from fullback.training.stepper import PieceLength, blas_threads, pieces
from fullback.training.training_data import TrainingData

if TYPE_CHECKING:
    from rich.table import Table

_MEMORY = 0.95  # of the smoothed loss
_BLOWN_UP = 3.0  # times the smallest loss: what comes after is not looked at
_BELOW = 5.0  # the suggestion is so many times smaller than where the loss was smallest
_ROWS = 14
_PIECE_SECONDS = 0.1  # of training, between which Ctrl-C comes through
_MOST_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class RateFinding:
    """The loss over the learning rate.

    Attributes
    ----------
    rates : of every step, of shape (steps,)
    losses : the loss before every step, smoothed, of shape (steps,)
    suggestion : a rate at which the loss falls fast, a fifth of the one at which it was smallest
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    suggestion: float

    def table(self) -> Table:
        """Return the rich table that ``print`` shows."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("learning rate", justify="right")
        table.add_column("loss", justify="right")
        table.add_column("")
        places = np.linspace(0, len(self.rates) - 1, min(_ROWS, len(self.rates))).astype(int)
        nearest = int(abs(np.log(self.rates[places] / self.suggestion)).argmin())
        largest = float(self.losses[places].max())
        for line, place in enumerate(places):
            loss = float(self.losses[place])
            bar = "█" * max(1, round(30 * loss / largest))
            style = "bold" if line == nearest else ""
            mark = " ◀ about here" if line == nearest else ""
            table.add_row(f"{self.rates[place]:.2g}", f"{loss:.4f}", bar + mark, style=style)
        return table


def find_rate(
    net: Model,
    x: ArrayLike,
    y: ArrayLike,
    *,
    optimizer: Optimizer = DEFAULT,
    batch_size: int = 64,
    least: float = 1e-5,
    most: float = 10.0,
    steps: int = 300,
    seed: int = 0,
    engine: Engine | None = None,
) -> RateFinding:
    """Train a few steps while the learning rate grows; the network is left as it was.

    Parameters
    ----------
    net, x, y, batch_size, seed, engine : as for ``fit``
    optimizer : which one; its own learning rate is not used
    least, most : the first and the last learning rate
    steps : from the one to the other

    Raises
    ------
    OptionError, ShapeError, InputError
        Options or data that cannot be used, or a loss that grows from the start.
    """
    options = TrainingOptions(batch_size=batch_size, optimizer=optimizer, seed=seed, engine=engine)
    data = TrainingData.of(net, net.check_images(x), y)
    options = options.for_run(net, len(data))
    require_number("least", least, "(0, 1e6]")
    require_number("most", most, "(0, 1e6]")
    require_whole("steps", steps, 10)
    if steps > _MOST_STEPS:
        raise OptionError(f"steps must be at most {_MOST_STEPS:,}, got {steps}")
    if least >= most:
        raise OptionError(f"least (={least:g}) must be smaller than most (={most:g})")
    before, run = snapshot(net), TrainingRun(net, data, options)
    rates = np.geomspace(least, most, steps)
    batches = Batches(
        order=_order(np.random.default_rng([seed, 0]), len(data), steps * options.batch_size),
        size=options.batch_size,
        factors=(rates / optimizer.learning_rate).tolist(),
        seeds=[(seed, 0, n) for n in range(steps)],
    )
    found: list[float] = []
    try:
        adapt(net, data)
        with blas_threads(options.engine):
            for piece in pieces(run.stepper, steps, batches.part, PieceLength(_PIECE_SECONDS)):
                found += piece.figures[:, 0].tolist()
    finally:
        restore(net, before)
    losses = _smooth(np.array(found))
    if len(losses):
        blown = np.flatnonzero(losses > _BLOWN_UP * np.minimum.accumulate(losses))
        losses = losses[: blown[0]] if blown.size else losses
    if len(losses) < 10 or losses.argmin() == 0:
        raise OptionError(
            f"the loss does not fall at learning rates from {least:g} to {most:g}; give a smaller "
            "least, or look at the data and the network"
        )
    suggestion = float(rates[losses.argmin()] / _BELOW)
    return RateFinding(rates[: len(losses)], losses, float(f"{suggestion:.2g}"))


def _order(rng: np.random.Generator, images: int, count: int) -> NDArray[np.int64]:
    """Return so many images' numbers, epoch after epoch."""
    epochs = [rng.permutation(images) for _ in range(-(-count // images))]
    return np.concatenate(epochs)[:count]


def _smooth(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the running average, corrected for its start at 0."""
    smoothed, average = np.empty_like(losses), 0.0
    for n, loss in enumerate(losses):
        average = _MEMORY * average + (1 - _MEMORY) * float(loss)
        smoothed[n] = average / (1 - _MEMORY ** (n + 1))
    return smoothed
