"""``fullback sweep``."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli import options
from fullback.cli.interrupt import INTERRUPTED, raise_on_ctrl_c
from fullback.cli.output import FAILURE, Output, fail, one_line_errors
from fullback.errors import FullbackError

if TYPE_CHECKING:
    from fullback.cli.sweep_file import Plan
    from fullback.cli.sweep_folder import SweepFolder
    from fullback.cli.sweep_report import LiveTable
    from fullback.cli.trial import Answer
    from fullback.sweep.outcome import Outcome, Trial
    from fullback.sweep.search import Search

_SECONDS = 0.5  # from one look at the trials to the next


@one_line_errors
def sweep(
    file: Annotated[
        Path,
        typer.Argument(
            help="A TOML file: options of training, a table **[sweep]**, and the values to search "
            "in **[grid]** or **[space]**.",
            metavar="FILE",
            show_default=False,
        ),
    ],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Keep the sweep in this folder, with a run's folder for every trial.",
            metavar="FOLDER",
            show_default="the file's name without its ending",
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="How many trials run at a time on this machine, or the address of a Dask "
            "scheduler, like tcp://host:8786. Results do not depend on it.",
            metavar="N|ADDRESS",
            show_default="the file's, or one a core",
        ),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train with many combinations of options, and find the best of them.

    The same command goes on with a sweep that was interrupted or killed: trials that have ended are
    kept, and the others go on from their checkpoints. Trials are compared on images for validation;
    each is a run as `fullback train --run` keeps it, so that `fullback runs` lists them.

    The exit code is 1 where no trial learned anything, or some could not be trained.
    """
    from fullback.cli.sweep_file import read_sweep
    from fullback.cli.sweep_folder import SweepFolder
    from fullback.cli.sweep_report import report_sweep
    from fullback.sweep.search import read_workers

    output = Output(as_json=as_json, keep_going=True)
    found = read_sweep(file)
    chosen = read_workers("--workers", workers) or found.search.workers
    folder = SweepFolder(run or Path(file.stem))
    with _status(output, f"checking the trials of {file}"):
        plan = found.plan()
    raise_on_ctrl_c()  # so that what is done is told, and processes end
    with folder:
        folder.begin(found.tables, plan.images)
        session = SweepSession(output, folder, found.search, plan)
        try:
            with _workers(chosen, len(plan.trials)) as place:
                session.train(place)
        except KeyboardInterrupt:
            fail(f"interrupted; the same command goes on with the sweep in {folder.path}")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            session.write_results()
        report_sweep(output, folder, session.outcomes, found.search.space, plan.metric)
    session.require_success()
    output.close(f"the sweep is kept in {folder.path}")


@contextlib.contextmanager
def _status(output: Output, text: str) -> Iterator[None]:
    if output.as_json or not output.console.is_terminal:
        yield
    else:
        with output.console.status(text):
            yield


@dataclass(frozen=True)
class Place:
    """Where trials are trained.

    Attributes
    ----------
    submit : begins to train the run in a folder
    words : where that is, and how many at a time
    """

    submit: Callable[[Path], Future[Answer]]
    words: str


