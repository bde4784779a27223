"""``fullback train``."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer

from fullback.cli import train_options as own
from fullback.cli.config import started_with
from fullback.cli.inputs import data_options, image_shape, load_dataset
from fullback.cli.interrupt import raise_on_ctrl_c
from fullback.cli.model_file import failed_path, previous_path
from fullback.cli.options import (
    DataDirOption,
    DataOption,
    EngineOption,
    ImageFolderOption,
    ImageSizeOption,
    JsonOption,
    LabelColumnOption,
    NestedOption,
    ResizeOption,
    SplitSeedOption,
    TestShareOption,
)
from fullback.cli.output import Output, one_line_errors
from fullback.cli.recipe import (
    Recipe,
    chosen_monitor,
    chosen_optimizer,
    class_weights,
    default_epochs,
    default_net,
    why_net,
    with_frozen_filters,
)
from fullback.cli.run_folder import RunFolder
from fullback.cli.session import Session
from fullback.cli.start_from import load_for_start, open_start, what_is_kept
from fullback.cli.team import follow, together
from fullback.errors import OptionError


# Long because its options are: each is a parameter, from which typer makes the help.
@one_line_errors
@together
def train(
    context: typer.Context,
    data: DataOption = "digits",
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    resize: ResizeOption = "stretch",
    nested: NestedOption = False,
    test_share: TestShareOption = None,
    split_seed: SplitSeedOption = None,
    label_column: LabelColumnOption = None,
    image_folder: ImageFolderOption = None,
    net: own.NetOption = None,
    start: own.FromOption = None,
    epochs: own.EpochsOption = None,
    batch_size: own.BatchSizeOption = None,
    optimizer: own.OptimizerOption = "sgd",
    lr: own.LearningRateOption = None,
    momentum: own.MomentumOption = None,
    schedule: own.ScheduleOption = "warm_cosine",
    augment: own.AugmentOption = None,
    mixup: own.MixupOption = 0.0,
    weight_decay: own.WeightDecayOption = None,
    clip: own.ClipOption = None,
    average: own.AverageOption = 0.0,
    label_smoothing: own.LabelSmoothingOption = 0.0,
    regression: own.RegressionOption = False,
    balanced: own.BalancedOption = False,
    class_weight: own.ClassWeightOption = None,
    validation: own.ValidationOption = 0.0,
    patience: own.PatienceOption = None,
    monitor: own.MonitorOption = None,
    min_improvement: own.MinImprovementOption = 1e-4,
    engine: EngineOption = "lanes",
    sums: own.SumOption = "exact",
    freeze: own.FreezeOption = None,
    compare: own.CompareOption = None,
    seed: own.SeedOption = 0,
    out: own.OutOption = None,
    run: own.RunOption = None,
    resume: own.ResumeOption = None,
    config: own.ConfigOption = None,  # noqa: ARG001 -- its callback has read it
    as_json: JsonOption = False,
) -> None:
    """Train a network, test it and save it.

    Without options: the network of two conv-ReLU-pool stages with one 3x3 filter each and two
    dense layers, on the built-in digits; once whole, and once with its filters frozen.

    Where nothing was learned, it is tried twice more, from another seed and at a lower rate; if
    that fails as well, the exit code is 1.
    """
    from fullback.augment import Augment
    from fullback.options import require_number
    from fullback.training.options import TrainingOptions
    from fullback.training.schedules import parse

    output = Output(as_json=as_json, keep_going=True)
    chosen = chosen_optimizer(optimizer, lr, momentum, weight_decay, clip)
    run, ranks = run or resume, context.obj
    leads = ranks is None or ranks.leads
    folder = None if run is None or not leads else RunFolder(run)
    out = _model_file(out, folder) if leads else Path()
    require_number("--validation", validation, "[0, 1)")
    rate = parse(schedule)
    views = None if augment is None else Augment.parse(augment)
    shape = image_shape(image_size)
    ways = data_options(resize, test_share, split_seed, label_column, nested=nested)
    model = None
    if start is None:
        dataset = load_dataset(
            data, data_dir, shape, **ways, image_folder=image_folder, numbers=regression
        )
    else:
        model = open_start(start, net)
        dataset, ways = load_for_start(
            *(model, start, data, data_dir, shape, ways),
            image_folder=image_folder,
            numbers=regression,
        )
    if compare is None:
        simple = data == "digits" and net in (None, "question") and model is None
        compare = folder is None and simple and not freeze
    training = TrainingOptions(
        epochs=epochs or default_epochs(len(dataset.x_train)),
        batch_size=min(batch_size or 64, len(dataset.x_train)),
        optimizer=chosen,
        schedule=rate,
        class_weight=class_weights(class_weight, balanced, dataset),
        augment=views,
        mixup=mixup,
        average=average,
        seed=seed,
        engine=engine,
        sums=sums,
    )
    recipe = Recipe(
        dataset=dataset,
        net=str(start) if start else default_net(data) if net is None else net,
        start=model,
        training=training,
        label_smoothing=label_smoothing,
        freeze=tuple(freeze or ()),
        validation=validation,
        patience=patience,
        monitor=chosen_monitor(monitor, weighted=balanced or class_weight is not None),
        min_improvement=min_improvement,
        data_options=ways,
    )
    if monitor is not None and not recipe.validates:
        raise OptionError("--monitor needs images for validation; give --validation 0.1")
    network = recipe.network()
    if compare:
        with_frozen_filters(network, recipe)
    recipe.check(network)
    origin = why_net(data) if net is None else ""
    if model is not None:
        origin = what_is_kept(model, dataset, recipe.loss)
    session = Session(output, recipe, out, folder, origin, compare, ranks)

    raise_on_ctrl_c()  # which ends training, and what was learned is saved
    if not leads:
        follow(ranks, recipe)
        return
    with folder or contextlib.nullcontext():
        if folder is not None:
            options = started_with(
                context,
                net=None if start else recipe.net,
                epochs=training.epochs,
                batch_size=training.batch_size,
            )
            folder.begin(options, resumed=resume is not None)
        session.run(network)
    output.close(f"the model is trained and saved as {out}")


def _model_file(out: Path | None, folder: RunFolder | None) -> Path:
    """Return where the model goes: where the user says, or into the run's folder, or beside it."""
    from fullback.atomic import check_writable

    if out is None:
        out = Path("model.safetensors") if folder is None else folder.model
    if folder is None:
        for path in (out, previous_path(out), failed_path(out)):
            check_writable(path)
    return out
