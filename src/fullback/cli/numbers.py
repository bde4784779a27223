"""Regression on the command line: the scale of targets, and what a test of numbers comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullback.errors import InputError, OptionError
from fullback.layers import Dense
from fullback.training.target_scale import TargetScale

if TYPE_CHECKING:
    from fullback.cli.output import Output
    from fullback.network import Network

_MOST_SHOWN = 5  # answers that are shown with what they should have been
_MOST_OUTPUTS = 20  # of which every one has a line


def scale_of_targets(targets: NDArray[Any], name: str) -> TargetScale:
    """Measure the targets that are trained on, of shape (N,) or (N, outputs), of a data set.

    Raises
    ------
    InputError
        They are all the same, or cannot be held in float32.
    """
    columns = targets.reshape(len(targets), -1).astype(np.float64)
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    if not (deviation > 1e-30).all():
        constant = columns[0, int(deviation.argmin())]
        raise InputError(
            f"{name}: all training images have the target {constant:g}; there is nothing to learn"
        )
    if not (np.abs(mean) + deviation < 1e37).all():
        raise InputError(f"{name}: targets up to {np.abs(columns).max():g} do not fit float32")
    return TargetScale(mean, deviation)


def check_regressor(network: Network, outputs: int) -> None:
    """Raise OptionError where a network cannot answer with so many numbers of any size."""
    last = network.layers[-1]
    if not isinstance(last, Dense) or not last.bias or last.units != outputs:
        raise OptionError(f"for these targets the network must end with dense{outputs}, not {last}")


@dataclass(frozen=True, eq=False)
class NumberAnswers:
    """A network's answers to images whose targets are numbers, both of shape (N, outputs).

    Attributes
    ----------
    r2 : 1 - squared error / squared deviation of the targets, on average over the outputs
    mean_absolute_error, root_mean_squared_error : of every output, in the targets' units
    """

    targets: NDArray[np.float64]
    answers: NDArray[np.float64]
    r2: float
    mean_absolute_error: list[float]
    root_mean_squared_error: list[float]


def take_number_test(
    network: Network, images: NDArray[Any], targets: NDArray[Any]
) -> NumberAnswers:
    """Let a network answer a test set."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    expected = targets.reshape(len(targets), -1).astype(np.float64)
    found = network.logits(images).astype(np.float64)
    return NumberAnswers(
        expected,
        found,
        float(r2_score(expected, found)) if len(expected) > 1 else float("nan"),
        [float(error) for error in mean_absolute_error(expected, found, multioutput="raw_values")],
        [
            float(error)
            for error in root_mean_squared_error(expected, found, multioutput="raw_values")
        ],
    )


def show_numbers(output: Output, answers: NumberAnswers) -> None:
    """Write R^2, the errors in the targets' units, and the answers that are furthest off."""
    count, outputs = answers.targets.shape
    output.fact("test", (f"R² {answers.r2:.4f}", "bold green"), f" on {count:,} images")
    for n in range(min(outputs, _MOST_OUTPUTS)):
        name = f"output {n}" if outputs > 1 else "error"
        low, high = answers.targets[:, n].min(), answers.targets[:, n].max()
        absolute, square = answers.mean_absolute_error[n], answers.root_mean_squared_error[n]
        output.fact(
            name,
            f"mean absolute {absolute:.4g}, root mean square {square:.4g}; targets from "
            f"{low:.4g} to {high:.4g}",
        )
    if outputs > _MOST_OUTPUTS:
        output.fact("", f"and {outputs - _MOST_OUTPUTS} more outputs")
    off = np.abs(answers.answers - answers.targets).max(axis=1)
    for place in np.argsort(off)[::-1][:_MOST_SHOWN]:
        expected, found = (
            ", ".join(f"{value:.4g}" for value in row[place][:_MOST_SHOWN])
            for row in (answers.targets, answers.answers)
        )
        output.fact(
            "" if off[place] < off.max() else "furthest", f"image {place}: {found} for {expected}"
        )
