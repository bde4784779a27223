"""Dead units: activations that are 0 for every image, and so get no gradient and never recover."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fullback.errors import DeadUnitWarning
from fullback.layers.base import Array
from fullback.network import Network, in_batches
from fullback.passes import forward_batch


def dead_units(net: Network, x: ArrayLike) -> dict[str, NDArray[np.intp]]:
    """Return the dead units of every ReLU layer that has some, by the layer's name.

    A unit is a channel of an image, or a feature; it is dead when it is 0, at every position, for
    every one of the images ``x``.

    Raises
    ------
    ShapeError, InputError
        The images do not fit the network.
    """
    images = net.check_images(x)
    rectifiers = [index for index, layer in enumerate(net.layers) if layer.rectifies]
    alive = {index: np.zeros(net.shapes[index][0], bool) for index in rectifiers}
    for batch in in_batches(images):
        activations, _ = forward_batch(net, batch)
        for index in rectifiers:
            y = activations[index + 1]
            alive[index] |= (y != 0).any(axis=(0, *range(2, y.ndim)))
    return {
        net.names[index]: np.flatnonzero(~units)
        for index, units in alive.items()
        if not units.all()
    }


def warn_of_dead_units(net: Network, images: Array, known: set[str], *, layers_only: bool) -> None:
    """Warn, once a name in ``known``, of dead layers, and of single dead units if wanted."""
    for name, units in dead_units(net, images).items():
        total = net.shapes[net.names.index(name)][0]
        whole = len(units) == total
        if name in known or (layers_only and not whole):
            continue
        known.add(name)
        if whole:
            message = (
                f"{name} is dead: it is 0 everywhere for all of {len(images)} training images, "
                "so nothing below it learns; try another seed, a smaller learning rate or LeakyReLU"
            )
        else:
            shown = ", ".join(map(str, units[:8])) + (", ..." if len(units) > 8 else "")
            message = (
                f"{name}: {len(units)} of {total} units are dead, 0 for all of {len(images)} "
                f"training images ({shown})"
            )
        warnings.warn(message, DeadUnitWarning, stacklevel=3)
