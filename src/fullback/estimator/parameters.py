"""Parameters of an estimator as JSON, for model files.

Text, numbers, True, False and None stand for themselves. The rest is an object with one entry that
says what it is: ``{"tuple": [28, 28]}``, ``{"layers": [...]}``, ``{"schedule": {"name": "steps",
"options": {...}}}``, ``{"augment": {"shift": 2, ...}}``, ``{"weights": [[label, weight], ...]}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fullback.augment import Augment
from fullback.export.safetensors import as_json, read_layers
from fullback.layers import Layer
from fullback.options import require_flag
from fullback.training.schedules import SCHEDULES, Schedule

_FLAGS = ("early_stopping", "warm_start", "verbose")


class NotPlainError(Exception):
    """A parameter that is not plain data."""


def parameter_as_json(name: str, value: Any) -> Any:
    """Return a parameter as JSON.

    Raises
    ------
    NotPlainError
        It is not plain data.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Augment):
        return {"augment": dataclasses.asdict(value)}
    if isinstance(value, Mapping):
        return {"weights": [[_plain(label), _plain(weight)] for label, weight in value.items()]}
    if isinstance(value, list | tuple):
        if value and all(isinstance(layer, Layer) for layer in value):
            return {"layers": list(map(as_json, value))}
        return {"tuple": list(map(_plain, value))}
    if name == "schedule":
        return {"schedule": _schedule_as_json(value)}
    raise NotPlainError


def read_parameter(name: str, value: Any) -> Any:
    """Return the parameter that stands in a file; a wrong one raises one of many errors."""
    if name in _FLAGS:
        require_flag(name, value)
    if name == "random_state" and value is not None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
            raise ValueError(f"random_state is {value!r:.50}")
        return value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise TypeError(f"{name} is {value!r:.50}")
    ((kind, content),) = value.items()
    return _READERS[kind](content)


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, bool | int | float | str):
        raise NotPlainError
    return value


def _schedule_as_json(schedule: Any) -> dict[str, Any]:
    for name, known in SCHEDULES.items():
        if schedule is known and not isinstance(known, type):
            return {"name": name, "options": {}}
        if isinstance(known, type) and type(schedule) is known:
            options: dict[str, Any] = {}
            for field in dataclasses.fields(schedule):  # type: ignore[arg-type]
                value = getattr(schedule, field.name)
                options[field.name] = _schedule_as_json(value) if callable(value) else value
            return {"name": name, "options": options}
    raise NotPlainError


def _read_schedule(content: dict[str, Any]) -> Schedule:
    known = SCHEDULES[content["name"]]
    if not isinstance(known, type):
        return known
    options = dict(content["options"])
    for name, value in options.items():
        if isinstance(value, dict):
            options[name] = _read_schedule(value)
        elif isinstance(value, list):
            options[name] = tuple(value)
    return known(**options)  # type: ignore[no-any-return]


def _read_weights(content: list[Any]) -> dict[Any, float]:
    for label, _ in content:
        if not isinstance(label, bool | int | float | str):
            raise TypeError(f"class_weight has the label {label!r:.50}")
    return dict(content)


_READERS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "layers": read_layers,
    "schedule": _read_schedule,
    "augment": lambda content: Augment(**content),
    "weights": _read_weights,
}
