"""``fullback data``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli.arguments import (
    DataDirOption,
    ImageFolderOption,
    ImageSizeOption,
    JsonOption,
    LabelColumnOption,
    ResizeName,
    ResizeOption,
    SplitSeedOption,
    TestShareOption,
    image_shape,
    load_dataset,
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
    from fullback.data.describe import Description

_LISTED = 8


@one_line_errors
def data(
    source: Annotated[
        str,
        typer.Argument(help="What --data of other commands takes.", metavar="NAME|PATH"),
    ] = "digits",
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    resize: ResizeOption = ResizeName.stretch,
    test_share: TestShareOption = None,
    split_seed: SplitSeedOption = None,
    label_column: LabelColumnOption = None,
    image_folder: ImageFolderOption = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write a picture of some images, a row a class, to this PNG file.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help='Draw views of the images: "shift=2 rotate=10", see train.',
            metavar="OPTIONS",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a data set: its classes, sizes and pixels, and what is suspicious in it.

    Suspicious are classes without images, images of one colour alone, images that are there twice
    (with the same label, or another one), and test images that are among the training images.
    """
    from fullback.augment import Augment
    from fullback.data.describe import describe

    output = Output(as_json=as_json)
    if augment is not None and sheet is None:
        raise OptionError("--augment goes with --sheet FILE, which draws the views")
    views = None if augment is None else Augment.parse(augment)
    dataset = load_dataset(
        source,
        data_dir,
        image_shape(image_size),
        resize.value,
        test_share,
        split_seed,
        label_column=label_column,
        image_folder=image_folder,
    )
    found = describe(dataset)
    output.event(
        "data",
        data=dataset.name,
        image_shape=dataset.image_shape,
        dtype=str(dataset.x_train.dtype),
        class_names=dataset.class_names,
        train_counts=found.train.counts.tolist(),
        test_counts=found.test.counts.tolist(),
        low=min(found.train.low, found.test.low),
        high=max(found.train.high, found.test.high),
        mean=found.train.mean,
        blank={"train": found.train.blank, "test": found.test.blank},
        repeated={"train": found.train.repeated, "test": found.test.repeated},
        contradicted={"train": found.train.contradicted, "test": found.test.contradicted},
        test_images_in_training=found.shared,
    )
    shape = " x ".join(map(str, dataset.image_shape))
    output.fact("data", f"{dataset.name}, {dataset.x_train.dtype} images of {shape}")
    for note in dataset.notes:
        output.fact("", note)
    output.fact(
        "pixels",
        f"from {min(found.train.low, found.test.low):g} to "
        f"{max(found.train.high, found.test.high):g}, {found.train.mean:.4g} on average",
    )
    output.show("", _classes(dataset, found))
    for line in _suspicious(dataset, found):
        output.fact("look at", line)
    if not found.suspicious:
        output.fact("suspicious", "nothing")
    if sheet is not None:
        _write_sheet(dataset, sheet, views)
        output.fact("written", str(sheet))


def _classes(dataset: Dataset, found: Description) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", style="bold", overflow="fold")
    for column in ("training images", "share", "test images", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    sums = found.train.counts.sum(), found.test.counts.sum()
    counts = zip(dataset.class_names, found.train.counts, found.test.counts, strict=True)
    for name, train, test in counts:
        table.add_row(
            Text(printable(name)),
            f"{train:,}",
            f"{train / sums[0]:.1%}",
            f"{test:,}",
            f"{test / sums[1]:.1%}",
        )
    table.add_section()
    table.add_row("all", f"{sums[0]:,}", "", f"{sums[1]:,}", "")
    return table


def _suspicious(dataset: Dataset, found: Description) -> list[str]:
    lines = []
    for word, part in (("training", found.train), ("test", found.test)):
        empty = [dataset.class_names[n] for n, count in enumerate(part.counts) if not count]
        for what, places in (
            (f"{word} images of one colour alone", part.blank),
            (f"{word} images that another one equals", part.repeated),
            (f"of them with another label than that one's, in {word}", part.contradicted),
            (f"classes without {word} images", empty),
        ):
            if places:
                lines.append(f"{len(places):,} {what}: {_some(places)}")
    if found.shared:
        count = len(found.shared)
        lines.append(f"{count:,} test images that are training images, too: {_some(found.shared)}")
    return lines


def _some(places: list[int] | list[str]) -> str:
    more = ", ..." if len(places) > _LISTED else ""
    return ", ".join(map(str, places[:_LISTED])) + more


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
