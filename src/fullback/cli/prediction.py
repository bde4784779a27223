"""What a model answers to images of any number: read and answered a batch at a time."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullback.cli.models import labels_from
from fullback.cli.output import fail
from fullback.data.arrays.idx import find_idx_files
from fullback.data.image_files.parquet import find_parquet
from fullback.data.load_images import LoadedImages, image_files, is_collection, load_images
from fullback.data.tables.delimited import is_table
from fullback.errors import DataError, OptionError, ShapeError
from fullback.network import Network
from fullback.predicting import answers, brightness_words, labels_of, load_image_for, looks_inverted

if TYPE_CHECKING:
    from fullback.pixels import ImageRecord

AT_ONCE = 1024  # images
_BYTES = 2**26  # of images that are read together
_LINES = 20  # of files that cannot be read
_BAR = 500  # images from which on a bar shows how far it is


@dataclass
class Answered:
    """A model's answers to N images.

    Attributes
    ----------
    names : what each image is called: its path, its name in a table, or its row
    formats : mode and size of image files, where they are known
    ids : of each image, for a table that is submitted
    probabilities : of every class, of shape (N, classes); of a network that answers in numbers,
        the numbers, of shape (N, outputs)
    labels : the classes that are answered, of shape (N,)
    inverted : images that are nearer to the training images with dark and light swapped, (N,)
    failed : names of the files that could not be read
    agreeing, labelled : images of which the source has labels, and how many answers agree
    error : sum of the absolute errors of these images, of a network that answers in numbers
    notes : what was found out about a source, a line each
    """

    names: list[str] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    probabilities: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0)))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    inverted: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    failed: list[tuple[str, str]] = field(default_factory=list)
    agreeing: int = 0
    labelled: int = 0
    error: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Batch:
    names: Sequence[str]
    formats: Sequence[str]
    ids: Sequence[str]
    images: NDArray[Any]
    labels: NDArray[Any] | None = None  # the network's labels, or targets


@dataclass(frozen=True)
class _Options:
    """How images and their labels are read, see ``answer``."""

    invert: bool
    label_column: str | int | None
    image_folder: Path | None
    class_names: Sequence[str]


def answer(
    network: Network,
    sources: Sequence[Path],
    *,
    invert: bool = False,
    label_column: str | int | None = None,
    image_folder: Path | None = None,
    class_names: Sequence[str] = (),
    bar: bool = True,
) -> Answered:
    """Let a network answer images: files, folders of files, arrays and tables.

    A file that cannot be read gets a line on standard error, and its name is kept. ``class_names``
    are what labels are called that are numbers.
    """
    from rich.console import Console
    from rich.progress import Progress

    if len(network.input_shape) != 3:
        raise ShapeError(
            "images can be read for networks that take (1, H, W) or (3, H, W), not "
            f"{network.input_shape}"
        )
    found, warned = Answered(), False
    parts: list[NDArray[Any]] = []
    inverted: list[NDArray[np.bool_]] = []
    progress = Progress(console=Console(stderr=True), transient=True)
    task = progress.add_task("predicting", total=0)

    def expect(images: int) -> None:
        total = (progress.tasks[0].total or 0) + images
        progress.update(task, total=total)
        if bar and total >= _BAR and progress.console.is_terminal:
            progress.start()

    options = _Options(invert, label_column, image_folder, class_names)
    try:
        for batch in _batches(network, sources, found, options, expect):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                p = answers(network, network.check_images(batch.images))
            for warning in caught[: not warned]:  # once is enough
                warnings.warn(warning.message, stacklevel=2)
                warned = True
            parts.append(p)
            inverted.append(looks_inverted(network.trained_on, batch.images))
            found.names += batch.names
            found.formats += batch.formats
            found.ids += batch.ids
            if batch.labels is not None:
                found.labelled += len(p)
            if batch.labels is not None and not network.loss.classifies:
                found.error += float(abs(p[:, 0] - batch.labels).sum())
            elif batch.labels is not None:
                found.agreeing += int((labels_of(network, p) == batch.labels).sum())
            progress.advance(task, len(p))
    finally:
        if progress.live.is_started:  # it would write an empty line
            progress.stop()
    if parts:
        found.probabilities, found.inverted = np.concatenate(parts), np.concatenate(inverted)
        if network.loss.classifies:
            found.labels = labels_of(network, found.probabilities)
    if len(found.failed) > _LINES:
        fail(f"{len(found.failed) - _LINES:,} more files cannot be read")
    return found


def _batches(
    network: Network,
    sources: Sequence[Path],
    found: Answered,
    options: _Options,
    expect: Any,
) -> Iterator[_Batch]:
    for source in sources:
        if not is_collection(source):
            _refuse_other_forms(source)
            files = sorted(image_files(source)) if source.is_dir() else [source]
            if not files:
                raise DataError(f"{source}: holds no files; expected images")
            expect(len(files))
            yield from _of_files(network, files, found, options.invert)
            continue
        loaded = _load(network, source, options)
        found.notes += loaded.notes
        expect(len(loaded.x))
        if loaded.x.dtype.kind == "f":
            with warnings.catch_warnings():  # of its scale, which is reported with the first batch
                warnings.simplefilter("ignore")
                network.check_images(loaded.x)  # a message names the place in the whole
        labels = None
        if loaded.labels is not None:
            labels, why = _labels(network, loaded.labels, options.class_names)
            found.notes += [why] if why else []
        place = f"{source}:" if len(sources) > 1 else ""
        for error, name in zip(loaded.errors, loaded.failed, strict=True):
            found.failed.append((place + name, name))
            if len(found.failed) <= _LINES:
                fail(str(error))
        step = _step(network)
        for start in range(0, len(loaded.x), step):
            part = slice(start, start + step)
            names = loaded.names[part]
            yield _Batch(
                [place + name for name in names],
                [""] * len(names),
                [str(int(n) + 1) for n in names] if loaded.numbered else names,
                loaded.x[part],
                None if labels is None else labels[part],
            )


def _refuse_other_forms(source: Path) -> None:
    """Raise DataError where a source holds images in files that are not images themselves."""
    folder = source.is_dir()
    if source.suffix.lower() == ".parquet" or (folder and find_parquet(source)):
        raise DataError(
            f"{source}: Parquet files hold labelled images, which fullback eval --data tests on; "
            "predict takes image files, folders of them, arrays and tables"
        )
    if folder and (found := find_idx_files(source)):
        raise DataError(
            f"{source}: holds IDX files; give one with images, such as {min(found.values())}"
        )


def _load(network: Network, source: Path, options: _Options) -> LoadedImages:
    """Load a source of many images, with the model's own label column where the table has it."""

    def load(column: str | int | None) -> LoadedImages:
        return load_images(
            source,
            network.input_shape,  # type: ignore[arg-type]  # which load_images checks
            resize=network.data_options.get("resize", "stretch"),
            invert=options.invert,
            label_column=column,
            image_folder=options.image_folder,
            trained_on=network.trained_on,
        )

    known = network.data_options.get("label_column")
    if options.label_column is None and isinstance(known, str) and is_table(source):
        with contextlib.suppress(OptionError, DataError):  # a table without labels
            return load(known)
    return load(options.label_column)


