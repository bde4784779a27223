"""A sweep's TOML file, and the trials that it describes, each checked before anything is trained.

The options of the runs are read by the parser of ``fullback train``, as its ``--config`` has them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import typer

from fullback.cli.config import by_parameter, started_with
from fullback.cli.inputs import load_dataset
from fullback.cli.run_folder import read_config
from fullback.cli.setup import set_up
from fullback.cli.train import train
from fullback.cli.usage import UsageError, usage_message
from fullback.errors import FullbackError, InputError, OptionError, ShapeError
from fullback.sweep.outcome import Trial, shown_value
from fullback.sweep.search import Search, read_search

if TYPE_CHECKING:
    from fullback.cli.setup import Setup
    from fullback.data import Dataset
    from fullback.training.history import Monitor

_TABLES = ("sweep", "grid", "space")
_SAME_IMAGES = (  # options by which trials would be tested on other images, or in other units
    *("data", "data_dir", "label_column", "image_folder", "nested", "test_share", "split_seed"),
    *("validation", "regression"),
)
_SAME_LOSS = ("label_smoothing", "class_weight", "balanced")


@dataclass(frozen=True)
class SweepFile:
    """What a sweep's file says.

    Attributes
    ----------
    path : where it is, for messages
    search : how it searches
    base : the options of every run
    tables : all of it, as it was read
    """

    path: Path
    search: Search
    base: Mapping[str, Any]
    tables: Mapping[str, Any]

    def plan(self) -> Plan:
        """Check every trial, and return what they are.

        Raises
        ------
        OptionError, InputError, DataError
            A trial could not be trained, or trials could not be compared.
        """
        return _Planner(self).plan()


@dataclass(frozen=True)
class Plan:
    """Every trial as it is trained with all its epochs, and by which figure they are compared.

    Attributes
    ----------
    images : numbers by which the images of the sweep are known again
    """

    trials: Sequence[Trial]
    metric: Monitor
    images: Sequence[int]


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep's file.

    Raises
    ------
    OptionError
        It is not TOML, or has unknown keys, or values that cannot be used.
    """
    tables = read_config(path)
    try:
        for name in _TABLES:
            if name in tables and not isinstance(tables[name], dict):
                raise OptionError(f"{name!r} must be a table, [{name}]")  # noqa: TRY301
        if "sweep" not in tables:
            raise OptionError(  # noqa: TRY301
                "there is no table [sweep], which says how to search; options of training alone "
                "are for fullback train --config"
            )
        search = read_search(tables["sweep"], tables.get("grid"), tables.get("space"))
        base = {name: value for name, value in tables.items() if name not in _TABLES}
        _check_names(search, base)
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from None
    return SweepFile(path, search, base, tables)


def _check_names(search: Search, base: Mapping[str, Any]) -> None:
    """Raise OptionError where an option cannot be what trials differ in, or has two values."""
    table = "[space]" if search.drawn else "[grid]"
    context = _context({})
    by_parameter(context, base, "it")
    by_parameter(context, dict.fromkeys(search.space), table)
    for name in search.space:
        if name in _SAME_IMAGES:
            raise OptionError(
                f"{table} has {name!r}, with which trials would not be tested on the same images "
                "and could not be compared; make a sweep for each"
            )
        if name == "monitor":
            raise OptionError(f"{table} has 'monitor'; trials are compared by one [sweep] metric")
        if name == "epochs" and search.method == "halving":
            raise OptionError(f"{table} has 'epochs', which halving chooses; leave it out")
        if name == "attempts":
            raise OptionError(f"{table} has 'attempts'; each trial of a sweep is one")
        if name in base:
            raise OptionError(f"{name!r} stands above the tables and in {table}; leave one out")
    if base.get("attempts", 1) != 1:
        raise OptionError(
            "'attempts' must be 1 in a sweep, as further attempts have another rate than the trial"
        )
    if search.metric is not None and base.get("monitor", search.metric) != search.metric:
        raise OptionError("'monitor' and [sweep] metric must be the same; leave 'monitor' out")


class _Planner:
    """Makes trials of a file's combinations, and loads each of their data sets once."""

    def __init__(self, file: SweepFile) -> None:
        self.file = file
        self.images: dict[str, int] = {}
        self._loaded: dict[str, Dataset] = {}

    def plan(self) -> Plan:
        search = self.file.search
        trials: list[Trial] = []
        metrics: list[Monitor] = []
        try:
            combinations = search.combinations()
        except OptionError as error:
            raise OptionError(f"{self.file.path}: {error}") from None
        for number, varied in enumerate(combinations, 1):
            try:
                options, setup = self._options(varied)
            except FullbackError as error:
                kind = InputError if isinstance(error, ShapeError) else type(error)
                where = ", ".join(f"{name} = {shown_value(v)}" for name, v in varied.items())
                raise kind(f"{self.file.path}: with {where}: {error}") from None
            metrics.append(setup.recipe.monitor)
            trials.append(Trial(number, f"trial-{number:03d}", varied, options))
        if len(set(metrics)) > 1:
            different = " and ".join(sorted(set(metrics)))
            raise OptionError(
                f"{self.file.path}: trials would be compared by {different}; "
                'give one [sweep] metric, as in metric = "balanced"'
            )
        differ = [name for name in search.space if name in _SAME_LOSS]
        if metrics[0] == "loss" and differ:
            raise OptionError(
                f"{self.file.path}: trials differ in {differ[0]!r}, and their losses cannot be "
                'compared; give another [sweep] metric, as in metric = "accuracy"'
            )
        return Plan(trials, metrics[0], list(self.images.values()))

    def _options(self, varied: Mapping[str, Any]) -> tuple[dict[str, Any], Setup]:
        """Return all options of a trial's run, as its config.toml has them, and what they say."""
        search = self.file.search
        options = {**self.file.base, **varied, "attempts": 1}
        if search.metric is not None:
            options["monitor"] = search.metric
        context, given = parsed(options)
        setup = set_up(given, in_folder=True, load=self._load)
        if not setup.recipe.validates:
            raise OptionError(
                "a sweep compares trials on images for validation, and there are none; keep some "
                "of the training images with validation = 0.2"
            )
        return started_with(context, **setup.chosen()), setup

    def _load(self, *place: Any, **ways: Any) -> Dataset:
        from fullback.training.training_data import fingerprint

        key = json.dumps([place, ways], default=str, sort_keys=True)
        if key not in self._loaded:
            found = self._loaded[key] = load_dataset(*place, **ways)
            self.images[key] = fingerprint(found.x_train, found.y_train)
        return self._loaded[key]


def parsed(options: Mapping[str, Any]) -> tuple[typer.Context, SimpleNamespace]:
    """Read options of training as ``fullback train --config`` does.

    Returns
    -------
    The context of the command, and its options by the names of its parameters

    Raises
    ------
    OptionError
        One is unknown, or has a value that it cannot have.
    """
    try:
        context = _context(by_parameter(_context({}), options, "it"))
        given: dict[str, Any] = context.command.invoke(context)
    except UsageError as error:
        raise OptionError(usage_message(error)) from None
    return context, SimpleNamespace(**given)


def _context(defaults: Mapping[str, Any]) -> typer.Context:
    context: typer.Context = _command().make_context("train", [], default_map=dict(defaults))
    return context


@functools.cache
def _command() -> Any:
    """Return a command with the options of ``fullback train``, which only returns them."""

    @functools.wraps(train)
    def given(*_: Any, **options: Any) -> dict[str, Any]:
        return options

    app = typer.Typer()
    app.command()(given)
    return typer.main.get_command(app)
