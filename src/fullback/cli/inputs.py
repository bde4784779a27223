"""What options name, loaded: data sets, images, networks."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.cli.interrupt import raise_on_ctrl_c
from fullback.errors import InputError, OptionError, ShapeError

if TYPE_CHECKING:
    from fullback.data import Dataset
    from fullback.network import Network


def image_shape(size: str | None) -> tuple[int, ...] | None:
    """Read ``--image-size``."""
    if size is None:
        return None
    if not re.fullmatch(r"(\d{1,5}x)?\d{1,5}x\d{1,5}", size):
        raise OptionError(f"--image-size must be like 32x32 or 3x32x32, got {size!r}")
    return tuple(map(int, size.split("x")))


def check_picture(path: Path, option: str) -> None:
    """Check that a PNG file can be written to a path that an option gives.

    Raises
    ------
    OptionError
        Its name is that of another kind of file.
    InputError
        It cannot be written.
    """
    from fullback.atomic import check_writable

    if path.suffix.lower() not in ("", ".png"):
        raise OptionError(f"{option} writes a PNG file; call it {path.with_suffix('.png')}")
    check_writable(path)


def load_dataset(
    data: str,
    data_dir: Path | None,
    shape: tuple[int, ...] | None = None,
    *,
    load: Callable[..., Dataset] | None = None,
    **options: Any,
) -> Dataset:
    """Load what ``--data`` names; ``--data-dir`` goes with MNIST alone.

    Parameters
    ----------
    shape : what image files are brought to
    load : what is called in place of ``load_data``
    options : of ``load_data``, which says what they mean

    Raises
    ------
    OptionError
        Options do not go with the data.
    """
    from fullback.data import load_data

    if data_dir is not None and data != "mnist":
        raise OptionError(f"--data-dir goes with --data mnist, not with --data {data}")
    if data == "mnist":
        raise_on_ctrl_c()  # a download takes away what it has begun
    try:
        return (load or load_data)(data, data_dir, image_shape=shape, **options)
    except InputError as error:
        raise OptionError(str(error)) from error


def load_unpacked(
    folder: Path, data: str, data_dir: Path | None, shape: tuple[int, ...] | None, **options: Any
) -> Dataset:
    """Load what ``--data`` names by way of a folder, where it is unpacked if it is not yet."""
    from fullback.data import unpack_data

    def load(data: str, data_dir: Path | None, **options: Any) -> Dataset:
        return unpack_data(data, folder, data_dir, **options)

    return load_dataset(data, data_dir, shape, load=load, **options)


def data_options(
    resize: str,
    test_share: float | None,
    split_seed: int | None,
    label_column: str | None = None,
    *,
    nested: bool = False,
) -> dict[str, Any]:
    """Return how images are read, where it is not by default."""
    given = {
        "nested": nested or None,
        "resize": None if resize == "stretch" else resize,
        "test_share": test_share,
        "split_seed": split_seed,
        "label_column": label_column,
    }
    return {name: value for name, value in given.items() if value is not None}


def load_dataset_for(
    network: Network,
    model: str,
    data: str,
    data_dir: Path | None,
    label_column: str | None = None,
    image_folder: Path | None = None,
) -> Dataset:
    """Load what ``--data`` names, read as the images were that a network was trained on.

    A label column that is given is taken in place of that one.

    Raises
    ------
    ShapeError
        The images are not what it takes.
    """
    shape = network.input_shape
    given: dict[str, Any] = {"image_folder": image_folder, "trained_on": network.trained_on}
    if label_column is not None:
        given["label_column"] = label_column
    if not network.loss.classifies:
        given["numbers"] = True
    as_trained = {**network.data_options, **given}
    resize = {"resize": network.data_options.get("resize", "stretch")}
    shapes = [shape] if len(shape) == 3 and shape[0] in (1, 3) else []
    dataset = None
    for wanted in (*shapes, None):  # data may have images of a shape, and a split, of their own
        for options in (as_trained, {**resize, **given}):
            if dataset is None:
                with contextlib.suppress(OptionError):
                    dataset = load_dataset(data, data_dir, wanted, **options)
    dataset = load_dataset(data, data_dir, **given) if dataset is None else dataset
    if shape != dataset.image_shape:
        raise ShapeError(
            f"{model} takes images of shape {shape}, but {dataset.name} has images of shape "
            f"{dataset.image_shape}; give the data that it was trained on"
        )
    return dataset


def build(net: str, input_shape: tuple[int, ...], classes: int, seed: int) -> Network:
    """Build what ``--net`` names: a network of the zoo, or one in text form."""
    from fullback import zoo
    from fullback.layers import LAYERS
    from fullback.network import Network

    try:
        if net in zoo.NETWORKS:
            return zoo.NETWORKS[net](input_shape, classes, seed=seed)
        return Network.parse(net, input_shape, seed=seed)
    except (OptionError, ShapeError) as error:
        word = net.strip().lower()
        near = difflib.get_close_matches(word, zoo.NETWORKS, n=1)
        if word.rstrip("0123456789") in LAYERS:  # a layer, that does not make a network
            near = []
        if near and near[0] != net:
            raise OptionError(f"unknown network {net!r}; did you mean {near[0]}?") from error
        # On the command line, layers that do not fit are wrong usage.
        raise OptionError(str(error)) from error


def open_classifier(model: Path) -> Network:
    """Load a saved classifier."""
    from fullback.network import load

    network = load(model)
    if not network.loss.classifies:
        raise InputError(
            f"{model} answers in numbers, not in classes: its loss is {network.loss}; give a "
            "model that was trained with SoftmaxCrossEntropy()"
        )
    return network


def is_model(net: str) -> bool:
    """Whether a text names a file that holds a saved model, and not a network."""
    return net.endswith(".safetensors") or os.path.isfile(net)  # noqa: PTH113 -- any text may come


def open_network(net: str, input_shape: str, classes: int) -> Network:
    """Load a saved model, or build what the text names."""
    from fullback.network import load

    if is_model(net):
        return load(net)
    if not re.fullmatch(r"\d{1,6}(x\d{1,6}x\d{1,6})?", input_shape):
        raise OptionError(f"--input-shape must be like 1x28x28, got {input_shape!r}")
    return build(net, tuple(map(int, input_shape.split("x"))), classes, seed=0)
