"""Data that does not fit into memory, written once to files that are trained on from the disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fullback.atomic import write_atomically
from fullback.data.arrays.arrays_on_disk import load_array_folder
from fullback.data.dataset import Dataset
from fullback.data.image_files.image_file import Resize
from fullback.data.load import chosen_split, load_with
from fullback.data.options import ReadOptions
from fullback.data.progress import shown
from fullback.data.store import FileRows, Files, parts
from fullback.data.unpacked import NAME, About
from fullback.errors import DataError, InputError


def unpack_data(
    source: str | os.PathLike[str] | Iterable[Any],
    folder: str | os.PathLike[str],
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
    progress: bool = True,
) -> Dataset:
    """Read data once, image by image, and write it to files that are trained on from the disk.

    What is trained on it is what is trained on ``load_data(source)``, bit for bit; but the source
    may be larger than memory. ``load_data(folder)`` gives the same data set from then on.

    Parameters
    ----------
    source : str, path-like or iterable
        What ``load_data`` takes. Image files, Parquet and .npy files, .npz and IDX files and
        batches may be of any size; of a CSV file of pixels 4 GiB are read.
    folder : path-like
        Where the files go: x_train.npy, y_train.npy, x_test.npy, y_test.npy, perhaps x_val.npy and
        y_val.npy, and dataset.json with the names of the classes and how images were read. The
        folder appears when all of it is written. One that holds the same source, unchanged and
        read with the same options, is kept as it is.
    data_dir, image_shape, resize, test_share, split_seed, label_column, image_folder, numbers,
    nested, progress : as for ``load_data``

    Returns
    -------
    Dataset
        Whose arrays are memory maps.

    Raises
    ------
    DataError
        The source cannot be read, or there is no room on the disk. Nothing is left of the folder.
    InputError
        The folder holds something else.
    """
    options = ReadOptions(
        image_shape=image_shape,
        resize=resize,
        how=chosen_split(test_share, split_seed),
        label_column=label_column,
        image_folder=image_folder,
        numbers=numbers,
        nested=nested,
        progress=progress,
    )
    given: dict[str, Any] = {
        "resize": None if resize == "stretch" else resize,
        "nested": nested or None,
        "test_share": test_share,
        "split_seed": split_seed,
        "label_column": label_column,
    }
    about = About(
        name="",
        numbers=numbers,
        read_with={name: value for name, value in given.items() if value is not None},
        source={
            **_described(source, data_dir, image_folder),
            "image_shape": None if image_shape is None else list(map(int, image_shape)),
        },
    )
    target = Path(os.path.realpath(folder))
    if about.source["of"] and target.is_relative_to(about.source["of"]):
        raise InputError(f"{folder} is in {source}; give a folder that is not in the source")
    with _alone(target) as lock:
        if not _is_there(target, about):
            _write(source, data_dir, options, about, target)
        with contextlib.suppress(OSError):
            lock.unlink()  # who waits for it finds the folder
    return load_array_folder(target, numbers=numbers)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[Path]:
    """Wait until no other process unpacks into a folder; keep others out, by the file yielded."""
    from filelock import FileLock

    path = target.with_name(f".{target.name}.lock")

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire()
    except OSError as error:
        raise InputError(
            f"{target} cannot be made ({error.strerror}); give another folder"
        ) from None
    try:
        yield path
    finally:
        lock.release()


def _is_there(target: Path, about: About) -> bool:
    """Whether a folder holds what would be written.

    Raises
    ------
    InputError
        It holds something else.
    """
    if not target.exists():
        return False
    found = About.of(target) if target.is_dir() else None
    if found is None:
        if target.is_dir() and not any(target.iterdir()):
            return False
        raise InputError(f"{target} is there already, and was not unpacked; give another folder")
    same = (found.source, found.read_with, found.numbers)
    if about.source["of"] and same == (about.source, about.read_with, about.numbers):
        return True
    raise InputError(
        f"{target} was unpacked from {found.source.get('of') or 'batches'}: another source, or one "
        "that has changed, or was read otherwise; remove it, or give another folder"
    )


def _write(
    source: str | os.PathLike[str] | Iterable[Any],
    data_dir: str | os.PathLike[str] | None,
    options: ReadOptions,
    about: About,
    target: Path,
) -> None:
    """Write the folder: under another name, which it gives up when it is whole."""
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # what a process left that was killed
        temporary.mkdir()
        with contextlib.closing(Files(temporary, progress=options.progress)) as files:
            data = load_with(source, data_dir, replace(options, store=files))
            about = replace(
                about, name=data.name, class_names=data.class_names, notes=tuple(data.notes)
            )
            for part in ("train", "test", "val"):
                for name in (f"x_{part}", f"y_{part}"):
                    array = getattr(data, name)
                    if array is not None:
                        _settle(files, name, array)
        del data, array
        for path in temporary.glob("[0-9]*.npy"):  # what was split
            path.unlink()
        write_atomically(temporary / NAME, about.content())
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DataError(
            f"{target} cannot be written ({error.strerror or error}); nothing was left of it: make "
            "room, or give another folder"
        ) from None
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _settle(files: Files, name: str, array: NDArray[Any]) -> None:
    """Give an array its name in the folder: by renaming its file, where that is all it needs."""
    path = files.folder / f"{name}.npy"
    if files.settle(array, path):
        return
    rows = FileRows(files, array.shape[1:], array.dtype)
    starts = parts(len(array), array)
    for start in shown(starts, f"{name}.npy", len(starts), progress=files.progress):
        rows.append(array[start : start + starts.step])
    rows.array()
    rows.path.rename(path)


def _described(
    source: str | os.PathLike[str] | Iterable[Any],
    data_dir: str | os.PathLike[str] | None,
    image_folder: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """Describe a source, and the names, sizes and times of its files, so that it is known again."""
    if not isinstance(source, str | os.PathLike):
        return {"of": None, "files": None}
    places = [Path(place) for place in (source, data_dir, image_folder) if place is not None]
    number = hashlib.blake2b(digest_size=16)
    for place in places:
        for path in _files(place):
            with contextlib.suppress(OSError):
                found = path.stat()
                text = f"{path.relative_to(place)}\0{found.st_size}\0{found.st_mtime_ns}\n"
                number.update(text.encode("utf-8", "surrogatepass"))
    of = os.fspath(source)
    if of not in ("digits", "mnist"):
        of = os.path.realpath(of)
    return {"of": of, "files": number.hexdigest()}


def _files(place: Path) -> Iterator[Path]:
    """Yield a file, or all files of a folder, in a fixed order."""
    if not place.is_dir():
        yield place
        return
    for folder, inside, names in os.walk(place, followlinks=False):
        inside.sort()
        yield from (Path(folder, name) for name in sorted(names))
