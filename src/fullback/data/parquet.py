"""Parquet files with encoded images, the form in which the Hugging Face hub keeps them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import MAX_LABEL, Dataset, Split, from_file
from fullback.data.files import MAX_BYTES, open_data
from fullback.data.image_folder import chosen_shape, opened
from fullback.data.images import Resize, check_image_shape, read_image
from fullback.errors import DataError, FullbackWarning

_AT_ONCE = 256  # rows that are read at a time
_LOOKED_AT = 200  # images by which size and colours are chosen
_LISTED = 10  # of the images that cannot be read
_TEST_NAMES = ("test", "validation", "valid", "val")
_LABELS = ("label", "labels", "class", "fine_label")


def find_parquet(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder, or in the folder data in it."""
    found = [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]
    return sorted(path for path in found if path.is_file())


def load_parquet(
    files: Sequence[Path],
    source: Path,
    image_shape: Sequence[int] | None = None,
    *,
    resize: Resize = "stretch",
    how: Split | None = None,
) -> Dataset:
    """Load images from Parquet files; the extra ``parquet`` brings what reads them.

    Parameters
    ----------
    files : of one data set. Those whose names begin with test or validation are for testing where
        others begin with train; else a fixed fifth of each class is kept for testing
    source : what to call them
    image_shape, resize, how : as for ``load_image_folder``

    A file has a column of encoded images (bytes, or a struct with the field "bytes") and a column
    of whole numbers called label. Class names come from the hub's metadata, where it is there.

    Raises
    ------
    DataError
        pyarrow is not installed, a file is damaged or has no such columns, or the images need more
        than 4 GiB.

    Warns
    -----
    FullbackWarning
        Of images that cannot be read, which are left out.
    """
    wanted = None if image_shape is None else check_image_shape(image_shape)
    train, test = _parts(files, source)
    unused = [path for path in files if path not in (*train, *test)]
    if unused:
        warnings.warn(
            f"left out: {', '.join(path.name for path in unused[:_LISTED])}, of {len(files):,} "
            "Parquet files; names begin with train and with test, or with neither",
            FullbackWarning,
            stacklevel=3,
        )
    first = [image for image, _ in _some(_rows(train), _LOOKED_AT)]
    shape, notes = chosen_shape((opened(io.BytesIO(image)) for image in first), wanted, resize)
    if shape is None:
        raise DataError(f"{source}: not one image in it can be read")
    names = _class_names(train[0])
    unread: list[DataError] = []
    pairs = [_read(part, shape, resize, unread) for part in (train, test) if part]
    for error in unread[:_LISTED]:
        warnings.warn(f"left out: {error}", FullbackWarning, stacklevel=3)
    if unread:
        warnings.warn(
            f"{len(unread):,} of the images in {source} cannot be read, and are left out",
            FullbackWarning,
            stacklevel=3,
        )
    name = source.resolve().name.removesuffix(".parquet")
    return from_file(source, name, *pairs, class_names=names, notes=notes, how=how)


def _parts(files: Sequence[Path], source: Path) -> tuple[list[Path], list[Path]]:
    """Return the files for training and for testing."""
    train = [path for path in files if path.name.startswith("train")]
    for name in _TEST_NAMES:
        test = [path for path in files if path.name.startswith(name)]
        if train and test:
            return train, test
    rest = [path for path in files if not path.name.startswith(_TEST_NAMES)]
    if len(files) > 1 and not rest:
        raise DataError(f"{source}: has files for testing, but none whose name begins with train")
    return train or rest or list(files), []


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a Parquet file; whatever goes wrong while it is read becomes a DataError."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet files needs pyarrow; pip install 'fullback[parquet]'"
        ) from None
    with open_data(path, "a Parquet file") as file:
        try:
            yield parquet.ParquetFile(file)
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 -- on damaged files, whatever its reader raises
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{path}: is not an intact Parquet file ({reason}); copy it again"
            ) from None


def _columns(path: Path, schema: Any) -> tuple[str, str]:
    """Return the columns of the images and of the labels."""
    import pyarrow as pa

    images, labels = [], []
    for field in schema:
        binary = pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
        struct = pa.types.is_struct(field.type)
        if binary or (struct and field.type.get_field_index("bytes") >= 0):
            images.append(field.name)
        elif pa.types.is_integer(field.type):
            labels.append(field.name)
    named = [name for name in _LABELS if name in labels] or labels[: len(labels) == 1]
    if len(images) != 1 or not named:
        raise DataError(
            f"{path}: has the columns {', '.join(schema.names)[:200]}; expected one of encoded "
            "images, and one of whole numbers called label"
        )
    return images[0], named[0]


def _rows(files: Sequence[Path]) -> Iterator[tuple[bytes, int]]:
    """Yield the encoded images and their labels."""
    for path in files:
        with _opened(path) as file:
            image, label = _columns(path, file.schema_arrow)
            for batch in file.iter_batches(_AT_ONCE, columns=[image, label]):
                for row in batch.to_pylist():
                    encoded = row[image]
                    encoded = encoded.get("bytes") if isinstance(encoded, dict) else encoded
                    yield encoded or b"", row[label]


def _some(rows: Iterator[tuple[bytes, int]], count: int) -> Iterator[tuple[bytes, int]]:
    for _, row in zip(range(count), rows, strict=False):
        yield row


def _read(
    files: Sequence[Path], shape: tuple[int, int, int], resize: Resize, unread: list[DataError]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Read all images of some files, and note which cannot be read."""
    images: list[NDArray[Any]] = []
    labels: list[int] = []
    most = MAX_BYTES // int(np.prod(shape))
    for number, (encoded, label) in enumerate(_rows(files)):
        if len(images) > most:
            raise DataError(f"{files[0]}: its images need more than {MAX_BYTES:,} bytes")
        name = f"{files[0]}{' and others' if len(files) > 1 else ''}: image {number}"
        try:
            images.append(read_image(io.BytesIO(encoded), name, shape, resize=resize).pixels)
        except DataError as error:
            unread.append(error)
        else:
            labels.append(label if label in range(MAX_LABEL + 1) else -1)  # which is refused later
    if not images:
        raise DataError(f"{files[0]}: not one image in it can be read")
    return np.stack(images), np.array(labels, np.int64)


def _class_names(path: Path) -> tuple[str, ...]:
    """Return the labels' names from the hub's metadata; nothing where they are not there."""
    with _opened(path) as file:
        schema = file.schema_arrow
        _, label = _columns(path, schema)
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = metadata["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if whole else ()
