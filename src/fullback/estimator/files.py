"""A fitted estimator in a model file: its network, and beside it what the estimator knows.

The entry ``estimator`` of the file's JSON (see ``fullback.export.safetensors``) is::

    {"kind": "classifier", "params": {"epochs": 5, "layers": {"layers": [...]}, ...},
     "channels_last": false, "takes_bytes": true, "feature_names": ["p0", ...],
     "loss_curve": [...], "n_iter": 5, "validation_scores": [...], "best_validation_score": 0.9,
     "classes": {"dtype": "<U7", "values": ["dent", "scratch"]}}

and of a regressor, in place of ``classes``, ``target_weight``, ``target_mean``, ``target_scale``
and ``one_output``. ``feature_names`` and the validation scores are there where the estimator has
some.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from fullback.errors import FullbackWarning, InputError, ModelFileError
from fullback.estimator.base import CNN
from fullback.estimator.classifier import CNNClassifier
from fullback.estimator.parameters import NotPlainError, parameter_as_json, read_parameter
from fullback.estimator.reading import Array, explicit_shape
from fullback.estimator.regressor import CNNRegressor
from fullback.export.safetensors import DAMAGE, read_model, write_model
from fullback.layers import Dense, MeanSquaredError
from fullback.network import Network

KINDS: dict[str, type[CNNClassifier] | type[CNNRegressor]] = {
    "classifier": CNNClassifier,
    "regressor": CNNRegressor,
}

_LABELS = {"b": bool, "i": int, "u": int, "f": float, "U": str, "O": str}  # by a dtype's kind

_MOST_BYTES = 2**26  # of all labels


def save_estimator(model: CNN, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; see ``CNN.save``."""
    described: dict[str, Any] = {
        "kind": next(name for name, kind in KINDS.items() if isinstance(model, kind)),
        "params": _parameters_as_json(model),
        "channels_last": model.channels_last_,
        "takes_bytes": bool(model.takes_bytes_),
        "loss_curve": model.loss_curve_,
        "n_iter": model.n_iter_,
    }
    if hasattr(model, "feature_names_in_"):
        described["feature_names"] = list(map(str, model.feature_names_in_))
    if hasattr(model, "validation_scores_"):
        described["validation_scores"] = [float(score) for score in model.validation_scores_]
        described["best_validation_score"] = float(model.best_validation_score_)
    if isinstance(model, CNNRegressor):
        described |= {
            "target_weight": model.target_weight_,
            "target_mean": model.target_mean_.tolist(),
            "target_scale": model.target_scale_.tolist(),
            "one_output": model.one_output_,
        }
    else:
        described["classes"] = _classes_as_json(model.classes_)
    write_model(model.network_, path, described)


def load_estimator(path: str | os.PathLike[str]) -> CNNClassifier | CNNRegressor:
    """Read an estimator that ``CNNClassifier.save`` or ``CNNRegressor.save`` wrote.

    It predicts what the saved one predicted, and trains on from where that was. Nothing in the file
    is run.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, written by a newer version, or holds a network alone.
    """
    net, described = read_model(path, Network)
    path = os.fspath(path)
    if "estimator" not in described:
        raise ModelFileError(f"{path} holds a network, not an estimator; fullback.load reads it")
    try:
        return _estimator(net, _Fields(described["estimator"]))
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"{path}: what it says of its estimator cannot be ({type(error).__name__}: {reason}); "
            "the file is damaged"
        ) from error


