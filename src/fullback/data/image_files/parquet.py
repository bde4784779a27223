"""Parquet files with encoded images, the form in which the Hugging Face hub keeps them."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fullback.data.dataset import MAX_LABEL, Dataset
from fullback.data.files import open_data
from fullback.data.image_files.image_parts import Part, read_parts
from fullback.data.image_files.image_sizes import LOOKED_AT
from fullback.data.image_files.many_images import Item
from fullback.data.options import ReadOptions
from fullback.data.split import from_file
from fullback.errors import DataError, FullbackWarning

_AT_ONCE = 16  # rows that are read at a time: a file may keep one that is repeated only once
_BYTES = 2**25  # that the rows are to take together, as far as the file says how large they are
_BUFFER = 2**20  # bytes of a column that are in memory
_LISTED = 10  # of the files that are not used
_TEST, _VALIDATION = ("test",), ("validation", "valid", "val")
_LABELS = ("label", "labels", "class", "fine_label")


def find_parquet(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder, or in the folder data in it."""
    found = [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]
    return sorted(path for path in found if path.is_file())


def load_parquet(
    files: Sequence[Path],
    source: Path,
    options: ReadOptions,
) -> Dataset:
    """Load images from Parquet files; the extra ``parquet`` brings what reads them.

    Parameters
    ----------
    files : of one data set. Where names begin with train, those that begin with test are for
        testing and those that begin with validation are for validation, or for testing where there
        are no test files; else a fixed fifth of each class is kept for testing
    source : what to call them
    options : as for ``load_image_folder``

    A file has a column of encoded images (bytes, or a struct with the field "bytes") and a column
    of whole numbers or of texts called label. Class names come from the hub's metadata, where it is
    there; texts are class names, which are sorted.

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
    parts, notes = _parts(files, source)
    used = [path for part in parts for path in part]
    unused = [path for path in files if path not in used]
    if unused:
        warnings.warn(
            f"left out: {', '.join(path.name for path in unused[:_LISTED])}, of {len(files):,} "
            "Parquet files; names begin with train, test and validation, or with none of them",
            FullbackWarning,
            stacklevel=5,
        )
    parts = [[path for path in part if _count([path])] or part for part in parts]
    texts = _texts(parts[0])
    known = {text: number for number, text in enumerate(texts)}
    counted = [Part(str(part[0]), _count(part), _items(part, known)) for part in parts]
    sample = (file for file, _, _ in itertools.islice(_items(parts[0], known), LOOKED_AT))
    pairs, more = read_parts(str(source), counted, sample, options)
    name = source.resolve().name.removesuffix(".parquet")
    names = texts or _class_names(parts[0][0])
    return from_file(
        source,
        name,
        *pairs,
        class_names=names,
        notes=(*notes, *more),
        how=options.how,
        store=options.store,
    )


def _parts(files: Sequence[Path], source: Path) -> tuple[list[Sequence[Path]], tuple[str, ...]]:
    """Return the files of each part, for training first, and a line about what was chosen."""
    train, test, val = (
        [path for path in files if path.name.startswith(names)]
        for names in (("train",), _TEST, _VALIDATION)
    )
    rest = [path for path in files if path not in (*train, *test, *val)]
    if train and test:
        return [train, test, val] if val else [train, test], ()
    if train and val:
        note = "the validation files are the test images, as no file's name begins with test"
        return [train, val], (note,)
    if len(files) > 1 and not train and not rest:
        raise DataError(f"{source}: has files for testing, but none whose name begins with train")
    return [train or rest or list(files)], ()


def _count(files: Sequence[Path]) -> int:
    """Return how many rows some files say that they have."""
    count = 0
    for path in files:
        with _opened(path) as file:
            count += max(0, int(file.metadata.num_rows))
    return count


def _items(files: Sequence[Path], known: Mapping[str, int]) -> Iterator[Item]:
    """Yield the images of some files, with their labels; of texts, with their numbers."""
    for path in files:
        for number, (encoded, label) in enumerate(_rows(path)):
            if isinstance(label, str):
                usable = known.get(label, -1)
                if usable < 0:
                    raise DataError(
                        f"{path}: image {number} has the label {label[:80]!r}, which no training "
                        "image has; take it out"
                    )
            else:
                fits = not known and label in range(MAX_LABEL + 1)
                usable = label if fits else -1  # which is refused later
            yield io.BytesIO(encoded), f"{path}: image {number}", usable


def _texts(files: Sequence[Path]) -> tuple[str, ...]:
    """Return the different labels of some files, sorted, where they are texts; else nothing."""
    found: set[str] = set()
    for path in files:
        with _opened(path) as file:
            _, label = _columns(path, file.schema_arrow)
            if not _is_text(file.schema_arrow.field(label).type):
                continue
            for batch in file.iter_batches(2**16, columns=[label]):
                found.update(text for text in batch[0].unique().to_pylist() if text is not None)
                if len(found) > MAX_LABEL + 1:
                    raise DataError(
                        f"{path}: column {label} has more than {MAX_LABEL + 1:,} different texts; "
                        "expected the names of classes"
                    )
    return tuple(sorted(found))


def _is_text(kind: Any) -> bool:
    """Whether a column is of texts, plain or as pandas keeps its categories."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


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
            # Read by pieces: a column of a row group may be larger than memory.
            yield parquet.ParquetFile(file, buffer_size=_BUFFER)
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

    images: list[str] = []
    labels: list[str] = []
    texts: list[str] = []
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        struct = pa.types.is_struct(field.type)
        if binary or (struct and field.type.get_field_index("bytes") >= 0):
            images.append(field.name)
        elif pa.types.is_integer(field.type):
            labels.append(field.name)
        elif _is_text(field.type):
            texts.append(field.name)
    named = [name for name in _LABELS if name in labels] or labels[: len(labels) == 1]
    named = named or [name for name in _LABELS if name in texts]
    if len(images) != 1 or not named:
        raise DataError(
            f"{path}: has the columns {', '.join(schema.names)[:200]}; expected one of encoded "
            "images, and one of whole numbers, or of texts, called label"
        )
    return images[0], named[0]


def _rows(path: Path) -> Iterator[tuple[bytes, Any]]:
    """Yield the encoded images of a file and their labels."""
    with _opened(path) as file:
        image, label = _columns(path, file.schema_arrow)
        for batch in file.iter_batches(_rows_at_once(file), columns=[image, label]):
            for row in batch.to_pylist():
                encoded = row[image]
                encoded = encoded.get("bytes") if isinstance(encoded, dict) else encoded
                yield encoded or b"", row[label]


def _rows_at_once(file: Any) -> int:
    """Return how many rows to read at a time, by the size that the file says they have."""
    size = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        size = max(size, group.total_byte_size // max(1, group.num_rows))
    return max(1, min(_AT_ONCE, _BYTES // max(1, size)))


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
