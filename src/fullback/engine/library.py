"""The compiled kernels: made once per machine, kept in a cache, loaded by every process.

The cache holds one object file for everything. Its name is a hash of the engine's sources, of the
versions of Numba and llvmlite and of the CPU, so that a stale file is never read; it carries its
own checksum, and is written whole or not at all. With it, a process needs llvmlite but not Numba.
A file that another user could have written is not used: ``cache.py`` has the rules.

Processes that start at the same time with an empty cache each compile; the last one's file stays.
Waiting for each other would save work once, and could wait for a process that has been stopped.

``NUMBA_DISABLE_JIT=1`` runs the kernels as plain Python; ``FULLBACK_CACHE_DIR`` moves the cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from fullback.engine import cache, loop
from fullback.engine.cpu import cpu, jit_disabled, target_machine
from fullback.engine.kernels import KERNELS
from fullback.engine.operands import in_python
from fullback.engine.simd import Integers, Kernel
from fullback.errors import FullbackWarning, InputError

FUNCTIONS: tuple[Callable[..., None], ...] = (*KERNELS, loop.run)
"""What is compiled: the kernels, and what runs them."""

_NEWEST = 8  # object files that the cache keeps


def symbol(function: Callable[..., None]) -> str:
    """Return the name of a function in the object file."""
    return f"fullback_{function.__name__}"


@dataclass(frozen=True)
class Library:
    """What runs programs: compiled, or plain Python.

    Attributes
    ----------
    run : ``loop.run``; compiled, it takes addresses in place of arrays
    kernels : what ``run`` takes for the kernels
    compiled : whether it is compiled
    keep : what must live as long as the compiled code
    """

    run: Callable[..., None]
    kernels: Integers | Sequence[Kernel]
    compiled: bool
    keep: Any = None


_lock = threading.RLock()


@functools.cache
def library() -> Library:
    """Return the library, compiling it where the cache does not have it."""
    with _lock:  # of threads that come at the same time, one compiles
        return _library()


def _new_lock() -> None:
    """Replace the lock in a forked process, where the thread that holds it may not exist."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _library() -> Library:
    if jit_disabled():
        return Library(loop.run, [in_python(kernel) for kernel in KERNELS], compiled=False)
    target = target_machine()
    path, code = cache_path(), None
    try:
        code = _read(path)
        if code is None:
            code = _compile(target)
            _write(path, code)
    except cache.UntrustedError as error:
        warnings.warn(
            f"the cache of compiled kernels is not used: {error}; the kernels are compiled anew in "
            "every process, until that is changed or FULLBACK_CACHE_DIR names a folder that only "
            "you can write to",
            FullbackWarning,
            stacklevel=2,
        )
        code = code or _compile(target)
    return _load(target, code)


def is_cached() -> bool:
    """Return whether the kernels for this machine are in the cache, and can be used."""
    try:
        return _read(cache_path()) is not None
    except cache.UntrustedError:
        return False


def cache_path() -> Path:
    """Return the file that holds the kernels for this machine, or will hold them."""
    return _cache_directory() / f"fullback-{_key()}.o"


def _key() -> str:
    parts = [version("numba"), llvmlite.__version__, llvm.get_process_triple(), *cpu()]
    here = Path(__file__).parent
    names = ("build", "compiler", "context", "cpu", "loop", "operands", "simd")
    numbers = (here.parent / "augment.py", here.parent / "layers" / "dropout.py")  # their numbers
    files = (here / f"{name}.py" for name in names)
    folders = [*sorted(here.glob("kernels/*.py")), *sorted(here.glob("words/*.py"))]
    for source in [*numbers, *files, *folders]:
        parts.append(source.read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _cache_directory() -> Path:
    chosen = os.environ.get("FULLBACK_CACHE_DIR")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("fullback") / "kernels"


def _read(path: Path) -> bytes | None:
    """Return the object file, or None where there is none, or a damaged one."""
    content = cache.read(path)
    if content is None:
        return None
    checksum, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == checksum else None


def _write(path: Path, code: bytes) -> None:
    """Put the object file into the cache; where that cannot be written, the next run compiles."""
    try:
        cache.write(path, hashlib.sha256(code).digest() + code, _NEWEST)
    except (OSError, InputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        _say(
            f"the compiled kernels cannot be kept in {path.parent}, so the next run compiles "
            f"again: {reason}"
        )


def _compile(target: llvm.TargetMachine) -> bytes:
    """Compile, with a bar on a terminal and a line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from fullback.engine.build import compile_object

    console = Console(stderr=True)
    if not console.is_terminal:
        _say("compiling for this machine, once; this takes 10 to 20 s")
    columns = (
        TextColumn("compiling for this machine, once"),
        BarColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=len(FUNCTIONS) + 1)
        return compile_object(
            target, lambda name: bar.update(task, description=name, advance=1, refresh=True)
        )


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed
        print(f"fullback: {line}", file=sys.stderr)


def _load(target: llvm.TargetMachine, code: bytes) -> Library:
    llvm.add_symbol("fullback_yield", _yield_address())
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    kernels = np.array([engine.get_function_address(symbol(kernel)) for kernel in KERNELS])
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 6, ctypes.c_int64, ctypes.c_int64)
    run = signature(engine.get_function_address(symbol(loop.run)))
    return Library(run, kernels.astype(np.int64), compiled=True, keep=engine)


def _yield_address() -> int:
    """Return the address of the system's function that offers this core to another thread."""
    if sys.platform == "win32":
        function = ctypes.WinDLL("kernel32").SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