class _Fields:
    """Values of a JSON object, each asked for with its type."""

    def __init__(self, given: Any) -> None:
        if not isinstance(given, dict):
            raise TypeError("it is no JSON object")
        self.given = given

    def get(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """Return a value of that type; True and False are no numbers."""
        value = self.given[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name} is {value!r:.50}")
        return value

    def numbers(self, name: str, length: int | None = None) -> list[float]:
        """Return finite numbers, so many."""
        values = self.get(name, list)
        whole = length is None or len(values) == length
        if not whole or not all(map(_is_number, values)):
            raise ValueError(f"{name} are not {length or ''} finite numbers")
        return [float(value) for value in values]


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def _estimator(net: Network, fields: _Fields) -> CNNClassifier | CNNRegressor:
    """Build the estimator that a file describes, with its network."""
    kind = KINDS[fields.get("kind", str)]
    model = kind()
    known = model.get_params()
    for name, value in fields.get("params", dict).items():
        if name not in known:
            raise ValueError(f"{kind.__name__} has no parameter {name!r:.50}")
        setattr(model, name, read_parameter(name, value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FullbackWarning)  # of shapes that fit has warned of
        model._check_options()
        if model.image_shape is not None:
            explicit_shape(model.image_shape)
    if len(net.input_shape) != 3 or net.trained_on is None or not isinstance(net.layers[-1], Dense):
        raise ValueError("its network is not one that an estimator trains")
    model.network_ = net
    model.image_shape_ = net.input_shape
    model.n_features_in_ = int(np.prod(net.input_shape))
    model.channels_last_ = fields.get("channels_last", bool)
    model.takes_bytes_ = fields.get("takes_bytes", bool)
    if model.takes_bytes_ and not net.trained_on.is_default:
        raise ValueError("its network takes no bytes")
    model.loss_curve_ = fields.numbers("loss_curve")
    model.t_ = len(model.loss_curve_)
    model.n_iter_ = fields.get("n_iter", int)
    if not 0 <= model.n_iter_ <= model.t_:
        raise ValueError(f"n_iter is {model.n_iter_}")
    if "feature_names" in fields.given:
        names = fields.get("feature_names", list)
        if len(names) != model.n_features_in_ or not all(isinstance(name, str) for name in names):
            raise ValueError("feature_names are not the names of the features")
        model.feature_names_in_ = np.asarray(names, object)
    if "validation_scores" in fields.given:
        model.validation_scores_ = fields.numbers("validation_scores")
        best = fields.get("best_validation_score", (int, float))
        if best not in model.validation_scores_:
            raise ValueError(f"best_validation_score is {best!r:.50}")
        model.best_validation_score_ = float(best)
    if isinstance(model, CNNRegressor):
        _restore_targets(model, net, fields)
    else:
        _restore_classes(model, net, fields)
    return model


def _restore_classes(model: CNNClassifier, net: Network, fields: _Fields) -> None:
    """Give a classifier its classes."""
    classes = _Fields(fields.get("classes", dict))
    dtype, values = classes.get("dtype", str), classes.get("values", list)
    if not re.fullmatch(r"[<|=>]?([biufU][0-9]{1,5}|O)", dtype):
        raise ValueError(f"labels are of type {dtype!r:.50}")
    kind = _LABELS[np.dtype(dtype).kind]
    if np.dtype(dtype).itemsize * len(values) > _MOST_BYTES:
        raise ValueError(f"{len(values)} labels of type {dtype} are too many")
    if not all(type(value) is kind for value in values):
        raise TypeError(f"labels are not of type {dtype}")
    model.classes_ = np.array(values, np.dtype(dtype))
    if model.classes_.tolist() != values or sorted(set(values)) != values:
        raise ValueError("labels do not fit their type, or are not in order")
    if not values or max(len(values), 2) != net.output_shape[0] or not net.loss.classifies:
        raise ValueError(f"{len(values)} classes are not those of the network")


def _restore_targets(model: CNNRegressor, net: Network, fields: _Fields) -> None:
    """Give a regressor the moments of its targets."""
    outputs = net.output_shape[0]
    if not isinstance(net.loss, MeanSquaredError):
        raise ValueError(f"its network's loss is {net.loss}")  # noqa: TRY004 -- of a file's content
    model._require_last(net.layers[-1])
    model.target_mean_ = np.array(fields.numbers("target_mean", outputs))
    model.target_scale_ = np.array(fields.numbers("target_scale", outputs))
    model.target_weight_ = float(fields.get("target_weight", (int, float)))
    if (model.target_scale_ < 0).any() or not 0 < model.target_weight_ < np.inf:
        raise ValueError("target_scale or target_weight are negative")
    model.one_output_ = fields.get("one_output", bool)
    if model.one_output_ and outputs > 1:
        raise ValueError(f"one_output, but there are {outputs}")


def _classes_as_json(classes: Array) -> dict[str, Any]:
    values = classes.tolist()
    kind = _LABELS.get(classes.dtype.kind)
    if kind is None or not all(type(value) is kind for value in values):
        raise InputError(
            f"labels of type {classes.dtype} like {values[0]!r:.50} cannot be written to a file; "
            "use text, numbers or True and False"
        )
    return {"dtype": classes.dtype.str, "values": values}


def _parameters_as_json(model: CNN) -> Mapping[str, Any]:
    """Return a model's parameters; those that are not plain data are left out, with a warning."""
    described: dict[str, Any] = {}
    for name, value in model.get_params(deep=False).items():
        try:
            described[name] = parameter_as_json(name, value)
        except NotPlainError:
            warnings.warn(
                f"{name}={value!r:.80} cannot be written to a model file; the loaded estimator "
                "will have the default",
                FullbackWarning,
                stacklevel=4,
            )
    return described