@contextlib.contextmanager
def _workers(chosen: int | str | None, trials: int) -> Iterator[Place]:
    """Provide so many processes here, or the workers of a Dask scheduler."""
    from fullback import __version__
    from fullback.cli.trial import TrialProcesses, train_on_dask
    from fullback.engine.machine import threads
    from fullback.sweep.workers import dask_workers, threads_here

    if isinstance(chosen, str):
        with dask_workers(chosen) as workers:
            on_dask = workers.executor.submit
            words = f"{workers.count} at a time {workers.place}"
            yield Place(
                lambda folder: on_dask(train_on_dask, str(folder.resolve()), __version__), words
            )
        return
    cores = threads()
    count = min(chosen or cores, trials)
    each = max(cores // count, 1)
    with threads_here(count) as workers:
        processes = TrialProcesses(each)
        here = workers.executor.submit
        words = f"{count} at a time, with {each} thread{'s' if each > 1 else ''} each"
        try:
            yield Place(lambda folder: here(processes.train, str(folder.resolve())), words)
        finally:
            processes.stop()


@dataclass
class SweepSession:
    """One call of ``fullback sweep``: rounds of trials, each of which is trained where it is not.

    Attributes
    ----------
    outcomes : what every trial of the rounds so far came to
    """

    output: Output
    folder: SweepFolder
    search: Search
    plan: Plan
    outcomes: dict[Trial, Outcome] = field(default_factory=dict)

    def train(self, place: Place) -> None:
        """Train every round; one is made of the best of the one before it."""
        from fullback.cli.sweep_report import LiveTable, metric_name
        from fullback.sweep.outcome import ranked

        metric, trials = self.plan.metric, self.plan.trials
        rounds = self.search.rounds(len(trials), trials[0].epochs)
        self.output.event(
            "start",
            method=self.search.method,
            metric=metric,
            trials=len(trials),
            rounds=[dataclasses.asdict(entry) for entry in rounds],
            folder=str(self.folder.path),
        )
        self.output.fact("sweep", f"{self.search.method}, {len(trials)} trials, {place.words}")
        self.output.fact("compared", f"by {metric_name(metric)}")
        if len(rounds) > 1:
            said = [f"{entry.trials} for {_epochs(entry.epochs)}" for entry in rounds]
            self.output.fact("rounds", ", then ".join(said))
        varied = list(self.search.space)
        with LiveTable(self.output, varied, metric, f"{self.search.method} sweep") as live:
            for number, entry in enumerate(rounds):
                if len(rounds) > 1:
                    trials = [_in(trial, number, entry.epochs) for trial in trials[: entry.trials]]
                self._train_round(trials, place, live)
                outcomes = [(trial, self.outcomes[trial]) for trial in trials]
                if not all(outcome.final for _, outcome in outcomes):
                    return  # which trials go on cannot be said
                trials = [t for t, o in ranked(outcomes, metric) if o.state == "finished"]
                if not trials:
                    return

    def _train_round(self, trials: Sequence[Trial], place: Place, live: LiveTable) -> None:
        """Train those trials that have not ended before, and tell of each that ends."""
        futures: dict[Future[Answer], Trial] = {}
        for trial in trials:
            self.outcomes[trial] = self.folder.outcome_of(trial, self.plan.metric)
        for trial in trials:
            if self.outcomes[trial].final:
                live.ended(trial, self.outcomes[trial])
                continue
            run = self.folder.run_of(trial)
            run.path.mkdir(exist_ok=True)
            run.begin(trial.options)
            futures[place.submit(run.path)] = trial
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, _SECONDS, FIRST_COMPLETED)
            for future in done:
                trial = futures[future]
                self.outcomes[trial] = self._ended(trial, future)
                live.ended(trial, self.outcomes[trial])
            for future in waiting:
                self.outcomes[futures[future]] = self._so_far(futures[future], future)
            if done:
                self.write_results()
            live.update(self.outcomes)

    def _ended(self, trial: Trial, future: Future[Answer]) -> Outcome:
        """Return what a trial came to, that is trained no longer."""
        from fullback.cli.trial import KILLED

        try:
            code, line = future.result()
        except CancelledError:
            code, line = KILLED, "the Dask scheduler has dropped it"
        except Exception as error:  # noqa: BLE001 -- whatever Dask raises for a worker that is lost
            code, line = KILLED, f"{type(error).__name__}: {error}"
        found = self.folder.outcome_of(trial, self.plan.metric)
        if found.final and code != KILLED:
            return found
        reason = line or f"its process ended with exit code {code}"
        return dataclasses.replace(found, state="not trained", reason=reason)

    def _so_far(self, trial: Trial, future: Future[Answer]) -> Outcome:
        """Return how far a trial is that is trained, or waits for it.

        Of a trial on Dask it is only known that a process has been in its folder.
        """
        if not future.running() and not (self.folder.run_of(trial).path / ".lock").exists():
            return self.outcomes[trial]
        try:
            found = self.folder.outcome_of(trial, self.plan.metric)
        except FullbackError:  # it is looked at again when it has ended
            return self.outcomes[trial]
        return dataclasses.replace(found, state="running")

    def write_results(self) -> None:
        """Write results.csv, of the trials in their order."""
        rows: Mapping[Trial, Outcome] = self.outcomes
        order = sorted(rows.items(), key=lambda pair: (pair[0].round, pair[0].number))
        if order:
            self.folder.write_results(order, list(self.search.space), self.plan.metric)

    def require_success(self) -> None:
        """Raise where trials could not be trained, or none learned anything."""
        undone = [pair for pair in self.outcomes.items() if not pair[1].final]
        if undone:
            trial, outcome = undone[0]
            many = f"{len(undone)} trials were" if len(undone) > 1 else f"{trial.name} was"
            fail(
                f"{many} not trained to the end ({outcome.reason}); once the reason is gone, the "
                f"same command goes on with the sweep in {self.folder.path}"
            )
            raise typer.Exit(FAILURE)
        if all(outcome.state == "failed" for outcome in self.outcomes.values()):
            fail("no trial learned anything; search in other values")
            raise typer.Exit(FAILURE)


def _in(trial: Trial, number: int, epochs: int) -> Trial:
    """Return a trial as it is trained in a round of halving, with so many epochs."""
    name = f"trial-{trial.number:03d}-{epochs}ep"
    options = {**trial.options, "epochs": epochs}
    return dataclasses.replace(trial, name=name, options=options, round=number)


def _epochs(count: int) -> str:
    return f"{count} epochs" if count > 1 else "1 epoch"
