"""A training run on disk, as it was after one of its last finished epochs.

A safetensors file: ``net.*`` holds the network's arrays, ``optimizer.*`` what the optimizer
remembers, and ``best0.*`` the best epoch of the first EarlyStopping. Its metadata has one entry,
``fullback-run``, a JSON object with what the run was started with and the figures of its epochs.
Whatever else a run draws is a function of the seed, the epoch and the batch, so one that goes on
from here ends with the same weights, bit for bit.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fullback.atomic import check_writable, write_atomically
from fullback.errors import FullbackWarning, InputError, ModelFileError
from fullback.layers.base import Array
from fullback.model import Model
from fullback.training.callbacks import WRITE_EVERY, EarlyStopping
from fullback.training.history import Epoch, History
from fullback.training.listeners import Listener
from fullback.training.optimizers import State
from fullback.training.run import TrainingRun

VERSION = 1

_MOST_METADATA = 2**24  # characters of JSON

_IN_WORDS = {
    "data": "the images or labels have changed: they are not those that the run was started with",
    "validation_data": "the validation images or labels have changed",
    "layers": "the network has other layers: {old} then, {new} now",
    "input_shape": "the network takes images of another shape: {old} then, {new} now",
    "loss": "the network has another loss: {old} then, {new} now",
    "frozen": "other layers are frozen: {old} then, {new} now",
    "sums": "gradients were added up another way (sums): {old} then, {new} now",
    "sample_weight": "the weights of the images have changed",
}
"""What differs between two runs, in this order, in words; any other option by its name."""

_SAME_AT_ANY_LENGTH = ("constant", "Plateau(")  # texts of schedules


class Checkpoint(Listener):
    """The file of one run; what is there is only replaced by a later epoch of the same run.

    Parameters
    ----------
    path : the file
    run : the run that is kept in it
    callbacks : those of the run; what an EarlyStopping among them keeps is kept here as well

    Raises
    ------
    InputError
        The file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        run: TrainingRun,
        callbacks: Sequence[object] = (),
    ) -> None:
        check_writable(path)
        self.path = Path(path)
        self.net, self.state = run.net, run.state
        self.stopping = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
        self.run = _description(run)
        self._epochs: Sequence[Epoch] = ()
        self._latest: tuple[dict[str, Array], int] | None = None  # to be written, and its epochs
        self._last_write = time.monotonic()

    def begin(self, history: History) -> None:
        """Read from this history which epochs there are."""
        self._epochs = history.epochs

    def __call__(self, epoch: Epoch) -> None:
        """Keep the run as it is after an epoch; write it where the last time is long ago.

        Raises
        ------
        OSError
            Writing failed, as on a full disk; what was there still is.
        """
        arrays = {name: array.copy() for name, array in _arrays(self.net, self.state).items()}
        for n, callback in enumerate(self.stopping):
            best, of_best = callback.kept()
            if best:
                arrays[f"best{n}"] = np.array(best)
                arrays |= {f"best{n}.{name}": array for name, array in of_best.items()}
        self._latest = arrays, len(self._epochs)
        if time.monotonic() - self._last_write >= WRITE_EVERY:
            self.close()

    def close(self) -> None:
        """Write what is not written, atomically.

        Raises
        ------
        OSError
            Writing failed, as on a full disk; what was there still is.
        """
        from safetensors.numpy import save as to_bytes

        if self._latest is None:
            return
        arrays, count = self._latest
        described = {
            "version": VERSION,
            "run": self.run,
            "epochs": [vars(epoch) for epoch in self._epochs[:count]],
        }
        metadata = {"fullback-run": json.dumps(described)}
        write_atomically(self.path, to_bytes(arrays, metadata=metadata))
        self._latest, self._last_write = None, time.monotonic()

    def load(self) -> list[Epoch]:
        """Bring the network and the optimizer's state to where the run was; return its epochs.

        Without a file there are none, and nothing is changed.

        Raises
        ------
        ModelFileError
            The file is damaged, or no checkpoint.
        InputError
            It is the checkpoint of a run that was started with something else.

        Warns
        -----
        FullbackWarning
            The run has another number of epochs than when it began, and its schedule depends on it.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return []
        run, epochs = read_run(self.path)
        self._compare(run, len(epochs))
        net, wanted = self.net, _arrays(self.net, self.state)
        try:
            with safe_open(self.path, framework="numpy") as file:
                names = {name for name in file.keys() if not name.startswith("best")}  # noqa: SIM118
                if names != wanted.keys():
                    raise _damaged(
                        self.path, "its arrays are not those of its network and optimizer"
                    )
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise _damaged(self.path, str(error)) from error
        for name, array in found.items():
            if name in wanted and (
                array.shape != wanted[name].shape or array.dtype != wanted[name].dtype
            ):
                raise _damaged(self.path, f"{name} is {array.dtype} of shape {array.shape}")
            if not np.isfinite(array).all():
                raise _damaged(self.path, f"{name} is not finite")
        for n, callback in enumerate(self.stopping):
            best = _best_of(net, n, found)
            if best is not None:
                callback.take_over(*best)
        for name in wanted:
            place, _, key = name.partition(".")
            if place == "optimizer":
                self.state[key][...] = found[name]
            else:
                (net.parameters if key in net.parameters else net.statistics)[key] = found[name]
        return epochs

    def _compare(self, run: Mapping[str, Any], done: int) -> None:
        """Raise InputError where a file's run is another one than this, or warn of its length."""
        begin = f"give another file, or delete {self.path} to begin anew"
        if run.get("images") != self.run.get("images") and "images" in self.run:
            raise InputError(
                f"the run in {self.path} cannot go on: the images have changed; it was started "
                f"with {run.get('images')!r:.20} of them, and now there are {self.run['images']}; "
                f"train on the images that it was started with, or {begin}"
            )
        for name in (*_IN_WORDS, *self.run):
            old, new = run.get(name), self.run.get(name)
            if old == new or name == "epochs":
                continue
            words = _IN_WORDS.get(name, f"{name.replace('_', ' ')} was {{old}}, and is {{new}} now")
            words = words.format(old=f"{_shown(old)}", new=f"{_shown(new)}")
            raise InputError(f"the run in {self.path} cannot go on: {words}; {begin}")
        old, new = run.get("epochs"), self.run.get("epochs")
        if old == new or new is None:
            return
        if done > new:
            raise InputError(
                f"the run in {self.path} has {done} finished epochs, more than the {new} wanted; "
                f"give at least {done}, or {begin}"
            )
        if not str(self.run.get("schedule", "")).startswith(_SAME_AT_ANY_LENGTH):
            warnings.warn(
                f"the run in {self.path} was started for {old} epochs and goes on to {new}: from "
                f"epoch {done + 1} on, the learning rate is that of the schedule "
                f"{self.run.get('schedule')} over {new} epochs, and the weights will not be those "
                f"of a run that was started for {new}",
                FullbackWarning,
                stacklevel=4,
            )


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return (text if len(text) <= 120 else f"{text[:117]}...") or "none"


