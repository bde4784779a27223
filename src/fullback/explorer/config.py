"""What a server is started with, which networks it can show, and which data go with them."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from functools import cached_property
from math import prod

from fullback.data import Dataset
from fullback.errors import FullbackWarning, InputError, ShapeError
from fullback.layers import SoftmaxCrossEntropy
from fullback.layers.base import Shape
from fullback.network import Network

MOST_LAYERS = 60
MOST_VALUES = 2_000_000  # of all activations of one image
LOOKED_AT = 300  # test images in which a network's scale, and a first image to show, are looked for

_MOST_PARAMETERS = 4_000_000


@dataclass(frozen=True, eq=False)
class ServerConfig:
    """What a server is started with.

    Attributes
    ----------
    net : the network that every tab begins with a copy of
    name : what to call it
    data : what images are picked from, and networks trained on
    """

    net: Network
    name: str
    data: Dataset

    def __post_init__(self) -> None:
        require_shown(self.net)

    @cached_property
    def fingerprint(self) -> str:
        """A word by which the networks are distinguished that servers are started with."""
        total = zlib.crc32(repr(self.net).encode())
        for array in (*self.net.parameters.values(), *self.net.statistics.values()):
            total = zlib.crc32(array.tobytes(), total)
        return f"{total:08x}"


def require_shown(net: Network) -> None:
    """Raise where the page cannot show a network: no images, no classes, or too much of it."""
    if len(net.input_shape) != 3 or net.input_shape[0] not in (1, 3):
        raise ShapeError(
            "the page shows networks that take images of one or three channels, (C, H, W); this "
            f"one takes {net.input_shape}"
        )
    if not net.loss.classifies:
        raise InputError(
            f"the page shows networks that distinguish classes; this one answers in numbers: its "
            f"loss is {net.loss}"
        )
    if not isinstance(net.loss, SoftmaxCrossEntropy):
        raise InputError(f"the page shows networks with a softmax; this one's loss is {net.loss}")
    require_small(len(net.layers), sum(array.size for array in net.parameters.values()))
    values = sum(map(prod, (net.input_shape, *net.shapes)))
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


def misfit(net: Network, name: str, data: Dataset) -> str | None:
    """Say why a data set does not go with a network of that name; None where it does."""
    advice = "start fullback explore with the --data that it was trained on"
    outputs, names = net.output_shape[0], tuple(data.class_names)
    if net.input_shape != data.image_shape or outputs < len(names):
        return (
            f"{name} takes images of {_times(net.input_shape)} and distinguishes "
            f"{outputs} classes, but {data.name} has images of {_times(data.image_shape)} and "
            f"{len(names)} classes; {advice}, or draw or upload a picture."
        )
    if net.class_names and names != net.class_names[: len(names)]:
        return (
            f"{name} distinguishes {_listed(net.class_names)}, but {data.name} has "
            f"{_listed(names)}; {advice}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FullbackWarning)
            if net.scale_unknown:  # of an old file, whose images are read as 0 to 1
                warnings.simplefilter("ignore", FullbackWarning)
            net.check_images(data.x_test[:LOOKED_AT])
    except (FullbackWarning, InputError) as error:  # another scale
        return f"{data.name} does not go with {name}: {error}."
    return None


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _times(shape: Shape) -> str:
    return " x ".join(map(str, shape))
