"""Folders of images, a folder a class."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import Dataset, Split, from_file
from fullback.data.files import MAX_BYTES
from fullback.data.images import Resize, check_image, check_image_shape, is_coloured, load_image
from fullback.errors import DataError, FullbackWarning

_TEST_NAMES = ("test", "val", "valid", "validation")
_LONGEST = 64  # rows or columns, where sizes differ and nobody says what to bring them to
_LOOKED_AT = 200  # images by which size and colours are chosen
_ORIENTATION, _ON_ITS_SIDE = 0x0112, 5  # the EXIF entry, and from where it exchanges the axes
_LISTED = 10  # of the files that cannot be read

File = tuple[Path, str]
"""An image file, and its class."""


def is_image_folder(folder: Path) -> bool:
    """Whether a folder has folders in it, which no IDX data set has."""
    return any(path.is_dir() for path in _visible(folder))


def load_image_folder(
    folder: Path,
    image_shape: Sequence[int] | None = None,
    *,
    resize: Resize = "stretch",
    how: Split | None = None,
    progress: bool = True,
) -> Dataset:
    """Load images whose folders are their classes.

    Parameters
    ----------
    folder : path
        ``folder/CLASS/image.png``, of which a fixed fifth of each class is kept for testing; or
        ``folder/train/CLASS/image.png`` and ``folder/test/CLASS/image.png``. For test, val, valid
        and validation do as well. Classes are numbered in the order of their names.
    image_shape : (rows, columns) or (channels, rows, columns)
        What images are brought to. By default the commonest size, but at most 64 rows or columns
        where sizes differ; grey where all images are, else RGB, as far as 200 of them tell.
    resize : how images of other sizes are brought to it, see `load_image`
    how : which images are kept for testing, where there is no folder for that
    progress : whether to show a bar on standard error

    Raises
    ------
    DataError
        There are no images, a class is in the test folder alone, or they need more than 4 GiB.

    Warns
    -----
    FullbackWarning
        Of each file that cannot be read, which is left out, and how many there are.
    """
    wanted = None if image_shape is None else check_image_shape(image_shape)
    parts = _parts(folder)
    files = [_files(part) for part in parts]
    names = sorted({name for _, name in files[0]}, key=_natural)
    if len(parts) == 2:
        unknown = sorted({name for _, name in files[1]} - set(names), key=_natural)
        if unknown:
            raise DataError(
                f"{parts[1]}: has the class {unknown[0]!r}, which {parts[0]} does not have; "
                "move its images, or take it out"
            )
    shape, note = chosen_shape((opened(path) for path, _ in sample(files[0])), wanted, resize)
    if shape is None:
        raise DataError(f"{files[0][0][0].parent}: not one file in it can be read as an image")
    count = sum(map(len, files))
    if count * int(np.prod(shape)) > MAX_BYTES:
        raise DataError(
            f"{folder}: {count:,} images of {' x '.join(map(str, shape))} need more than "
            f"{MAX_BYTES:,} bytes; bring them to a smaller size"
        )
    pairs, unread = _read(files, names, shape, resize, progress=progress)
    for error in unread[:_LISTED]:
        warnings.warn(f"left out: {error}", FullbackWarning, stacklevel=3)
    if unread:
        warnings.warn(
            f"{len(unread):,} of {count:,} files in {folder} cannot be read as images, and are "
            "left out",
            FullbackWarning,
            stacklevel=3,
        )
    for part, (x, _) in zip(parts, pairs, strict=True):
        if not len(x):
            raise DataError(f"{part}: not one file in it can be read as an image")
    return from_file(
        folder, folder.resolve().name, *pairs, class_names=tuple(names), notes=note, how=how
    )


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort 2 before 10."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces]


def _parts(folder: Path) -> list[Path]:
    """Return the folders for training and testing, or the one for both."""
    inner = {path.name.lower(): path for path in _visible(folder) if path.is_dir()}
    if "train" not in inner:
        if len(inner) == 1 and next(iter(inner)) in _TEST_NAMES:
            raise DataError(f"{folder}: has images for testing, but no folder train")
        return [folder]
    for name in _TEST_NAMES:
        if name in inner:
            parts = [inner["train"], inner[name]]
            _tell_of([path for path in inner.values() if path not in parts])
            return parts
    raise DataError(
        f"{folder}: has a folder train, but none for testing; call it one of "
        f"{', '.join(_TEST_NAMES)}, or put all classes into one folder, which is then split"
    )


def _files(part: Path) -> list[File]:
    folders = sorted(_visible(part), key=lambda path: _natural(path.name))
    _tell_of([path for path in folders if not path.is_dir()])
    files: list[File] = []
    empty: list[Path] = []
    for folder in filter(Path.is_dir, folders):
        inside = _visible(folder)
        files += [(path, folder.name) for path in inside if path.is_file()]
        empty += [] if inside else [folder]
        _tell_of([path for path in inside if not path.is_file()])
    if not files:
        raise DataError(
            f"{part}: holds no images; expected a folder a class, with the images of the class in "
            "it"
        )
    _tell_of(empty)
    return files


def _tell_of(unused: Sequence[Path]) -> None:
    """Warn of what lies where no image is looked for."""
    if unused:
        more = f" and {len(unused) - 1:,} more" if len(unused) > 1 else ""
        warnings.warn(
            f"left out: {unused[0]}{more}; images are looked for in a folder a class, no deeper",
            FullbackWarning,
            stacklevel=5,
        )


Opened = tuple[tuple[int, int], bool]
"""The (rows, columns) of an image as it is shown, and whether it has colours."""


def sample(files: Sequence[Any]) -> Sequence[Any]:
    """Return the files by which size and colours are chosen."""
    return files[:: -(-len(files) // _LOOKED_AT)]


def opened(file: Path | io.BytesIO) -> Opened | None:
    """Look at the header of an image; None where it cannot be read, which is told later."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                turned = image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
                check_image("image", image)  # what is refused later decides nothing
                columns, rows = image.size[::-1] if turned else image.size
                return (rows, columns), is_coloured(image)
    except Exception:  # noqa: BLE001 -- whatever Pillow's readers raise on damaged files
        return None


