"""Early stopping: the best epoch's weights, and when to wait no longer."""

from __future__ import annotations

import numpy as np

from fullback.layers.base import Array
from fullback.network import Network
from fullback.training.history import Epoch


class Patience:
    """Ends training when the validation score has not improved for some epochs.

    The network gets back the arrays of its best epoch.
    """

    def __init__(self, network: Network, epochs: int, tol: float) -> None:
        self.network, self.epochs, self.tol = network, epochs, tol
        self.scores: list[float] = []
        self.best, self.best_score, self.waited = self._arrays(), -np.inf, 0

    def __call__(self, epoch: Epoch) -> bool:
        """Note an epoch's score; return whether it is time to end."""
        score = epoch.validation_accuracy
        if score is None:
            score = -float(epoch.validation_loss or 0.0)
        self.scores.append(score)
        if score > self.best_score + self.tol:
            self.waited = 0
        else:
            self.waited += 1
        if score > self.best_score:
            self.best, self.best_score = self._arrays(), score
        return self.waited >= self.epochs

    def restore(self) -> None:
        """Give the network the arrays of its best epoch."""
        for own, kept in zip(
            (self.network.parameters, self.network.statistics), self.best, strict=True
        ):
            for name, array in kept.items():
                own[name] = array

    def _arrays(self) -> tuple[dict[str, Array], dict[str, Array]]:
        both = self.network.parameters, self.network.statistics
        return tuple({name: a.copy() for name, a in own.items()} for own in both)  # type: ignore[return-value]
