"""A training run's folder: how it was started, its epochs, its checkpoint, its model, its result.

=======================  =========================================================================
config.toml              the command's options, as ``fullback train --config`` reads them
checkpoint.safetensors   the run after its last finished epoch, see ``training/checkpoint.py``
best.safetensors         the network of the best epoch, where there are images for validation;
                         best.standardised.safetensors where numbers are predicted
history.csv, .json       the figures of its epochs
log.txt                  what happened, and when
model.safetensors        the network, when the run has ended
result.json              what it was worth on the test images
attempt-1/, ...          checkpoint and figures of attempts that learned nothing
plots/                   pictures of the run, where matplotlib is installed
tensorboard/             its figures for TensorBoard, where tensorboardX is installed
=======================  =========================================================================
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.atomic import write_atomically
from fullback.errors import InputError, OptionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from filelock import FileLock

    from fullback.training.history import Epoch

_REASON = "reason.txt"  # of an attempt's failure
_MOST_BYTES = 2**20  # of a configuration or a result


def lock_folder(path: Path, use: str, doing: str, advice: str) -> FileLock:
    """Make a folder where it is missing, and return the lock that keeps other processes out of it.

    Parameters
    ----------
    path : the folder
    use, doing, advice : what it is for, what another process does there, and what to do instead,
        for messages

    Raises
    ------
    InputError
        It cannot be made, or another process has it.
    """
    from filelock import FileLock, Timeout

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(f"another process {doing} {path}; wait for it, or {advice}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be used for {use} ({error.strerror}); {advice}") from None
    return lock


class RunFolder:
    """The folder of one run; within ``with`` no other process can train in it.

    Raises
    ------
    InputError
        It cannot be made, or another process trains in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.checkpoint = path / "checkpoint.safetensors"
        self.best = path / "best.safetensors"
        self.plots = path / "plots"
        self.model = path / "model.safetensors"
        self.result = path / "result.json"
        self.history = (path / "history.csv", path / "history.json")
        self._lock: FileLock | None = None

    def __enter__(self) -> RunFolder:
        self._lock = lock_folder(self.path, "a run", "trains in", "give another folder")
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def begin(self, options: Mapping[str, Any], *, resumed: bool = False) -> None:
        """Write how the run is started, where that was not done before.

        A run that is resumed has the same options, but for more epochs.

        Raises
        ------
        InputError
            The folder holds a run that was started with other options, or has more epochs already.
        """
        if self.config.exists():
            before = read_config(self.config)
            if before == options:
                return
            if not resumed:
                raise InputError(
                    f"{self.path} holds a run with other options; go on with it by --resume "
                    f"{self.path}, or give another folder"
                )
            done = len(self.epochs())
            if options["epochs"] < done:
                raise InputError(
                    f"{self.path} has {done} epochs already; give --epochs {done + 1} or more, or "
                    "leave it out"
                )
        self._write_config(options)

    def _write_config(self, options: Mapping[str, Any]) -> None:
        import tomli_w

        write_atomically(self.config, tomli_w.dumps(dict(options)).encode())

    def best_file(self, *, numbers: bool) -> Path:
        """Return where the network of the best epoch is kept while the run goes on.

        Where numbers are predicted it answers on the scale of training, mean 0 and deviation 1,
        and so it has a name of its own.
        """
        return self.path / "best.standardised.safetensors" if numbers else self.best

    @property
    def attempt(self) -> int:
        """Number of the attempt that runs or has ended: 1, or more where some learned nothing."""
        number = 1
        while (self._of_attempt(number) / _REASON).exists():
            number += 1
        return number

    def next_attempt(self, reason: str) -> None:
        """Put away what belongs to an attempt that learned nothing, for the next one to begin.

        Its reason is written last. Until then the attempt has not ended, and one that lost its
        checkpoint on the way is trained again, to the same end.
        """
        away = self._of_attempt(self.attempt)
        away.mkdir(exist_ok=True)
        for path in (*self.history, self.checkpoint):
            if path.exists():
                path.replace(away / path.name)
        for numbers in (False, True):
            self.best_file(numbers=numbers).unlink(missing_ok=True)
        write_atomically(away / _REASON, f"{reason}\n".encode())

    def _of_attempt(self, number: int) -> Path:
        return self.path / f"attempt-{number}"

    def epochs(self) -> list[Epoch]:
        """Return the epochs that are finished.

        Raises
        ------
        ModelFileError
            The checkpoint is damaged.
        """
        from fullback.training.checkpoint import read_run

        return read_run(self.checkpoint)[1] if self.checkpoint.exists() else []

    def log(self, text: str) -> None:
        """Add a line to the log."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        path = self.path / "log.txt"
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file that lines can be added to; delete it")
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{now}  {text}\n")

    def write_result(self, **figures: Any) -> None:
        """Write what the run was worth."""
        write_atomically(self.result, (json.dumps(figures, indent=2) + "\n").encode())

    def read_result(self) -> dict[str, Any]:
        """Return what the run was worth; nothing where it has not ended, or cannot be read."""
        if not self.result.is_file():  # a pipe would be waited for
            return {}
        try:
            with self.result.open("rb") as file:
                result = json.loads(file.read(_MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return result if isinstance(result, dict) else {}


def read_config(path: Path) -> dict[str, Any]:
    """Read options from a TOML file.

    Raises
    ------
    OptionError
        It cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(_MOST_BYTES).decode())
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path} is not TOML: {error}") from None