def _labels(
    network: Network, given: NDArray[Any], class_names: Sequence[str]
) -> tuple[NDArray[Any] | None, str]:
    """Return labels as the network's, or what to say where they cannot be compared."""
    if network.loss.classifies:
        return labels_from(network, given, class_names)
    if network.output_shape != (1,) or given.dtype.kind not in "iuf":
        return None, "the data's labels are not compared: they are not what the model answers"
    return given.astype(np.float64), ""


def _of_files(
    network: Network,
    files: Sequence[Path],
    found: Answered,
    invert: bool,
) -> Iterator[_Batch]:
    step = _step(network)
    for start in range(0, len(files), step):
        read = []
        for path in files[start : start + step]:
            try:
                read.append((path, load_image_for(network, path, invert=invert)))
            except DataError as error:
                found.failed.append((str(path), path.stem))
                if len(found.failed) <= _LINES:
                    fail(str(error))
        # uint8 pixels and those of 16-bit files, which are floats, must not be stacked.
        for _, run in groupby(read, lambda image: image[1].pixels.dtype):
            alike = list(run)
            yield _Batch(
                [str(path) for path, _ in alike],
                [f"{image.mode} {image.size[0]}x{image.size[1]}" for _, image in alike],
                [path.stem for path, _ in alike],
                np.stack([image.pixels for _, image in alike]),
            )


def _step(network: Network) -> int:
    """Return how many images are taken at a time."""
    return max(1, min(AT_ONCE, _BYTES // (4 * int(np.prod(network.input_shape)))))


def hint_at_invert(found: Answered, record: ImageRecord | None, *, invert: bool) -> str | None:
    """Return what to say where images seem to have dark and light swapped; None where none do."""
    count = int(found.inverted.sum())
    if not count or record is None:
        return None
    trained, here = brightness_words(record)
    if count == 1:
        what = f"{found.names[int(found.inverted.argmax())]} is {here}"
    elif count == len(found.names):
        what = f"all {count:,} images are {here}"
    else:
        first = found.names[int(found.inverted.argmax())]
        what = f"{count:,} of {len(found.names):,} images are {here} ({first}, ...)"
    advice = "leave --invert out" if invert else "try --invert, which swaps dark and light"
    inverted = " with --invert" if invert else ""
    return f"{what}{inverted}, but the model was trained on images that are {trained}; {advice}"
