"""A network as a safetensors file: its arrays, and its architecture as JSON in the metadata.

The metadata has one entry, ``fullback``, a JSON object::

    {"version": 2,
     "layers": [{"kind": "conv", "filters": 8, "kernel_size": 3, ...}, ...],
     "input_shape": [1, 28, 28], "dtype": "float32", "frozen": ["conv1"],
     "loss": {"kind": "softmax_cross_entropy", "label_smoothing": 0.0},
     "class_names": ["cat", "dog"], "data_options": {"split_seed": 1},
     "trained_on": {"low": 0.0, "high": 255.0, "mean": 33.1, "border": 0.2,
                    "black": 0.0, "white": 255.0},
     "threshold": {"label": 1, "value": 0.2}}

``class_names``, ``data_options``, ``trained_on`` and ``threshold`` are there where the network has
some, and ``estimator`` in the file of a CNNClassifier or CNNRegressor (see
``fullback.estimator.files``). Version 1 had no ``trained_on``: its networks take uint8 images as 0
to 1.

One entry, because safetensors writes several in an order that changes from run to run, and the same
network shall give the same file, to the bit. Nothing is pickled. Every array's name, shape and type
is checked against the architecture before any of it is read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
from typing import Any

from fullback.architecture import architecture_of
from fullback.atomic import write_atomically
from fullback.errors import (
    FullbackError,
    InputError,
    ModelFileError,
    NotEnoughMemoryError,
    OptionError,
)
from fullback.layers import LAYERS, LOSSES, Layer, Loss, Normalize
from fullback.model import M, Model
from fullback.options import short
from fullback.pixels import ImageRecord
from fullback.threshold import Threshold

VERSION = 2

_READ = (1, 2)  # versions

DAMAGE = (
    FullbackError,
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading a description raises that this package has not written."""

_MOST_METADATA = 2**20  # characters of JSON
_MOST_LAYERS = 1000
_DATA_OPTIONS = ("resize", "nested", "test_share", "split_seed", "label_column")
_TYPES = {"float32": "F32", "float64": "F64"}


def save(net: Model, path: str | os.PathLike[str]) -> None:
    """Write a network to a safetensors file, atomically.

    Parameters
    ----------
    net : the network: its layers, loss, parameters, statistics and what is frozen
    path : where to; a file that is there is replaced

    Raises
    ------
    OptionError
        What is to be saved is not a Network.
    InputError
        The path is a folder or a device, its folder cannot be written to, or the network has more
        than 1000 layers.
    OSError
        Writing failed, as on a full disk; a file that was there still is.
    """
    if not isinstance(net, Model):
        raise OptionError(f"save takes a Network and then a path, got {short(net)} as the network")
    write_model(net, path)


def write_model(
    net: Model, path: str | os.PathLike[str], estimator: dict[str, Any] | None = None
) -> None:
    """Write what ``save`` writes, and beside it what an estimator knows.

    Raises
    ------
    InputError, OSError
        See ``save``; or the estimator knows too much for a file.
    """
    from safetensors.numpy import save as to_bytes

    if len(net.layers) > _MOST_LAYERS:
        raise InputError(
            f"a model file holds {_MOST_LAYERS} layers, but there are {len(net.layers)}"
        )
    architecture = {
        "version": VERSION,
        "layers": list(map(as_json, net.layers)),
        "input_shape": net.input_shape,
        "dtype": str(net.dtype),
        "loss": as_json(net.loss),
        "frozen": sorted(net.frozen),
    }
    if net.class_names:
        architecture["class_names"] = list(net.class_names)
    if net.data_options:
        architecture["data_options"] = net.data_options
    if net.trained_on is not None:
        architecture["trained_on"] = dataclasses.asdict(net.trained_on)
    if net.threshold is not None:
        architecture["threshold"] = dataclasses.asdict(net.threshold)
    if estimator is not None:
        architecture["estimator"] = estimator
    text = json.dumps(architecture)
    if len(text) > _MOST_METADATA:
        raise InputError(
            f"the description of the model has {len(text):,} characters, and a model file holds "
            f"{_MOST_METADATA:,}; shorten class names or feature names"
        )
    arrays = {**net.parameters, **net.statistics}
    write_atomically(path, to_bytes(arrays, metadata={"fullback": text}))


def read_model(path: str | os.PathLike[str], kind: type[M]) -> tuple[M, dict[str, Any]]:
    """Read what ``save`` wrote, as a Model or a Network, and the file's description of it.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, not a fullback model, or written by a newer version.
    """
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    if not os.path.isfile(path):  # noqa: PTH113 -- Path.is_file can raise
        reason = "is not a file" if os.path.exists(path) else "does not exist"  # noqa: PTH110
        raise ModelFileError(f"{path} {reason}; expected a model file that fullback saved")
    try:
        with safe_open(path, framework="numpy") as file:
            described = _description(path, file.metadata() or {})
            net = _network(path, described, file, kind)
            for arrays in (net.parameters, net.statistics):
                for name in arrays:
                    arrays[name] = file.get_tensor(name)
            if described["version"] == 1:
                _guess_scale(net)
    except MemoryError:
        raise NotEnoughMemoryError(f"there is not enough memory for the arrays of {path}") from None
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path} cannot be read as a safetensors file ({error}); it is damaged or no model file"
        ) from error
    return net, described


