"""What ``fullback train`` shows: what it is about to train, and what that came to."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.cli.output import Output
from fullback.cli.recipe import Recipe
from fullback.cli.run_folder import RunFolder
from fullback.errors import FullbackWarning

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.cli.numbers import NumberAnswers
    from fullback.cli.results import Answers
    from fullback.data import Dataset
    from fullback.distributed.ranks import Ranks
    from fullback.network import Network
    from fullback.pixels import ImageRecord
    from fullback.training.history import History


@dataclass
class Trained:
    """What an attempt came to."""

    network: Network
    history: History
    recipe: Recipe
    attempt: int
    best: int  # number of the epoch whose weights it has; 0 for the last one
    previous: Path | None  # where the model went that was there


@dataclass(frozen=True)
class Test:
    """A network's answers to the test images: classes, or numbers."""

    classes: Answers | None
    numbers: NumberAnswers | None

    def score(self, prefix: str) -> dict[str, Any]:
        """Return its accuracy or R^2, by a name that begins with a prefix."""
        if self.classes is not None:
            return {f"{prefix}_accuracy": self.classes.accuracy}
        return {} if self.numbers is None else {f"{prefix}_r2": self.numbers.r2}

    def figures(self, prefix: str) -> dict[str, Any]:
        """Return what it was worth, by names that begin with a prefix."""
        if self.classes is not None:
            return {
                f"{prefix}_accuracy": self.classes.accuracy,
                f"{prefix}_loss": self.classes.loss,
            }
        if self.numbers is None:
            return {}
        return {
            f"{prefix}_r2": self.numbers.r2,
            f"{prefix}_mean_absolute_error": self.numbers.mean_absolute_error,
            f"{prefix}_root_mean_squared_error": self.numbers.root_mean_squared_error,
        }


def test_of(network: Network, dataset: Dataset) -> Test:
    """Return a network's answers to the test images of a data set."""
    if dataset.numbers:
        from fullback.cli.numbers import take_number_test

        return Test(None, take_number_test(network, dataset.x_test, dataset.y_test))
    from fullback.cli.results import take_test

    return Test(take_test(network, dataset.x_test, dataset.y_test), None)


def announce(
    output: Output, network: Network, recipe: Recipe, origin: str, ranks: Ranks | None = None
) -> None:
    """Say what is about to be trained, on what, and how."""
    from fullback.show.summary import summary_table
    from fullback.training.schedules import text_of

    dataset, training = recipe.dataset, recipe.training
    schedule = text_of(training.schedule)
    output.event(
        "start",
        data=dataset.name,
        training_images=len(dataset.x_train),
        test_images=len(dataset.x_test),
        net=recipe.net,
        origin=origin,
        parameters=sum(array.size for array in network.parameters.values()),
        frozen=sorted(network.frozen),
        epochs=training.epochs,
        batch_size=training.batch_size,
        optimizer=repr(training.optimizer),
        schedule=schedule,
        augment=None if training.augment is None else repr(training.augment),
        seed=training.seed,
        engine=training.engine,
        **({} if ranks is None else {"ranks": ranks.size, "sum": training.sums}),
    )
    output.fact("data", _described(dataset))
    for note in dataset.notes:
        output.fact("", note)
    output.fact("network", f"{recipe.net}, seed {training.seed}")
    if origin:
        output.fact("", origin)
    output.show(summary_table(network))
    output.fact(
        "training",
        f"{training.epochs} epochs in batches of {training.batch_size}, {training.optimizer}, "
        f"{schedule} rate",
    )
    if training.augment is not None:
        output.fact("", repr(training.augment))
    if ranks is not None:
        output.fact("ranks", f"{ranks.size} processes share every batch, {training.sums} sums")


def _described(dataset: Dataset) -> str:
    shape = " x ".join(map(str, dataset.image_shape))
    numbers = "a number each" if dataset.outputs == 1 else f"{dataset.outputs} numbers each"
    validation = "" if dataset.x_val is None else f", {len(dataset.x_val):,} validation"
    return (
        f"{dataset.name}: {len(dataset.x_train):,} training{validation} and "
        f"{len(dataset.x_test):,} test images of {shape}, "
        + (numbers if dataset.numbers else f"{dataset.classes} classes")
    )


