"""``fullback train --from``: a saved model as the network that training starts with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.cli.inputs import load_dataset
from fullback.errors import OptionError, ShapeError

if TYPE_CHECKING:
    from fullback.data import Dataset
    from fullback.layers import Loss
    from fullback.network import Network


def open_start(model: Path, net: str | None) -> Network:
    """Load the model that training starts with."""
    from fullback.network import load

    if net is not None:
        raise OptionError(f"--from {model} brings its layers; leave --net out")
    return load(model)


def load_for_start(
    network: Network,
    model: Path,
    data: str,
    data_dir: Path | None,
    shape: tuple[int, ...] | None,
    options: dict[str, Any],
    *,
    image_folder: Path | None,
    numbers: bool,
) -> tuple[Dataset, dict[str, Any]]:
    """Load what ``--data`` names for a model to train on, and return how its images were read.

    They are read as the model's were, where the data takes such options and none are given.

    Raises
    ------
    ShapeError
        The model does not take images of their shape.
    """
    known = network.input_shape if len(network.input_shape) == 3 else None
    shapes = [shape] if shape is not None else [known, None]
    ways = [{**network.data_options, **options}, options]
    for wanted in shapes:
        for way in ways:
            try:
                dataset = load_dataset(
                    data,
                    data_dir,
                    wanted,
                    **way,
                    image_folder=image_folder,
                    numbers=numbers,
                    trained_on=network.trained_on,
                )
            except OptionError:
                if (wanted, way) == (shapes[-1], ways[-1]):
                    raise
                continue
            if dataset.image_shape != network.input_shape:
                raise ShapeError(
                    f"{model} takes images of shape {network.input_shape}, but {dataset.name} has "
                    f"images of shape {dataset.image_shape}; bring them to that shape, or leave "
                    "--from out"
                )
            return dataset, way
    raise OptionError(f"{model} has the input shape {network.input_shape}, and takes no images")


def started_from(network: Network, dataset: Dataset, loss: Loss, seed: int) -> Network:
    """Return a copy of a network, with a new last layer where the data has other classes.

    What is frozen in it is not taken over.

    Raises
    ------
    OptionError
        It needs a new last layer, and the one it has is not Dense.
    """
    if has_head_for(network, dataset, loss):
        start = network.copy()
        start.loss = loss
    else:
        start = _with_head(network, dataset.outputs, loss, seed)
    if start.frozen:
        start.unfreeze(*start.frozen)
    start.class_names = dataset.class_names
    return start


def has_head_for(network: Network, dataset: Dataset, loss: Loss) -> bool:
    """Whether the outputs of a network are the classes of a data set, or its numbers.

    A network without class names has those of its outputs' numbers.
    """
    if network.loss.classifies != loss.classifies:
        return False
    outputs = network.output_shape[0]
    if not loss.classifies:
        return outputs == dataset.outputs
    names = network.class_names or tuple(map(str, range(outputs)))
    return names == dataset.class_names and outputs == dataset.outputs


def what_is_kept(network: Network, dataset: Dataset, loss: Loss) -> str:
    """Say which layers a network starts with as they are, and which one is new, and why."""
    if has_head_for(network, dataset, loss):
        return "every layer as it was saved, the last one for the same classes"
    old = _described(network.loss.classifies, network.class_names, network.output_shape[0])
    new = _described(loss.classifies, dataset.class_names, dataset.outputs)
    return f"every layer as it was saved but {network.names[-1]}, which is new: {new}, not {old}"


def _described(classifies: bool, names: Sequence[str], outputs: int) -> str:
    from fullback.options import listed

    if not classifies:
        return "numbers"
    return f"{outputs} classes" + (f" ({listed(names, 6)})" if names else "")


def _with_head(network: Network, outputs: int, loss: Loss, seed: int) -> Network:
    from fullback.layers import Dense

    if not isinstance(network.layers[-1], Dense):
        raise OptionError(
            f"the model needs a new last layer for {outputs} outputs, and {network.names[-1]} is "
            "not Dense; give --net, or a model that ends with a Dense layer"
        )
    return network.with_head(outputs, loss=loss, seed=seed)
