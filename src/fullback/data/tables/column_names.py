"""What columns of tables are usually called."""

from __future__ import annotations

import re
import unicodedata

LABEL_NAMES = (
    *("label", "labels", "class", "classes", "target", "targets", "y", "category", "digit"),
    *("class label", "class name", "classname", "label name", "class id", "label id", "classid"),
    *("letter", "character", "emotion", "species", "breed", "diagnosis", "dx", "ground truth"),
    *("outcome", "output", "answer", "response", "expected"),
)
"""Columns of labels; of two that are there the first one in this order is taken."""

ID_NAMES = (
    *("", "id", "ids", "index", "idx", "unnamed: 0", "row", "row id", "rowid", "image id"),
    *("imageid", "image name", "image", "filename", "file name", "file", "path", "name", "key"),
    *("uuid", "no", "nr"),
)
"""Columns of what rows are called by."""

FILE_NAMES = (
    *("file", "filename", "file name", "path", "filepath", "file path", "image", "image path"),
    *("image name", "image file", "img", "img path", "image id", "imageid", "id", "name"),
)
"""Columns of image files."""

PART_NAMES = ("split", "usage", "subset", "set", "partition", "phase")
"""Columns that say whether a row is for training, validation or testing."""


def plain(name: str) -> str:
    """Return a name as it stands in the lists: in small letters, with single spaces."""
    return re.sub(r"[\s_.-]+", " ", unicodedata.normalize("NFC", name).strip().casefold())


def names_rows(name: str) -> bool:
    """Whether a column of this name is kept as it is written, so that 007 stays 007."""
    return plain(name) in {*ID_NAMES, *FILE_NAMES}


def is_usual_name(name: str) -> bool:
    """Whether columns of labels, ids, files or parts are called so."""
    return plain(name) in {*LABEL_NAMES, *ID_NAMES, *FILE_NAMES, *PART_NAMES} - {""}
