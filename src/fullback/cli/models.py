"""Which model a command takes, and what its classes are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullback.errors import InputError, ModelFileError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fullback.network import Network

_DEFAULT = Path("model.safetensors")

ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="The saved model; it may also be given before the images.",
        metavar="MODEL",
        show_default=str(_DEFAULT),
    ),
]


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


def names_of(network: Network) -> tuple[str, ...]:
    """Return a name for every class of a network: its own, or its number."""
    names = network.class_names[: network.output_shape[0]]
    return (*names, *map(str, range(len(names), network.output_shape[0])))


def label_of(network: Network, text: str, option: str) -> int:
    """Return the class that a text names, or else numbers.

    Raises
    ------
    OptionError
        There is no such class.
    """
    names = names_of(network)
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    some = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    raise OptionError(f"{option}: there is no class {text!r}; the model knows {some}")


def labels_by_name(
    network: Network, data: str, class_names: Sequence[str], labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return a data set's labels in the order of the network's classes.

    A folder that lacks a class numbers those behind it differently.

    Raises
    ------
    InputError
        Images have a class that the network does not know.
    """
    import numpy as np

    known = network.class_names
    count = min(len(known), len(class_names))
    if tuple(known[:count]) == tuple(class_names[:count]):
        return labels  # the same, or no names
    if all(name == str(n) for names in (known, class_names) for n, name in enumerate(names)):
        return labels
    if all(name == str(n) for n, name in enumerate(class_names)):
        return labels  # numbers alone, as arrays have them
    there = [class_names[label] for label in np.unique(labels)]
    unknown = [name for name in there if name not in known]
    if unknown:
        raise InputError(
            f"{data} has images of class {unknown[0]!r}, but the model knows "
            f"{', '.join(known[:12])}; give the data that it was trained on"
        )
    places = np.array([known.index(name) if name in known else -1 for name in class_names])
    renumbered: NDArray[np.int64] = places[labels].astype(np.int64)
    return renumbered


def labels_from(network: Network, given: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return what a source of images calls its labels as the network's; None where it cannot be."""
    import numpy as np

    names = names_of(network)
    texts = [str(label) for label in given.tolist()]
    if set(texts) <= set(names):
        places = {name: n for n, name in enumerate(names)}
        return np.array([places[text] for text in texts], np.int64)
    if given.dtype.kind in "iu" and given.min() >= 0 and given.max() < len(names):
        return given.astype(np.int64)
    return None
