"""Images to predict: without labels, or with labels that are left aside."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.arrays.arrays_on_disk import map_array
from fullback.data.arrays.idx import load_idx
from fullback.data.arrays.npz import read_npz
from fullback.data.dataset import without_column
from fullback.data.image_files.image_file import Resize, check_channels, load_image
from fullback.data.image_files.image_layout import is_looked_at
from fullback.data.image_files.image_parts import check_room
from fullback.data.options import ReadOptions
from fullback.data.tables.delimited import Table, is_table, read_table
from fullback.data.tables.image_list import ImageList, as_image_list, list_roles
from fullback.data.tables.pixel_table import pixel_values
from fullback.data.tables.roles import Roles, find_roles
from fullback.errors import DataError
from fullback.pixels import ImageRecord

_FORMS = (("x", "y"), ("x_test", "y_test"), ("x",), ("x_test",), ("images",), ("arr_0",))
_IDX = re.compile(r".*idx\d-ubyte(\.gz)?")


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """Images that were loaded to be predicted.

    Attributes
    ----------
    x : of shape (N, C, H, W)
    names : of each image: its file, relative to the folder; what a CSV file calls it; or else its
        row, from 0
    numbered : whether the names are row numbers
    errors : of each file that could not be read, which is left out
    failed : the names of these files
    labels : of shape (N,), numbers or texts, where the source has labels; else None
    notes : which columns of a table were taken for what, a line each
    """

    x: NDArray[Any]
    names: tuple[str, ...]
    errors: list[DataError]
    labels: NDArray[Any] | None = None
    numbered: bool = False
    notes: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def load_images(
    source: str | os.PathLike[str],
    shape: tuple[int, int, int],
    *,
    resize: Resize = "stretch",
    invert: bool = False,
    label_column: str | int | None = None,
    image_folder: str | os.PathLike[str] | None = None,
    trained_on: ImageRecord | None = None,
) -> LoadedImages:
    """Load images of a known shape, with or without labels.

    Parameters
    ----------
    source : path
        A folder of image files, which may be in folders of their own; an image file; a folder with
        x.npy or x_test.npy, which stay on the disk; an .npz file with the array x, x_test, images
        or arr_0; an .npy file; an IDX images file; or a CSV file of pixels, where a column of ids
        and one of labels are recognised, or of the names of image files.
    shape : (C, H, W)
        What image files are brought to, and what arrays and CSV files must have. Arrays may be
        (N, C, H, W), (N, H, W, C), (N, H, W) with one channel, or (N, C * H * W).
    resize : how image files of other proportions are brought to the shape, see `load_image`
    invert : swap dark and light, of image files and of uint8 arrays
    label_column : of a CSV file, the name or number of a column that is not of pixels
    image_folder : what the files are relative to that a CSV file names; by default its own folder
    trained_on : ``Network.trained_on`` of the network that will answer: by it 16-bit images get the
        scale of its training images, and whole numbers of a CSV file are pixels or floats

    Raises
    ------
    DataError
        There is no such source, or nothing in it can be read; its images have another shape; or
        they need more than 4 GiB.
    ShapeError
        Image files cannot be read for networks that take this shape.
    InputError
        There are 16-bit images, and the network's black and white are not known.
    """
    path = Path(source)
    options = ReadOptions(
        resize=resize,
        invert=invert,
        label_column=label_column,
        image_folder=image_folder,
        trained_on=trained_on,
    )
    if not os.path.exists(path):  # noqa: PTH110 -- Path.exists can raise
        raise DataError(
            f"{path}: no such file or folder; expected images, a folder of images, or an .npz, "
            ".npy or .csv file: check the path"
        )
    if path.is_dir():
        folder = {name: path / f"{name}.npy" for form in _FORMS for name in form}
        for form in _FORMS:
            if all(folder[name].is_file() for name in form):
                return _from_arrays(path, [map_array(folder[n]) for n in form], shape, invert)
        return _from_files(path, sorted(image_files(path)), shape, options)
    if path.suffix.lower() == ".npz":
        return _from_arrays(path, list(read_npz(path, *_FORMS).values()), shape, invert)
    if path.suffix.lower() == ".npy":
        return _from_arrays(path, [map_array(path)], shape, invert)
    if _IDX.fullmatch(path.name):
        return _from_arrays(path, [load_idx(path)], shape, invert)
    if is_table(path):
        return _from_csv(path, shape, options)
    return _from_files(path.parent, [path], shape, options)


def _from_arrays(
    path: Path, arrays: list[NDArray[Any]], shape: tuple[int, int, int], invert: bool
) -> LoadedImages:
    """Bring an array of images to (N, C, H, W); a second array is of labels."""
    x = arrays[0]
    channels, rows, columns = shape
    if x.shape[1:] == shape:
        pass
    elif x.shape[1:] == (rows, columns, channels):
        x = np.moveaxis(x, 3, 1)
    elif x.shape[1:] == (math.prod(shape),) or (channels == 1 and x.shape[1:] == shape[1:]):
        x = x.reshape(-1, *shape)
    else:
        raise DataError(
            f"{path}: has an array of shape {x.shape}; expected images of "
            f"{' x '.join(map(str, shape))}: (N, {channels}, {rows}, {columns}) or (N, {rows}, "
            f"{columns}, {channels})"
        )
    if invert:
        x = inverted(path, x)
    labels = arrays[1] if len(arrays) > 1 else None
    if labels is not None:
        labels = without_column(labels)
        labels = labels if labels.shape == x.shape[:1] else None
    return LoadedImages(x, tuple(map(str, range(len(x)))), [], labels, numbered=True)


def inverted(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    """Swap dark and light.

    Raises
    ------
    DataError
        What is white among the values is not known.
    """
    if x.dtype != np.uint8:
        raise DataError(
            f"{path}: holds {x.dtype}, and what is white among its values is not known; expected "
            "uint8 to swap dark and light: leave --invert out, or swap them before saving"
        )
    return 255 - x


def _from_csv(path: Path, shape: tuple[int, int, int], options: ReadOptions) -> LoadedImages:
    table = read_table(path, options.label_column)
    images = as_image_list(table, options.image_folder)
    if images is not None:
        return _from_list(images, shape, options)
    pixels = math.prod(shape)
    roles = find_roles(table, options.label_column, pixels, labelled=False)
    if len(roles.pixels) != pixels:
        raise DataError(
            f"{path}: has {len(roles.pixels)} pixels a line; expected {pixels}, for images of "
            f"{' x '.join(map(str, shape))}; name a column of labels with --label-column"
        )
    x = pixel_values(table, roles, options.trained_on).reshape(-1, *shape)
    names = map(str, range(table.rows)) if roles.name is None else table.text(roles.name)
    return LoadedImages(
        inverted(path, x) if options.invert else x,
        tuple(names),
        [],
        _labels(table, roles),
        roles.name is None,
        roles.notes,
    )


def is_collection(path: Path) -> bool:
    """Whether a path is of many images that are not files of their own: arrays, or a table."""
    if path.is_dir():
        return any((path / f"{form[0]}.npy").is_file() for form in _FORMS)
    known = path.suffix.lower() in (".npz", ".npy")
    return known or bool(_IDX.fullmatch(path.name)) or is_table(path)


def _from_list(
    images: ImageList, shape: tuple[int, int, int], options: ReadOptions
) -> LoadedImages:
    roles = list_roles(images, options.label_column)
    labels = _labels(images.table, roles)
    names = images.table.text(images.column)
    loaded, read = _read_files(images.table.path, images.files(), names, shape, options)
    return replace(loaded, labels=None if labels is None else labels[read], notes=roles.notes)


def _labels(table: Table, roles: Roles) -> NDArray[Any] | None:
    """Return the labels as they are in the table: whole numbers, fractions or texts."""
    if not roles.label:
        return None
    if len(roles.label) > 1:
        return np.asarray(np.stack([table.column(n) for n in roles.label]).argmax(axis=0))
    column = roles.label[0]
    if column in table.texts:
        return np.array(table.text(column))
    labels = table.column(column)
    return labels.astype(np.int64) if (labels == np.trunc(labels)).all() else labels


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those in it; links to folders are not followed."""
    for where, folders, files in os.walk(folder):
        folders[:] = filter(is_looked_at, folders)
        yield from (Path(where) / name for name in filter(is_looked_at, files))


