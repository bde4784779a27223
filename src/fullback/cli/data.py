"""``fullback data``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullback.cli import options, train_options
from fullback.cli.inputs import (
    check_picture,
    data_options,
    image_shape,
    load_dataset,
    load_unpacked,
)
from fullback.cli.output import Output, one_line_errors, printable
from fullback.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from fullback.augment import Augment
    from fullback.data import Dataset
    from fullback.data.dataset import Images
    from fullback.data.describe import Description, Part

_LISTED = 8
_WORDS = {"train": "training", "val": "validation", "test": "test"}


SourceArgument = Annotated[
    str,
    typer.Argument(help="What --data of other commands takes.", metavar="NAME|PATH"),
]
SheetOption = Annotated[
    Path | None,
    typer.Option(
        help="Write a picture of some images, a row a class, to this PNG file.",
        metavar="FILE",
        show_default=False,
    ),
]
UnpackOption = Annotated[
    Path | None,
    typer.Option(
        help="Write the images to this folder, once, as files that **--data** of other commands "
        "takes and that are trained on from the disk: for what does not fit into memory. The data "
        "is not described then.",
        metavar="FOLDER",
        show_default=False,
    ),
]
ViewsOption = Annotated[
    str | None,
    typer.Option(
        help='Draw views of the images: "shift=2 rotate=10", see train.',
        metavar="OPTIONS",
        show_default=False,
    ),
]


@one_line_errors
def data(
    source: SourceArgument = "digits",
    data_dir: options.DataDirOption = None,
    image_size: options.ImageSizeOption = None,
    resize: options.ResizeOption = "stretch",
    nested: options.NestedOption = False,
    test_share: options.TestShareOption = None,
    split_seed: options.SplitSeedOption = None,
    label_column: options.LabelColumnOption = None,
    image_folder: options.ImageFolderOption = None,
    unpack: UnpackOption = None,
    sheet: SheetOption = None,
    augment: ViewsOption = None,
    regression: train_options.RegressionOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Describe a data set: its classes, sizes and pixels, and what is suspicious in it.

    Suspicious are classes without images or with nearly the same name, images that are all dark or
    very small, images of one colour alone, images that are there twice (with the same label, or
    another one), and test images that are among the training images.
    """
    from fullback.augment import Augment
    from fullback.data.describe import describe

    output = Output(as_json=as_json)
    if augment is not None and sheet is None:
        raise OptionError("--augment goes with --sheet FILE, which draws the views")
    if sheet is not None:
        check_picture(sheet, "--sheet")
    views = None if augment is None else Augment.parse(augment)
    reading = {
        **data_options(resize, test_share, split_seed, label_column, nested=nested),
        "image_folder": image_folder,
        "numbers": regression,
    }
    if unpack is not None:
        if sheet is not None:
            raise OptionError("--unpack goes without --sheet; give --sheet for the folder then")
        _unpack(output, source, data_dir, image_shape(image_size), unpack, reading)
        return
    dataset = load_dataset(source, data_dir, image_shape(image_size), **reading)
    found = describe(dataset, progress=not as_json)
    figures = _figures(dataset, found)
    output.event("data", **figures)
    shape = " x ".join(map(str, dataset.image_shape))
    output.facts(
        "data", f"{dataset.name}, {dataset.x_train.dtype} images of {shape}", dataset.notes
    )
    output.fact("pixels", "from {low:g} to {high:g}, {mean:.4g} on average".format(**figures))
    if dataset.numbers:
        _show_numbers(dataset, output)
    else:
        output.show("", _classes(dataset, found))
    for line in _suspicious(dataset, found):
        output.fact("look at", line)
    if not found.suspicious:
        output.fact("suspicious", "nothing")
    if sheet is not None:
        _write_sheet(dataset, sheet, views)
        output.fact("written", str(sheet))


def _unpack(
    output: Output,
    source: str,
    data_dir: Path | None,
    shape: tuple[int, ...] | None,
    folder: Path,
    reading: dict[str, Any],
) -> None:
    """Write a data set to a folder, and say what is in it."""
    dataset = load_unpacked(folder, source, data_dir, shape, **reading)
    counts = {
        name: len(y)
        for name, y in (
            ("train", dataset.y_train),
            ("val", dataset.y_val),
            ("test", dataset.y_test),
        )
        if y is not None
    }
    size = sum(path.stat().st_size for path in folder.iterdir())
    shape_text = " x ".join(map(str, dataset.image_shape))
    output.event(
        "data",
        data=dataset.name,
        image_shape=dataset.image_shape,
        dtype=str(dataset.x_train.dtype),
        class_names=dataset.class_names,
        notes=dataset.notes,
        images=counts,
        written=str(folder),
        bytes=size,
    )
    about = f"{dataset.name}, {dataset.x_train.dtype} images of {shape_text}"
    output.facts("data", about, dataset.notes)
    for name, count in counts.items():
        output.fact(_WORDS[name], f"{count:,} images")
    output.fact("written", f"{folder}, {size / 1e9:,.3g} GB; train on it by --data {folder}")


