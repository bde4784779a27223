"""From the engine's functions to one object file.

Most of the time is Numba's own, so several processes share the functions. They also keep Numba, its
memory and its settings out of the process that wants the kernels. What they do not deliver, for
instance where no process can be started, is compiled in this one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import llvmlite.binding as llvm

from fullback.engine.cpu import FEATURES, NAME
from fullback.engine.library import FUNCTIONS
from fullback.errors import OptionError
from fullback.options import short

KNOWN_SYMBOLS = {"fullback_yield", "memset", "memcpy", "memmove"}
"""What compiled code may take from outside."""

_PROCESSES = 4  # at most: each takes about 200 MB
PATIENCE = 120.0  # seconds without an answer, after which the processes are given up
SERVE = """
import sys

sys.path = sys.argv[1:]

from fullback.engine.compiler import serve

serve()
"""
_BITCODE = b"BC\xc0\xde"

Progress: TypeAlias = Callable[[str], None]
_Answers: TypeAlias = "queue.SimpleQueue[tuple[int, bytes] | None]"


def compile_object(
    target: llvm.TargetMachine, progress: Progress = lambda _: None, *, processes: int | None = None
) -> bytes:
    """Compile everything.

    Parameters
    ----------
    target : what ``target_machine`` returned
    progress : called with the name of every function that is done
    processes : how many share the work; 0 for none but this one
    """
    compiled = _compiled_elsewhere(_cores() if processes is None else processes, progress)
    for number, function in enumerate(FUNCTIONS):
        if number not in compiled:
            bitcode = _compiler()
            compiled[number] = bitcode(function, target)
            progress(function.__name__)
    return link([compiled[number] for number in range(len(FUNCTIONS))], target)


def _compiler() -> Callable[[Callable[..., None], llvm.TargetMachine], bytes]:
    try:
        from fullback.engine.compiler import bitcode
    except Exception as error:  # Numba checks its settings while it is imported
        raise OptionError(
            f"Numba, which compiles the kernels, cannot be imported ({short(str(error))}); check "
            "the environment variables whose names begin with NUMBA_"
        ) from error
    return bitcode


# Other processes ----------------------------------------------------------------------------------


def _cores() -> int:
    if getattr(sys, "frozen", False):  # what would be started is not Python
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(_PROCESSES, cores or 1)


def _compiled_elsewhere(count: int, progress: Progress) -> dict[int, bytes]:
    """Return the bitcode of the functions that other processes compiled, by number."""
    compiled: dict[int, bytes] = {}
    waiting = list(reversed(range(len(FUNCTIONS))))
    answers: _Answers = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        asking = 0
        for _ in range(count):
            try:
                process = _start()
                stack.callback(_end, process)
                threading.Thread(target=_ask, args=(process, waiting, answers), daemon=True).start()
            except (OSError, RuntimeError):  # the system has no more processes or threads
                break
            asking += 1
        while asking:
            try:
                answer = answers.get(timeout=PATIENCE)
            except queue.Empty:
                break
            if answer is None:
                asking -= 1
                continue
            number, compiled[number] = answer
            progress(FUNCTIONS[number].__name__)
    return compiled


def _start() -> subprocess.Popen[bytes]:
    """Start a process that serves, without what Numba would do to optimise the code."""
    return subprocess.Popen(  # noqa: S603 -- Python itself
        [sys.executable, "-c", SERVE, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**_environment(), "NUMBA_OPT": "0"},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _environment() -> dict[str, str]:
    """Return the environment without Numba's settings, of which the CPU alone matters."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("NUMBA_") or name in (NAME, FEATURES)
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _ask(process: subprocess.Popen[bytes], waiting: list[int], answers: _Answers) -> None:
    """Ask a process for function after function, as long as it answers."""
    to, from_ = process.stdin, process.stdout
    with contextlib.suppress(OSError, ValueError, IndexError):
        while to and from_:
            number = waiting.pop()
            to.write(b"%d\n" % number)
            to.flush()
            size = int(from_.readline())
            code = from_.read(size)
            if len(code) < size or not code.startswith(_BITCODE):
                break
            answers.put((number, code))
    answers.put(None)


# Linking ------------------------------------------------------------------------------------------


def link(parts: Sequence[bytes], target: llvm.TargetMachine) -> bytes:
    """Make one object file of the bitcode of some functions.

    Raises
    ------
    ValueError
        One takes a symbol from outside that is not known, as a function that can raise does.
    """
    whole = llvm.parse_assembly("")
    whole.triple, whole.data_layout = llvm.get_process_triple(), str(target.target_data)
    for part in parts:
        module = llvm.parse_bitcode(part)
        declared = {own.name for own in module.functions if own.is_declaration}
        for own in module.functions:
            if not own.is_declaration and own.linkage == llvm.Linkage.external:
                _require_known(own.name, {n for n in declared if not n.startswith("llvm.")})
        whole.link_in(module)
    whole.verify()
    code: bytes = target.emit_object(whole)
    for name in undefined(code) - KNOWN_SYMBOLS:  # LLVM, too, can want a function of the system
        _require_known(_caller(target.emit_assembly(whole), name), {name})
    return code


def _require_known(function: str, symbols: set[str]) -> None:
    wrong = sorted(symbols - KNOWN_SYMBOLS)
    if wrong:
        raise ValueError(
            f"{function} takes {', '.join(wrong)} from outside; a kernel can call "
            f"{', '.join(sorted(KNOWN_SYMBOLS))} only, and must not raise"
        )


def _caller(assembly: str, name: str) -> str:
    """Return the function of the engine in whose assembly a name occurs."""
    caller = "the engine"
    for line in assembly.splitlines():
        if line.startswith("fullback_") and line.split("#")[0].strip().endswith(":"):
            caller = line.split(":")[0]
        elif name in line.replace(",", " ").replace("@", " ").replace("$", " ").split():
            return caller
    return caller


def undefined(code: bytes) -> set[str]:
    """Return the names that an object file takes from outside; none where it is not 64-bit ELF."""
    if code[:6] != b"\x7fELF\x02\x01":
        return set()
    sections = llvm.ObjectFileRef.from_data(code).sections()
    content = {section.name(): section.data() for section in sections}
    names, found = content[b".strtab"], set()
    # name, info, other, section, value, size; what is in no section comes from outside
    for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", content[b".symtab"]):
        if name and not section:
            found.add(names[name : names.index(b"\0", name)].decode())
    return found