def report(
    output: Output,
    trained: Trained,
    test: Test,
    out: Path,
    folder: RunFolder | None,
    seconds: float,
    *,
    pictures: bool,
) -> None:
    """Show the test and the files, and write them into the run's folder, if there is one."""
    history, record = trained.history, trained.network.trained_on
    dataset, training = trained.recipe.dataset, trained.recipe.training
    output.event(
        "result",
        **test.figures("test"),
        epochs=len(history),
        interrupted=history.interrupted,
        seconds=seconds,
        model=str(out),
        previous=None if trained.previous is None else str(trained.previous),
        attempt=trained.attempt,
        seed=training.seed,
        best_epoch=trained.best or None,
        pixels=None if record is None else vars(record),
    )
    output.show("")
    if trained.best:
        monitor = trained.recipe.monitor
        name = {"balanced": "balanced accuracy", "f1": "F1"}.get(monitor, monitor)
        early = len(history) < training.epochs and not history.interrupted
        output.fact(
            "best epoch",
            f"{trained.best} of {len(history)}, by validation {name}"
            + (f"; {trained.recipe.patience} brought nothing more" if early else ""),
        )
    if test.classes is not None:
        from fullback.cli.results import show_answers

        show_answers(output, test.classes, dataset.class_names)
        _warn_of_one_answer(test.classes, dataset)
    elif test.numbers is not None:
        from fullback.cli.numbers import show_numbers

        show_numbers(output, test.numbers)
    output.show("")
    output.fact("saved", f"{out} ({out.stat().st_size / 1000:,.1f} kB)")
    if trained.attempt > 1:
        rate = training.optimizer.learning_rate
        output.fact(
            "",
            f"of attempt {trained.attempt}, from seed {training.seed} at rate {rate:g}; what "
            "came before learned nothing",
        )
    if trained.previous is not None:
        output.fact("", f"the model that was there is now {trained.previous}")
    if record is not None and dataset.x_train.dtype.kind == "f":
        output.fact("pixels", _scale(record))
    if folder is not None:
        _keep(output, trained, test, folder, pictures=pictures)


def _warn_of_one_answer(answers: Answers, dataset: Dataset) -> None:
    """Warn where the accuracy is only the share of a class that every test image is taken for."""
    predicted, labels = set(answers.predicted.tolist()), set(answers.labels.tolist())
    if len(predicted) == 1 < len(labels):
        (label,) = predicted
        names = dataset.class_names
        name = names[label] if label < len(names) else str(label)
        warnings.warn(
            f"all {len(answers.labels)} test images are taken for {name}; where the other classes "
            "are rare, --balanced gives them their weight, and fullback eval chooses a threshold",
            FullbackWarning,
            stacklevel=2,
        )


def _keep(
    output: Output, trained: Trained, test: Test, folder: RunFolder, *, pictures: bool
) -> None:
    """Write the result into the folder of the run, and draw pictures, where they are wanted."""
    history, figures = trained.history, test.figures("test")
    if history.interrupted:
        folder.log(f"interrupted in epoch {len(history) + 1}")
        output.fact("to go on", f"fullback train --resume {folder.path}")
        return
    folder.write_result(**figures, epochs=len(history), attempt=trained.attempt)
    folder.log("test: " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    if test.classes is None or not pictures:
        return
    if find_spec("matplotlib") is None:
        output.fact("pictures", "none without matplotlib: pip install 'fullback[plot]'")
        return
    from fullback.cli.pictures import draw_run

    before = trained.recipe.network()
    drawn = draw_run(folder.plots, trained.network, before, test.classes, history)
    output.fact("pictures", f"{len(drawn)} in {folder.plots}")


def _scale(record: ImageRecord) -> str:
    """Say which scale float images were taken to have."""
    seen = f"floats from {record.low:g} to {record.high:g}"
    if record.black is None:
        return (
            f"{seen}; which of them are black and white is not known, so that the model takes "
            "such floats alone, and no image files"
        )
    return f"{seen}, taken for black at {record.black:g} and white at {record.white:g}"


def comparison_table(trained: Test, frozen: Test) -> Table:
    """Return a table of what a network was worth beside the one with frozen filters."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("filters", style="bold")
    numbers = trained.numbers is not None
    for column in ("test R²",) if numbers else ("test accuracy", "wrong"):
        table.add_column(column, justify="right")
    for name, test in (("trained", trained), ("frozen", frozen)):
        if test.numbers is not None:
            table.add_row(name, f"{test.numbers.r2:.4f}")
        elif test.classes is not None:
            wrong = len(test.classes.labels) - test.classes.right
            table.add_row(name, f"{test.classes.accuracy:.2%}", f"{wrong:,}")
    return table
