"""``fullback rate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fullback.cli import options, train_options
from fullback.cli.inputs import build, check_picture, image_shape, load_dataset
from fullback.cli.output import Output, one_line_errors
from fullback.cli.recipe import chosen_optimizer, default_net


@one_line_errors
def rate(
    data: options.DataOption = "digits",
    data_dir: options.DataDirOption = None,
    image_size: options.ImageSizeOption = None,
    label_column: options.LabelColumnOption = None,
    net: train_options.NetOption = None,
    optimizer: train_options.OptimizerOption = "sgd",
    batch_size: train_options.BatchSizeOption = None,
    steps: Annotated[
        int, typer.Option(min=10, help="Steps from the least rate to the most.", metavar="N")
    ] = 300,
    seed: train_options.SeedOption = 0,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the loss over the rate to this PNG file.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Find a learning rate: train a few steps while it grows, and see where the loss does, too."""
    from fullback.plots import require_matplotlib
    from fullback.training.rate_finder import find_rate

    output = Output(as_json=as_json)
    if plot is not None:
        check_picture(plot, "--plot")
        require_matplotlib()
    dataset = load_dataset(data, data_dir, image_shape(image_size), label_column=label_column)
    net = default_net(data) if net is None else net
    network = build(net, dataset.image_shape, dataset.classes, seed)
    found = find_rate(
        network,
        dataset.x_train,
        dataset.y_train,
        optimizer=chosen_optimizer(optimizer, None, None, None, None),
        batch_size=min(batch_size or 64, len(dataset.x_train)),
        steps=steps,
        seed=seed,
    )
    output.event(
        "result",
        data=dataset.name,
        net=net,
        suggestion=found.suggestion,
        rates=found.rates.tolist(),
        losses=found.losses.tolist(),
    )
    output.fact("data", dataset.name)
    output.fact("network", f"{net}, {optimizer}")
    output.show("", found.table())
    output.fact("suggestion", (f"--lr {found.suggestion:g}", "bold green"))
    if plot is not None:
        from fullback import plots

        plots.write(plots.rates(found), plot)
        output.fact("written", str(plot))
