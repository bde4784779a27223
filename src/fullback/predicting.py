"""What every way to predict does: an image is read for a network, answered, and named.

``fullback predict`` and ``fullback serve`` are built on it, so that they give the same answers.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback import threshold
from fullback.data.image_files.image_file import ImageFile, load_image, read_image
from fullback.engine import choice
from fullback.errors import DataError, InputError
from fullback.layers.base import Array
from fullback.network import Network
from fullback.pixels import ImageRecord

_CLEARLY = 0.3  # how much nearer to the training images' brightness, from 0 to 1, inverting brings


# Images from files ------------------------------------------------------------------------------


def load_image_for(network: Network, path: Path, *, invert: bool) -> ImageFile:
    """Read an image file as the images were read that a network was trained on.

    Its pixels are on the network's scale, or uint8, which the network brings to its scale itself.

    Raises
    ------
    DataError
        It cannot be read, or has 16 bits and the network's black and white are not known.
    ShapeError
        The network does not take images with one or three channels.
    """
    image = load_image(path, network.input_shape, invert=invert, resize=_resize_of(network))
    return _on_scale_of(network, image, str(path))


def read_image_for(
    network: Network,
    file: str | os.PathLike[str] | io.BytesIO,
    called: str,
    *,
    invert: bool,
    most_pixels: int,
) -> ImageFile:
    """Read an image as ``load_image_for`` does, of so many pixels at most.

    ``file`` may be its content, and ``called`` is its name in errors.
    """
    image = read_image(
        file,
        called,
        network.input_shape,
        invert=invert,
        resize=_resize_of(network),
        most_pixels=most_pixels,
    )
    return _on_scale_of(network, image, called)


def _resize_of(network: Network) -> Any:
    return network.data_options.get("resize", "stretch")


def _on_scale_of(network: Network, image: ImageFile, called: str) -> ImageFile:
    try:
        return replace(image, pixels=image.for_network(network.trained_on))
    except InputError as error:
        raise DataError(f"{called}: {error}") from None


# Answers ----------------------------------------------------------------------------------------


def answers(network: Network, images: Array) -> Array:
    """Return what a network answers to images that ``check_images`` returned.

    These are the probabilities of the classes, of shape (N, classes), or, of a network that answers
    in numbers, the numbers, of shape (N, outputs).

    Raises
    ------
    InputError
        What the network computes is not finite.
    """
    return choice.answers(network, images, probabilities=network.loss.classifies)


def labels_of(network: Network, probabilities: Array) -> NDArray[np.int64]:
    """Return the classes of shape (N,) that are answered, by the network's threshold if any."""
    return threshold.answers(probabilities, network.threshold)


def rounded(probabilities: Array) -> list[list[float]]:
    """Return probabilities as machines are told them, with six digits."""
    return [[round(value, 6) for value in row] for row in probabilities.tolist()]


# Brightness -------------------------------------------------------------------------------------


def looks_inverted(record: ImageRecord | None, images: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which images are clearly nearer to the training images with dark and light swapped.

    Compared are the mean of all pixels and of the outermost ones, which are the background of most
    images. Where training images are of medium brightness, as photographs are, no image is.

    Parameters
    ----------
    record : what the network was trained on
    images : of shape (N, C, H, W), uint8 or on the network's scale

    Returns
    -------
    ndarray of shape (N,), of bool
    """
    none = np.zeros(len(images), bool)
    if record is None or record.black is None or record.white is None or images.ndim != 4:
        return none
    black, white = (0.0, 255.0) if images.dtype == np.uint8 else (record.black, record.white)
    edges = (images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1])
    border = np.concatenate([edge.reshape(len(images), -1) for edge in edges], axis=1)
    as_is, swapped = np.zeros(len(images)), np.zeros(len(images))
    for values, known in ((images.reshape(len(images), -1), record.mean), (border, record.border)):
        share = (values.mean(axis=1, dtype=np.float64) - black) / (white - black)
        usual = (known - record.black) / (record.white - record.black)
        as_is += abs(share - usual)
        swapped += abs(1 - share - usual)
    ends = np.sort([black, white]) + np.array([-1, 1]) * _CLEARLY * abs(white - black)
    # Others have another scale.
    inside = (images.min(axis=(1, 2, 3)) >= ends[0]) & (images.max(axis=(1, 2, 3)) <= ends[1])
    clearly: NDArray[np.bool_] = inside & (swapped + _CLEARLY < as_is)
    return clearly


def brightness_words(record: ImageRecord) -> tuple[str, str]:
    """Return what training images are, and what those are that ``looks_inverted`` found."""
    if record.black is None or record.white is None:
        raise ValueError("no image looks inverted where black and white are not known")
    light = (record.border - record.black) / (record.white - record.black) < 0.5
    return ("light on dark", "dark on light") if light else ("dark on light", "the reverse")
