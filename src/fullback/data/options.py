"""How the images and labels of a source are read: one record for every loader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from fullback.data.image_files.image_file import Resize, check_image_shape, check_resize
from fullback.data.split import Split
from fullback.data.store import MEMORY, Store
from fullback.errors import OptionError
from fullback.pixels import ImageRecord


@dataclass(frozen=True)
class ReadOptions:
    """How a source is read; ``load_data`` and ``load_images`` say what the options mean.

    A loader takes all of them and uses those that go with what it reads.

    Attributes
    ----------
    image_shape : (rows, columns) or (channels, rows, columns) that images are brought to; None for
        their own
    resize, label_column, image_folder, numbers, nested, trained_on, progress : as in ``load_data``
    how : which images are kept for testing; None for a fixed fifth
    invert : as in ``load_images``
    store : where the images are kept

    Raises
    ------
    OptionError
        An option is none of its values.
    """

    image_shape: Sequence[int] | None = None
    resize: Resize = "stretch"
    how: Split | None = None
    label_column: str | int | None = None
    image_folder: str | os.PathLike[str] | None = None
    numbers: bool = False
    nested: bool = False
    invert: bool = False
    trained_on: ImageRecord | None = None
    progress: bool = False
    store: Store = MEMORY

    def __post_init__(self) -> None:
        check_resize(self.resize)
        if self.image_shape is not None:
            object.__setattr__(self, "image_shape", check_image_shape(self.image_shape))
        if self.label_column is not None and type(self.label_column) not in (str, int):
            raise OptionError(f"label_column must be a name or a number, got {self.label_column!r}")
