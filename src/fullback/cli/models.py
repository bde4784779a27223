"""Which model a command takes, and what its classes are called."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.cli.output import warn
from fullback.errors import InputError, ModelFileError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fullback.network import Network

_DEFAULT = Path("model.safetensors")


def split_model(paths: Sequence[Path], model: Path | None) -> tuple[Path, list[Path]]:
    """Return the model, which is an option or the first path, and the other paths.

    Raises
    ------
    OptionError
        Two models are given.
    ModelFileError
        None is given, and there is no model.safetensors.
    """
    given = [path for path in paths if _holds_model(path)] + ([] if model is None else [model])
    if len(set(given)) > 1:
        raise OptionError(f"give one model, not {' and '.join(map(str, given))}")
    if given:
        return given[0], [path for path in paths if path != given[0]]
    if not _DEFAULT.exists():
        raise ModelFileError(
            f"no model is given, and there is no {_DEFAULT} here; name one with --model, or make "
            "one with fullback train"
        )
    return _DEFAULT, list(paths)


def _holds_model(path: Path) -> bool:
    """Whether a path is meant to be a model: by its name, or because it is one."""
    if path.suffix.lower() == ".safetensors":
        return True
    try:
        if not path.is_file():  # as a pipe, of which nothing may be taken
            return False
        with path.open("rb") as file:
            start = file.read(9)  # the length of the header, in eight bytes, and its first
    except OSError:
        return False
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < 2**32


def label_of(network: Network, text: str, option: str) -> int:
    """Return the class that a text names, or else numbers.

    Raises
    ------
    OptionError
        There is no such class.
    """
    from fullback.options import listed

    names = network.answer_names
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise OptionError(f"{option}: unknown class {text!r}; the model knows {listed(names, 12)}")


def name_classes(network: Network, text: str | None) -> tuple[str, ...]:
    """Read ``--class-names``: the names of classes 0, 1, 2, ... where there are only numbers.

    A network whose classes are numbers gets these names.

    Raises
    ------
    OptionError
        They are not different names, or a network whose classes are numbers has more of them.
    """
    if text is None:
        return ()
    names = tuple(unicodedata.normalize("NFC", name.strip()) for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise OptionError(f"--class-names must be different names, like cat,dog; got {text!r}")
    if _are_numbers(network.class_names):
        outputs = network.loss.classes(network.output_shape[0])
        if len(names) != outputs:
            raise OptionError(
                f"--class-names has {len(names)} names, but the model {outputs} classes"
            )
        network.class_names = names
    return names


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether classes have no names but their places: 0, 1, 2, ..."""
    return all(name == str(n) for n, name in enumerate(names))


def labels_by_name(
    network: Network,
    data: str,
    class_names: Sequence[str],
    labels: NDArray[np.int64],
    numbers: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Return a data set's labels in the order of the network's classes.

    Classes go by their names: a folder that lacks a class numbers those behind it differently, and
    numbers say nothing about the order in which a network has its names. A network that has no
    names at all takes the labels as they are.

    Parameters
    ----------
    class_names : what the data calls its labels 0, 1, 2, ...
    numbers : what they are called where the data has numbers alone; see ``name_classes``

    Raises
    ------
    InputError
        Images have a class that the network does not know.
    """
    import numpy as np

    from fullback.options import listed

    known = network.class_names
    plain = _are_numbers(class_names)
    if numbers and plain:
        class_names = (*numbers, *class_names[len(numbers) :])
        plain = False
    outputs = network.loss.classes(network.output_shape[0])
    present = np.unique(labels).tolist()
    if not known:
        if present and present[-1] >= outputs:
            raise InputError(
                f"{data} has images of class {class_names[present[-1]]!r}, number {present[-1]}, "
                f"but the model has {outputs} classes; give the data that it was trained on"
            )
        if not plain:
            order = [f"{n} for {name}" for n, name in enumerate(class_names[:outputs])]
            warn(
                "the model's classes have no names; they are taken in the order of the data's: "
                + listed(order)
            )
        return labels
    unknown = [class_names[label] for label in present if class_names[label] not in known]
    if unknown:
        some = listed(known, 12)
        if plain and not any(name.isdecimal() for name in known):
            raise InputError(
                f"{data} has numbers for classes, and the model names: {some}; say what 0, 1, 2, "
                "... are by --class-names NAME,NAME,..."
            )
        if _are_numbers(known):
            raise InputError(
                f"{data} has images of class {unknown[0]!r}, but the model has numbers for "
                f"classes, 0 to {outputs - 1}; say what 0, 1, 2, ... are by --class-names "
                "NAME,NAME,..."
            )
        raise InputError(
            f"{data} has images of class {unknown[0]!r}, but the model knows {some}; give the data "
            "that it was trained on"
        )
    places = np.array([known.index(name) if name in known else -1 for name in class_names])
    renumbered: NDArray[np.int64] = places[labels].astype(np.int64)
    return renumbered


def labels_from(
    network: Network, given: NDArray[Any], numbers: Sequence[str] = ()
) -> tuple[NDArray[np.int64] | None, str]:
    """Return what a source of images calls its labels as the network's, by their names.

    Returns
    -------
    labels : of shape (N,), or None where the network has no such classes
    why : what to say in that case
    """
    import numpy as np

    texts = [unicodedata.normalize("NFC", str(label)) for label in given.tolist()]
    if numbers and given.dtype.kind in "iu":
        texts = [numbers[int(t)] if 0 <= int(t) < len(numbers) else t for t in texts]
    places = {name: n for n, name in enumerate(network.answer_names)}
    unknown = sorted(set(texts) - set(places))
    if not unknown:
        return np.array([places[text] for text in texts], np.int64), ""
    why = f"the data's labels are not compared, as the model knows no class {unknown[0]!r}"
    if given.dtype.kind in "iu" or _are_numbers(network.class_names):
        why += "; say what 0, 1, 2, ... are by --class-names NAME,NAME,..."
    return None, why
