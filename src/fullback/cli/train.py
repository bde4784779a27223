"""``fullback train``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import typer

from fullback.cli import train_options as own
from fullback.cli.config import started_with
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
from fullback.cli.run_folder import RunFolder
from fullback.cli.session import ATTEMPTS, Session
from fullback.cli.setup import set_up
from fullback.cli.team import follow, together


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
    unpack: own.UnpackOption = None,
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
    attempts: own.AttemptsOption = None,
    out: own.OutOption = None,
    run: own.RunOption = None,
    resume: own.ResumeOption = None,
    pictures: own.PicturesOption = True,
    config: own.ConfigOption = None,  # its callback has read it
    as_json: JsonOption = False,
) -> None:
    """Train a network, test it and save it.

    Without options: the network of two conv-ReLU-pool stages with one 3x3 filter each and two
    dense layers, on the built-in digits; once whole, and once with its filters frozen.

    Where nothing was learned, it is tried twice more, from another seed and at a lower rate; if
    that fails as well, the exit code is 1. `--attempts` says how often.
    """
    given = SimpleNamespace(**locals())  # each option by its name
    output = Output(as_json=as_json, keep_going=True)
    run, ranks = run or resume, context.obj
    leads = ranks is None or ranks.leads
    folder = None if run is None or not leads else RunFolder(run)
    out = _model_file(out, folder) if leads else Path()
    setup = set_up(given, in_folder=run is not None)
    session = Session(
        output,
        setup.recipe,
        out,
        folder,
        setup.origin,
        setup.compare,
        attempts=attempts or ATTEMPTS,
        pictures=pictures,
        ranks=ranks,
    )

    raise_on_ctrl_c()  # which ends training, and what was learned is saved
    if not leads:
        follow(ranks, setup.recipe)
        return
    with folder or contextlib.nullcontext():
        if folder is not None:
            options = started_with(context, **setup.chosen())
            folder.begin(options, resumed=resume is not None)
        session.run(setup.network)
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
