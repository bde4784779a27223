"""What a server is started with, and which networks it can show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from fullback.errors import InputError, ShapeError
from fullback.layers.base import Array, Shape
from fullback.network import Network

ReadImage: TypeAlias = Callable[[Path, Network, bool], Array]
"""Reads an image file for a network: (path, network, invert) to pixels that it takes, (C, H, W)."""

MOST_LAYERS = 60
MOST_VALUES = 2_000_000  # of all activations of one image

_MOST_PARAMETERS = 4_000_000


class Data(Protocol):
    """The data set that images are picked from, and that networks are trained on."""

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def x_train(self) -> Array:
        """Training images (N, C, H, W)."""

    @property
    def y_train(self) -> Array:
        """Their labels."""

    @property
    def x_test(self) -> Array:
        """Test images."""

    @property
    def y_test(self) -> Array:
        """Their labels."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""

    @property
    def image_shape(self) -> Shape:
        """Shape (C, H, W) of an image."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a server is started with.

    Attributes
    ----------
    net : the network that every tab begins with a copy of
    name : what to call it
    data : the data set
    read_image : reads image files as the network's were read
    read_model, write_model : read a network from a model file, and write it to one
    """

    net: Network
    name: str
    data: Data
    read_image: ReadImage
    read_model: Callable[[Path], Network]
    write_model: Callable[[Network, Path], None]

    def __post_init__(self) -> None:
        require_shown(self.net)


def require_shown(net: Network) -> None:
    """Raise where the page cannot show a network: no images, no classes, or too much of it."""
    if len(net.input_shape) != 3 or net.input_shape[0] not in (1, 3):
        raise ShapeError(
            "the page shows networks that take images of one or three channels, (C, H, W); this "
            f"one takes {net.input_shape}"
        )
    if not net.loss.classifies:
        raise InputError(
            f"the page shows networks that tell classes apart; this one answers in numbers: its "
            f"loss is {net.loss}"
        )
    require_small(len(net.layers), sum(array.size for array in net.parameters.values()))
    values = sum(int(np.prod(shape)) for shape in (net.input_shape, *net.shapes))
    if values > MOST_VALUES:
        raise ShapeError(
            f"one image makes {values:,} activations; the page shows at most {MOST_VALUES:,}: "
            "use fewer filters, smaller images or a stride"
        )


def require_small(layers: int, parameters: int) -> None:
    """Raise ShapeError where a network has more layers or parameters than the page takes."""
    if layers > MOST_LAYERS:
        raise ShapeError(f"the network has {layers} layers; the page shows at most {MOST_LAYERS}")
    if parameters > _MOST_PARAMETERS:
        raise ShapeError(
            f"the network has {parameters:,} parameters; the page takes at most "
            f"{_MOST_PARAMETERS:,}: use smaller layers"
        )
