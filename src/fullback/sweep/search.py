"""How a sweep searches: which trials it makes, and in which rounds they are trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from fullback.errors import OptionError
from fullback.options import did_you_mean, require_whole, short
from fullback.sweep.space import Space, draws_of, grid_of, read_space
from fullback.training.history import MONITORS, Monitor, require_monitor

Method: TypeAlias = Literal["grid", "random", "halving"]
METHODS: tuple[str, ...] = get_args(Method)

_KEYS = ("method", "trials", "seed", "metric", "workers", "factor", "min_epochs")
_MOST_TRIALS = 100_000
_MOST_WORKERS = 1024
_ADDRESS = r"(tcp|tls|ucx|ws|wss)://\S+"


@dataclass(frozen=True)
class Search:
    """How the best options are searched for.

    Attributes
    ----------
    method : "grid", every combination; "random", some that are drawn; or "halving", rounds of which
        each trains the best of the one before it for longer
    space : the values that options may have
    drawn : whether trials are drawn from the space; else they are its grid
    trials : how many are drawn
    seed : fixes which
    metric : what trials are compared by, on images for validation; None for what each run takes
    workers : how many trials run at a time, or the address of a Dask scheduler, or None for one a
        core
    factor : of halving: a round trains one in so many trials of the round before it, for so many
        times its epochs
    min_epochs : the fewest epochs that a round may have
    """

    method: Method
    space: Space
    drawn: bool
    trials: int | None
    seed: int
    metric: Monitor | None
    workers: int | str | None
    factor: int
    min_epochs: int

    def combinations(self) -> list[dict[str, Any]]:
        """Return the options of every trial, in order."""
        if self.drawn:
            return draws_of(self.space, self.trials or 0, self.seed)
        return grid_of(self.space)

    def rounds(self, trials: int, epochs: int) -> list[Round]:
        """Return in which rounds so many trials are trained, of which the last has all epochs."""
        if self.method != "halving":
            return [Round(trials, epochs)]
        counts, shortest = [trials], epochs
        while counts[-1] > 1 and shortest >= self.factor * self.min_epochs:
            counts.append(-(-counts[-1] // self.factor))
            shortest //= self.factor
        powers = [self.factor**n for n in reversed(range(len(counts)))]
        return [Round(n, round(epochs / p)) for n, p in zip(counts, powers, strict=True)]


@dataclass(frozen=True)
class Round:
    """So many trials, the best of those before, with so many epochs each."""

    trials: int
    epochs: int


def read_search(
    sweep: Mapping[str, Any], grid: Mapping[str, Any] | None, space: Mapping[str, Any] | None
) -> Search:
    """Read the tables ``[sweep]``, and ``[grid]`` or ``[space]``.

    Raises
    ------
    OptionError
        A key is unknown, or a value cannot be used.
    """
    for key in sweep:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS, f"[sweep] has {', '.join(_KEYS)}")
            raise OptionError(f"[sweep] has the unknown key {key!r}{hint}")
    if (grid is None) == (space is None):
        raise OptionError(
            "give either [grid] or [space], a table with the values of the options to search, as "
            "in lr = [0.01, 0.1]"
        )
    drawn = space is not None
    method = sweep.get("method", "random" if drawn else "grid")
    if method not in METHODS:
        hint = did_you_mean(str(method), METHODS)
        raise OptionError(
            f"[sweep] method must be one of {', '.join(METHODS)}, got {short(method)}{hint}"
        )
    if method == "grid" and drawn:
        raise OptionError(
            "[sweep] method 'grid' needs [grid]; [space] goes with random and halving"
        )
    if method == "random" and not drawn:
        raise OptionError("[sweep] method 'random' needs [space], from which trials are drawn")
    draws, rounds = "[space], from which trials are drawn", "method 'halving'"
    for key, low, high, owner, fits in (
        ("trials", 1, _MOST_TRIALS, draws, drawn),
        ("seed", 0, 2**63 - 1, draws, drawn),
        ("factor", 2, 100, rounds, method == "halving"),
        ("min_epochs", 1, None, rounds, method == "halving"),
    ):
        if key in sweep and not fits:
            raise OptionError(f"[sweep] {key} goes with {owner}; leave it out")
        if key in sweep:
            require_whole(f"[sweep] {key}", sweep[key], low, high)
    if drawn and "trials" not in sweep:
        raise OptionError("[sweep] needs trials, how many are drawn from [space]: trials = 20")
    if "metric" in sweep:
        hint = did_you_mean(str(sweep["metric"]), MONITORS)
        if sweep["metric"] not in MONITORS and hint:
            raise OptionError(f"[sweep] metric is {short(sweep['metric'])}{hint}")
        require_monitor("[sweep] metric", sweep["metric"])
    return Search(
        method=method,
        space=read_space(space, name="space")
        if space is not None
        else read_space(grid or {}, name="grid"),
        drawn=drawn,
        trials=sweep.get("trials"),
        seed=sweep.get("seed", 0),
        metric=sweep.get("metric"),
        workers=read_workers("[sweep] workers", sweep.get("workers")),
        factor=sweep.get("factor", 3),
        min_epochs=sweep.get("min_epochs", 1),
    )


def read_workers(option: str, workers: Any) -> int | str | None:
    """Read how many trials run at a time, or the address of a Dask scheduler.

    Raises
    ------
    OptionError
        It is neither.
    """
    if isinstance(workers, str) and re.fullmatch(r"\d{1,9}", workers):
        workers = int(workers)
    if workers is None or (isinstance(workers, str) and re.fullmatch(_ADDRESS, workers)):
        return workers
    if isinstance(workers, str):
        raise OptionError(
            f"{option} must be a number, or the address of a Dask scheduler like "
            f"tcp://host:8786, got {short(workers)}"
        )
    require_whole(option, workers, 1, _MOST_WORKERS)
    return int(workers)
