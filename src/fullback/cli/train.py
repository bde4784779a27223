"""``fullback train``."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from importlib.util import find_spec
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
    ResizeName,
    ResizeOption,
    SplitSeedOption,
    TestShareOption,
    data_options,
    image_shape,
    load_dataset,
)
from fullback.cli.interrupt import INTERRUPTED, raise_on_ctrl_c
from fullback.cli.options import started_with, take_config, take_resumed
from fullback.cli.output import Output, one_line_errors
from fullback.cli.recipe import OptimizerName, Recipe, chosen_optimizer, with_frozen_filters
from fullback.cli.run_folder import RunFolder
from fullback.errors import DivergenceError, OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.cli.results import Answers
    from fullback.data import Dataset
    from fullback.network import Network
    from fullback.training.fit import AnyCallback
    from fullback.training.history import Epoch, History

_IMAGES_TO_SEE = 60_000  # by default, epochs are as many as show this many images, but at least 5


@one_line_errors
def train(
    context: typer.Context,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    resize: ResizeOption = ResizeName.stretch,
    test_share: TestShareOption = None,
    split_seed: SplitSeedOption = None,
    net: Annotated[
        str,
        typer.Option(
            help="**question**, **lenet1**, **lenet5**, **small**, **wide**, **deep**, or layers: "
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
        str,
        typer.Option(
            help="The learning rate: **constant**; **cosine**, down to 0; **warm_cosine**, up over "
            "the first three tenths of the run and then down to 0; **one_cycle**, **steps**, "
            '**plateau** or **warm_up**, with options as in "steps(factor=0.3, at=0.8)".',
            metavar="NAME",
        ),
    ] = "warm_cosine",
    augment: Annotated[
        str | None,
        typer.Option(
            help="How views differ from their image, at most: "
            '"shift=2 rotate=10 scale=0.1 shear=0.1 flip=horizontal crop=2 erase=6 elastic=34".',
            metavar="OPTIONS",
            show_default="not at all",
        ),
    ] = None,
    mixup: Annotated[
        float,
        typer.Option(help="Mix images by a share from Beta(ALPHA, ALPHA).", metavar="ALPHA"),
    ] = 0.0,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="What pulls weights to 0.",
            metavar="SHARE",
            show_default="0.01 for adamw, 0 for the others",
        ),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(
            help="The largest length of all gradients together.",
            metavar="LENGTH",
            show_default="any",
        ),
    ] = None,
    average: Annotated[
        float,
        typer.Option(
            help="Decay of a running average of the weights, which the model is in the end, like "
            "0.999; 0 for none.",
            metavar="DECAY",
        ),
    ] = 0.0,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of a label that goes to all classes.", metavar="SHARE")
    ] = 0.0,
    balanced: Annotated[
        bool,
        typer.Option("--balanced", help="Give all classes the same weight, however rare."),
    ] = False,
    validation: Annotated[
        float,
        typer.Option(
            help="Share of the training images to keep for validation after every epoch.",
            metavar="SHARE",
        ),
    ] = 0.0,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="End when so many epochs were no better than the best one, and take its weights; "
            "with --validation.",
            metavar="N",
            show_default="never",
        ),
    ] = None,
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
    from fullback.augment import Augment
    from fullback.options import require_number
    from fullback.training.schedules import parse

    output = Output(as_json=as_json)
    chosen = chosen_optimizer(optimizer, lr, momentum, weight_decay, clip)
    kept_in = run or resume
    folder = RunFolder(kept_in) if kept_in else None
    if out is None:
        out = Path("model.safetensors") if folder is None else folder.model
    if folder is None:
        check_writable(out)
    if patience is not None and not validation:
        raise OptionError("--patience needs images to tell by; give --validation 0.1")
    require_number("--validation", validation, "[0, 1)")
    rate = parse(schedule)
    views = None if augment is None else Augment.parse(augment)
    dataset = load_dataset(
        data, data_dir, image_shape(image_size), resize.value, test_share, split_seed
    )
    if epochs is None:
        epochs = max(5, round(_IMAGES_TO_SEE / len(dataset.x_train)))
    if batch_size is None:
        batch_size = min(64, len(dataset.x_train))
    if compare is None:
        compare = folder is None and data == "digits" and net == "question" and not freeze
    recipe = Recipe(
        net=net,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=chosen,
        schedule=rate,
        augment=views,
        mixup=mixup,
        average=average,
        label_smoothing=label_smoothing,
        class_weight="balanced" if balanced else None,
        validation=validation,
        patience=patience,
        seed=seed,
        engine=engine,
        data_options=data_options(resize, test_share, split_seed),
    )
    network = recipe.network(dataset)
    network.freeze(*(freeze or []))
    twin = with_frozen_filters(network, recipe, dataset) if compare else None
    recipe.check(network, dataset)

    raise_on_ctrl_c()  # which ends training, and what was learned is saved
    with folder or contextlib.nullcontext():
        if folder is not None:
            folder.begin(started_with(context))
        _train_one(output, network, dataset, recipe, out, folder, twin)


def _train_one(
    output: Output,
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
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
    output.show("")
    show_answers(output, answers, dataset.class_names)
    output.show("")
    output.fact("saved", f"{out} ({out.stat().st_size / 1000:,.1f} kB)")
    if folder is not None and not history.interrupted:
        folder.write_result(
            test_accuracy=answers.accuracy, test_loss=answers.loss, epochs=len(history)
        )
        folder.log(f"test accuracy {answers.accuracy:.4%}, loss {answers.loss:.6f}")
        _show_pictures(output, folder, network, recipe.network(dataset), answers, history)
    if history.interrupted:
        if folder is not None:
            folder.log(f"interrupted in epoch {len(history) + 1}")
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


def _show_pictures(
    output: Output,
    folder: RunFolder,
    network: Network,
    before: Network,
    answers: Answers,
    history: History,
) -> None:
    """Draw the run, where what draws is installed."""
    if find_spec("matplotlib") is None:
        output.fact("pictures", "none without matplotlib: pip install 'fullback[plot]'")
        return
    from fullback.cli.pictures import draw_run

    drawn = draw_run(folder.plots, network, before, answers, history)
    output.fact("pictures", f"{len(drawn)} in {folder.plots}")


def _announce(output: Output, network: Network, dataset: Dataset, recipe: Recipe) -> None:
    """Say what is about to be trained, on what, and how."""
    from fullback.summary import summary_table
    from fullback.training.schedules import text_of

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
        schedule=text_of(recipe.schedule),
        augment=None if recipe.augment is None else repr(recipe.augment),
        seed=recipe.seed,
        engine=recipe.engine.value,
    )
    shape = " x ".join(map(str, dataset.image_shape))
    output.fact(
        "data",
        f"{dataset.name}: {len(dataset.x_train):,} training and {len(dataset.x_test):,} test "
        f"images of {shape}, {dataset.classes} classes",
    )
    for note in dataset.notes:
        output.fact("", note)
    output.fact("network", f"{recipe.net}, seed {recipe.seed}")
    output.show(summary_table(network))
    output.fact(
        "training",
        f"{recipe.epochs} epochs in batches of {recipe.batch_size}, {recipe.optimizer}, "
        f"{text_of(recipe.schedule)} rate",
    )
    if recipe.augment is not None:
        output.fact("", repr(recipe.augment))


def _run_and_save(
    output: Output,
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
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


def _run(
    output: Output,
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    *,
    comparison: bool,
    folder: RunFolder | None = None,
) -> History:
    from fullback.training.callbacks import EarlyStopping

    callbacks: list[AnyCallback] = []
    if recipe.validation and not comparison:
        best = None if folder is None else folder.best
        callbacks.append(EarlyStopping(network, recipe.patience, file=best))
    if folder is not None:
        callbacks.append(folder.reporter())

    def report(epoch: Epoch) -> None:
        output.event("epoch", comparison=comparison, **dataclasses.asdict(epoch))

    return recipe.train(
        network,
        dataset,
        callbacks=[*callbacks, report],
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
