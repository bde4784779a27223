"""One call of ``fullback train``: training with another try where nothing was learned, the test.

What was learned is saved before anything is told of it, so that a reader that goes away, as in
``fullback train | head``, loses nothing.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from fullback.cli.interrupt import INTERRUPTED
from fullback.cli.model_file import failed_path, save_model
from fullback.cli.output import FAILURE, Output, fail
from fullback.cli.recipe import Recipe, with_frozen_filters
from fullback.cli.run_folder import RunFolder
from fullback.errors import DivergenceError, FullbackWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.table import Table

    from fullback.cli.results import Answers
    from fullback.data import Dataset
    from fullback.network import Network
    from fullback.training.fit import AnyCallback
    from fullback.training.history import Epoch, History

ATTEMPTS = 3  # of which each has another seed, and a third of the rate of the one before it
_FEWEST_STEPS = 30  # of training, below which a network may well know nothing yet


@dataclass
class Trained:
    """What an attempt came to."""

    network: Network
    history: History
    recipe: Recipe
    attempt: int
    previous: Path | None = None  # where the model went that was there


@dataclass(frozen=True)
class Session:
    """What is trained, on what, how and where it goes.

    Attributes
    ----------
    reason : why this network was taken, where the user named none; or ""
    compare : whether the same network is trained with frozen filters afterwards
    """

    output: Output
    dataset: Dataset
    recipe: Recipe
    out: Path
    folder: RunFolder | None
    reason: str
    compare: bool

    def run(self, network: Network) -> None:
        """Train a network, save it and test it; then its twin with frozen filters, if wanted."""
        from fullback.cli.results import take_test

        self._announce(network)
        start = time.perf_counter()
        trained = self._train(network)
        seconds = time.perf_counter() - start
        answers = take_test(trained.network, self.dataset.x_test, self.dataset.y_test)
        self._report(trained, answers, seconds)
        if trained.history.interrupted:
            raise typer.Exit(INTERRUPTED)
        if self.compare:
            self._compare(trained, answers)

    def _announce(self, network: Network) -> None:
        """Say what is about to be trained, on what, and how."""
        from fullback.summary import summary_table
        from fullback.training.schedules import text_of

        output, dataset, recipe = self.output, self.dataset, self.recipe
        output.event(
            "start",
            data=dataset.name,
            training_images=len(dataset.x_train),
            test_images=len(dataset.x_test),
            net=recipe.net,
            net_reason=self.reason,
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
        if self.reason:
            output.fact("", self.reason)
        output.show(summary_table(network))
        output.fact(
            "training",
            f"{recipe.epochs} epochs in batches of {recipe.batch_size}, {recipe.optimizer}, "
            f"{text_of(recipe.schedule)} rate",
        )
        if recipe.augment is not None:
            output.fact("", repr(recipe.augment))

    # Training -----------------------------------------------------------------------------------

    def _train(self, network: Network) -> Trained:
        """Train until an attempt has learned something, and save it.

        Raises
        ------
        DivergenceError
            An attempt had learned something when its loss was no longer finite; that is saved.
        typer.Exit
            No attempt learned anything. The last one is saved beside the model.
        """
        attempt = 1 if self.folder is None else self.folder.attempt
        while True:
            recipe = self.recipe.attempt(attempt)
            if attempt > 1:
                network = recipe.network(self.dataset)
            diverged: DivergenceError | None = None
            history = None
            try:
                history = self._fit(network, recipe, folder=self.folder)
            except DivergenceError as error:
                diverged = error
            try:
                reason = self._failure(network, recipe, history, diverged)
            except KeyboardInterrupt:
                save_model(network, self.out)
                raise
            if reason is None:
                previous = save_model(network, self.out)
                if diverged is not None or history is None:
                    raise DivergenceError(f"{diverged}; it is saved as {self.out}", recipe.epochs)
                return Trained(network, history, recipe, attempt, previous)
            if attempt == ATTEMPTS:
                self._give_up(network, reason)
            attempt += 1
            self._say_again(attempt, reason)

    def _fit(
        self,
        network: Network,
        recipe: Recipe,
        *,
        folder: RunFolder | None,
        comparison: bool = False,
    ) -> History:
        from fullback.training.callbacks import EarlyStopping

        callbacks: list[AnyCallback] = []
        if recipe.validation and not comparison:
            best = None if folder is None else folder.best
            callbacks.append(EarlyStopping(network, recipe.patience, file=best))
        if folder is not None:
            callbacks.append(folder.reporter())

        def report(epoch: Epoch) -> None:
            self.output.event("epoch", comparison=comparison, **dataclasses.asdict(epoch))

        return recipe.train(
            network,
            self.dataset,
            callbacks=[*callbacks, report],
            checkpoint=None if folder is None else folder.checkpoint,
            verbose=self.output.progress,
        )

    def _failure(
        self,
        network: Network,
        recipe: Recipe,
        history: History | None,
        diverged: DivergenceError | None,
    ) -> str | None:
        """Say why an attempt is not a success; None where it is one, or was interrupted."""
        if history is not None and history.interrupted:
            return None
        if diverged is not None and not diverged.epochs:
            return str(diverged)
        x, y = recipe.training_sample(self.dataset)
        steps = recipe.steps(len(self.dataset.x_train))
        if steps >= _FEWEST_STEPS:
            return failed(network, history, x, y)
        reason = dead_layer(network, x)
        if reason is None and (chance := failed(network, history, x, y)) is not None:
            warnings.warn(
                f"{chance}, after only {steps} training steps; give more --epochs",
                FullbackWarning,
                stacklevel=2,
            )
        return reason

    def _say_again(self, attempt: int, reason: str) -> None:
        """Tell of an attempt that learned nothing, and of the one that comes."""
        recipe = self.recipe.attempt(attempt)
        rate = recipe.optimizer.learning_rate
        self.output.event(
            "retry", attempt=attempt, reason=reason, seed=recipe.seed, learning_rate=rate
        )
        self.output.fact("failed", (reason, "yellow"))
        self.output.fact(
            "again", f"attempt {attempt} of {ATTEMPTS}, from seed {recipe.seed} at rate {rate:g}"
        )
        if self.folder is not None:
            self.folder.log(f"failed: {reason}; attempt {attempt} begins")
            self.folder.next_attempt(reason)

    def _give_up(self, network: Network, reason: str) -> NoReturn:
        """Say that no attempt learned anything, and what to do."""
        from fullback.export.safetensors import save

        path = failed_path(self.out)
        save(network, path)
        self.output.event("failed", attempts=ATTEMPTS, reason=reason, model=str(path))
        if self.folder is not None:
            self.folder.log(f"failed: {reason}; no attempt is left")
        fail(
            f"the network learned nothing in {ATTEMPTS} attempts: {reason}; look at the images and "
            "labels with fullback data, or try a smaller --lr, more --epochs, another --net, or "
            f"--balanced where a class is rare. The last network is kept as {path}"
        )
        raise typer.Exit(FAILURE)

    # What it came to ----------------------------------------------------------------------------

    def _report(self, trained: Trained, answers: Answers, seconds: float) -> None:
        """Tell of the test and of the files, and write them down where the run is kept."""
        from fullback.cli.results import show_answers

        output, history, folder = self.output, trained.history, self.folder
        network = trained.network
        output.event(
            "result",
            test_accuracy=answers.accuracy,
            test_loss=answers.loss,
            epochs=len(history),
            interrupted=history.interrupted,
            seconds=seconds,
            model=str(self.out),
            previous=None if trained.previous is None else str(trained.previous),
            attempt=trained.attempt,
            seed=trained.recipe.seed,
        )
        output.show("")
        show_answers(output, answers, self.dataset.class_names)
        output.show("")
        output.fact("saved", f"{self.out} ({self.out.stat().st_size / 1000:,.1f} kB)")
        if trained.attempt > 1:
            recipe, rate = trained.recipe, trained.recipe.optimizer.learning_rate
            output.fact(
                "",
                f"of attempt {trained.attempt}, from seed {recipe.seed} at rate {rate:g}; what "
                "came before learned nothing",
            )
        if trained.previous is not None:
            output.fact("", f"the model that was there is now {trained.previous}")
        if folder is not None and not history.interrupted:
            folder.write_result(
                test_accuracy=answers.accuracy, test_loss=answers.loss, epochs=len(history)
            )
            folder.log(f"test accuracy {answers.accuracy:.4%}, loss {answers.loss:.6f}")
            before = trained.recipe.network(self.dataset)
            _show_pictures(output, folder, network, before, answers, history)
        if history.interrupted and folder is not None:
            folder.log(f"interrupted in epoch {len(history) + 1}")
            output.fact("to go on", f"fullback train --resume {folder.path}")

    def _compare(self, trained: Trained, answers: Answers) -> None:
        """Train the same network from the same seed with its filters frozen, and test it, too."""
        from fullback.cli.results import take_test

        twin = with_frozen_filters(trained.network, trained.recipe, self.dataset)
        self.output.show("")
        self.output.fact("again", "the same network from the same seed, its filters frozen")
        try:
            history = self._fit(twin, trained.recipe, folder=None, comparison=True)
        except DivergenceError as error:
            self.output.fact("failed", (str(error), "yellow"))
            return
        if history.interrupted:
            raise typer.Exit(INTERRUPTED)
        frozen = take_test(twin, self.dataset.x_test, self.dataset.y_test)
        self.output.event(
            "comparison", test_accuracy=answers.accuracy, frozen_test_accuracy=frozen.accuracy
        )
        self.output.show("", _comparison(answers, frozen))


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


def dead_layer(net: Network, x: NDArray[Any]) -> str | None:
    """Say which layer is dead, or None."""
    from fullback.training.dead import dead_units

    for name, units in dead_units(net, x).items():
        if len(units) == net.shapes[net.names.index(name)][0]:
            return f"{name} is dead: it is 0 for all of {len(x)} training images"
    return None


def failed(net: Network, history: History | None, x: NDArray[Any], y: NDArray[Any]) -> str | None:
    """Say why training came to nothing, or None."""
    import numpy as np

    dead = dead_layer(net, x)
    if dead is not None:
        return dead
    if not net.loss.classifies:
        return None
    given = net.predict(x)
    labels, counts = np.unique(y, return_counts=True)
    if len(labels) < 2:
        return None
    if (given == given[0]).all():
        return f"it gives all of {len(x)} training images the same class"
    recall = np.array([(given[y == label] == label).mean() for label in labels])
    share = np.array([(given == label).mean() for label in labels])
    error = np.sqrt((share * (1 - share) / counts).sum()) / len(labels)
    if recall.mean() < 1 / len(labels) + 2 * error:
        return (
            f"it is right about {recall.mean():.1%} of {len(x)} training images, every class "
            "counting the same, and so no better than chance"
        )
    return None
