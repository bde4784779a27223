"""One call of ``fullback train``: training with another try where nothing was learned, the test.

What was learned is saved before anything is shown, so that a reader that goes away, as in
``fullback train | head``, loses nothing.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from fullback.cli.interrupt import INTERRUPTED
from fullback.cli.model_file import failed_path, save_model
from fullback.cli.output import FAILURE, Output, fail
from fullback.cli.recipe import Recipe, with_frozen_filters
from fullback.cli.run_folder import RunFolder
from fullback.cli.team import order
from fullback.cli.train_report import Test, Trained, announce, comparison_table, report, test_of
from fullback.errors import DivergenceError, FullbackWarning

if TYPE_CHECKING:
    from fullback.distributed.ranks import Ranks
    from fullback.network import Network
    from fullback.training.callbacks import EarlyStopping
    from fullback.training.history import Epoch, History
    from fullback.training.listeners import AnyCallback

ATTEMPTS = 3  # by default; each has another seed, and a third of the rate of the one before it
_FEWEST_STEPS = 30  # of training, below which a network may well know nothing yet


@dataclass(frozen=True)
class Session:
    """What is trained, on what, how and where it goes.

    Attributes
    ----------
    origin : where the network comes from: by which rule it was chosen, where the user named none,
        or what is kept of the one that training starts with
    compare : whether the same network is trained with frozen filters afterwards
    attempts : how often training is tried, where nothing is learned
    pictures : whether pictures of the run are drawn into its folder
    ranks : the processes that train it together, of which this is the first, or None
    """

    output: Output
    recipe: Recipe
    out: Path
    folder: RunFolder | None
    origin: str
    compare: bool
    attempts: int = ATTEMPTS
    pictures: bool = True
    ranks: Ranks | None = None

    def run(self, network: Network) -> None:
        """Train a network, save it and test it; then its twin with frozen filters, if wanted."""
        announce(self.output, network, self.recipe, self.origin, self.ranks)
        start = time.perf_counter()
        trained = self._train(network)
        seconds = time.perf_counter() - start
        test = test_of(trained.network, self.recipe.dataset)
        report(self.output, trained, test, self.out, self.folder, seconds, pictures=self.pictures)
        if trained.history.interrupted:
            raise typer.Exit(INTERRUPTED)
        if self.compare:
            self._compare(trained, test)

    def _compare(self, trained: Trained, test: Test) -> None:
        """Train the same network from the same seed with its filters frozen, and test it, too."""
        twin = with_frozen_filters(trained.network, trained.recipe)
        self.output.show("")
        self.output.fact("again", "the same network from the same seed, its filters frozen")
        order(self.ranks, trained.attempt, frozen=True)
        try:
            history = trained.recipe.train(
                twin,
                callbacks=[self._report_epoch(comparison=True)],
                verbose=self.output.progress,
                comm=self._comm,
            )
        except DivergenceError as error:
            self.output.fact("failed", (str(error), "yellow"))
            return
        if history.interrupted:
            raise typer.Exit(INTERRUPTED)
        frozen = test_of(twin, self.recipe.dataset)
        self.output.event("comparison", **test.score("test"), **frozen.score("frozen_test"))
        self.output.show("", comparison_table(test, frozen))

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
                network = recipe.network()
            stopping = self._stopping(network, recipe)
            diverged: DivergenceError | None = None
            history = None
            order(self.ranks, attempt)
            try:
                history = self._fit(network, recipe, stopping)
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
                    self._note_failure(str(diverged), self.out, attempt)
                    raise DivergenceError(
                        f"{diverged}; it is saved as {self.out}", recipe.training.epochs
                    )
                best = 0 if stopping is None else stopping.best
                return Trained(network, history, recipe, attempt, best, previous)
            if attempt >= self.attempts:
                untrained = diverged is not None and not diverged.epochs
                self._give_up(None if untrained else network, reason)
            attempt += 1
            self._say_again(attempt, reason)

    def _stopping(self, network: Network, recipe: Recipe) -> EarlyStopping | None:
        """Return what keeps the best epoch, where there are images to judge it by."""
        from fullback.training.callbacks import EarlyStopping

        if not recipe.validates:
            return None
        numbers = recipe.dataset.numbers
        file = None if self.folder is None else self.folder.best_file(numbers=numbers)
        return EarlyStopping(
            network,
            recipe.patience,
            recipe.min_improvement,
            monitor=recipe.monitor,
            file=file,
        )

    def _fit(self, network: Network, recipe: Recipe, stopping: EarlyStopping | None) -> History:
        callbacks: list[AnyCallback] = [] if stopping is None else [stopping]
        if self.folder is not None:
            from fullback.cli.reporter import Reporter

            callbacks.append(Reporter(self.folder))
        return recipe.train(
            network,
            callbacks=[*callbacks, self._report_epoch(comparison=False)],
            checkpoint=None if self.folder is None else self.folder.checkpoint,
            verbose=self.output.progress,
            comm=self._comm,
        )

    @property
    def _comm(self) -> Any:
        return None if self.ranks is None else self.ranks.comm

    def _report_epoch(self, *, comparison: bool) -> AnyCallback:
        def report(epoch: Epoch) -> None:
            self.output.event("epoch", comparison=comparison, **dataclasses.asdict(epoch))

        return report

    def _failure(
        self,
        network: Network,
        recipe: Recipe,
        history: History | None,
        diverged: DivergenceError | None,
    ) -> str | None:
        """Say why an attempt is not a success; None where it is one, or was interrupted."""
        from fullback.training.dead import broken, failed
        from fullback.training.history import History

        if history is not None and history.interrupted:
            return None
        if diverged is not None and (not diverged.epochs or recipe is not self.recipe):
            return str(diverged)
        x, y = recipe.training_sample()
        reason = failed(network, history or History(), x, y)
        steps = recipe.steps
        if reason is None or steps >= _FEWEST_STEPS or broken(network, network.check_images(x)):
            return reason
        warnings.warn(
            f"{reason}; these were only {steps} training steps: give more --epochs",
            FullbackWarning,
            stacklevel=2,
        )
        return None

    def _say_again(self, attempt: int, reason: str) -> None:
        """Report an attempt that learned nothing, and the one that comes."""
        training = self.recipe.attempt(attempt).training
        rate = training.optimizer.learning_rate
        self.output.event(
            "retry", attempt=attempt, reason=reason, seed=training.seed, learning_rate=rate
        )
        self.output.fact("failed", (reason, "yellow"))
        self.output.fact(
            "again",
            f"attempt {attempt} of {self.attempts}, from seed {training.seed} at rate {rate:g}",
        )
        if self.folder is not None:
            self.folder.log(f"failed: {reason}; attempt {attempt} begins")
            self.folder.next_attempt(reason)

    def _note_failure(self, reason: str, model: Path | None, attempts: int) -> None:
        """Note that training has failed, and after how many attempts, in the run's folder, too."""
        path = None if model is None else str(model)
        self.output.event("failed", attempts=attempts, reason=reason, model=path)
        if self.folder is not None:
            self.folder.log(f"failed: {reason}")
            epochs = len(self.folder.epochs())
            self.folder.write_result(failed=reason, attempts=attempts, epochs=epochs)

    def _give_up(self, network: Network | None, reason: str) -> NoReturn:
        """Say that no attempt learned anything, and what to do; keep a network that was trained."""
        from fullback.export.safetensors import save

        path = None if network is None else failed_path(self.out)
        if network is not None and path is not None:
            save(network, path)
        self._note_failure(reason, path, self.attempts)
        tried = f" in {self.attempts} attempts" if self.attempts > 1 else ""
        saved = "" if path is None else f". The last network is saved as {path}"
        fail(
            f"the network learned nothing{tried}: {reason}; look at the images and "
            "labels with fullback data, or try a smaller --lr, more --epochs, another --net, or "
            f"--balanced where a class is rare{saved}"
        )
        raise typer.Exit(FAILURE)
