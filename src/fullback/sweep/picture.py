"""A picture of a sweep: parallel coordinates, or a scatter plot where one option was searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fullback.plots import require_matplotlib
from fullback.sweep.outcome import Outcome, Trial, cut, is_better_low, shown_value
from fullback.sweep.space import Range, Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fullback.training.history import Monitor

_MOST_LOG = 10  # times the smallest value, from which on an axis of positive numbers is logarithmic
_CLOSEST = 0.06  # of an axis, between two values that are both written at it
_TICKS = 5  # of an axis with values that are closer
_BEST = "#D55E00"


class _Scale:
    """Where the values of one option stand on an axis from 0 to 1, and what is written there."""

    def __init__(
        self, values: Sequence[Any], *, shares: bool = False, log: bool | None = None
    ) -> None:
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        self.ticks: list[tuple[float, str]]
        if not numbers:
            names = sorted({shown_value(value) for value in values})
            self.places = {name: (n + 0.5) / len(names) for n, name in enumerate(names)}
            self.ticks = [(place, cut(name)) for name, place in self.places.items()]
            return
        self.places = {}
        low, high = min(values), max(values)
        self.log = low > 0 and (high >= _MOST_LOG * low if log is None else log)
        self.low, self.high = self._of(low), self._of(high)
        marks = sorted(set(values))
        gaps = np.diff([self.at(value) for value in marks])
        if len(marks) > 1 and gaps.min() < _CLOSEST:
            even = np.linspace(self.low, self.high, _TICKS)
            marks = [float(f"{np.exp(m) if self.log else m:.3g}") for m in even]
            if all(isinstance(value, int) for value in values):
                marks = sorted({round(mark) for mark in marks})
        self.ticks = [(self.at(v), f"{v:.1%}" if shares else f"{v:.4g}") for v in marks]

    def _of(self, value: float) -> float:
        return float(np.log(value)) if self.log else float(value)

    def at(self, value: Any) -> float:
        """Return where a value stands."""
        if self.places:
            return self.places[shown_value(value)]
        room = self.high - self.low
        return 0.5 if not room else (self._of(value) - self.low) / room


def draw(rows: Sequence[tuple[Trial, Outcome]], space: Space, metric: Monitor, name: str) -> Figure:
    """Draw finished trials, the best one last and in orange.

    Parameters
    ----------
    rows : trials with a value, the best first
    space : the options in which they differ; epochs are added where there were rounds
    name : of the metric
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    columns = {
        option: _Scale(
            [trial.varied[option] for trial, _ in rows],
            log=values.log if isinstance(values, Range) else None,
        )
        for option, values in space.items()
    }
    places = [
        [column.at(trial.varied[option]) for option, column in columns.items()] for trial, _ in rows
    ]
    if rows[0][0].round:
        columns["epochs"] = _Scale([trial.epochs for trial, _ in rows])
        for place, (trial, _) in zip(places, rows, strict=True):
            place.append(columns["epochs"].at(trial.epochs))
    figure = Figure((max(6.5, 2.2 * len(columns) + 2.5), 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    loss = is_better_low(metric)
    values = [float(outcome.value or 0.0) for _, outcome in rows]
    result = _Scale(values, shares=not loss, log=None if loss else False)
    heights = [result.at(value) for value in values]
    if len(columns) == 1:
        ((option, column),) = columns.items()
        _scatter(axes, [place[0] for place in places], heights)
        axes.set_xticks(*_ticks(column))
        axes.set_yticks(*_ticks(result))
        axes.set_xlabel(option)
        axes.set_ylabel(name)
    else:
        goodness = [1 - height if loss else height for height in heights]
        _parallel(axes, [[*p, h] for p, h in zip(places, heights, strict=True)], goodness)
        _label(axes, [*columns.values(), result], [*columns, name])
    better, best = "lower" if loss else "higher", "the best"
    if rows[0][0].round:
        best += " of the last round"
    axes.set_title(f"{len(rows)} trials; {better} is better, {best} in orange", fontsize=10)
    return figure


def _ticks(scale: _Scale) -> tuple[list[float], list[str]]:
    return [place for place, _ in scale.ticks], [label for _, label in scale.ticks]


def _scatter(axes: Axes, across: Sequence[float], heights: Sequence[float]) -> None:
    axes.scatter(across[1:], heights[1:], s=30, color="#0072B2", alpha=0.7)
    axes.scatter(across[:1], heights[:1], s=80, color=_BEST, marker="D", zorder=3)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(-0.08, 1.08)
    axes.set_ylim(-0.08, 1.08)


def _parallel(axes: Axes, rows: Sequence[Sequence[float]], goodness: Sequence[float]) -> None:
    """Draw a line a trial, the better the darker, through a place on every axis."""
    from matplotlib import colormaps

    shades = colormaps["Blues"]
    places = range(len(rows[0]))
    for n in reversed(range(len(rows))):
        best = n == 0
        axes.plot(
            places,
            rows[n],
            color=_BEST if best else shades(0.35 + 0.6 * goodness[n]),
            linewidth=2.6 if best else 1.2,
            alpha=1.0 if best else 0.8,
            marker="o",
            markersize=5 if best else 3,
            zorder=3 if best else 2,
        )


def _label(axes: Axes, scales: Sequence[_Scale], names: Sequence[str]) -> None:
    """Draw the axes, upright, with what is written at them."""
    for across, scale in enumerate(scales):
        axes.axvline(across, color="#777777", linewidth=0.8, zorder=1)
        for height, label in scale.ticks:
            axes.annotate(
                label,
                (across, height),
                xytext=(-5, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8,
                zorder=4,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
            )
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_xlim(-0.6, len(names) - 0.85)
    axes.set_ylim(-0.06, 1.06)
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0)
