"""A model's answers as a CSV file, or in the form of a Kaggle submission."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.atomic import write_atomically
from fullback.errors import InputError

if TYPE_CHECKING:
    from fullback.cli.prediction import Answered
    from fullback.network import Network


def write_answers(path: Path, found: Answered, network: Network, *, probabilities: bool) -> None:
    """Write a CSV file with a row an image: file, label, probability, and those of every class.

    Of a network that answers in numbers it is file and value, or value 0, value 1, and so on.
    A file that could not be read has a row without an answer.
    """
    if not network.loss.classifies:
        outputs = found.probabilities.shape[1]
        values = [f"value {n}" for n in range(outputs)] if outputs > 1 else ["value"]
        lines: list[Sequence[Any]] = [["file", *values]]
        for name, row in zip(found.names, found.probabilities, strict=True):
            lines.append([name, *(f"{value:.8g}" for value in row)])
        _write(path, [*lines, *([name] + [""] * outputs for name, _ in found.failed)])
        return
    names = network.answer_names
    header = ["file", "label", "probability"]
    columns = [f"class {name}" if name in header else name for name in names]
    rows: list[Sequence[Any]] = [[*header, *columns] if probabilities else header]
    for name, label, p in zip(found.names, found.labels, found.probabilities, strict=True):
        row = [name, names[label], f"{p[label]:.6g}"]
        rows.append([*row, *(f"{value:.6g}" for value in p)] if probabilities else row)
    rows += [[name, ""] + [""] * (len(rows[0]) - 2) for name, _ in found.failed]
    _write(path, rows)


def write_kaggle(path: Path, found: Answered, network: Network) -> None:
    """Write a CSV file in the form of a Kaggle submission: ImageId,Label.

    Raises
    ------
    InputError
        Two images have one id, or the network answers with several numbers.
    """
    if network.loss.classifies:
        names = network.answer_names
        given = [names[label] for label in found.labels]
    elif found.probabilities.shape[1] > 1:
        raise InputError(f"Label is one number, but the model answers {network.output_shape[0]}")
    else:
        given = [f"{value:.8g}" for value in found.probabilities[:, 0]]
    ids = [*found.ids, *(name for _, name in found.failed)]
    for name, images in Counter(ids).items():
        if images > 1:
            raise InputError(f"{images} images have the id {name!r}; give them one at a time")
    rows: list[Sequence[Any]] = [("ImageId", "Label")]
    rows += zip(found.ids, given, strict=True)
    rows += [(name, "") for _, name in found.failed]
    _write(path, rows)


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))