def _guess_scale(net: Model) -> None:
    """Take what Normalize measured for the scale of a file of version 1, which does not note it.

    Where that is not within 0 to 1, nothing is known of black and white, and image files are
    refused; otherwise they are taken for 0 to 1, with a warning.
    """
    first = net.names[0]
    if isinstance(net.layers[0], Normalize) and net.statistics[f"{first}.images"] > 0:
        mean, deviation = net.statistics[f"{first}.mean"], net.statistics[f"{first}.deviation"]
        if mean.min() < 0 or mean.max() > 1 or deviation.max() > 0.5:  # 0.5 is of 0s and 1s
            low, high = float((mean - 2 * deviation).min()), float((mean + 2 * deviation).max())
            average = float(mean.mean())
            net.trained_on = ImageRecord(low, high, average, average, None, None)
            return
    net.scale_unknown = True


def _description(path: str, metadata: dict[str, str]) -> dict[str, Any]:
    """Read the metadata's JSON, of a version that is known."""
    text = metadata.get("fullback", "")
    try:
        described = json.loads(text) if len(text) <= _MOST_METADATA else None
    except (ValueError, RecursionError):
        described = None
    if not isinstance(described, dict) or "version" not in described:
        raise ModelFileError(
            f"{path} is a safetensors file, but not a fullback model: its metadata does not "
            "describe a network"
        )
    if described["version"] not in _READ:
        raise ModelFileError(
            f"{path} has format version {_short(repr(described['version']))}, but this fullback "
            f"reads versions 1 to {VERSION}; install a newer fullback"
        )
    return described


def _network(path: str, described: dict[str, Any], file: Any, kind: type[M]) -> M:
    """Build the network that the metadata describes, once the file's arrays are found to fit."""
    try:
        layers = read_layers(described["layers"])
        input_shape = tuple(described["input_shape"])
        options: dict[str, Any] = {
            "loss": _loss(described["loss"]),
            "dtype": described["dtype"],
        }
        frozen = [str(name) for name in described["frozen"]]
        built = architecture_of(layers, input_shape)
        _check_arrays(
            path, {**built.parameters, **built.statistics}, _TYPES[options["dtype"]], file
        )
        net = kind(layers, input_shape, **options)
        net.freeze(*frozen)
        net.class_names = _class_names(described.get("class_names", []), net.output_shape[0])
        options = dict(described.get("data_options", {}))
        net.data_options = {name: options[name] for name in _DATA_OPTIONS if name in options}
        if "trained_on" in described:
            net.trained_on = ImageRecord(**described["trained_on"])
        if "threshold" in described:
            net.threshold = Threshold(**described["threshold"])
    except ModelFileError:
        raise
    except DAMAGE as error:
        raise ModelFileError(
            f"{path}: its metadata does not describe a network ({type(error).__name__}: "
            f"{_short(str(error))}); the file is damaged"
        ) from error
    return net


def _check_arrays(path: str, shapes: dict[str, tuple[int, ...]], kind: str, file: Any) -> None:
    found = set(file.keys())
    if found != shapes.keys():
        missing = ", ".join(sorted(shapes.keys() - found)) or "none"
        extra = ", ".join(sorted(found - shapes.keys())) or "none"
        raise ModelFileError(
            f"{path}: its arrays are not those of its network (missing: {_short(missing)}; "
            f"unexpected: {_short(extra)}); the file is damaged"
        )
    for name, shape in shapes.items():
        array = file.get_slice(name)
        if tuple(array.get_shape()) != shape or array.get_dtype() != kind:
            raise ModelFileError(
                f"{path}: {name} has shape {tuple(array.get_shape())} and type "
                f"{array.get_dtype()}, but its network needs {shape} and {kind}; "
                "the file is damaged"
            )


def _short(text: str) -> str:
    """Cut what a file says to a length that fits into a message."""
    return textwrap.shorten(text, 200, placeholder=" ...")


def as_json(described: Layer | Loss) -> dict[str, Any]:
    """Return a layer or a loss as it stands in a file."""
    return {"kind": described.kind, **dataclasses.asdict(described)}  # type: ignore[call-overload]


def _class_names(names: Any, outputs: int) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OptionError("class_names must be a list of texts")
    if len(names) > outputs:
        raise OptionError(f"there are {len(names)} class names for {outputs} outputs")
    return tuple(names)


def read_layers(entries: list[dict[str, Any]]) -> list[Layer]:
    """Return the layers that stand in a file; a wrong entry raises one of many errors."""
    if len(entries) > _MOST_LAYERS:
        raise OptionError(f"{len(entries)} layers are more than {_MOST_LAYERS}")
    return [LAYERS[entry["kind"]](**_options(entry)) for entry in entries]


def _loss(entry: dict[str, Any]) -> Loss:
    return LOSSES[entry["kind"]](**_options(entry))


def _options(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry.items()
        if key != "kind"
    }
