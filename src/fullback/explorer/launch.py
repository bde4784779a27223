"""Where the explorer begins: a network and a data set, with their labels brought together."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from fullback.data import Dataset, digits
from fullback.network import Network
from fullback.server import asgi

if TYPE_CHECKING:
    from fullback.explorer.serve import Explorer


def explorer(
    net: Network, data: Dataset, *, name: str = "your network", **options: Any
) -> Explorer:
    """Return the explorer of a network on a data set; ``options`` are those of ``Explorer``.

    Raises
    ------
    OptionError
        The packages of the extra ``explore`` are not installed, or the server cannot listen.
    ShapeError, InputError
        The page cannot show the network.
    """
    require_installed()
    from fullback.explorer.config import ServerConfig
    from fullback.explorer.serve import Explorer

    return Explorer(ServerConfig(net, name, _with_labels_of(net, data)), **options)


def in_notebook(net: Network, data: Dataset | None, height: int) -> Explorer:
    """Start the explorer of a network for a notebook to show."""
    shown = digits() if data is None else data
    return explorer(net, shown, port=0, framed=True, height=height).start()


def require_installed() -> None:
    """Raise OptionError where the packages of the extra ``explore`` are not installed."""
    packages = {"starlette": "starlette", "uvicorn": "uvicorn"}
    asgi.require_installed("the explorer", "explore", packages)


def _with_labels_of(net: Network, data: Dataset) -> Dataset:
    """Return the data with the labels that the network has for the same class names.

    Data whose classes the network does not all know stay as they are: they do not go with it.
    """
    names, of_data = net.class_names, data.class_names
    unique = len(names) == len(set(names))
    if of_data == names[: len(of_data)] or not set(of_data) <= set(names) or not unique:
        return data
    labels = np.array([names.index(name) for name in of_data])
    y_val = None if data.y_val is None else labels[data.y_val]
    return dataclasses.replace(
        data,
        y_train=labels[data.y_train],
        y_test=labels[data.y_test],
        y_val=y_val,
        class_names=names,
    )
