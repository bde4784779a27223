"""The scale of numbers to predict.

Targets of any size are learned with mean 0 and deviation 1. Afterwards that scale is multiplied
into the last layer, so that the network answers in the units of the targets::

    answer = deviation * (W x + b) + mean = (deviation * W) x + (deviation * b + mean)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.model import Model


@dataclass(frozen=True, eq=False)
class TargetScale:
    """Mean and deviation of every output's targets, of shape (outputs,); of a constant, 0."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def standardised(self, targets: NDArray[Any]) -> NDArray[np.float64]:
        """Return targets (N, outputs) with mean 0 and deviation 1; constant ones are 0."""
        varies = self.deviation > 0
        standard: NDArray[np.float64] = np.where(
            varies, (targets - self.mean) / np.where(varies, self.deviation, 1.0), 0.0
        )
        return standard

    def into(self, network: Model) -> None:
        """Bring a network's answers from deviation 1 to the targets' units."""
        weight, bias = _last(network)
        network.parameters[weight] = network.parameters[weight] * self.deviation[:, None]
        network.parameters[bias] = network.parameters[bias] * self.deviation + self.mean

    def out_of(self, network: Model) -> None:
        """Bring a network's answers from the targets' units to deviation 1."""
        weight, bias = _last(network)
        varies = self.deviation > 0
        scale = np.where(varies, self.deviation, 1.0)
        network.parameters[weight] = np.where(
            varies[:, None], network.parameters[weight] / scale[:, None], 0.0
        )
        network.parameters[bias] = np.where(
            varies, (network.parameters[bias] - self.mean) / scale, 0.0
        )


def _last(network: Model) -> tuple[str, str]:
    """Return the names of the last layer's parameters."""
    name = network.names[-1]
    return f"{name}.weight", f"{name}.bias"
