"""Folders of images, a folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullback.data.dataset import Dataset
from fullback.data.image_files.image_file import Resize, check_image_shape
from fullback.data.image_files.image_layout import File, find_layout
from fullback.data.image_files.image_parts import Part, check_room, read_parts
from fullback.data.image_files.image_sizes import chosen_shape, opened, sample
from fullback.data.split import Split, from_file
from fullback.errors import DataError
from fullback.pixels import ImageRecord


def load_image_folder(
    folder: Path,
    image_shape: Sequence[int] | None = None,
    *,
    resize: Resize = "stretch",
    how: Split | None = None,
    nested: bool = False,
    trained_on: ImageRecord | None = None,
    progress: bool = True,
) -> Dataset:
    """Load images whose folders are their classes.

    Parameters
    ----------
    folder : path
        ``folder/CLASS/image.png``, of which a fixed fifth of each class is kept for testing; or
        ``folder/train/CLASS/image.png`` and ``folder/test/CLASS/image.png``, and if need be
        ``folder/val/CLASS/image.png`` for validation. Training, testing, valid and validation do
        as names as well. Without a folder test, val is for testing. Classes are numbered in the
        order of their names, 2 before 10; names that differ in their Unicode form alone are one.
    image_shape : (rows, columns) or (channels, rows, columns)
        What images are brought to. By default their size, or where sizes differ one that fits most
        of them, of at most 64 rows or columns: see ``image_sizes``; grey where all images are,
        else RGB, as far as 200 of them tell.
    resize : how images of other sizes are brought to it, see `load_image`
    how : which images are kept for testing, where there is no folder for that
    nested : whether the images of all folders inside of a class folder are of that class
    trained_on : of a network that will answer, whose scale 16-bit images are brought to
    progress : whether to show a bar on standard error

    Returns
    -------
    Dataset
        uint8 images; float32 images from 0 to 1 where some have 16 bits, and float32 as they are in
        the files where all are floating-point numbers.

    Raises
    ------
    DataError
        There are no images, or of one class only, a class is in the test folder alone, images with
        floating-point pixels are mixed with others, or they need more than 4 GiB.

    Warns
    -----
    FullbackWarning
        Of each file that cannot be read, which is left out, and how many there are; of files where
        no images are looked for; where most images are made much smaller or larger; where 16-bit
        images use little of their range.
    """
    wanted = None if image_shape is None else check_image_shape(image_shape)
    layout = find_layout(folder, nested=nested)
    names = layout.class_names
    found = [opened(path) for path, _ in sample(layout.train[1])]
    shape, notes = chosen_shape(found, wanted, resize)
    if shape is None:
        raise DataError(f"{layout.train[0]}: not one file in it can be read as an image")
    parts = [
        _part(*part, names) for part in (layout.train, layout.test, layout.val) if part is not None
    ]
    deep = any(image.deep for image in found if image is not None)
    check_room(str(folder), sum(part.size for part in parts), shape, 4 if deep else 1)
    pairs, told = read_parts(parts, shape, str(folder), resize, trained_on, progress=progress)
    return from_file(
        folder,
        folder.resolve().name,
        *pairs,
        class_names=names,
        notes=(*layout.notes, *notes, *told),
        how=how,
    )


def _part(path: Path, files: Sequence[File], names: Sequence[str]) -> Part:
    number = {name: n for n, name in enumerate(names)}
    return Part(str(path), len(files), ((file, str(file), number[name]) for file, name in files))
