"""``fullback train`` in several processes that ``mpiexec`` has started.

Rank 0 runs the command as ever, and orders the others to train with it; they print and write
nothing. An error of one is an error of all, and rank 0 tells of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from fullback.distributed import world
from fullback.errors import DivergenceError

if TYPE_CHECKING:
    from fullback.cli.recipe import Recipe
    from fullback.distributed.ranks import Ranks

P = ParamSpec("P")


def be_silent() -> None:
    """Let rank 0 alone print, where there are several; a mistake of fullback's is still shown."""
    if world.size() < 2 or world.rank() == 0:
        return
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- until the end
    sys.stdout = sys.stderr = nowhere

    def show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        traceback.print_exception(kind, error, where, file=sys.__stderr__)

    sys.excepthook = show


def together(command: Callable[P, None]) -> Callable[P, None]:
    """Give a command the ranks that it runs on, as its context's ``obj``; None for one alone."""

    @functools.wraps(command)
    def shared(*args: P.args, **kwargs: P.kwargs) -> None:
        comm = world.world()
        if comm is None:
            command(*args, **kwargs)
            return
        from fullback.distributed.ranks import Ranks

        ranks, code = Ranks(comm), 0
        context: Any = kwargs["context"]
        context.obj = ranks
        try:
            try:
                command(*args, **kwargs)
            except typer.Exit as ended:
                code = ended.exit_code
            if ranks.leads:
                ranks.first({"code": code})
            ranks.close()
        except BaseException as error:
            ranks.tell(error)
            raise
        if code:
            raise typer.Exit(code)

    return shared


def order(ranks: Ranks | None, attempt: int, *, frozen: bool = False) -> None:
    """Order the other ranks to train with this one, and wait until they are ready.

    Parameters
    ----------
    attempt : the number of the attempt
    frozen : whether it is the network's twin, with frozen filters
    """
    if ranks is not None:
        ranks.first({"attempt": attempt, "frozen": frozen})
        ranks.meet()


def follow(ranks: Ranks, recipe: Recipe) -> None:
    """Train when rank 0 orders it.

    Raises
    ------
    typer.Exit
        Rank 0 has ended, with an exit code that is not 0.
    """
    from fullback.cli.recipe import with_frozen_filters

    while "attempt" in (orders := ranks.first(None)):
        own = recipe.attempt(orders["attempt"])
        network = own.network()
        if orders["frozen"]:
            network = with_frozen_filters(network, own)
        ranks.meet()
        with contextlib.suppress(DivergenceError):  # of which rank 0 tells
            own.train(network, comm=ranks.comm)
    if orders["code"]:
        raise typer.Exit(orders["code"])