def _from_files(
    folder: Path, files: list[Path], shape: tuple[int, int, int], options: ReadOptions
) -> LoadedImages:
    if not files:
        raise DataError(f"{folder}: holds no files; expected images")
    names = [path.relative_to(folder).as_posix() for path in files]
    return _read_files(folder, files, names, shape, options)[0]


def _read_files(
    source: Path,
    files: Sequence[Path],
    names: Sequence[str],
    shape: tuple[int, int, int],
    options: ReadOptions,
) -> tuple[LoadedImages, list[int]]:
    """Read image files: uint8, or floats on the network's scale where one is not of 8 bits.

    Returned are the images and the places of the files that could be read; ``names`` are what the
    files are called.
    """
    check_channels(shape)
    check_room(str(source), len(files), shape, 1)
    x: NDArray[Any] = np.empty((len(files), *shape), np.uint8)
    read: list[int] = []
    failed: list[str] = []
    errors: list[DataError] = []
    for place, path in enumerate(files):
        try:
            image = load_image(path, shape, resize=options.resize, invert=options.invert)
        except DataError as error:
            errors.append(error)
            failed.append(names[place])
            continue
        if image.depth != "8-bit" and x.dtype == np.uint8:
            check_room(str(source), len(files), shape, 4)
            x = _scaled(x, options.trained_on)
        pixels = image.for_network(options.trained_on)
        if pixels.dtype == np.uint8 and x.dtype != np.uint8:
            pixels = _scaled(pixels, options.trained_on)
        x[len(read)] = pixels
        read.append(place)
    if not read:
        found = f" ({errors[0]})" if len(files) == 1 else ""
        raise DataError(f"{source}: not one file in it can be read as an image{found}")
    known = tuple(names[place] for place in read)
    return LoadedImages(x[: len(read)], known, errors, failed=tuple(failed)), read


def _scaled(pixels: NDArray[Any], trained_on: ImageRecord | None) -> NDArray[Any]:
    """Bring uint8 pixels to float32 on the network's scale, by default 0 to 1."""
    if trained_on is None:
        return pixels.astype(np.float32) / np.float32(255)
    return trained_on.from_bytes(pixels, np.dtype(np.float32))
