"""``fullback train``."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli.arguments import DataDirOption, DataOption, JsonOption, build, open_data
from fullback.cli.output import INTERRUPTED, Output, one_line_errors
from fullback.errors import DivergenceError, LayerError

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.cli.results import TestResult
    from fullback.data import Dataset
    from fullback.network import Network
    from fullback.training.history import Epoch, History
    from fullback.training.optimizers import Optimizer

_IMAGES_TO_SEE = 60_000  # by default, epochs are as many as show this many images, but at least 5


class OptimizerName(str, Enum):
    """The optimizers that ``--optimizer`` takes."""

    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


class ScheduleName(str, Enum):
    """The schedules that ``--schedule`` takes."""

    constant = "constant"
    cosine = "cosine"


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """How a network is trained: the same way whole and with its filters frozen."""

    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: ScheduleName
    seed: int


@one_line_errors
def train(
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    net: Annotated[
        str,
        typer.Option(
            help="**question**, **lenet1**, **lenet5**, **small**, **wide**, or layers: "
            '"conv8 relu pool conv16 relu pool flatten dense10".',
            metavar="NAME|LAYERS",
        ),
    ] = "question",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Passes over the training images.",
            metavar="N",
            show_default="as many as show 60,000 images, at least 5",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images a step.",
            metavar="N",
            show_default="64, or all where there are fewer",
        ),
    ] = None,
    optimizer: Annotated[
        OptimizerName,
        typer.Option(help="How a step is made: **sgd**, **adam** or **adamw**.", metavar="NAME"),
    ] = OptimizerName.sgd,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate.",
            metavar="RATE",
            show_default="0.01 for sgd, 0.001 for adam and adamw",
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            help="Share of the last step that goes on, for sgd only.",
            metavar="SHARE",
            show_default="0.9",
        ),
    ] = None,
    schedule: Annotated[
        ScheduleName,
        typer.Option(
            help="Whether the learning rate goes down to 0 (**cosine**) or stays (**constant**).",
            metavar="NAME",
        ),
    ] = ScheduleName.cosine,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            help="Layers to leave untrained, by kind (conv) or name (conv1); may be repeated.",
            metavar="LAYER",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        bool | None,
        typer.Option(
            "--compare/--no-compare",
            help="Then train the same network with its filters frozen, and show both accuracies.",
            show_default="where neither --data, --net nor --freeze is given",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, help="Fixes the initial weights and the order of the images.", metavar="N"
        ),
    ] = 0,
    out: Annotated[Path, typer.Option(help="Where to save the model.", metavar="FILE")] = Path(
        "model.safetensors"
    ),
    as_json: JsonOption = False,
) -> None:
    """Train a network, test it and save it.

    Without options: the network of two conv-ReLU-pool stages with one 3x3 filter each and two
    dense layers, on the built-in digits; once whole, and once with its filters frozen.
    """
    from fullback.atomic import check_writable
    from fullback.cli.results import show_result, test
    from fullback.export.safetensors import save
    from fullback.summary import summary_table

    output = Output(as_json=as_json)
    chosen = _optimizer(optimizer, lr, momentum)
    check_writable(out)
    dataset = open_data(data, data_dir)
    if epochs is None:
        epochs = max(5, round(_IMAGES_TO_SEE / len(dataset.x_train)))
    if batch_size is None:
        batch_size = min(64, len(dataset.x_train))
    if compare is None:
        compare = data == "digits" and net == "question" and not freeze
    recipe = _Recipe(epochs, batch_size, chosen, schedule, seed)

    network = build(net, dataset.image_shape, dataset.classes, seed)
    network.freeze(*(freeze or []))
    if network.output_shape[0] < dataset.classes:
        raise LayerError(
            f"the network has {network.output_shape[0]} outputs, but {dataset.name} has "
            f"{dataset.classes} classes; end it with dense{dataset.classes}"
        )
    twin = _with_frozen_filters(network, net, seed, dataset) if compare else None
    output.event(
        "start",
        data=dataset.name,
        training_images=len(dataset.x_train),
        test_images=len(dataset.x_test),
        net=net,
        parameters=sum(array.size for array in network.parameters.values()),
        frozen=sorted(network.frozen),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=repr(chosen),
        schedule=schedule.value,
        seed=seed,
    )
    shape = " x ".join(map(str, dataset.image_shape))
    output.fact(
        "data",
        f"{dataset.name}: {len(dataset.x_train):,} training and {len(dataset.x_test):,} test "
        f"images of {shape}, {dataset.classes} classes",
    )
    output.fact("network", f"{net}, seed {seed}")
    output.show(summary_table(network))
    output.fact(
        "training",
        f"{epochs} epochs in batches of {batch_size}, {chosen}, {schedule.value} rate",
    )

    try:
        history = _run(output, network, dataset, recipe, comparison=False)
    except DivergenceError as error:
        if error.epochs:
            save(network, out)
            raise DivergenceError(f"{error}; it is saved as {out}", error.epochs) from None
        raise
    save(network, out)
    result = test(network, dataset.x_test, dataset.y_test)
    output.show("")
    show_result(output, result, dataset.class_names)
    output.show("")
    output.fact("saved", f"{out} ({out.stat().st_size / 1000:,.1f} kB)")

    frozen, interrupted = None, history.interrupted
    if twin is not None and not interrupted:
        output.show("")
        output.fact("again", "the same network from the same seed, its filters frozen")
        interrupted = _run(output, twin, dataset, recipe, comparison=True).interrupted
        if not interrupted:
            frozen = test(twin, dataset.x_test, dataset.y_test)
            output.show("", _comparison(result, frozen))
    output.event(
        "result",
        test_accuracy=result.accuracy,
        test_loss=result.loss,
        frozen_test_accuracy=None if frozen is None else frozen.accuracy,
        epochs=len(history),
        interrupted=interrupted,
        seconds=sum(epoch.seconds for epoch in history),
        model=str(out),
    )
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _optimizer(name: OptimizerName, lr: float | None, momentum: float | None) -> Optimizer:
    from fullback.training.optimizers import OPTIMIZERS, SGD

    if name is OptimizerName.sgd:
        return SGD(0.01 if lr is None else lr, momentum=0.9 if momentum is None else momentum)
    if momentum is not None:
        raise typer.BadParameter(f"--momentum goes with sgd, not with {name.value}")
    return OPTIMIZERS[name.value](0.001 if lr is None else lr)


def _with_frozen_filters(network: Network, net: str, seed: int, dataset: Dataset) -> Network:
    """Return the same network with all its filters frozen, for the comparison."""
    named = zip(network.names, network.layers, strict=True)
    filters = {name for name, layer in named if layer.kind == "conv"}
    if not filters - network.frozen:
        raise LayerError("--compare needs filters that are trained, and the network has none")
    twin = build(net, dataset.image_shape, dataset.classes, seed)
    twin.freeze(*filters, *network.frozen)
    if not twin.trainable():
        raise LayerError("--compare needs layers to train beside the filters, and there are none")
    return twin


def _run(
    output: Output, network: Network, dataset: Dataset, recipe: _Recipe, *, comparison: bool
) -> History:
    from fullback.training.fit import fit
    from fullback.training.schedules import SCHEDULES

    def report(epoch: Epoch) -> None:
        output.event("epoch", comparison=comparison, **dataclasses.asdict(epoch))

    return fit(
        network,
        dataset.x_train,
        dataset.y_train,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        schedule=SCHEDULES[recipe.schedule.value],
        callbacks=[report],
        seed=recipe.seed,
        verbose=output.progress,
    )


def _comparison(trained: TestResult, frozen: TestResult) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("filters", style="bold")
    table.add_column("test accuracy", justify="right")
    table.add_column("wrong", justify="right")
    for name, result in (("trained", trained), ("frozen", frozen)):
        table.add_row(name, f"{result.accuracy:.2%}", f"{len(result.labels) - result.right:,}")
    return table
