"""One entrance to every data set: a name, a folder or a file."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fullback.data.arrays.arrays_on_disk import is_array_folder, load_array_folder
from fullback.data.arrays.idx import find_idx_files, load_idx_pair
from fullback.data.arrays.npz import load_npz
from fullback.data.batches import load_batches
from fullback.data.dataset import Dataset
from fullback.data.digits import digits
from fullback.data.image_files.image_file import Resize
from fullback.data.image_files.image_folder import load_image_folder
from fullback.data.image_files.image_layout import refuse_other_files
from fullback.data.image_files.parquet import find_parquet, load_parquet
from fullback.data.mnist import mnist
from fullback.data.options import ReadOptions
from fullback.data.split import Split, from_file
from fullback.data.tables.delimited import is_table, read_table
from fullback.data.tables.image_list import as_image_list, load_image_list
from fullback.data.tables.pixel_table import load_pixel_table
from fullback.errors import DataError, InputError
from fullback.pixels import ImageRecord

_IMAGES = re.compile(r"(?P<set>.*?)(?P<part>train|t10k|test)?-?images-idx\d-ubyte")


def load_data(
    source: str | os.PathLike[str] | Iterable[Any],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    resize: Resize = "stretch",
    test_share: float | None = None,
    split_seed: int | None = None,
    label_column: str | int | None = None,
    image_folder: str | os.PathLike[str] | None = None,
    numbers: bool = False,
    nested: bool = False,
    trained_on: ImageRecord | None = None,
    progress: bool = True,
) -> Dataset:
    """Load a data set by name, from a path or from batches.

    Parameters
    ----------
    source : str, path-like or iterable
        One of:

        - ``"digits"``: the built-in digits, see `digits`;
        - ``"mnist"``: MNIST, see `mnist`;
        - an ``.npz`` file, see `load_npz`;
        - an IDX images file, such as ``train-images-idx3-ubyte.gz``; its labels file,
          ``train-labels-idx1-ubyte``, lies beside it. A fixed fifth of each class is kept for
          testing;
        - a folder with the IDX files of one data set: ``*train-images-idx3-ubyte``,
          ``*t10k-images-idx3-ubyte`` or ``*test-images-idx3-ubyte``, and their labels. A single
          pair is split as above;
        - a folder of images, with a folder a class, see `load_image_folder`;
        - a folder of .npy files, which stay on the disk, see `load_array_folder`;
        - a ``.csv`` file of labels and pixels, see `load_pixel_table`, or of the names of image
          files and their labels, see `load_image_list`; or ``.tsv``, ``.txt``, ``.data``, which
          may be packed as ``.csv.gz``;
        - a ``.parquet`` file of encoded images, or a folder of such files, see `load_parquet`;
        - any iterable of batches (images, labels), see `load_batches`.

        IDX files may end in ``.gz``. A folder that is called digits or mnist is given as
        ``"./digits"`` or ``Path("digits")``.
    data_dir : path-like, optional
        The folder with the MNIST files. It goes with ``"mnist"`` only.
    image_shape : (rows, columns) or (channels, rows, columns), optional
        What image files are brought to, or what a CSV file's pixels make. Other data sets have
        their own.
    resize : "stretch", "pad" or "crop"
        How image files of other proportions are brought to it: stretched, with a black margin, or
        cut off.
    test_share : float, optional
        Share of each class that is kept for testing, where the source has no test images of its
        own; a fifth by default.
    split_seed : int, optional
        Fixes which images these are.
    label_column : str or int, optional
        The label column of a CSV file: its name, or its number from 0, from the end if negative.
        By default it is recognised by its name or its values.
    image_folder : path-like, optional
        What the files are relative to that a CSV file names; by default the folder it is in.
    numbers : bool, default=False
        Whether the labels are numbers to predict (regression), of shape (N,) or (N, outputs), not
        classes. The share for testing is then taken of all images alike.
    nested : bool, default=False
        Whether the images of all folders inside of a class folder are of that class.
    trained_on : ImageRecord, optional
        ``Network.trained_on`` of a network that will answer: by it 16-bit images get the scale of
        its training images, and whole numbers of a CSV file are pixels or floats.
    progress : bool, default=True
        Show a progress bar on standard error while downloading, or reading images.

    Returns
    -------
    Dataset
        Images of shape (N, C, H, W) and labels of shape (N,), for training and for testing.

    Raises
    ------
    DataError
        If there is no such data set, or a file of it is missing or damaged.
    DownloadError
        If MNIST could not be downloaded.
    InputError
        If an option is given that does not go with the source.
    """
    options = ReadOptions(
        image_shape=image_shape,
        resize=resize,
        how=chosen_split(test_share, split_seed),
        label_column=label_column,
        image_folder=image_folder,
        numbers=numbers,
        nested=nested,
        trained_on=trained_on,
        progress=progress,
    )
    return load_with(source, data_dir, options)


def chosen_split(test_share: float | None, split_seed: int | None) -> Split | None:
    """Return which images are kept for testing; None where nothing is said of it."""
    if test_share is None and split_seed is None:
        return None
    share = Split.share if test_share is None else test_share
    return Split(share, 0 if split_seed is None else split_seed)


def load_with(
    source: str | os.PathLike[str] | Iterable[Any],
    data_dir: str | os.PathLike[str] | None,
    options: ReadOptions,
) -> Dataset:
    """Load a data set as ``load_data`` does."""
    label_column, image_folder, numbers = (
        options.label_column,
        options.image_folder,
        options.numbers,
    )
    table = isinstance(source, str | os.PathLike) and is_table(Path(source))
    for word, given in (("a label column", label_column), ("an image folder", image_folder)):
        if given is not None and not table:
            raise InputError(f"{word} goes with CSV files, and not with {source!r}")
    if not isinstance(source, str | os.PathLike):
        if not isinstance(source, Iterable):
            raise InputError(f"data is a name, a path or an iterable of batches, got {source!r}")
        data = load_batches(source, options.how, numbers=numbers, store=options.store)
    else:
        data = _load_named(source, data_dir, options)
    if numbers and not data.numbers:
        data = replace(data, class_names=(), numbers=True)
    wanted = options.image_shape
    if wanted is not None and data.image_shape[-len(wanted) :] != wanted:
        raise InputError(
            "an image shape goes with image files and CSV files; "
            f"{data.name} has images of {' x '.join(map(str, data.image_shape))}"
        )
    return data


def _load_named(
    source: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None,
    options: ReadOptions,
) -> Dataset:
    """Load a data set by its name, or what is at a path."""
    if source == "mnist":
        if options.how is not None:
            raise InputError("mnist has test images of its own; leave out the share for testing")
        return mnist(data_dir, progress=options.progress)
    if data_dir is not None:
        raise InputError(
            f"data_dir (={str(data_dir)!r}) goes with 'mnist' only, but the data set is "
            f"{str(source)!r}; leave data_dir out, and give a data set of your own by its path"
        )
    if source == "digits":
        return digits(options.how)
    path = Path(source)
    if not os.fspath(source) or not os.path.exists(path):  # noqa: PTH110 -- Path.exists can raise
        close = difflib.get_close_matches(str(source).lower(), ("digits", "mnist"), 1)
        hint = f"did you mean {close[0]!r}?" if close else "check the path"
        raise DataError(
            f"unknown data set {str(source)!r}, and no such file; expected 'digits', 'mnist', a "
            "folder of images, a folder with IDX, .npy or .parquet files, an IDX images file, or "
            f"an .npz, .csv or .parquet file: {hint}"
        )
    return _load_folder(path, options) if path.is_dir() else _load_file(path, options)


def _load_folder(path: Path, options: ReadOptions) -> Dataset:
    """Load a folder: of arrays, IDX files, Parquet files or images, whichever it holds first."""
    if is_array_folder(path):
        return load_array_folder(path, options.how, numbers=options.numbers, store=options.store)
    if find_idx_files(path):
        return _load_idx_folder(path, options)
    files = find_parquet(path)
    _refuse_numbers(path, options)
    return load_parquet(files, path, options) if files else load_image_folder(path, options)


def _load_file(path: Path, options: ReadOptions) -> Dataset:
    """Load a file: a table, an .npz or Parquet file, or else one of IDX images."""
    if is_table(path):
        table = read_table(path, options.label_column)
        images = as_image_list(table, options.image_folder)
        if images is not None:
            return load_image_list(images, options)
        if options.image_folder is not None:
            raise InputError(f"{path}: names no image files, with which an image folder goes")
        return load_pixel_table(table, options)
    kind = path.suffix.lower()
    if kind == ".npz":
        return load_npz(path, options.how, numbers=options.numbers, store=options.store)
    if kind == ".parquet":
        _refuse_numbers(path, options)
        return load_parquet([path], path, options)
    refuse_other_files(path)
    given: dict[str, Any] = {"numbers": options.numbers, "store": options.store}
    pair = load_idx_pair(path, _labels_beside(path), **given)
    return from_file(path, path.name, pair, how=options.how, **given)


def _refuse_numbers(path: Path, options: ReadOptions) -> None:
    if options.numbers:
        raise InputError(f"{path}: holds classes, and no numbers to predict")


def _labels_beside(images: Path) -> Path:
    """Find the labels file that goes with an images file."""
    name = images.name.removesuffix(".gz").replace(".idx", "-idx")
    if not _IMAGES.fullmatch(name):
        raise DataError(
            f"{images}: is neither .npz nor named as an IDX images file, such as "
            "train-images-idx3-ubyte: rename it, or read it with fullback.data.load_idx"
        )
    wanted = re.sub(r"images-idx\d-ubyte$", "labels-idx1-ubyte", name)
    found = find_idx_files(images.parent)
    if wanted not in found:
        raise DataError(
            f"{images}: its labels are missing; expected {wanted} or {wanted}.gz beside it: "
            "put it there"
        )
    return found[wanted]


def _load_idx_folder(folder: Path, options: ReadOptions) -> Dataset:
    """Load the one data set of IDX files in a folder."""
    found = find_idx_files(folder)
    images = [(match, found[name]) for name in found if (match := _IMAGES.fullmatch(name))]
    parts = {"test" if m["part"] == "t10k" else m["part"]: path for m, path in images}
    one_set = len({m["set"] for m, _ in images}) == 1
    whole = len(images) == 2 and one_set and parts.keys() == {"train", "test"}
    if not whole and len(images) != 1:
        names = ", ".join(path.name for _, path in images) or "none"
        raise DataError(
            f"{folder}: found the IDX images {names}; expected train-images-idx3-ubyte and "
            "t10k-images-idx3-ubyte (or test-images-idx3-ubyte), or one pair of images and "
            "labels: give a folder with one data set, or one images file or .npz file"
        )
    order = ("train", "test") if whole else tuple(parts)
    given: dict[str, Any] = {"numbers": options.numbers, "store": options.store}
    pairs = [load_idx_pair(parts[part], _labels_beside(parts[part]), **given) for part in order]
    return from_file(folder, folder.resolve().name, *pairs, how=options.how, **given)
