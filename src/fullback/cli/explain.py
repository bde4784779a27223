"""``fullback explain``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullback.cli import options
from fullback.cli.inputs import load_dataset_for, open_classifier
from fullback.cli.models import (
    label_of,
    labels_by_name,
    name_classes,
    split_model,
)
from fullback.cli.output import Output, one_line_errors, printable, warn
from fullback.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fullback.data import Dataset
    from fullback.network import Network

_SURE = 0.999  # the probability of the label from which on deltas say nothing


@dataclass(frozen=True, eq=False)
class _Shown:
    """An image (C, H, W), what to call it, and the label to explain, with why it is that."""

    pixels: NDArray[Any]
    name: str
    title: str
    label: int
    why: str


ImageArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="An image file, of any format; a model may come first.",
        metavar="[MODEL] [IMAGE]",
        show_default="the test image of --data that the model gets most wrong",
    ),
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        help="What is on the image: the name of its class, or else its number.",
        metavar="CLASS",
        show_default="what the model says, or the data",
    ),
]
WrongDataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Without an image: show the test image of this data that the model gets most wrong.",
        metavar="NAME|PATH",
        show_default=False,
    ),
]
PageOption = Annotated[
    Path, typer.Option("--out", "-o", help="Where the page goes.", metavar="HTML")
]


@one_line_errors
def explain(
    image: ImageArgument = None,
    model: options.ModelOption = None,
    label: LabelOption = None,
    data: WrongDataOption = None,
    data_dir: options.DataDirOption = None,
    label_column: options.LabelColumnOption = None,
    image_folder: options.ImageFolderOption = None,
    class_names: options.ClassNamesOption = None,
    out: PageOption = Path("report.html"),
    invert: options.InvertOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Write the backward pass of an image as a page to look at.

    One HTML file that needs no server and no network: each layer's maps and their deltas, the
    filters and their gradients, and of every number where it comes from. It is the pass of a
    training step on this image with this label. Of an image that the model is sure of there is
    little to see: its deltas are almost 0. Choose one that it gets wrong, or another label.
    """
    from fullback.atomic import check_writable

    path, images = split_model(image or [], model)
    if len(images) > 1:
        raise OptionError(f"one image is explained at a time, but {len(images)} are given")
    if bool(images) == (data is not None):
        raise OptionError(
            "give an image file, or --data NAME for the test image that the model gets most wrong"
            + (", not both" if images else "")
        )
    if images and (label_column, image_folder, data_dir) != (None,) * 3:
        raise OptionError("--label-column, --image-folder and --data-dir go with --data")
    if invert and not images:
        raise OptionError("--invert is for image files; leave it out with --data")
    if out.suffix.lower() == ".safetensors":
        raise OptionError(f"--out writes an HTML page, got {out}")
    network = open_classifier(path)
    check_writable(out)
    numbers = name_classes(network, class_names)
    wanted = None if label is None else label_of(network, label, "--label")
    if images:
        shown = _of_file(network, images[0], invert=invert)
    else:
        dataset = load_dataset_for(
            network, str(path), str(data), data_dir, label_column, image_folder
        )
        shown = _most_wrong(network, dataset, numbers)
    if wanted is not None:
        shown = dataclasses.replace(shown, label=wanted, why="as --label says")
    _write(Output(as_json=as_json), network, path, shown, out)


def _write(output: Output, network: Network, model: Path, shown: _Shown, out: Path) -> None:
    """Write the page, and say what is on it."""
    from fullback.report.page import explain as write
    from fullback.threshold import answers

    names, label = network.answer_names, shown.label
    p = network.predict_proba(shown.pixels[None])[0]
    predicted = int(answers(p[None], network.threshold)[0])
    title = f"The backward pass of {printable(shown.title)}"
    write(network, shown.pixels, label, out, classes=[*map(printable, names)], title=title)
    if p[label] > _SURE:
        warn(
            f"the model is {p[label]:.4%} sure of {names[label]}, so that all deltas are almost 0 "
            "and the page shows little; give another class by --label, or --data NAME without an "
            "image for one that it gets wrong"
        )
    output.event(
        "result",
        image=shown.name,
        model=str(model),
        label=label,
        name=printable(names[label]),
        predicted=predicted,
        predicted_name=printable(names[predicted]),
        probability=float(p[predicted]),
        out=str(out),
        bytes=out.stat().st_size,
    )
    output.fact("image", f"{shown.name}: the model says {names[predicted]} ({p[predicted]:.1%})")
    output.fact("label", f"{names[label]} ({p[label]:.1%}), {shown.why}")
    output.fact("model", str(model))
    output.fact("page", f"{out}, {out.stat().st_size / 1024:,.0f} KB; open it in a browser")


def _of_file(network: Network, path: Path, *, invert: bool) -> _Shown:
    """Read an image file, and warn where dark and light seem to be swapped."""
    from fullback.cli.prediction import Answered, hint_at_invert
    from fullback.predicting import load_image_for, looks_inverted

    pixels = load_image_for(network, path, invert=invert).pixels
    looks = looks_inverted(network.trained_on, pixels[None])
    hint = hint_at_invert(Answered([path.name], inverted=looks), network.trained_on, invert=invert)
    if hint is not None:
        warn(hint)
    label = int(network.predict(pixels[None])[0])
    return _Shown(pixels, str(path), path.name, label, "as the model says, for want of --label")


def _most_wrong(network: Network, dataset: Dataset, numbers: tuple[str, ...]) -> _Shown:
    """Return the test image whose label has the least probability; wrong ones come first."""
    import numpy as np

    from fullback.metrics import most_wrong

    labels = labels_by_name(network, dataset.name, dataset.class_names, dataset.y_test, numbers)
    p = network.predict_proba(dataset.x_test)
    wrong = most_wrong(labels, p, network.threshold)
    if wrong:
        place = wrong[0]
        why = f"the most wrong of {len(wrong):,} wrong answers to {len(labels):,} test images"
    else:
        place = int(p[np.arange(len(labels)), labels].argmin())
        why = f"the least sure of {len(labels):,} right answers; none is wrong"
    name = f"test image {place} of {dataset.name}"
    return _Shown(np.asarray(dataset.x_test[place]), name, name, int(labels[place]), why)
