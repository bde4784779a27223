"""Folders of images, a folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullback.data.dataset import Dataset
from fullback.data.image_files.image_layout import File, find_layout
from fullback.data.image_files.image_parts import Part, read_parts
from fullback.data.image_files.image_sizes import sample
from fullback.data.options import ReadOptions
from fullback.data.split import from_file


def load_image_folder(folder: Path, options: ReadOptions) -> Dataset:
    """Load images whose folders are their classes.

    Parameters
    ----------
    folder : path
        ``folder/CLASS/image.png``, of which a fixed fifth of each class is kept for testing; or
        ``folder/train/CLASS/image.png`` and ``folder/test/CLASS/image.png``, and if need be
        ``folder/val/CLASS/image.png`` for validation. Training, testing, valid and validation do
        as names as well. Without a folder test, val is for testing. Classes are numbered in the
        order of their names, 2 before 10; names that differ in their Unicode form alone are one.
    options : without an image shape images get their size, or where sizes differ one that fits most
        of them, of at most 64 rows or columns: see ``image_sizes``; grey where all images are, else
        RGB, by 200 of them

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
    layout = find_layout(folder, nested=options.nested)
    names = layout.class_names
    parts = [
        _part(*part, names) for part in (layout.train, layout.test, layout.val) if part is not None
    ]
    files = (path for path, _ in sample(layout.train[1]))
    pairs, notes = read_parts(str(folder), parts, files, options)
    return from_file(
        folder,
        folder.resolve().name,
        *pairs,
        class_names=names,
        notes=(*layout.notes, *notes),
        how=options.how,
        store=options.store,
    )


def _part(path: Path, files: Sequence[File], names: Sequence[str]) -> Part:
    number = {name: n for n, name in enumerate(names)}
    return Part(str(path), len(files), ((file, str(file), number[name]) for file, name in files))
