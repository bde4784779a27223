"""Where the images of a folder lie: its parts and classes, and what is meant if there are none."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fullback.data.image_files.image_formats import IMAGE_SUFFIXES
from fullback.errors import DataError, FullbackWarning
from fullback.options import listed

_TRAIN = ("train", "training")
_TEST = ("test", "testing")
_VALIDATION = ("val", "valid", "validation")
_NOT_IMAGES = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")  # which systems put into folders
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_TABLES = (".csv", ".tsv", ".csv.gz")
_DEEPEST = 3  # folders below the one that was given, in which the classes are looked for
_SOME = 4  # names that a message lists

File: TypeAlias = tuple[Path, str]
"""An image file, and its class."""


@dataclass(frozen=True)
class Layout:
    """The image files of a data set.

    Attributes
    ----------
    train : the folder and its files
    test, val : the same for testing and validation; None where there are none
    notes : what was chosen, a line each
    """

    train: tuple[Path, list[File]]
    test: tuple[Path, list[File]] | None = None
    val: tuple[Path, list[File]] | None = None
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the training images, 2 before 10."""
        return tuple(sorted({name for _, name in self.train[1]}, key=_natural))


def find_layout(folder: Path, *, nested: bool = False) -> Layout:
    """Find the images of a folder; ``load_image_folder`` says how they lie.

    Raises
    ------
    DataError
        There are no images in class folders, one class only, or a class that has no images to
        train on. The message says what is probably meant.

    Warns
    -----
    FullbackWarning
        Of what lies where no image is looked for.
    """
    folders = _visible(folder, only=Path.is_dir)
    train, test, val = (_named(folders, names) for names in (_TRAIN, _TEST, _VALIDATION))
    if train is not None and test is None and val is None and _is_class(train, folders):
        train = None
    if train is None:
        if folders and all(path in (test, val) for path in folders):
            raise DataError(f"{folder}: has images for testing, but no folder train")
        return Layout(_part(folder, nested=nested, least=2))
    _tell_of([path for path in folders if path not in (train, test, val)], nested=True)
    notes: tuple[str, ...] = ()
    if test is not None and _is_flat(test):
        warnings.warn(
            f"left out: {test}; its images are not in class folders, so that their classes are not "
            "known",
            FullbackWarning,
            stacklevel=6,
        )
        if val is None:
            notes = (
                f"{test.name} has no class folders: images of {train.name} are kept for tests",
            )
            return Layout(_part(train, nested=nested, least=2), notes=notes)
        test = None
    trained = _part(train, nested=nested, least=2)
    if test is None and val is None:
        raise DataError(
            f"{folder}: has a folder {train.name}, but none for testing; call it one of "
            f"{', '.join((*_TEST, *_VALIDATION))}, or give {train}, of which a share is then kept "
            "for testing"
        )
    if test is None and val is not None:
        test, val = val, None
        notes = (f"the images of {test.name} are the test images, as there is no folder test",)
    layout = Layout(
        trained,
        None if test is None else _part(test, nested=nested),
        None if val is None else _part(val, nested=nested),
        notes,
    )
    for part in filter(None, (layout.test, layout.val)):
        _check_classes(part, layout)
    return layout


def refuse_other_files(path: Path) -> None:
    """Raise DataError where an archive or an image was given in place of a folder of images.

    Raises
    ------
    DataError
    """
    name = path.name.lower()
    if name.endswith(_ARCHIVES):
        raise DataError(f"{path}: is an archive; unpack it, and give the folder that comes out")
    if name.endswith((*IMAGE_SUFFIXES, ".heic")):
        raise DataError(
            f"{path}: is one image; give the folder in which there is a folder of images for each "
            "class"
        )


def _check_classes(part: tuple[Path, list[File]], layout: Layout) -> None:
    """Raise DataError where a part has a class that is not trained on."""
    path, files = part
    unknown = sorted({name for _, name in files} - set(layout.class_names), key=_natural)
    if unknown:
        raise DataError(
            f"{path}: has the class {unknown[0]!r}, which {layout.train[0]} does not have; "
            "move its images, or take it out"
        )