def chosen_shape(
    images: Iterable[Opened | None], wanted: tuple[int, ...] | None, resize: Resize
) -> tuple[tuple[int, int, int] | None, tuple[str, ...]]:
    """Return the (channels, rows, columns) that images are brought to, and a line about it.

    The shape is None where not one of the images can be read.
    """
    found = [image for image in images if image is not None]
    if not found:
        return None, ()
    sizes = Counter(size for size, _ in found)
    rows, columns = sizes.most_common(1)[0][0]
    channels = 3 if any(coloured for _, coloured in found) else 1
    if wanted is not None:
        rows, columns = wanted[-2:]
        channels = wanted[0] if len(wanted) == 3 else channels
    elif len(sizes) > 1 and max(rows, columns) > _LONGEST:
        shrink = _LONGEST / max(rows, columns)
        rows, columns = max(1, round(rows * shrink)), max(1, round(columns * shrink))
    if set(sizes) == {(rows, columns)}:
        return (channels, rows, columns), ()
    found_sizes = f"{len(sizes)} sizes" if len(sizes) > 1 else "{} x {}".format(*next(iter(sizes)))
    words = {"stretch": "stretched", "pad": "padded with black", "crop": "cropped"}[resize]
    note = f"images of {found_sizes} are brought to {rows} x {columns}, {words}"
    return (channels, rows, columns), (note,)


def _read(
    files: Sequence[Sequence[File]],
    names: Sequence[str],
    shape: tuple[int, int, int],
    resize: Resize,
    *,
    progress: bool,
) -> tuple[list[tuple[NDArray[Any], NDArray[np.int64]]], list[DataError]]:
    """Read all images, and note which cannot be read."""
    number = {name: n for n, name in enumerate(names)}
    pairs, unread = [], []
    for part in files:
        x = np.empty((len(part), *shape), np.uint8)
        y: list[int] = []
        for path, name in _shown(part, progress=progress):
            try:
                x[len(y)] = load_image(path, shape, resize=resize).pixels
            except DataError as error:
                unread.append(error)
            else:
                y.append(number[name])
        pairs.append((x[: len(y)], np.array(y, np.int64)))
    return pairs, unread


def _shown(files: Sequence[File], *, progress: bool) -> Iterable[File]:
    """Yield the files, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not progress or not console.is_terminal:
        return files
    return track(files, f"{len(files):,} images", console=console, transient=True)
