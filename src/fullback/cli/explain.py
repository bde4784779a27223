"""``fullback explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fullback.cli.arguments import InvertOption, JsonOption, load_image_for, open_classifier
from fullback.cli.output import Output, one_line_errors


@one_line_errors
def explain(
    image: Annotated[
        Path,
        typer.Argument(help="An image file, of any format.", metavar="IMAGE", show_default=False),
    ],
    model: Annotated[
        Path, typer.Option(help="The saved model that is explained.", metavar="MODEL")
    ] = Path("model.safetensors"),
    label: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="What is on the image: the number of its class.",
            metavar="N",
            show_default="what the model says",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the page goes.", metavar="HTML")
    ] = Path("report.html"),
    invert: InvertOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the backward pass of an image as a page to look at.

    One HTML file that needs no server and no network: each layer's maps and their deltas, the
    filters and their gradients, and of every number where it comes from. It is the pass of a
    training step on this image with this label.
    """
    from fullback.atomic import check_writable
    from fullback.pages.report import explain as write

    output = Output(as_json=as_json)
    network = open_classifier(model)
    check_writable(out)
    pixels = load_image_for(network, image, invert=invert).pixels
    p = network.predict_proba(pixels[None])[0]
    predicted = int(p.argmax())
    shown = predicted if label is None else label
    write(network, pixels, shown, out, title=f"The backward pass of {image.name}")
    output.event(
        "result",
        image=str(image),
        model=str(model),
        label=shown,
        predicted=predicted,
        probability=float(p[predicted]),
        out=str(out),
        bytes=out.stat().st_size,
    )
    given = "" if label is not None else ", taken for the label"
    output.fact("image", f"{image}, predicted {predicted} ({p[predicted]:.1%}){given}")
    output.fact("model", str(model))
    output.fact("page", f"{out}, {out.stat().st_size / 1024:,.0f} KB; open it in a browser")
