"""The picture of one image's backward pass as a file of its own."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fullback.atomic import check_writable, write_atomically
from fullback.report.document import document

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fullback.network import Network

# In the order in which they need each other; their top-level names are all different.
SCRIPTS = (
    *("arrays", "elements", "words", "terms", "forward", "backward", "gradients", "origins"),
    *("noise", "tiles", "columns", "answers", "picture", "windows", "panel", "stepper"),
    *("view", "report"),
)


def explain(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    title: str | None = None,
) -> None:
    """Write the whole backward pass of one image as an HTML file to look at and click through.

    The file holds everything it needs: no server, no network. It shows each layer's maps and their
    deltas, the filters and their gradients, and of every number the formula and the numbers it is
    made of; and it steps through the program. All numbers are those of ``net.trace(x, y)``, as
    float32.

    Parameters
    ----------
    net : the network
    x : one image, of shape (C, H, W), (1, C, H, W), or (H, W) for one channel; uint8 or float
    y : its label, or its target of shape (outputs,) for MeanSquaredError
    path : where the file goes; it is written whole or not at all
    classes : names of the outputs; without them, the network's own, or else their numbers
    title : the page's heading

    Raises
    ------
    ShapeError, InputError
        It is not one image, or not its label; or the file cannot be written there.
    """
    check_writable(path)
    page = report(document(net, x, y, classes=classes), title=title)
    write_atomically(path, page.encode(errors="backslashreplace"))  # names with lone surrogates


def report(shown: dict[str, Any], *, title: str | None = None) -> str:
    """Return the page of a document."""
    network = shown["network"]
    shape = " x ".join(map(str, network["input_shape"]))
    exactness = "" if network["dtype"] == "float32" else ", rounded from float64"
    about = (
        f"{network['parameter_count']:,} parameters, for inputs of {shape}; every number is the "
        f"trace's{exactness}."
    )
    parts = {
        "title": html.escape(title or "The backward pass of one image"),
        "about": html.escape(about),
        "style": page_file("style.css"),
        "document": json.dumps(shown, allow_nan=False).replace("<", "\\u003c"),
        "script": one_script(SCRIPTS),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page_file("report.html"))


def page_file(name: str) -> str:
    """Return the text of one of the page's files."""
    return files("fullback.report").joinpath("web", name).read_text(encoding="utf-8")


def one_script(names: Sequence[str]) -> str:
    """Join modules that import one another into one script, for a page without a server."""
    joined = "\n".join(page_file(f"{name}.js") for name in names)
    joined = re.sub(r'^import [^;]*? from "\./\w+\.js";\n', "", joined, flags=re.MULTILINE)
    return re.sub(r"^export (?=function|class|const)", "", joined, flags=re.MULTILINE)
