"""Where trials run: in processes of this machine, or on the workers of a Dask scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from fullback.errors import InputError, OptionError

_SECONDS = 15  # at most, in which a scheduler must answer, and then have a worker


@dataclass(frozen=True)
class Workers:
    """What runs trials.

    Attributes
    ----------
    executor : takes calls and returns their futures
    count : how many run at a time
    place : where, in words
    """

    executor: Executor
    count: int
    place: str


@contextlib.contextmanager
def threads_here(count: int) -> Iterator[Workers]:
    """Run calls in threads of this process, each of which waits for a process of its own.

    Calls that have not begun when this context is left are dropped; it waits for the others.
    """
    executor = ThreadPoolExecutor(count)
    try:
        yield Workers(executor, count, "here")
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """Run calls on the workers of the Dask scheduler at an address.

    A call whose worker dies is made again on another one; Dask gives up on one that has lost
    several workers. Calls that are not finished when this context is left are cancelled.

    Raises
    ------
    OptionError
        Dask is not installed.
    InputError
        There is no scheduler, or it has no workers.
    """
    try:
        import dask
        from dask.utils import parse_timedelta
        from distributed import Client
    except ImportError:
        raise OptionError(
            "a Dask scheduler needs dask and distributed; pip install 'fullback[dask]'"
        ) from None
    for name in list(logging.root.manager.loggerDict):  # each of its loggers has a level of its own
        if name.partition(".")[0] == "distributed":  # what is worth telling comes as an error
            logging.getLogger(name).setLevel(logging.CRITICAL)
    seconds = min(parse_timedelta(dask.config.get("distributed.comm.timeouts.connect")), _SECONDS)
    try:
        client = Client(address, timeout=seconds, set_as_default=False)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"no Dask scheduler answers at {address} ({reason})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=seconds)
        except (TimeoutError, asyncio.TimeoutError):  # one and the same from Python 3.11 on
            raise InputError(
                f"the Dask scheduler at {address} has no workers; start some with dask worker "
                f"{address}"
            ) from None
        executor = client.get_executor(pure=False)
        try:
            yield Workers(executor, sum(client.ncores().values()), f"on {address}")
        finally:
            executor.shutdown(wait=False)