def _best_of(net: Model, n: int, found: Mapping[str, Array]) -> tuple[int, dict[str, Array]] | None:
    """Return the best epoch's number and arrays that an EarlyStopping kept, where there is one."""
    current = dict((*net.parameters.items(), *net.statistics.items()))
    best = found.get(f"best{n}")
    arrays = {name: found.get(f"best{n}.{name}") for name in current}
    if best is None or best.shape != () or best.dtype.kind != "i":
        return None
    found_arrays = {name: array for name, array in arrays.items() if array is not None}
    if {name: array.shape for name, array in found_arrays.items()} != {
        name: array.shape for name, array in current.items()
    }:
        return None
    return int(best), found_arrays


def read_run(path: Path) -> tuple[dict[str, Any], list[Epoch]]:
    """Read what the run of a checkpoint was started with, and its epochs.

    Raises
    ------
    ModelFileError
        The file is damaged, or no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():  # a pipe would be waited for
        raise ModelFileError(f"{path} is not a file; expected the checkpoint of a run")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("fullback-run", "")
        described = json.loads(text) if len(text) <= _MOST_METADATA else {}
        version, run = described["version"], dict(described["run"])
        epochs = [Epoch.read(figures) for figures in described["epochs"]]
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, "its metadata does not describe a run") from error
    if version != VERSION:
        raise _damaged(path, f"it has version {version!r:.20}, and this fullback reads {VERSION}")
    if [epoch.epoch for epoch in epochs] != list(range(1, len(epochs) + 1)):
        raise _damaged(path, "its epochs are not in order")
    return run, epochs


def _damaged(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(
        f"{path} cannot be read as the checkpoint of a run: {reason}; delete it to begin anew"
    )


def _description(run: TrainingRun) -> dict[str, Any]:
    """Return what a run is started with, by name, as JSON holds it."""
    net = run.net
    description = {
        "layers": [str(layer) for layer in net.layers],
        "input_shape": net.input_shape,
        "loss": str(net.loss),
        "frozen": sorted(net.frozen),
        **run.options.described(),
        **run.data.fingerprints(),
    }
    described: dict[str, Any] = json.loads(json.dumps(description))
    return described


def _arrays(net: Model, state: State) -> dict[str, Array]:
    arrays = {f"net.{name}": array for name, array in net.parameters.items()}
    arrays |= {f"net.{name}": array for name, array in net.statistics.items()}
    return arrays | {f"optimizer.{name}": array for name, array in state.items()}
