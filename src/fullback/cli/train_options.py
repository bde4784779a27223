"""The options of training: those of ``fullback train``, of which rate and data take some, too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from fullback.cli.config import take_config, take_resumed

OptimizerName: TypeAlias = Literal["sgd", "adam", "adamw"]
MonitorName: TypeAlias = Literal["loss", "accuracy", "balanced", "f1"]

NetOption = Annotated[
    str | None,
    typer.Option(
        help="**question**, **lenet1**, **lenet5**, **small**, **wide**, **deep**, **compact**, "
        'or layers: "conv8 relu pool conv16 relu pool flatten dense10".',
        metavar="NAME|LAYERS",
        show_default="question for digits and mnist, compact for other data",
    ),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Start from this saved model, in place of --net: its layers and their parameters, "
        "with a new last layer where the data has other classes. Goes with --freeze.",
        metavar="MODEL",
        show_default=False,
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Passes over the training images. With --resume: the new total of a run, where it "
        "is to have more.",
        metavar="N",
        show_default="as many as show 60,000 images, 5 to 1000",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images a step.",
        metavar="N",
        show_default="64, or all where there are fewer",
    ),
]
OptimizerOption = Annotated[
    OptimizerName,
    typer.Option(help="How a step is made: **sgd**, **adam** or **adamw**.", metavar="NAME"),
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(
        help="Learning rate.",
        metavar="RATE",
        show_default="0.05 for sgd, 0.001 for adam and adamw",
    ),
]
MomentumOption = Annotated[
    float | None,
    typer.Option(
        help="Share of the last step that goes on (Nesterov's way), for sgd only.",
        metavar="SHARE",
        show_default="0.9",
    ),
]
ScheduleOption = Annotated[
    str,
    typer.Option(
        help="The learning rate: **constant**; **cosine**, down to 0; **warm_cosine**, up over "
        "the first three tenths of the run and then down to 0; **one_cycle**, **steps**, "
        '**plateau** or **warm_up**, with options as in "steps(factor=0.3, at=0.8)".',
        metavar="NAME",
    ),
]
AugmentOption = Annotated[
    str | None,
    typer.Option(
        help="How views differ from their image, at most: "
        '"shift=2 rotate=10 scale=0.1 shear=0.1 flip=horizontal crop=2 erase=6 elastic=34".',
        metavar="OPTIONS",
        show_default="not at all",
    ),
]
MixupOption = Annotated[
    float,
    typer.Option(help="Mix images by a share from Beta(ALPHA, ALPHA).", metavar="ALPHA"),
]
WeightDecayOption = Annotated[
    float | None,
    typer.Option(
        help="What pulls weights to 0.",
        metavar="SHARE",
        show_default="0.01 for adamw, 0 for the others",
    ),
]
ClipOption = Annotated[
    float | None,
    typer.Option(
        help="The largest length of all gradients together, **inf** for any.",
        metavar="LENGTH",
        show_default="2 for sgd, any for the others",
    ),
]
AverageOption = Annotated[
    float,
    typer.Option(
        help="Decay of a running average of the weights, which the model is in the end, like "
        "0.999; 0 for none.",
        metavar="DECAY",
    ),
]
LabelSmoothingOption = Annotated[
    float, typer.Option(help="Share of a label that goes to all classes.", metavar="SHARE")
]
RegressionOption = Annotated[
    bool,
    typer.Option(
        "--regression", help="The targets are numbers, not classes: a price, an age, an angle."
    ),
]
BalancedOption = Annotated[
    bool,
    typer.Option("--balanced", help="Give all classes the same weight, however rare."),
]
ClassWeightOption = Annotated[
    str | None,
    typer.Option(
        help='Weight of the images of a class, by its name or number: "cat=2 dog=0.5", 1 for the '
        "others; or **balanced**.",
        metavar="WEIGHTS",
        show_default="1 for every class",
    ),
]
ValidationOption = Annotated[
    float,
    typer.Option(
        help="Share of the training images to keep for validation after every epoch, where the "
        "data has none of its own.",
        metavar="SHARE",
    ),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="End when so many epochs were no better than the best one, and take its weights; "
        "with images for validation.",
        metavar="N",
        show_default="never",
    ),
]
MonitorOption = Annotated[
    MonitorName | None,
    typer.Option(
        help="The validation figure by which epochs are compared: **loss**, **accuracy**, "
        "**balanced** (accuracy, every class counting the same) or **f1** (its mean over the "
        "classes).",
        metavar="NAME",
        show_default="loss; balanced where classes are weighted",
    ),
]
MinImprovementOption = Annotated[
    float,
    typer.Option(
        min=0,
        help="By how much an epoch must be better to count for --patience: a share of the loss, or "
        "so much of another figure.",
        metavar="AMOUNT",
    ),
]
SumOption = Annotated[
    Literal["exact", "fast"],
    typer.Option(
        "--sum",
        help="How processes that mpiexec has started add up their gradients: **exact**, the same "
        "weights whatever their number; **fast**, less to send for large networks.",
        metavar="NAME",
    ),
]
FreezeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Layers to leave untrained, by kind (conv) or name (conv1); may be repeated.",
        metavar="LAYER",
        show_default=False,
    ),
]
CompareOption = Annotated[
    bool | None,
    typer.Option(
        "--compare/--no-compare",
        help="Then train the same network with its filters frozen, and show both accuracies.",
        show_default="where neither --data, --net, --from nor --freeze is given",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(min=0, help="Fixes the initial weights and the order of the images.", metavar="N"),
]
AttemptsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How often training is tried where nothing is learned: each time from the next seed "
        "and at a third of the rate.",
        metavar="N",
        show_default="3",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        help="Where to save the model. One that is there is kept, with **previous** in its name.",
        metavar="FILE",
        show_default="model.safetensors, of a run in its folder",
    ),
]
UnpackOption = Annotated[
    Path | None,
    typer.Option(
        help="Train from this folder, into which the data is written once, if it is not there yet: "
        "for what does not fit into memory, and for several processes. See **fullback data**.",
        metavar="FOLDER",
        show_default=False,
    ),
]
RunOption = Annotated[
    Path | None,
    typer.Option(
        help="Keep the run in this folder: options, figures, a checkpoint after every epoch, "
        "the model and its result.",
        metavar="FOLDER",
        show_default=False,
    ),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(
        help="Go on with the run in this folder after its last finished epoch; it ends with "
        "the weights that it would have had without the interruption. With --epochs: give it "
        "more of them.",
        metavar="FOLDER",
        show_default=False,
        callback=take_resumed,
        is_eager=True,
    ),
]
PicturesOption = Annotated[
    bool,
    typer.Option(
        "--pictures/--no-pictures",
        help="Draw pictures of a run into its folder, where matplotlib is installed.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="Take options from a TOML file, like the config.toml of a run; those on the "
        "command line come first.",
        metavar="FILE",
        show_default=False,
        callback=take_config,
        is_eager=True,
    ),
]