def _named(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Return the folder with the first of some names, whatever its case."""
    found = {path.name.lower(): path for path in reversed(folders)}
    return next((found[name] for name in names if name in found), None)


def _part(part: Path, *, nested: bool, least: int = 1) -> tuple[Path, list[File]]:
    """Return a part and the files of its class folders, of at least so many classes.

    Names that differ in their Unicode form alone, as those of folders that came from a Mac, are one
    class.
    """
    entries = _visible(part)
    folders = [path for path in entries if path.is_dir()]
    _tell_of([path for path in entries if not path.is_dir()] if folders else [], nested=nested)
    files: list[File] = []
    empty: list[Path] = []
    for folder in folders:
        try:
            images, others = _files_below(folder, nested=nested)
        except DataError as error:
            warnings.warn(f"left out: {error}", FullbackWarning, stacklevel=7)
            continue
        name = unicodedata.normalize("NFC", folder.name)
        files += [(path, name) for path in images]
        if images:
            _tell_of(others, nested=nested)
        else:
            empty.append(folder)
    if len({name for _, name in files}) < least:
        table = next((path for path in entries if path.name.lower().endswith(_TABLES)), None)
        hint = f"; or give {table}, if it says the class of each image" if table else ""
        raise DataError(f"{part}: {_likely_cause(part, entries, files)}{hint}")
    _tell_of(empty, nested=nested)
    return part, files


def _files_below(folder: Path, *, nested: bool) -> tuple[list[Path], list[Path]]:
    """Return the files of a class folder, and what else is in it."""
    files: list[Path] = []
    others: list[Path] = []
    for path in _visible(folder):
        (files if path.is_file() else others).append(path)
    if not nested:
        return files, others
    known: set[str] = set()
    for below, inner, names in os.walk(folder, followlinks=True, onerror=_tell_of_error):
        real = os.path.realpath(below)
        if real in known:  # by way of a link
            inner.clear()
            continue
        known.add(real)
        inner[:] = sorted((name for name in inner if is_looked_at(name)), key=_natural)
        if below != str(folder):
            some = (Path(below, name) for name in sorted(names, key=_natural) if is_looked_at(name))
            files += [path for path in some if path.is_file()]
    return files, [path for path in others if not path.is_dir()]


def _tell_of_error(error: OSError) -> None:
    text = f"left out: {error.filename}: cannot be listed ({error.strerror})"
    warnings.warn(text, FullbackWarning, stacklevel=10)


def _likely_cause(part: Path, entries: Sequence[Path], files: Sequence[File]) -> str:
    """Say why a folder has fewer than two classes, and what to give in its place."""
    folders = [path for path in entries if path.is_dir()]
    loose = [path for path in entries if path.is_file()]
    expected = "expected a folder a class, with the images of the class in it"
    if files:
        folder = files[0][0].parent
        others = [path for path in folders if path.name != folder.name]
        empty = f" ({_listed(others)}: no images)" if others else ""
        return (
            f"all its images are of one class, {files[0][1]!r}{empty}, and a classifier needs two "
            "or more; give the folder in which all class folders lie"
        )
    inside = _class_root(part, _DEEPEST)
    if len(folders) == 1 and inside is not None and inside != part:
        return (
            f"has the one folder {folders[0].name}, in which there are folders and no images; the "
            f"classes are {_listed(_visible(inside, only=Path.is_dir))}: give {inside}"
        )
    if inside is not None:
        return (
            f"its folders {_listed(folders)} hold folders and no images; with --nested "
            "(nested=True) the images of all folders in one are a class, or give the folder in "
            f"which your classes are, as {inside}"
        )
    if loose:
        return f"holds {len(loose):,} files ({_listed(loose)}) and no class folders; {expected}" + (
            _meant(part, loose)
        )
    nothing = "" if folders else " and no IDX, .npy or .parquet files"
    return f"holds no images{nothing}; {expected}"


def _meant(part: Path, files: Sequence[Path]) -> str:
    """Say what may be meant by a folder of files that have no class folders."""
    words = Counter(found[0] for path in files if (found := re.match(r"[^\W\d_]+", path.stem)))
    if 2 <= len(words) <= len(files) / 2 and words.total() == len(files):
        names = sorted(words)[:_SOME]
        return (
            f". The names of the files begin with {', '.join(names)}: if these are the classes, "
            "move the files into folders of these names"
        )
    own, above = part.resolve().name, part.resolve().parent
    known = (*_TRAIN, *_TEST, *_VALIDATION)
    if own.lower() not in known and _class_root(above, 0) == above:
        return f"; if {own!r} is one of the classes, give {part.parent}"
    return ""


def _class_root(folder: Path, deepest: int) -> Path | None:
    """Find the folder that has several folders with files in it, or parts, at or below one."""
    try:
        folders = _visible(folder, only=Path.is_dir)
        with_files = [path for path in folders if _visible(path, only=Path.is_file)]
    except DataError:
        return None
    if len(with_files) > 1 or (_named(folders, _TRAIN) is not None and len(folders) > 1):
        return folder
    if deepest:
        below = (_class_root(path, deepest - 1) for path in folders[:_SOME])
        return next(filter(None, below), None)
    return None


def _is_class(train: Path, folders: Sequence[Path]) -> bool:
    """Whether a folder called train is a class beside others, as of vehicles."""
    others = [path for path in folders if path != train]
    parts = any(path.name.lower().startswith((*_TEST, *_VALIDATION)) for path in others)
    return not parts and _is_flat(train) and any(map(_is_flat, others))


def _is_flat(folder: Path) -> bool:
    """Whether a folder holds files and no folders with files."""
    entries = _visible(folder)
    return any(path.is_file() for path in entries) and not any(path.is_dir() for path in entries)


def _visible(folder: Path, only: Callable[[Path], bool] | None = None) -> list[Path]:
    """List what is in a folder, but hidden files and what systems put there."""
    try:
        paths = [path for path in folder.iterdir() if is_looked_at(path.name)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    return sorted(filter(only, paths) if only else paths, key=lambda path: _natural(path.name))


def is_looked_at(name: str) -> bool:
    """Whether a file is looked at: not a hidden one, nor one that a system puts into folders."""
    return not name.startswith(".") and name.lower() not in _NOT_IMAGES


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort 2 before 10."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces]


def _listed(paths: Iterable[Path]) -> str:
    return listed([path.name for path in paths], _SOME)


def _tell_of(unused: Sequence[Path], *, nested: bool) -> None:
    """Warn of what lies where no image is looked for."""
    if unused:
        more = f" and {len(unused) - 1:,} more" if len(unused) > 1 else ""
        inside = not nested and any(path.is_dir() for path in unused)
        deeper = ", no deeper without --nested (nested=True)" if inside else ""
        warnings.warn(
            f"left out: {unused[0]}{more}; images are looked for in a folder a class{deeper}",
            FullbackWarning,
            stacklevel=8,
        )
