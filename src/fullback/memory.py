"""How much memory there is, asked before much of it is used.

Linux grants memory that it does not have, and ends a process that then uses it; so what a pass
takes is worked out and compared before the first byte.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from fullback.errors import NotEnoughMemoryError

_SMALL = 2**26
"""Bytes below which nothing is asked."""

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def require_memory(size: int, what: str, hint: str) -> None:
    """Raise NotEnoughMemoryError where ``size`` bytes are more than there are.

    Parameters
    ----------
    size : bytes
    what : what takes them, the subject of the message
    hint : what to do instead
    """
    if size < _SMALL:
        return
    there = available_memory()
    if there is not None and size > there:
        raise NotEnoughMemoryError(
            f"{what} takes {gibibytes(size)} of memory, and {gibibytes(there)} are free; {hint}"
        )


def available_memory() -> int | None:
    """Return how many bytes this process can still take, or None where that is not known."""
    found = [*_free(), *_container(), *_process()]
    return max(0, min(found)) if found else None


def gibibytes(size: int) -> str:
    """Return a size in words: "13.7 GiB"."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def _free() -> list[int]:
    """Return what the system could give, of its memory and its swap space."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return [1024 * (sizes["MemAvailable"] + sizes["SwapFree"])]
    return []


def _container() -> list[int]:
    """Return what a container may have in all."""
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # of a container without a limit: "max"
            return [int(Path(path).read_text(encoding="ascii"))]
    return []


def is_limited() -> bool:
    """Whether this process's memory is limited: ``ulimit -v``."""
    return _limit() is not None


def _limit() -> int | None:
    if sys.platform != "linux":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def _process() -> list[int]:
    """Return what the process's own limit leaves."""
    limit = _limit()
    if limit is None:
        return []
    import resource

    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return [limit - pages * resource.getpagesize()]
    return []
