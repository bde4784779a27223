"""``fullback train``."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli.arguments import (
    DataDirOption,
    DataOption,
    EngineName,
    EngineOption,
    ImageSizeOption,
    JsonOption,
    build,
    image_shape,
    load_dataset,
)
from fullback.cli.interrupt import INTERRUPTED, raise_on_ctrl_c
from fullback.cli.options import started_with, take_config, take_resumed
from fullback.cli.output import Output, one_line_errors
from fullback.cli.run_folder import RunFolder
from fullback.errors import DivergenceError, OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.cli.results import Answers
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
    warm_cosine = "warm_cosine"


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """What is trained, and how: the same whole and with its filters frozen."""

    net: str
    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: ScheduleName
    seed: int
    engine: EngineName


@one_line_errors
def train(
    context: typer.Context,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
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
            show_default="0.05 for sgd, 0.001 for adam and adamw",
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            help="Share of the last step that goes on (Nesterov's way), for sgd only.",
            metavar="SHARE",
            show_default="0.9",
        ),
    ] = None,
    schedule: Annotated[
        ScheduleName,
        typer.Option(
            help="The learning rate: **constant**; **cosine**, down to 0; or **warm_cosine**, up "
            "over the first three tenths of the run and then down to 0.",
            metavar="NAME",
        ),
    ] = ScheduleName.warm_cosine,
    engine: EngineOption = EngineName.lanes,
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
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to save the model.",
            metavar="FILE",
            show_default="model.safetensors, of a run in its folder",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Keep the run in this folder: options, figures, a checkpoint after every epoch, "
            "the model and its result.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this folder after its last finished epoch; it ends with "
            "the weights that it would have had without the interruption.",
            metavar="FOLDER",
            show_default=False,
            callback=take_resumed,
            is_eager=True,
        ),
    ] = None,
    config: Annotated[  # noqa: ARG001 -- its callback has read it
        Path | None,
        typer.Option(
            help="Take options from a TOML file, like the config.toml of a run; those on the "
            "command line come first.",
            metavar="FILE",
            show_default=False,
            callback=take_config,
            is_eager=True,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network, test it and save it.

    Without options: the network of two conv-ReLU-pool stages with one 3x3 filter each and two
    dense layers, on the built-in digits; once whole, and once with its filters frozen.
    """
    from fullback.atomic import check_writable
    from fullback.training.fit import check_options

    output = Output(as_json=as_json)
    chosen = _optimizer(optimizer, lr, momentum)
    kept_in = run or resume
    folder = RunFolder(kept_in) if kept_in else None
    if out is None:
        out = Path("model.safetensors") if folder is None else folder.model
    if folder is None:
        check_writable(out)
    shape = image_shape(image_size)
    dataset = load_dataset(data, data_dir, shape)
    if shape is not None and dataset.image_shape[-len(shape) :] != shape:
        raise OptionError(
            f"--image-size goes with folders of images and CSV files; {dataset.name} has images of "
            f"{' x '.join(map(str, dataset.image_shape))}"
        )
    if epochs is None:
        epochs = max(5, round(_IMAGES_TO_SEE / len(dataset.x_train)))
    if batch_size is None:
        batch_size = min(64, len(dataset.x_train))
    if compare is None:
        compare = folder is None and data == "digits" and net == "question" and not freeze
    recipe = _Recipe(net, epochs, batch_size, chosen, schedule, seed, engine)
    network = build(net, dataset.image_shape, dataset.classes, seed)
    network.freeze(*(freeze or []))
    if network.output_shape[0] < dataset.classes:
        raise OptionError(
            f"the network has {network.output_shape[0]} outputs, but {dataset.name} has "
            f"{dataset.classes} classes; end it with dense{dataset.classes}"
        )
    twin = _with_frozen_filters(network, recipe, dataset) if compare else None
    check_options(network, len(dataset.x_train), epochs, batch_size, chosen, seed)

    raise_on_ctrl_c()  # which ends training, and what was learned is saved
    with folder or contextlib.nullcontext():
        if folder is not None:
            folder.begin(started_with(context))
        _train_one(output, network, dataset, recipe, out, folder, twin)


