"""The models that are served, each by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.engine.simd import LANES
from fullback.errors import OptionError
from fullback.layers.base import Array
from fullback.network import Network, load
from fullback.predicting import answers, labels_of, rounded

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class Served:
    """A model that is served.

    Attributes
    ----------
    name : by which it is asked for
    network : which one thread alone may let compute
    """

    name: str
    network: Network

    @property
    def takes_files(self) -> bool:
        """Whether image files can be read for it."""
        shape = self.network.input_shape
        return len(shape) == 3 and shape[0] in (1, 3)

    @property
    def takes_pixels(self) -> bool:
        """Whether it is known which of its values are black and white."""
        record = self.network.trained_on
        return record is None or record.takes_pixels

    def warm_up(self) -> None:
        """Compute once, so that the first request need not wait for what is compiled."""
        images = np.zeros((LANES, *self.network.input_shape), self.network.dtype)
        answers(self.network, images)

    def predictions(self, values: Array) -> list[dict[str, Any]]:
        """Return what is answered, an object an image, from what ``answers`` returned."""
        if not self.network.loss.classifies:
            return [{"values": row} for row in values.tolist()]
        names = self.network.answer_names
        labels: NDArray[np.int64] = labels_of(self.network, values)
        return [
            {"label": label, "name": names[label], "probabilities": row}
            for label, row in zip(labels.tolist(), rounded(values), strict=True)
        ]

    def description(self) -> dict[str, Any]:
        """Return what whoever asks should know of it."""
        network, record = self.network, self.network.trained_on
        known: dict[str, Any] = {
            "name": self.name,
            "input_shape": list(network.input_shape),
            "parameters": sum(array.size for array in network.parameters.values()),
            "takes_files": self.takes_files,
            "takes_pixels": self.takes_pixels,
        }
        if record is not None:
            known["trained_on"] = {
                "low": record.low,
                "high": record.high,
                "black": record.black,
                "white": record.white,
            }
        if network.loss.classifies:
            known["classes"] = list(network.answer_names)
        else:
            known["outputs"] = network.output_shape[0]
        if network.threshold is not None:
            label, value = network.threshold.label, network.threshold.value
            known["threshold"] = {"label": label, "value": value}
        return known


def load_models(named: Sequence[tuple[str, str]]) -> dict[str, Served]:
    """Load model files, by the names that they are to have.

    Raises
    ------
    OptionError
        A name is none, or two are the same.
    ModelFileError
        A file is missing, damaged, or not a model of fullback's.
    """
    models: dict[str, Served] = {}
    for name, path in named:
        if not _NAME.fullmatch(name):
            raise OptionError(
                f"a model's name must be letters, digits, '.', '-' and '_', 64 at most, got "
                f"{name!r}; give one as NAME=MODEL"
            )
        if name in models:
            raise OptionError(f"two models are called {name}; give them names: a=MODEL b=MODEL")
        models[name] = Served(name, load(path))
    return models
