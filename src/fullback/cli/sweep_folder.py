"""The folder of a sweep: a run's folder for every trial, what was searched for, the results.

=================  ================================================================================
sweep.json         what the sweep's file said, and by what its images are known again
trial-001/, ...    the runs, as ``fullback train --run`` keeps them
results.csv        what every trial came to
plots/sweep.png    a picture of that, where matplotlib is installed
=================  ================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.atomic import write_atomically
from fullback.cli.run_folder import RunFolder, lock_folder
from fullback.errors import InputError, ModelFileError
from fullback.sweep.outcome import Outcome, Trial, as_csv

if TYPE_CHECKING:
    from filelock import FileLock

    from fullback.training.history import Monitor

_MOST_BYTES = 2**24


class SweepFolder:
    """The folder of one sweep; within ``with`` no other process can go on with it.

    Raises
    ------
    InputError
        It cannot be made, or another process goes on with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.csv"
        self.picture = path / "plots" / "sweep.png"
        self._said = path / "sweep.json"
        self._lock: FileLock | None = None

    def __enter__(self) -> SweepFolder:
        if RunFolder(self.path).config.exists():
            raise InputError(f"{self.path} is the folder of a run; give another one with --run")
        advice = "give another folder with --run"
        self._lock = lock_folder(self.path, "a sweep", "goes on with the sweep in", advice)
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def begin(self, tables: Mapping[str, Any], images: Sequence[int]) -> None:
        """Write what is searched for, where that was not done before.

        A sweep that goes on may have other workers, and more trials that are drawn.

        Raises
        ------
        InputError
            The folder holds a sweep of something else, or the images have changed.
        """
        said = {"sweep": json.loads(json.dumps(tables, default=str)), "images": list(images)}
        if self._said.exists():
            before = self._read()
            if _fixed(before["sweep"]) != _fixed(said["sweep"]):
                raise InputError(
                    f"{self.path} holds a sweep of another file; give another folder with --run, "
                    "or delete it"
                )
            if before["images"] != said["images"]:
                raise InputError(
                    f"the images have changed since the sweep in {self.path} was started, and its "
                    "trials could not be compared; give another folder with --run, or delete it"
                )
        write_atomically(self._said, (json.dumps(said, indent=1) + "\n").encode())

    def _read(self) -> dict[str, Any]:
        try:
            with self._said.open("rb") as file:
                said = json.loads(file.read(_MOST_BYTES))
            sweep, images = said["sweep"], said["images"]
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            sweep = images = None
        if not isinstance(sweep, dict) or not isinstance(images, list):
            raise InputError(
                f"{self._said} is damaged; give another folder with --run, or delete it"
            )
        return {"sweep": sweep, "images": images}

    def run_of(self, trial: Trial) -> RunFolder:
        """Return the folder of a trial's run."""
        return RunFolder(self.path / trial.name)

    def outcome_of(self, trial: Trial, metric: Monitor) -> Outcome:
        """Return what a trial came to, or how far it is, by the files in its folder.

        Raises
        ------
        InputError
            The folder holds another run.
        """
        from fullback.cli.run_folder import read_config
        from fullback.training.history import best_epoch

        folder = self.run_of(trial)
        if not folder.config.is_file():
            return Outcome("waiting")
        if read_config(folder.config) != dict(trial.options):
            raise InputError(
                f"{folder.path} holds another run than {trial.name} of this sweep; delete it, or "
                "give another folder with --run"
            )
        try:
            epochs = folder.epochs()
        except ModelFileError as error:
            return Outcome("not trained", reason=str(error))
        result = folder.read_result()
        ended = result.get("epochs") == len(epochs)
        failed = ended and "failed" in result
        best = best_epoch(epochs, metric)
        value = epochs[best - 1].judged_by(metric) if best else None
        numbers = {
            name: figure
            for name, figure in result.items()
            if name in ("test_accuracy", "test_loss", "test_r2") and isinstance(figure, float)
        }
        return Outcome(
            "failed" if failed else "finished" if ended else "waiting",
            epochs=len(epochs),
            value=-value if value is not None and metric == "loss" else value,
            best_epoch=best or None,
            test=numbers if ended and not failed else {},
            seconds=sum(epoch.seconds for epoch in epochs),
            reason=str(result["failed"])[:500] if failed else "",
        )

    def write_results(
        self, rows: Sequence[tuple[Trial, Outcome]], varied: Sequence[str], metric: Monitor
    ) -> None:
        """Write a table of the trials, where it has changed."""
        content = as_csv(rows, varied, metric)
        if not self.results.is_file() or self.results.read_bytes() != content:
            write_atomically(self.results, content)


def _fixed(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sweep that goes on must have as it was."""
    sweep = dict(tables.get("sweep", {}))
    sweep.pop("workers", None)
    if sweep.get("method", "random") == "random":
        sweep.pop("trials", None)
    return {**tables, "sweep": sweep}