def _train_one(
    output: Output,
    network: Network,
    dataset: Dataset,
    recipe: _Recipe,
    out: Path,
    folder: RunFolder | None,
    twin: Network | None,
) -> None:
    """Train the network, test it and save it; then its twin with frozen filters, if any."""
    from fullback.cli.results import show_answers, take_test

    _announce(output, network, dataset, recipe)
    start = time.perf_counter()
    history = _run_and_save(output, network, dataset, recipe, out, folder)
    seconds = time.perf_counter() - start
    answers = take_test(network, dataset.x_test, dataset.y_test)
    output.event(
        "result",
        test_accuracy=answers.accuracy,
        test_loss=answers.loss,
        epochs=len(history),
        interrupted=history.interrupted,
        seconds=seconds,
        model=str(out),
    )
    if folder is not None and not history.interrupted:
        folder.write_result(
            test_accuracy=answers.accuracy, test_loss=answers.loss, epochs=len(history)
        )
    output.show("")
    show_answers(output, answers, dataset.class_names)
    output.show("")
    output.fact("saved", f"{out} ({out.stat().st_size / 1000:,.1f} kB)")
    if history.interrupted:
        if folder is not None:
            output.fact("to go on", f"fullback train --resume {folder.path}")
        raise typer.Exit(INTERRUPTED)
    if twin is not None:
        output.show("")
        output.fact("again", "the same network from the same seed, its filters frozen")
        if _run(output, twin, dataset, recipe, comparison=True).interrupted:
            raise typer.Exit(INTERRUPTED)
        frozen = take_test(twin, dataset.x_test, dataset.y_test)
        output.event(
            "comparison",
            test_accuracy=answers.accuracy,
            frozen_test_accuracy=frozen.accuracy,
        )
        output.show("", _comparison(answers, frozen))


def _announce(output: Output, network: Network, dataset: Dataset, recipe: _Recipe) -> None:
    """Say what is about to be trained, on what, and how."""
    from fullback.summary import summary_table

    output.event(
        "start",
        data=dataset.name,
        training_images=len(dataset.x_train),
        test_images=len(dataset.x_test),
        net=recipe.net,
        parameters=sum(array.size for array in network.parameters.values()),
        frozen=sorted(network.frozen),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=repr(recipe.optimizer),
        schedule=recipe.schedule.value,
        seed=recipe.seed,
        engine=recipe.engine.value,
    )
    shape = " x ".join(map(str, dataset.image_shape))
    output.fact(
        "data",
        f"{dataset.name}: {len(dataset.x_train):,} training and {len(dataset.x_test):,} test "
        f"images of {shape}, {dataset.classes} classes",
    )
    output.fact("network", f"{recipe.net}, seed {recipe.seed}")
    output.show(summary_table(network))
    output.fact(
        "training",
        f"{recipe.epochs} epochs in batches of {recipe.batch_size}, {recipe.optimizer}, "
        f"{recipe.schedule.value} rate",
    )


def _run_and_save(
    output: Output,
    network: Network,
    dataset: Dataset,
    recipe: _Recipe,
    out: Path,
    folder: RunFolder | None,
) -> History:
    """Train the network and save it, also where an epoch is finished and the next one fails."""
    from fullback.export.safetensors import save

    try:
        history = _run(output, network, dataset, recipe, comparison=False, folder=folder)
    except DivergenceError as error:
        if error.epochs:
            save(network, out)
            raise DivergenceError(f"{error}; it is saved as {out}", error.epochs) from None
        raise
    except BrokenPipeError:  # nobody reads on, but what was learned is kept
        save(network, out)
        raise
    save(network, out)
    return history


def _optimizer(name: OptimizerName, lr: float | None, momentum: float | None) -> Optimizer:
    from fullback.training.optimizers import OPTIMIZERS, SGD

    if name is OptimizerName.sgd:
        momentum = 0.9 if momentum is None else momentum
        return SGD(0.05 if lr is None else lr, momentum=momentum, nesterov=momentum > 0)
    if momentum is not None:
        raise OptionError(f"--momentum goes with sgd, not with {name.value}")
    return OPTIMIZERS[name.value](0.001 if lr is None else lr)


def _with_frozen_filters(network: Network, recipe: _Recipe, dataset: Dataset) -> Network:
    """Return the same network with all its filters frozen, for the comparison."""
    named = zip(network.names, network.layers, strict=True)
    filters = {name for name, layer in named if layer.kind == "conv"}
    if not filters - network.frozen:
        raise OptionError("--compare needs filters that are trained, and the network has none")
    twin = build(recipe.net, dataset.image_shape, dataset.classes, recipe.seed)
    twin.freeze(*filters, *network.frozen)
    if not twin.trainable():
        raise OptionError("--compare needs layers to train beside the filters, and there are none")
    return twin


def _run(
    output: Output,
    network: Network,
    dataset: Dataset,
    recipe: _Recipe,
    *,
    comparison: bool,
    folder: RunFolder | None = None,
) -> History:
    from fullback.training.fit import fit
    from fullback.training.schedules import SCHEDULES

    epochs = [] if folder is None else folder.epochs()

    def report(epoch: Epoch) -> None:
        epochs.append(epoch)
        if folder is not None:
            folder.write_history(epochs)
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
        engine=recipe.engine.value,
        checkpoint=None if folder is None else folder.checkpoint,
        verbose=output.progress,
    )


def _comparison(trained: Answers, frozen: Answers) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("filters", style="bold")
    table.add_column("test accuracy", justify="right")
    table.add_column("wrong", justify="right")
    for name, result in (("trained", trained), ("frozen", frozen)):
        table.add_row(name, f"{result.accuracy:.2%}", f"{len(result.labels) - result.right:,}")
    return table
