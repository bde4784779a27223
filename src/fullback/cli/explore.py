"""``fullback explore``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli import options
from fullback.cli.inputs import (
    build,
    image_shape,
    is_model,
    load_dataset,
    load_dataset_for,
    open_classifier,
)
from fullback.cli.interrupt import raise_on_ctrl_c
from fullback.cli.output import Output, one_line_errors
from fullback.errors import DeadUnitWarning

if TYPE_CHECKING:
    from fullback.data import Dataset
    from fullback.network import Network

_IMAGES_TO_SEE = 30_000  # by the network that is trained first; but one epoch at least


NetworkArgument = Annotated[
    str,
    typer.Argument(
        help="A saved model, .safetensors; or a network of the zoo, or layers in text form, "
        "which is trained first.",
        metavar="MODEL|NAME|LAYERS",
    ),
]
PickedDataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="What images are picked from, and networks trained on: as for fullback train. A "
        "model's images are read as it was trained on them.",
        metavar="NAME|PATH",
        show_default="digits",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(min=0, help="Fixes the initial weights of what is trained.", metavar="N"),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Where the page is served; 0 for any that is free.",
        metavar="N",
        show_default="8017, or any that is free",
    ),
]
HostOption = Annotated[
    str,
    typer.Option(
        help="The address to listen at. Only this machine reaches 127.0.0.1; others see "
        "0.0.0.0, and whoever knows the page's address may use it.",
        metavar="ADDRESS",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        help="The secret word in the page's address, of 8 letters at least. With the same word "
        "and --port, links stay good when the command is started again.",
        metavar="TEXT",
        show_default="a random one",
    ),
]
BrowserOption = Annotated[
    bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
]


@one_line_errors
def explore(
    net: NetworkArgument = "question",
    data: PickedDataOption = None,
    data_dir: options.DataDirOption = None,
    image_size: options.ImageSizeOption = None,
    label_column: options.LabelColumnOption = None,
    seed: SeedOption = 0,
    port: PortOption = None,
    host: HostOption = "127.0.0.1",
    token: TokenOption = None,
    browser: BrowserOption = True,
    as_json: options.JsonOption = False,
) -> None:
    """See the backward pass of a network, in a page to touch.

    The network as a picture, with every delta and gradient and where each number comes from;
    drawing, training, and a lab of the mistakes that people make. It works offline.
    """
    from fullback.explorer.launch import explorer, require_installed

    output = Output(as_json=as_json)
    require_installed()
    if is_model(net):
        network = open_classifier(Path(net))
        dataset = _data_for(network, net, data, data_dir, image_shape(image_size), label_column)
    else:
        dataset = load_dataset(
            data or "digits", data_dir, image_shape(image_size), label_column=label_column
        )
        network = _trained(net, dataset, seed, output)
    page = explorer(network, dataset, name=net, host=host, port=port, token=token)
    if not page.access.loopback:
        output.fact("careful", ("whoever knows the address can use the page", "yellow"))
    raise_on_ctrl_c()
    with page:
        output.event("address", address=page.address)
        output.fact("page", (page.address, "bold cyan"), "  (Ctrl-C ends it)")
        if browser:
            import webbrowser

            webbrowser.open(page.address)
        page.wait()
    output.event("end")


def _data_for(
    network: Network,
    model: str,
    data: str | None,
    data_dir: Path | None,
    shape: tuple[int, ...] | None,
    label_column: str | None,
) -> Dataset:
    """Load the data as the model's were read; by default the digits, whether they fit or not."""
    if data is None:
        return load_dataset("digits", data_dir)
    if shape is not None:
        return load_dataset(data, data_dir, shape, label_column=label_column)
    return load_dataset_for(network, model, data, data_dir, label_column)


def _trained(net: str, dataset: Dataset, seed: int, output: Output) -> Network:
    from fullback.training.fit import fit

    network = build(net, dataset.image_shape, dataset.classes, seed)
    epochs = max(1, round(_IMAGES_TO_SEE / len(dataset.x_train)))
    raise_on_ctrl_c()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeadUnitWarning)  # the page shows them
        history = fit(
            network,
            dataset.x_train,
            dataset.y_train,
            epochs=epochs,
            batch_size=min(64, len(dataset.x_train)),
            seed=seed,
            verbose=False,
        )
    accuracy = network.score(dataset.x_test, dataset.y_test)
    seconds = sum(epoch.seconds for epoch in history)
    output.event("trained", net=net, epochs=len(history), test_accuracy=accuracy, seconds=seconds)
    output.fact(
        "network",
        f"{net}, {len(history)} epochs on {dataset.name} in {seconds:.1f} s: ",
        (f"{accuracy:.1%}", "bold green"),
        " of the test images are right",
    )
    return network
