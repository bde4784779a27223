"""A training run on disk, as it was after its last finished epoch.

A safetensors file: ``net.*`` holds the network's arrays, ``optimizer.*`` what the optimizer
remembers. Its metadata has one entry, ``fullback-run``, a JSON object with what the run was started
with and the figures of its epochs. Whatever else a run draws is a function of the seed, the epoch
and the batch, so one that goes on from here ends with the same weights, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fullback.atomic import check_writable, write_atomically
from fullback.errors import InputError, ModelFileError
from fullback.layers.base import Array
from fullback.network import Network
from fullback.training.history import Epoch
from fullback.training.optimizers import State

VERSION = 1

_MOST_METADATA = 2**24  # characters of JSON
_LOOKED_AT = 64  # images by which a data set is known again


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The file of one run.

    Parameters
    ----------
    path : the file; what is there is only replaced by a later epoch of the same run
    run : what the run was started with, by name; as JSON holds it
    """

    path: Path
    run: Mapping[str, Any]

    @classmethod
    def of(cls, path: str | os.PathLike[str], **run: Any) -> Checkpoint:
        """Return the file of a run that is started with these.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        check_writable(path)
        return cls(Path(path), json.loads(json.dumps(run)))

    def save(self, net: Network, state: State, epochs: list[Epoch]) -> None:
        """Write the run as it is now, atomically.

        Raises
        ------
        OSError
            Writing failed, as on a full disk; what was there still is.
        """
        from safetensors.numpy import save as to_bytes

        described = {
            "version": VERSION,
            "run": self.run,
            "epochs": [vars(epoch) for epoch in epochs],
        }
        metadata = {"fullback-run": json.dumps(described)}
        write_atomically(self.path, to_bytes(_arrays(net, state), metadata=metadata))

    def load(self, net: Network, state: State) -> list[Epoch]:
        """Bring a network and an optimizer's state to where the run was; return its epochs.

        Without a file there are none, and nothing is changed.

        Raises
        ------
        ModelFileError
            The file is damaged, or no checkpoint.
        InputError
            It is the checkpoint of a run that was started with something else.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return []
        run, epochs = read_run(self.path)
        for name, value in self.run.items():
            if run.get(name) != value:
                raise InputError(
                    f"{self.path} is of a run with {name} {run.get(name)!r:.200}, and this one has "
                    f"{value!r:.200}; give another file, or delete it to begin anew"
                )
        wanted = _arrays(net, state)
        try:
            with safe_open(self.path, framework="numpy") as file:
                if set(file.keys()) != wanted.keys():
                    raise _damaged(
                        self.path, "its arrays are not those of its network and optimizer"
                    )
                found = {name: file.get_tensor(name) for name in wanted}
        except (SafetensorError, OSError) as error:
            raise _damaged(self.path, str(error)) from error
        for name, array in found.items():
            if array.shape != wanted[name].shape or array.dtype != wanted[name].dtype:
                raise _damaged(self.path, f"{name} is {array.dtype} of shape {array.shape}")
            if not np.isfinite(array).all():
                raise _damaged(self.path, f"{name} is not finite")
        for name, array in found.items():
            place, _, own = name.partition(".")
            if place == "optimizer":
                state[own][...] = array
            else:
                (net.parameters if own in net.parameters else net.statistics)[own] = array
        return epochs


def read_run(path: Path) -> tuple[dict[str, Any], list[Epoch]]:
    """Read what the run of a checkpoint was started with, and its epochs.

    Raises
    ------
    ModelFileError
        The file is damaged, or no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("fullback-run", "")
        described = json.loads(text) if len(text) <= _MOST_METADATA else {}
        version, run = described["version"], dict(described["run"])
        epochs = [Epoch(**figures) for figures in described["epochs"]]
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


def fingerprint(images: Array, targets: Array) -> int:
    """Return a number by which a data set is known again: of all targets and some images."""
    some = images[np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).astype(int)]
    return zlib.crc32(
        np.ascontiguousarray(some).data, zlib.crc32(np.ascontiguousarray(targets).data)
    )


def _arrays(net: Network, state: State) -> dict[str, Array]:
    arrays = {f"net.{name}": array for name, array in net.parameters.items()}
    arrays |= {f"net.{name}": array for name, array in net.statistics.items()}
    return arrays | {f"optimizer.{name}": array for name, array in state.items()}
