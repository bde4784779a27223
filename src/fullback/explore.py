"""The explorer put together: the page's server, a data set, and what reads images and models."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fullback.errors import OptionError

if TYPE_CHECKING:
    from fullback.data import Dataset
    from fullback.layers.base import Array
    from fullback.network import Network
    from fullback.pages.explorer.serve import Explorer

_MOST_PIXELS = 16_000_000  # of a picture that the page sends


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
    from fullback.export.safetensors import load, save
    from fullback.pages.explorer.serve import Explorer
    from fullback.pages.explorer.start import Start

    start = Start(
        net=net,
        name=name,
        data=_with_labels_of(net, data),
        read_image=_read_image,
        read_model=load,
        write_model=save,
    )
    return Explorer(start, **options)


def in_notebook(net: Network, data: Dataset | None, height: int) -> Explorer:
    """Start the explorer of a network for a notebook to show."""
    from fullback.data import digits

    shown = digits() if data is None else data
    return explorer(net, shown, port=0, framed=True, height=height).start()


def require_installed() -> None:
    """Raise OptionError where the packages of the extra ``explore`` are not installed."""
    missing = [part for part in ("starlette", "uvicorn") if importlib.util.find_spec(part) is None]
    if missing:
        raise OptionError(
            f"the explorer needs {' and '.join(missing)}; pip install 'fullback[explore]'"
        )


def _with_labels_of(net: Network, data: Dataset) -> Dataset:
    """Return the data with the labels that the network has for the same class names.

    Data whose classes the network does not all know stay as they are: they do not go with it.
    """
    names = net.class_names
    own = data.class_names
    if own == names[: len(own)] or not set(own) <= set(names) or len(names) != len(set(names)):
        return data
    labels = np.array([names.index(name) for name in own])
    y_val = None if data.y_val is None else labels[data.y_val]
    return dataclasses.replace(
        data,
        y_train=labels[data.y_train],
        y_test=labels[data.y_test],
        y_val=y_val,
        class_names=names,
    )


def _read_image(path: Path, net: Network, invert: bool) -> Array:
    from fullback.data.image_files.image_file import read_image

    resize = net.data_options.get("resize", "stretch")
    image = read_image(
        path, str(path), net.input_shape, invert=invert, resize=resize, most_pixels=_MOST_PIXELS
    )
    return image.for_network(net.trained_on)