def _figures(dataset: Dataset, found: Description) -> dict[str, Any]:
    """Return what is written for machines."""
    parts = _parts(found)
    return {
        "data": dataset.name,
        "image_shape": dataset.image_shape,
        "dtype": str(dataset.x_train.dtype),
        "class_names": dataset.class_names,
        "notes": dataset.notes,
        **{f"{name}_counts": part.counts.tolist() for name, part in parts.items()},
        "low": min(part.low for part in parts.values()),
        "high": max(part.high for part in parts.values()),
        "mean": found.train.mean,
        "blank": {name: part.blank for name, part in parts.items()},
        "repeated": {name: part.repeated for name, part in parts.items()},
        "contradicted": {name: part.contradicted for name, part in parts.items()},
        "test_images_in_training": found.shared,
        "validation_images_in_training": found.shared_val,
        "remarks": found.remarks,
    }


def _parts(found: Description) -> dict[str, Part]:
    """Return the parts that a data set has, in the order in which they are shown."""
    parts = {"train": found.train, "val": found.val, "test": found.test}
    return {name: part for name, part in parts.items() if part is not None}


def _show_numbers(dataset: Dataset, output: Output) -> None:
    """Say how many images there are, and what numbers belong to them."""
    for name, y in (("train", dataset.y_train), ("val", dataset.y_val), ("test", dataset.y_test)):
        if y is not None:
            each = f"{dataset.outputs} numbers each" if dataset.outputs > 1 else "numbers"
            output.fact(
                _WORDS[name],
                f"{len(y):,} images, with {each} from {y.min():g} to {y.max():g}, "
                f"{y.mean():.4g} on average",
            )


def _classes(dataset: Dataset, found: Description) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    parts = _parts(found)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", style="bold", overflow="fold")
    images = " images" if len(parts) == 2 else ""  # three parts fit into 80 columns without
    for name in parts:
        for column in (f"{_WORDS[name]}{images}", "share"):
            table.add_column(column, justify="right", no_wrap=True)
    sums = [part.counts.sum() for part in parts.values()]
    for label, name in enumerate(dataset.class_names):
        counts = [part.counts[label] for part in parts.values()]
        cells = [
            cell
            for count, total in zip(counts, sums, strict=True)
            for cell in (f"{count:,}", f"{count / total:.1%}")
        ]
        table.add_row(Text(printable(name)), *cells)
    table.add_section()
    table.add_row("all", *(cell for total in sums for cell in (f"{total:,}", "")))
    return table


def _suspicious(dataset: Dataset, found: Description) -> list[str]:
    from fullback.options import listed

    lines = list(map(printable, found.remarks))
    for name, part in _parts(found).items():
        word = _WORDS[name]
        empty = [dataset.class_names[n] for n, count in enumerate(part.counts) if not count]
        for what, places in (
            (f"{word} images of one colour alone", part.blank),
            (f"{word} images that another one equals", part.repeated),
            (f"of them with another label than that one's, in {word}", part.contradicted),
            (f"classes without {word} images", empty),
        ):
            if places:
                lines.append(f"{len(places):,} {what}: {listed(places, _LISTED)}")
    for word, shared in (("test", found.shared), ("validation", found.shared_val)):
        if shared:
            what = f"{word} images that are training images, too"
            lines.append(f"{len(shared):,} {what}: {listed(shared, _LISTED)}")
    return lines


def _write_sheet(dataset: Dataset, path: Path, views: Augment | None) -> None:
    from PIL import Image

    from fullback.atomic import write_atomically
    from fullback.data.describe import contact_sheet

    def change(images: Images, places: NDArray[np.int64]) -> Images:
        if views is None:
            return images
        shown = views.apply(images, images=places)
        return (
            (255 * shown).round().clip(0, 255).astype(images.dtype)
            if images.dtype == "uint8"
            else shown
        )

    file = io.BytesIO()
    Image.fromarray(contact_sheet(dataset, change)).save(file, "PNG")
    write_atomically(path, file.getvalue())
