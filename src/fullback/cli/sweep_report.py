"""What a sweep looks like on a terminal: a table that lives, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fullback.cli.output import Output, printable
from fullback.cli.sweep_folder import SweepFolder
from fullback.sweep.outcome import Outcome, Trial, cut, ranked, shown_value

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from fullback.sweep.space import Space
    from fullback.training.history import Monitor

_NAMES = {"balanced": "balanced accuracy", "f1": "F1"}
_STYLES = {"finished": "", "running": "cyan", "waiting": "dim", "failed": "yellow"}
_MOST_ROWS = 40  # of the table in the end; results.csv has the others
_AROUND = 6  # lines around the rows of the table that lives


def metric_name(metric: Monitor) -> str:
    """Return what a metric is called."""
    return f"validation {_NAMES.get(metric, metric)}"


def shown_figure(metric: Monitor, value: float | None) -> str:
    """Return a metric's value: a loss, or a share."""
    if value is None:
        return ""
    return f"{value:.4f}" if metric == "loss" else f"{value:.2%}"


def options_of(trial: Trial) -> str:
    """Return the options in which a trial differs from others, in one line."""
    return ", ".join(f"{name} {shown_value(value)}" for name, value in trial.varied.items())


def trial_table(
    rows: Sequence[tuple[Trial, Outcome]], varied: Sequence[str], metric: Monitor
) -> Table:
    """Return a table of trials in a given order."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", style="bold", no_wrap=True)
    for name in varied:
        table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis")
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column(metric_name(metric).replace(" ", "\n", 1), justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for trial, outcome in rows:
        planned = trial.epochs
        epochs = f"{planned}" if outcome.epochs == planned else f"{outcome.epochs} of {planned}"
        table.add_row(
            trial.name,
            *(Text(cut(printable(shown_value(trial.varied[name])))) for name in varied),
            epochs,
            shown_figure(metric, outcome.value),
            f"{outcome.seconds:.1f}" if outcome.epochs else "",
            Text(outcome.state, _STYLES.get(outcome.state, "red")),
        )
    return table


class LiveTable:
    """The trials while they are trained, on a terminal; elsewhere a line for each that has ended.

    Parameters
    ----------
    varied : the options in which trials differ
    title : what is trained where
    """

    def __init__(self, output: Output, varied: Sequence[str], metric: Monitor, title: str) -> None:
        self.output, self.varied, self.metric, self.title = output, varied, metric, title
        self._live: Any = None

    def __enter__(self) -> LiveTable:
        from rich.live import Live

        if self.output.console.is_terminal and not self.output.as_json:
            self._live = Live(console=self.output.console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, rows: Mapping[Trial, Outcome]) -> None:
        """Show how far the trials are."""
        if self._live is not None:
            self._live.update(self._page(rows), refresh=True)

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """Tell of a trial that has ended."""
        self.output.event(
            "trial",
            trial=trial.name,
            options=dict(trial.varied),
            state=outcome.state,
            epochs=outcome.epochs,
            value=outcome.value,
            best_epoch=outcome.best_epoch,
            **(outcome.test or {}),
            seconds=outcome.seconds,
            reason=outcome.reason or None,
        )
        if self._live is None:
            figure = shown_figure(self.metric, outcome.value)
            what = figure if outcome.state == "finished" else f"{outcome.state}: {outcome.reason}"
            self.output.fact(trial.name, f"{what}  {options_of(trial)}")

    def _page(self, rows: Mapping[Trial, Outcome]) -> RenderableType:
        """Return those that run, then the best that are finished, as many as there is room for."""
        from rich.console import Group
        from rich.text import Text

        counts = Counter(outcome.state for outcome in rows.values())
        running = [(t, o) for t, o in rows.items() if o.state == "running"]
        done = [(t, o) for t, o in rows.items() if o.state not in ("running", "waiting")]
        shown = [*running, *ranked(done, self.metric)]
        room = max(self.output.console.height - _AROUND, 3)
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        head = Text.assemble((self.title, "bold"), f": {said} of {len(rows)}")
        table = trial_table(shown[:room], self.varied, self.metric)
        return Group(head, self.output.narrowed(table, "seconds", "epochs", *reversed(self.varied)))


def report_sweep(
    output: Output,
    folder: SweepFolder,
    outcomes: Mapping[Trial, Outcome],
    space: Space,
    metric: Monitor,
) -> None:
    """Show all trials, the best first, say which was the best, and draw a picture."""
    order, varied = ranked(outcomes, metric), list(space)
    best, found = order[0]
    finished = found.state == "finished"
    output.event(
        "result",
        best=best.name if finished else None,
        options=dict(best.varied) if finished else None,
        metric=metric,
        value=found.value if finished else None,
        **(found.test or {}),
        model=str(folder.run_of(best).model) if finished else None,
        trials=len(order),
        failed=sum(outcome.state == "failed" for _, outcome in order),
        results=str(folder.results),
    )
    output.show("")
    table = trial_table(order[:_MOST_ROWS], varied, metric)
    output.table(table, "seconds", "epochs", *reversed(varied))
    if len(order) > _MOST_ROWS:
        output.fact("", f"and {len(order) - _MOST_ROWS} more in {folder.results}")
    for trial, outcome in order:
        if outcome.reason:
            output.fact(trial.name, (f"{outcome.state}: {outcome.reason}", "yellow"))
    if finished:
        figure = shown_figure(metric, found.value)
        output.fact("best", (f"{best.name}: {options_of(best)}", "bold green"))
        output.fact("", f"{metric_name(metric)} {figure} in epoch {found.best_epoch}")
        test = found.test or {}
        name, value = next(iter(test.items()), ("", 0.0))
        if name:
            worth = f"R² {value:.4f}" if name == "test_r2" else f"accuracy {value:.2%}"
            output.fact("test", f"{worth} on images that had no part in the choice")
        output.fact("model", str(folder.run_of(best).model))
    output.fact("compare", f"fullback runs {folder.path}")
    _draw(output, folder, order, space, metric)


def _draw(
    output: Output,
    folder: SweepFolder,
    order: Sequence[tuple[Trial, Outcome]],
    space: Space,
    metric: Monitor,
) -> None:
    done = [(t, o) for t, o in order if o.state == "finished" and o.value is not None]
    if len(done) < 2:
        return
    if find_spec("matplotlib") is None:
        output.fact("picture", "none without matplotlib: pip install 'fullback[plot]'")
        return
    from fullback import plots
    from fullback.sweep.picture import draw

    folder.picture.parent.mkdir(exist_ok=True)
    plots.write(draw(done, space, metric, metric_name(metric)), folder.picture)
    output.fact("picture", str(folder.picture))
